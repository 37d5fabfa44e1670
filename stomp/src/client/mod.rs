//! An async client: one connection, one task, receipts pipelined in a window.
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use stompwire::{Frame, client::{Client, ConnectOptions}};
//!
//! let url = "stomp://guest:guest@127.0.0.1:61613/".parse()?;
//! let client = Client::connect(&url, ConnectOptions::default()).await?;
//! let frame = Frame::send("/queue/orders", "one").with_header("persistent", "true");
//! let receipt = client.send_with_receipt(frame).await?; // waits for room in the window only
//! receipt.await?; // the broker has it
//! client.close(std::time::Duration::from_secs(5)).await?;
//! # Ok(()) }
//! ```
//!
//! With the feature `rustls` the URL may be `stomp+ssl://…` (its `TlsOptions` say whom to trust), with
//! `ws` it may be `ws://…` and with both `wss://…`; see [`BrokerUrl`].
//!
//! The task reads and writes independently: a broker that stops reading does not stop us from reading its receipts,
//! and frames queued together leave in one vectored write. Whatever ends the connection, every [`Receipt`] resolves.

mod builder;
mod connector;
mod desk;
mod driver;
mod error;
mod handle;
mod link;
mod mailbox;
mod options;
mod receipt;
mod state;
mod subscription;
mod supervisor;
mod transaction;
mod transport;
mod url;

pub use builder::ClientBuilder;
pub use error::{ConnectionError, SendError, Unconfirmed};
pub use handle::{Client, SendBatchError};
pub use options::{ConnectOptions, Credentials, Reconnect, Window};
pub use receipt::Receipt;
pub use state::State;
pub use subscription::{Message, Subscription, SubscriptionError};
pub use transaction::Transaction;
#[cfg(feature = "ws")]
pub use transport::WebSocketError;
#[cfg(feature = "rustls")]
pub use transport::{CertificateFault, TlsError, TlsOptions};
pub use url::{BrokerUrl, UrlError};

pub use crate::proto::{AckMode, Subscribe};

pub(crate) use driver::{Outgoing, Payload};
pub(crate) use receipt::{Completion, Room, Token};
