use std::{
    collections::{BTreeMap, HashMap},
    net::SocketAddr,
    sync::Arc,
};

use tokio::sync::Notify;

use super::{message::Delivery, queue::Entry};
use crate::proto::Version;

/// What is known of one connection.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ConnectionInfo {
    /// The client's address.
    pub peer: SocketAddr,
    /// The version in force; `None` before the handshake is done.
    pub version: Option<Version>,
    /// Subscriptions in force.
    pub subscriptions: usize,
}

/// One connection, as the others see it.
#[derive(Debug)]
pub(super) struct Peer {
    pub(super) info: ConnectionInfo,
    pub(super) wake: Arc<Notify>,
    pub(super) mailbox: Vec<Delivery>,
    /// Octets handed over since the connection last said that they are written.
    pub(super) handed_octets: usize,
    pub(super) subscriptions: BTreeMap<u64, Subscription>,
    /// The subscriptions in force, by their header `id`, or by their destination if they have none (1.0).
    pub(super) by_key: HashMap<Arc<str>, u64>,
    pub(super) next_subscription: u64,
}

/// One subscription. It outlives UNSUBSCRIBE as long as it holds messages that wait for an ACK.
#[derive(Debug)]
pub(super) struct Subscription {
    pub(super) id: Option<Arc<str>>,
    pub(super) destination: Arc<str>,
    pub(super) queue: Arc<str>,
    pub(super) ack: AckMode,
    pub(super) max_unacked: usize,
    pub(super) unacked: BTreeMap<u64, Entry>,
    pub(super) next_number: u64,
    /// Whether it is among its queue's turns.
    pub(super) in_turns: bool,
    pub(super) cancelled: bool,
}

/// The header `ack` of SUBSCRIBE.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum AckMode {
    Auto,
    /// Cumulative.
    Client,
    ClientIndividual,
}

/// What SUBSCRIBE asks for.
#[derive(Debug)]
pub(super) struct Wish<'a> {
    pub(super) id: Option<&'a str>,
    pub(super) destination: &'a str,
    pub(super) ack: AckMode,
    pub(super) prefetch: Option<usize>,
}

/// What a consumer says of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    Ack,
    Nack,
}

impl Peer {
    pub(super) fn new(address: SocketAddr, wake: Arc<Notify>) -> Self {
        Self {
            info: ConnectionInfo { peer: address, version: None, subscriptions: 0 },
            wake,
            mailbox: Vec::new(),
            handed_octets: 0,
            subscriptions: BTreeMap::new(),
            by_key: HashMap::new(),
            next_subscription: 0,
        }
    }
}

impl Subscription {
    pub(super) fn may_take(&self) -> bool {
        !self.cancelled && (self.ack == AckMode::Auto || self.unacked.len() < self.max_unacked)
    }

    /// Takes out what an ACK or NACK of `number` covers, oldest first; `None` if it is not there.
    pub(super) fn cover(&mut self, number: u64) -> Option<Vec<Entry>> {
        if self.ack != AckMode::Client {
            return Some(vec![self.unacked.remove(&number)?]);
        }
        if !self.unacked.contains_key(&number) {
            return None;
        }
        let mut covered = Vec::new();
        while let Some(first) = self.unacked.first_entry().filter(|first| *first.key() <= number) {
            covered.push(first.remove());
        }
        Some(covered)
    }
}
