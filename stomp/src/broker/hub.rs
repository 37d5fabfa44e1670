use std::{
    collections::{BTreeMap, HashMap},
    net::SocketAddr,
    sync::Arc,
};

use tokio::sync::Notify;

use super::{
    message::{Delivery, Message, Tag},
    options::{Bounds, Overflow},
    queue::{Entry, Queue, QueueInfo},
    refusal::Refusal,
    subscription::{AckMode, ConnectionInfo, Peer, Subscription, Verdict, Wish},
};
use crate::proto::Version;

/// What a delivery costs beside its message's own octets: its other headers, and its place in the mailbox.
const DELIVERY_OCTETS: usize = 128;

/// Everything that connections share: queues, topics, subscriptions. It lives behind one lock, which is held for one
/// frame at a time and never across an await.
///
/// Messages are pushed: whoever adds one, or makes a subscription able to take one, gives it its turn at once and puts
/// the message into the mailbox of its connection.
#[derive(Debug)]
pub(super) struct Hub {
    bounds: Bounds,
    queues: HashMap<Arc<str>, Queue>,
    /// The queues behind the subscriptions to each topic.
    topics: HashMap<Arc<str>, Vec<Arc<str>>>,
    peers: BTreeMap<u64, Peer>,
    next_peer: u64,
    /// Of all queues, lent messages included.
    octets: usize,
}

/// What became of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Published {
    Done,
    /// To be tried again ([`Overflow::Block`]).
    NoRoomYet,
}

/// Where a destination leads.
enum Route<'a> {
    Queue(&'a str),
    Topic(&'a str),
}

impl Hub {
    pub(super) fn new(bounds: Bounds) -> Self {
        Self {
            bounds,
            queues: HashMap::new(),
            topics: HashMap::new(),
            peers: BTreeMap::new(),
            next_peer: 1,
            octets: 0,
        }
    }

    /// A connection is here; `wake` tells it that its mailbox has something.
    pub(super) fn join(&mut self, address: SocketAddr, wake: Arc<Notify>) -> u64 {
        let id = self.next_peer;
        self.next_peer += 1;
        self.peers.insert(id, Peer::new(address, wake));
        id
    }

    /// Its handshake is done.
    pub(super) fn opened(&mut self, peer: u64, version: Version) {
        if let Some(peer) = self.peers.get_mut(&peer) {
            peer.info.version = Some(version);
        }
    }

    /// It is gone, if it was not already: what it has not acknowledged goes back to its queues.
    pub(super) fn leave(&mut self, peer_id: u64) {
        let Some(peer) = self.peers.remove(&peer_id) else { return };
        for (number, subscription) in peer.subscriptions {
            if !subscription.cancelled {
                self.drop_consumer((peer_id, number), &subscription.destination, &subscription.queue);
            }
            for entry in subscription.unacked.into_values() {
                self.give_back(&subscription.queue, entry);
            }
            self.serve(&subscription.queue);
        }
    }

    /// Stores a message where its destination leads.
    pub(super) fn publish(&mut self, message: &Arc<Message>) -> Result<Published, Refusal> {
        match route(message.destination()) {
            Route::Queue(name) => {
                if !self.queues.contains_key(name) {
                    self.queue_named(name)?;
                }
                self.add(name, message, self.bounds.overflow)
            }
            Route::Topic(topic) => {
                for queue in self.topics.get(topic).cloned().unwrap_or_default() {
                    self.add(&queue, message, Overflow::DropHead)?;
                }
                Ok(Published::Done)
            }
        }
    }

    pub(super) fn subscribe(&mut self, peer_id: u64, wish: &Wish<'_>) -> Result<(), Refusal> {
        let bounds = self.bounds;
        let key: Arc<str> = wish.id.unwrap_or(wish.destination).into();
        let Some(peer) = self.peers.get(&peer_id) else { return Ok(()) };
        if peer.by_key.contains_key(&key) {
            return Err(Refusal::SubscriptionExists(String::from(&*key)));
        }
        if peer.subscriptions.len() >= bounds.max_subscriptions {
            return Err(Refusal::TooManySubscriptions(bounds.max_subscriptions));
        }
        let number = peer.next_subscription;
        let queue = match route(wish.destination) {
            Route::Queue(name) => self.queue_named(name)?,
            Route::Topic(topic) => {
                let queue = self.queue_named(&format!("/topic/{topic}#{peer_id}-{number}"))?;
                self.topics.entry(topic.into()).or_default().push(Arc::clone(&queue));
                queue
            }
        };
        if let Some(queue) = self.queues.get_mut(&queue) {
            queue.consumers += 1;
        }
        let Some(peer) = self.peers.get_mut(&peer_id) else { return Ok(()) };
        peer.next_subscription += 1;
        peer.info.subscriptions += 1;
        peer.by_key.insert(key, number);
        let prefetch = wish.prefetch.filter(|&count| count > 0).unwrap_or(usize::MAX);
        let subscription = Subscription {
            id: wish.id.map(Into::into),
            destination: wish.destination.into(),
            queue,
            ack: wish.ack,
            max_unacked: prefetch.min(bounds.max_unacked),
            unacked: BTreeMap::new(),
            next_number: 0,
            in_turns: false,
            cancelled: false,
        };
        peer.subscriptions.insert(number, subscription);
        self.line_up(peer_id, number);
        Ok(())
    }

    /// `key` is the subscription's `id`, or its destination if it has none.
    pub(super) fn unsubscribe(&mut self, peer_id: u64, key: &str) -> Result<(), Refusal> {
        let no_such = || Refusal::NoSubscription(key.into());
        let Some(peer) = self.peers.get_mut(&peer_id) else { return Ok(()) };
        let number = peer.by_key.remove(key).ok_or_else(no_such)?;
        let subscription = peer.subscriptions.get_mut(&number).ok_or_else(no_such)?;
        peer.info.subscriptions -= 1;
        subscription.cancelled = true;
        let (destination, queue) = (Arc::clone(&subscription.destination), Arc::clone(&subscription.queue));
        if subscription.unacked.is_empty() {
            peer.subscriptions.remove(&number);
        }
        self.drop_consumer((peer_id, number), &destination, &queue);
        Ok(())
    }

    /// ACK or NACK of `tag`; in the mode `client` of everything before it too. `subscription_id` is the header
    /// `subscription`, where there is one.
    pub(super) fn settle(
        &mut self,
        peer_id: u64,
        tag: Tag,
        subscription_id: Option<&str>,
        verdict: Verdict,
    ) -> Result<(), Refusal> {
        let nothing = || Refusal::NothingToAcknowledge(tag.to_string());
        let peer = self.peers.get_mut(&peer_id).filter(|_| tag.peer == peer_id).ok_or_else(nothing)?;
        let subscription = peer.subscriptions.get_mut(&tag.subscription).ok_or_else(nothing)?;
        if subscription_id.is_some() && subscription_id != subscription.id.as_deref() {
            return Err(nothing());
        }
        let covered = subscription.cover(tag.number).ok_or_else(nothing)?;
        let queue = Arc::clone(&subscription.queue);
        if subscription.cancelled && subscription.unacked.is_empty() {
            peer.subscriptions.remove(&tag.subscription);
        }
        for entry in covered {
            match verdict {
                Verdict::Ack => self.forget(&queue, &entry),
                Verdict::Nack => self.give_back(&queue, entry),
            }
        }
        self.line_up(peer_id, tag.subscription);
        self.serve(&queue);
        Ok(())
    }

    /// What is to be written to a connection, which says [`Hub::written`] when it is.
    pub(super) fn empty_mailbox(&mut self, peer: u64) -> Vec<Delivery> {
        self.peers.get_mut(&peer).map(|peer| std::mem::take(&mut peer.mailbox)).unwrap_or_default()
    }

    /// A connection has written what it took: its subscriptions can have more.
    pub(super) fn written(&mut self, peer_id: u64) {
        let Some(peer) = self.peers.get_mut(&peer_id) else { return };
        let was_full = peer.handed_octets >= self.bounds.max_outbox;
        peer.handed_octets =
            peer.mailbox.iter().map(|delivery| delivery.message.octets + DELIVERY_OCTETS).sum();
        if was_full {
            let numbers: Vec<u64> = peer.subscriptions.keys().copied().collect();
            numbers.into_iter().for_each(|number| self.line_up(peer_id, number));
        }
    }

    pub(super) fn connections(&self) -> Vec<ConnectionInfo> {
        self.peers.values().map(|peer| peer.info.clone()).collect()
    }

    pub(super) fn queue(&self, name: &str) -> Option<&Queue> {
        self.queues.get(name)
    }

    /// Every queue, by name.
    pub(super) fn queues(&self) -> Vec<(String, QueueInfo)> {
        let described = self.queues.iter().map(|(name, queue)| (String::from(&**name), queue.info()));
        let mut queues: Vec<_> = described.collect();
        queues.sort_unstable_by(|(a, _), (b, _)| a.cmp(b));
        queues
    }

    /// Discards what waits. Returns how many; `None` if there is no such queue.
    pub(super) fn purge(&mut self, name: &str) -> Option<usize> {
        let (messages, octets) = self.queues.get_mut(name)?.purge();
        self.octets -= octets;
        Some(messages)
    }

    fn queue_named(&mut self, name: &str) -> Result<Arc<str>, Refusal> {
        if let Some((name, _)) = self.queues.get_key_value(name) {
            return Ok(Arc::clone(name));
        }
        if self.queues.len() >= self.bounds.max_queues {
            return Err(Refusal::TooManyQueues(self.bounds.max_queues));
        }
        let name: Arc<str> = name.into();
        self.queues.insert(Arc::clone(&name), Queue::default());
        Ok(name)
    }

    fn add(&mut self, name: &str, message: &Arc<Message>, overflow: Overflow) -> Result<Published, Refusal> {
        let bounds = &self.bounds;
        let Some(queue) = self.queues.get_mut(name) else { return Ok(Published::Done) };
        let octets = message.octets;
        let max_octets = bounds.max_octets.min(bounds.max_total_octets);
        let fits_ever = octets <= max_octets && bounds.max_messages > 0;
        while !(fits_ever
            && queue.held() < bounds.max_messages
            && queue.held_octets() + octets <= bounds.max_octets
            && self.octets + octets <= bounds.max_total_octets)
        {
            match overflow {
                Overflow::DropHead => {
                    let Some(freed) = fits_ever.then(|| queue.drop_head()).flatten() else {
                        queue.push_nowhere();
                        return Ok(Published::Done);
                    };
                    self.octets -= freed;
                }
                _ if !fits_ever => return Err(Refusal::TooLong { octets, max_octets }),
                Overflow::Refuse => return Err(Refusal::QueueFull(name.into())),
                Overflow::Block => return Ok(Published::NoRoomYet),
            }
        }
        self.octets += octets;
        queue.push(Arc::clone(message));
        self.serve(name);
        Ok(Published::Done)
    }

    /// Hands out messages of a queue as long as there are messages and turns.
    fn serve(&mut self, name: &str) {
        let Some(queue) = self.queues.get_mut(name) else { return };
        while queue.waiting() > 0 {
            let Some((peer_id, number)) = queue.turns.pop_front() else { return };
            let Some(peer) = self.peers.get_mut(&peer_id) else { continue };
            let Some(subscription) = peer.subscriptions.get_mut(&number) else { continue };
            subscription.in_turns = false;
            if !subscription.may_take() || peer.handed_octets >= self.bounds.max_outbox {
                continue;
            }
            let wants_ack = subscription.ack != AckMode::Auto;
            let Some(entry) = (if wants_ack { queue.lend() } else { queue.take() }) else { return };
            let tag = Tag { peer: peer_id, subscription: number, number: subscription.next_number };
            subscription.next_number += 1;
            peer.handed_octets += entry.message.octets + DELIVERY_OCTETS;
            peer.mailbox.push(Delivery {
                message: Arc::clone(&entry.message),
                tag,
                subscription_id: subscription.id.clone(),
                subscribed_to: Arc::clone(&subscription.destination),
                wants_ack,
                redelivered: entry.redelivered,
            });
            if wants_ack {
                subscription.unacked.insert(tag.number, entry);
            } else {
                self.octets -= entry.message.octets;
            }
            subscription.in_turns = true;
            queue.turns.push_back((peer_id, number));
            peer.wake.notify_one();
        }
    }

    /// Puts a subscription that may take messages at the end of its queue's turns.
    fn line_up(&mut self, peer_id: u64, number: u64) {
        let Some(peer) = self.peers.get_mut(&peer_id) else { return };
        let Some(subscription) = peer.subscriptions.get_mut(&number) else { return };
        if subscription.in_turns || !subscription.may_take() {
            return;
        }
        let name = Arc::clone(&subscription.queue);
        if let Some(queue) = self.queues.get_mut(&name) {
            subscription.in_turns = true;
            queue.turns.push_back((peer_id, number));
            self.serve(&name);
        }
    }

    fn forget(&mut self, name: &str, entry: &Entry) {
        if let Some(queue) = self.queues.get_mut(name) {
            self.octets -= queue.settle(entry);
        }
    }

    fn give_back(&mut self, name: &str, entry: Entry) {
        if let Some(queue) = self.queues.get_mut(name) {
            queue.give_back(entry);
        }
    }

    /// A subscription ended. With it goes its queue, if it was one to a topic.
    fn drop_consumer(&mut self, key: (u64, u64), destination: &str, name: &str) {
        let Some(queue) = self.queues.get_mut(name) else { return };
        queue.consumers -= 1;
        queue.turns.retain(|&other| other != key);
        let Route::Topic(topic) = route(destination) else { return };
        self.octets -= queue.held_octets();
        self.queues.remove(name);
        if let Some(queues) = self.topics.get_mut(topic) {
            queues.retain(|other| **other != *name);
            if queues.is_empty() {
                self.topics.remove(topic);
            }
        }
    }
}

fn route(destination: &str) -> Route<'_> {
    if let Some(topic) = destination.strip_prefix("/topic/") {
        return Route::Topic(topic);
    }
    let name = destination.strip_prefix("/queue/").or_else(|| destination.strip_prefix("/amq/queue/"));
    Route::Queue(name.unwrap_or(destination))
}

/// Whether a destination is nothing but a prefix.
pub(super) fn names_nothing(destination: &str) -> bool {
    matches!(route(destination), Route::Queue("") | Route::Topic(""))
}
