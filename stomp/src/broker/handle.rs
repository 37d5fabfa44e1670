use std::{fmt, net::SocketAddr, sync::Arc};

use super::{faults::Faults, queue::QueueInfo, server::Shared, subscription::ConnectionInfo};
use crate::proto::Frame;

/// Looks into a broker, and turns its [`Faults`]. Cheap to clone; it does not keep the broker running.
#[derive(Clone)]
pub struct BrokerHandle {
    shared: Arc<Shared>,
}

impl BrokerHandle {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    /// Where it listens.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.shared.address
    }

    /// What a client needs: `stomp://login:passcode@address:port/vhost`, percent-encoded. Without
    /// [credentials](super::BrokerBuilder::credentials) it says `guest:guest`, which is as good as any; the vhost is
    /// `/`.
    #[must_use]
    pub fn url(&self) -> String {
        let (login, passcode) = match &self.shared.options.credentials {
            Some((login, passcode)) => (percent_encoded(login), percent_encoded(passcode)),
            None => ("guest".into(), "guest".into()),
        };
        format!("stomp://{login}:{passcode}@{}/%2F", self.local_addr())
    }

    /// What is known of a queue, by its name: `x` for the destinations `/queue/x` and `/amq/queue/x`. `None` before
    /// the first SEND or SUBSCRIBE.
    #[must_use]
    pub fn queue(&self, name: &str) -> Option<QueueInfo> {
        self.shared.hub().queue(name).map(super::queue::Queue::info)
    }

    /// Every queue, sorted by name. The queue behind a subscription to a topic is called
    /// `/topic/name#connection-subscription`.
    #[must_use]
    pub fn queues(&self) -> Vec<(String, QueueInfo)> {
        self.shared.hub().queues()
    }

    /// The newest `count` messages that wait in a queue, oldest first: MESSAGE frames without what differs from one
    /// delivery to the next. They stay where they are. Empty if there is no such queue.
    #[must_use]
    pub fn peek(&self, queue: &str, count: usize) -> Vec<Frame> {
        let newest = self.shared.hub().queue(queue).map(|queue| queue.newest(count)).unwrap_or_default();
        newest.iter().map(|message| message.frame.clone()).collect()
    }

    /// Discards the messages that wait in a queue, not those that are with a consumer. Returns how many; `None` if
    /// there is no such queue.
    pub fn purge(&self, queue: &str) -> Option<usize> {
        self.shared.hub().purge(queue)
    }

    /// The connections, oldest first.
    #[must_use]
    pub fn connections(&self) -> Vec<ConnectionInfo> {
        self.shared.hub().connections()
    }

    /// The switches that make it misbehave.
    #[must_use]
    pub fn faults(&self) -> Faults {
        self.shared.faults.clone()
    }
}

impl fmt::Debug for BrokerHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BrokerHandle").field("address", &self.local_addr()).finish_non_exhaustive()
    }
}

/// Everything but the unreserved characters (RFC 3986, section 2.3).
fn percent_encoded(text: &str) -> String {
    let unreserved = |octet: u8| octet.is_ascii_alphanumeric() || b"-._~".contains(&octet);
    text.bytes()
        .map(|octet| if unreserved(octet) { char::from(octet).to_string() } else { format!("%{octet:02X}") })
        .collect()
}
