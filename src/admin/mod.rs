//! The admin listener: health, readiness, metrics and a page for people. Loopback unless configured otherwise.
//!
//! | path | answer |
//! |---|---|
//! | `/healthz` | 200 while the process runs |
//! | `/readyz` | 200, or 503 with one reason per line |
//! | `/metrics` | OpenMetrics |
//! | `/` | a page that shows all of it, and with the embedded broker the last beacons |

mod page;
mod readiness;
mod server;

pub use readiness::reasons_against;
pub use server::{Admin, AdminError, View};
