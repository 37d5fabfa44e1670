//! A quorum queue on RabbitMQ, declared with its arguments, used by name, and each message with typed properties.
//!
//! `cargo run -p stompwire --example quorum_queue -- stomp://guest:guest@127.0.0.1:61613/`

use std::{error::Error, time::Duration};

use stompwire::{
    Frame,
    client::{Client, Subscribe},
    rabbitmq::{Destination, Properties, QueueKind, QueueOptions},
};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let url = std::env::args().nth(1).unwrap_or("stomp://guest:guest@127.0.0.1:61613/".into());
    let client = Client::builder().broker(&url)?.connect().await?;

    // `/queue/NAME` declares the queue at the first SEND or SUBSCRIBE, with these arguments. Whoever declares it with others
    // is refused, so each side says the same. The slash in the name is escaped.
    let destination = Destination::queue("orders/paid").to_header()?;
    let mut arguments = QueueOptions::default();
    arguments.kind = Some(QueueKind::Quorum);
    let mut properties = Properties::default();
    properties.persistent = true;
    properties.content_type = Some("text/plain");
    properties.message_id = Some("order-1");

    let mut frame = Frame::send(&destination, "order 1");
    properties.push_to(frame.headers_mut());
    arguments.push_to(frame.headers_mut());
    client.send_with_receipt(frame).await?.await?;

    let subscribe = Subscribe::to(destination).with_headers(arguments.headers().iter());
    let mut orders = client.subscribe(subscribe).await?;
    let order = orders.next().await.ok_or("the subscription has ended")??;
    println!("{}: {:?}", order.header("message-id").unwrap_or("?"), order.body_bytes());
    // With a receipt: the queue has dropped the message when it comes.
    orders.ack_with_receipt(&order).await?.await?;
    client.close(Duration::from_secs(5)).await?;
    Ok(())
}
