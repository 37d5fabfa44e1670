//! A consumer that stays: it comes back after every lost connection, with fresh credentials, and is told when it does.
//!
//! `cargo run -p stompwire --example reconnecting_consumer -- stomp://127.0.0.1:61613/ 1000`
//!
//! The second argument is the number of messages after which it ends.

use std::{error::Error, time::Duration};

use stompwire::{
    Backoff,
    client::{Client, Credentials, Reconnect, SendError, State, Subscribe},
};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let url = args.next().unwrap_or("stomp://127.0.0.1:61613/".into());
    let wanted: u32 = args.next().unwrap_or("1000".into()).parse()?;

    let backoff = Backoff { min: Duration::from_millis(100), max: Duration::from_secs(10) };
    let client = Client::builder()
        .broker(&url)?
        .reconnect(Reconnect::default().with_backoff(backoff))
        .credentials(credentials)
        .start()?; // returns at once; `connect().await` would wait, and fail if nobody is there

    let mut state = client.state();
    tokio::spawn(async move {
        while state.changed().await.is_ok() {
            match &*state.borrow_and_update() {
                State::Connected { number, connected } => {
                    eprintln!("connection {number}, {}", connected.server.as_deref().unwrap_or("?"));
                }
                State::Waiting { cause, pause, .. } => eprintln!("{cause}; again in {pause:?}"),
                _ => {}
            }
        }
    });

    // The subscription is made anew on each connection; messages that were not acknowledged come again.
    let mut messages = client.subscribe(Subscribe::to("/queue/stompwire-example")).await?;
    let mut count = 0;
    while count < wanted {
        let Some(message) = messages.next().await.transpose()? else { break };
        match messages.ack(&message).await {
            Ok(()) => count += 1,
            // Its connection is gone: it will be delivered again.
            Err(SendError::Stale) => {}
            Err(error) => return Err(error.into()),
        }
    }
    client.close(Duration::from_secs(5)).await?;
    println!("{count} messages consumed");
    Ok(())
}

/// Asked before every connection: from a vault, or a file that is renewed.
async fn credentials() -> Result<Credentials, std::env::VarError> {
    let login = std::env::var("STOMP_LOGIN").unwrap_or("guest".into());
    let passcode = std::env::var("STOMP_PASSCODE").unwrap_or("guest".into());
    Ok(Credentials::new(login, passcode))
}
