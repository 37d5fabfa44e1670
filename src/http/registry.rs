//! The connections of one worker: so that they can be woken at shutdown, the longest idle one can make room, and
//! the worker knows when the last one is gone.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::task::{Context, Waker};

use tokio::sync::Notify;

use super::wire::{Phase, Progress};

/// The worker's side of a connection.
#[derive(Debug, Default)]
pub(super) struct Link {
    pub(super) progress: Rc<Progress>,
    waker: RefCell<Option<Waker>>,
    parked: Cell<Option<u64>>,
    evicted: Cell<bool>,
}

impl Link {
    /// Lets the worker wake the task that polls with `cx`.
    pub(super) fn watch(&self, cx: &Context<'_>) {
        match &mut *self.waker.borrow_mut() {
            Some(waker) => waker.clone_from(cx.waker()),
            waker => *waker = Some(cx.waker().clone()),
        }
    }

    /// Whether this connection was chosen to make room.
    pub(super) fn is_evicted(&self) -> bool {
        self.evicted.get()
    }

    fn wake(&self) {
        if let Some(waker) = &*self.waker.borrow() {
            waker.wake_by_ref();
        }
    }
}

/// All connections of a worker.
#[derive(Debug, Default)]
pub(super) struct Registry {
    next: Cell<u64>,
    links: RefCell<BTreeMap<u64, Rc<Link>>>,
    /// The parked ones, the longest parked first.
    parked: RefCell<BTreeMap<u64, Rc<Link>>>,
    emptied: Notify,
}

impl Registry {
    /// Adds a connection; the number is for [`Registry::leave`].
    pub(super) fn enter(&self) -> (u64, Rc<Link>) {
        let (number, link) = (self.number(), Rc::new(Link::default()));
        self.links.borrow_mut().insert(number, Rc::clone(&link));
        (number, link)
    }

    /// Removes a connection.
    pub(super) fn leave(&self, number: u64) {
        let link = self.links.borrow_mut().remove(&number);
        if let Some(link) = link {
            self.unpark(&link);
        }
        if self.is_empty() {
            self.emptied.notify_waiters();
        }
    }

    /// The connection has nothing to do and may be evicted.
    pub(super) fn park(&self, link: &Rc<Link>) {
        let number = self.number();
        link.parked.set(Some(number));
        self.parked.borrow_mut().insert(number, Rc::clone(link));
    }

    /// The connection is busy again.
    pub(super) fn unpark(&self, link: &Link) {
        if let Some(number) = link.parked.take() {
            self.parked.borrow_mut().remove(&number);
        }
    }

    /// Tells the longest parked connection to close. False if none is parked.
    pub(super) fn evict(&self) -> bool {
        let Some((_, link)) = self.parked.borrow_mut().pop_first() else { return false };
        link.parked.set(None);
        link.evicted.set(true);
        link.wake();
        true
    }

    /// Wakes every connection.
    pub(super) fn wake_all(&self) {
        self.links.borrow().values().for_each(|link| link.wake());
    }

    /// Waits until no connection is left. Cancel safe.
    pub(super) async fn empty(&self) {
        while !self.is_empty() {
            self.emptied.notified().await;
        }
    }

    /// How many connections have a request under way.
    pub(super) fn busy(&self) -> usize {
        self.links.borrow().values().filter(|link| link.progress.phase() != Phase::Idle).count()
    }

    /// How many connections are parked.
    pub(super) fn parked(&self) -> u64 {
        self.parked.borrow().len() as u64
    }

    fn is_empty(&self) -> bool {
        self.links.borrow().is_empty()
    }

    fn number(&self) -> u64 {
        self.next.replace(self.next.get() + 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_parked_is_evicted() {
        let registry = Registry::default();
        let [first, second, third] = [(); 3].map(|()| registry.enter().1);
        assert!(!registry.evict(), "none is parked");
        [&second, &first, &third].into_iter().for_each(|link| registry.park(link));
        registry.unpark(&second);
        registry.park(&second);
        assert!(registry.evict());
        assert_eq!([&first, &second, &third].map(|link| link.is_evicted()), [true, false, false]);
        assert_eq!(registry.parked(), 2);
    }

    #[test]
    fn a_connection_that_leaves_is_parked_no_longer() {
        let registry = Registry::default();
        let (number, link) = registry.enter();
        registry.park(&link);
        registry.leave(number);
        assert_eq!((registry.parked(), registry.is_empty(), registry.evict()), (0, true, false));
    }
}
