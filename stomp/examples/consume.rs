//! Consumes a queue until it is empty, acknowledging each message when it is done with.
//!
//! `cargo run -p stompwire --example consume -- stomp://guest:guest@127.0.0.1:61613/`

use std::{error::Error, time::Duration};

use stompwire::client::{Client, Subscribe};
use tokio::time::timeout;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let url = std::env::args().nth(1).unwrap_or("stomp://guest:guest@127.0.0.1:61613/".into());
    let client = Client::builder().broker(&url)?.connect().await?;
    // At most 100 messages are on their way or unacknowledged at a time.
    let subscribe = Subscribe::to("/queue/stompwire-example").with_prefetch(100);
    let mut messages = client.subscribe(subscribe).await?;

    let mut count = 0;
    while let Ok(message) = timeout(Duration::from_secs(1), messages.next()).await {
        let Some(message) = message.transpose()? else { break };
        if message.body().starts_with(b"order ") {
            count += 1;
            messages.ack(&message).await?;
        } else {
            messages.nack(&message).await?; // RabbitMQ puts it back
        }
    }
    // Waits for what is pending, and says so if the broker did not take it.
    client.close(Duration::from_secs(5)).await?;
    println!("{count} messages consumed");
    Ok(())
}
