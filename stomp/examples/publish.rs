//! Publishes and knows what became of each message.
//!
//! `cargo run -p stompwire --example publish -- stomp://guest:guest@127.0.0.1:61613/`
//!
//! A `Publisher` keeps each message until its own RECEIPT, and sends it again with the same id when its connection is
//! lost before that: nothing is lost, and a consumer that drops repeated ids sees each message once. Several brokers are
//! given as `stomp://user:password@one,two/`.

use std::{error::Error, time::Duration};

use stompwire::{
    Headers,
    client::BrokerUrl,
    publisher::{Message, Outcome, Publisher, PublisherOptions},
};

const MESSAGES: u32 = 1000;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let url = std::env::args().nth(1).unwrap_or("stomp://guest:guest@127.0.0.1:61613/".into());
    // `/queue/` declares a durable queue; the publisher sets `persistent:true`.
    let options = PublisherOptions::new(BrokerUrl::parse_list(&url)?, "/queue/stompwire-example");
    let (publisher, mut outcomes) = Publisher::start(options)?;

    let publishing = async {
        for number in 0..MESSAGES {
            let message = Message {
                id: format!("order-{number}"),
                headers: Headers::new(),
                body: format!("order {number}").into(),
                token: number, // whatever you want to get back with the outcome
            };
            // Waits when the window of unreceipted messages is full.
            publisher.publish(message).await.map_err(|_| "the publisher was closed")?;
        }
        Ok::<(), Box<dyn Error>>(())
    };
    let confirming = async {
        let mut confirmed = 0;
        while confirmed < MESSAGES {
            match outcomes.recv().await {
                Some(Outcome::Confirmed { .. }) => confirmed += 1,
                Some(other) => return Err(format!("not confirmed: {other:?}").into()),
                None => return Err("the publisher has ended".into()),
            }
        }
        Ok::<u32, Box<dyn Error>>(confirmed)
    };
    let ((), confirmed) = tokio::try_join!(publishing, confirming)?;
    publisher.close(Duration::from_secs(5)).await;
    println!("{confirmed} messages confirmed");
    Ok(())
}
