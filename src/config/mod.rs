//! The configuration: a TOML file, overridden by environment variables, checked as a whole.
//!
//! | file | what it holds |
//! |---|---|
//! | `model.rs` | [`Config`] and its sections, every key with its default |
//! | `broker.rs` | [`Broker`], the address of a broker, and [`Secret`]: neither prints a password |
//! | `duration.rs`, `octets.rs`, `address.rs` | how `"5ms"`, `"64KiB"` and `"127.0.0.1:8080"` are read and written |
//! | `load.rs` | [`Config::load`]: file, then environment, then checks |
//! | `leaf.rs` | which keys a file or the environment gives, and which of them do not exist |
//! | `nearest.rs` | "did you mean" |
//! | `validate.rs` | what the types cannot say: bounds, references, addresses |
//! | `error.rs` | [`ConfigError`]: all problems at once, each with its key and where it was given |
//!
//! Every key is described in `docs/configuration.md`.

mod address;
mod broker;
mod duration;
mod error;
mod leaf;
mod load;
mod model;
mod nearest;
mod octets;
mod validate;

pub use broker::{Broker, BrokerUrl, Secret};
pub use error::{ConfigError, Given, Problem};
pub use load::ENV_PREFIX;
pub use model::{
    AdminConfig, BatchConfig, Config, DestinationConfig, HttpConfig, LogConfig, LogFormat, Reply, RingConfig,
    RingOverflow, RouteConfig, ShutdownConfig, SpoolConfig, SpoolDirConfig, SpoolSynchronous,
};
