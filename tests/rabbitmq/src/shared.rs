//! One node for all tests of a test binary.

use std::sync::OnceLock;

use crate::error::Error;
use crate::node::Node;

/// The node of this process, started by the first caller; the others wait for it.
///
/// It is never dropped. It goes when the process ends, whichever way, because the broker and its watchdog both hold a
/// pipe from this process.
///
/// # Panics
///
/// When the node cannot be started: the message says why, and what to install. A second caller fails at once with the
/// same message.
pub fn shared() -> &'static Node {
    static NODE: OnceLock<Result<Node, Error>> = OnceLock::new();
    match NODE.get_or_init(Node::start) {
        Ok(node) => node,
        Err(error) => panic!("the shared RabbitMQ node: {error}"),
    }
}
