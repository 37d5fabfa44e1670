//! Testing one's own code against the in-memory broker: no RabbitMQ, no ports to agree on, and faults at will.
//!
//! `cargo run -p stompwire --features broker --example testing`
//!
//! The functions below `main` are what a test would be.

use std::{error::Error, time::Duration};

use stompwire::{
    Frame,
    broker::{Broker, Which},
    client::{Client, ConnectOptions, Unconfirmed},
};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    an_order_is_stored().await?;
    a_lost_connection_is_told().await?;
    println!("both tests passed");
    Ok(())
}

/// The code under test: stores an order, and says whether the broker has it.
async fn store_order(url: &str, order: &str) -> Result<(), Box<dyn Error>> {
    let client = Client::connect(&url.parse()?, ConnectOptions::default()).await?;
    client.send_with_receipt(Frame::send("/queue/orders", order.to_owned())).await?.await?;
    Ok(client.close(Duration::from_secs(5)).await?)
}

async fn an_order_is_stored() -> Result<(), Box<dyn Error>> {
    let broker = Broker::builder().start().await?;
    store_order(&broker.url(), "two apples").await?;
    assert_eq!(broker.peek("orders", 10)[0].body(), b"two apples");
    broker.shutdown().await;
    Ok(())
}

async fn a_lost_connection_is_told() -> Result<(), Box<dyn Error>> {
    let broker = Broker::builder().start().await?;
    // The broker takes the message, keeps the receipt to itself, and then drops the connection.
    let faults = broker.faults();
    faults.withhold_receipts(Which::All);
    let dropping = async {
        while broker.queue("orders").is_none_or(|queue| queue.messages == 0) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        faults.reset_connections();
    };
    let url = broker.url();
    let (stored, ()) = tokio::join!(store_order(&url, "two apples"), dropping);
    let error = stored.expect_err("no receipt has come");
    assert!(matches!(error.downcast_ref(), Some(Unconfirmed::ConnectionLost(_))), "{error}");
    Ok(())
}
