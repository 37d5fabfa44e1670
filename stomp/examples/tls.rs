//! Publishes over TLS; the server's certificate and name are checked.
//!
//! `cargo run -p stompwire --features rustls --example tls -- stomp+ssl://guest:guest@localhost:61614/ ca.pem`
//!
//! Without the second argument the system's authorities are trusted. A third and a fourth are the client's own
//! certificate chain and key.

use std::{error::Error, time::Duration};

use stompwire::{
    Frame,
    client::{Client, ConnectOptions, TlsOptions},
};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let url = args.next().unwrap_or("stomp+ssl://guest:guest@localhost:61614/".into());
    let mut options = ConnectOptions::default();
    if let Some(ca) = args.next() {
        options.tls = TlsOptions::default().with_ca_file(ca);
    }
    if let (Some(chain), Some(key)) = (args.next(), args.next()) {
        options.tls = options.tls.with_client_identity_file(chain, key);
    }
    let client = Client::builder().broker(&url)?.options(options).connect().await?;
    let frame = Frame::send("/queue/stompwire-example", "over TLS").with_header("persistent", "true");
    client.send_with_receipt(frame).await?.await?;
    client.close(Duration::from_secs(5)).await?;
    println!("confirmed over TLS");
    Ok(())
}
