//! What was issued, confirmed and consumed: a bit each, for every publisher. And the judge.

use std::sync::{
    Mutex, MutexGuard,
    atomic::{AtomicU64, Ordering::Relaxed},
};

use stompwire::client::Message;

/// A message's identity: which publisher, and its how-manieth.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Id {
    pub(crate) publisher: usize,
    pub(crate) number: u64,
}

#[derive(Debug, Default)]
pub(crate) struct Ledger {
    accounts: Vec<Mutex<Account>>,
    pub(crate) duplicates: AtomicU64,
    pub(crate) sent_again: AtomicU64,
    pub(crate) receipts_asked: AtomicU64,
    pub(crate) receipts_resolved: AtomicU64,
    pub(crate) acks_stale: AtomicU64,
    pub(crate) transactions: AtomicU64,
    pub(crate) nacks: AtomicU64,
    pub(crate) resubscribed: AtomicU64,
    pub(crate) reconnects: AtomicU64,
    /// Consumers that do nothing any more but take and acknowledge.
    pub(crate) calm: AtomicU64,
    /// What must never happen.
    wrongs: Mutex<Vec<String>>,
}

#[derive(Debug, Default)]
struct Account {
    issued: u64,
    confirmed: Bits,
    consumed: Bits,
}

#[derive(Debug, Default)]
struct Bits(Vec<u64>);

impl Bits {
    /// False if it was set already.
    fn set(&mut self, bit: u64) -> bool {
        let (word, bit) = ((bit / 64) as usize, 1 << (bit % 64));
        if word >= self.0.len() {
            self.0.resize(word + 1, 0);
        }
        let was_set = self.0[word] & bit != 0;
        self.0[word] |= bit;
        !was_set
    }

    fn count(&self) -> u64 {
        self.0.iter().map(|word| u64::from(word.count_ones())).sum()
    }

    /// How many are set here and not there.
    fn without(&self, other: &Self) -> u64 {
        let words = self.0.iter().enumerate();
        words.map(|(n, word)| u64::from((word & !other.0.get(n).unwrap_or(&0)).count_ones())).sum()
    }
}

/// Over all publishers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Balance {
    pub(crate) issued: u64,
    pub(crate) confirmed: u64,
    pub(crate) consumed: u64,
    /// Confirmed and never consumed.
    pub(crate) missing: u64,
}

impl Ledger {
    pub(crate) fn new(publishers: usize) -> Self {
        Self { accounts: (0..publishers).map(|_| Mutex::default()).collect(), ..Self::default() }
    }

    pub(crate) fn issue(&self, publisher: usize) -> Id {
        let mut account = self.account(publisher);
        account.issued += 1;
        Id { publisher, number: account.issued - 1 }
    }

    pub(crate) fn confirm(&self, id: Id) {
        if !self.account(id.publisher).confirmed.set(id.number) {
            self.wrong(format!("{id:?} was confirmed twice"));
        }
    }

    pub(crate) fn consume(&self, id: Id) {
        let mut account = self.account(id.publisher);
        if !account.consumed.set(id.number) {
            self.duplicates.fetch_add(1, Relaxed);
        }
    }

    pub(crate) fn balance(&self) -> Balance {
        let mut balance = Balance::default();
        for publisher in 0..self.accounts.len() {
            let account = self.account(publisher);
            balance.issued += account.issued;
            balance.confirmed += account.confirmed.count();
            balance.consumed += account.consumed.count();
            balance.missing += account.confirmed.without(&account.consumed);
        }
        balance
    }

    /// Notes what must never happen; the test fails at its end.
    pub(crate) fn wrong(&self, what: String) {
        let mut wrongs = self.wrongs.lock().unwrap();
        if wrongs.len() < 20 {
            wrongs.push(what);
        }
    }

    pub(crate) fn wrongs(&self) -> Vec<String> {
        self.wrongs.lock().unwrap().clone()
    }

    /// The identity of a message whose body is intact.
    pub(crate) fn open(&self, message: &Message) -> Option<Id> {
        let id = read(message.body());
        match id {
            Some(id) if message.header("amqp-message-id") == Some(&*name(id)) => {
                let known =
                    id.publisher < self.accounts.len() && id.number < self.account(id.publisher).issued;
                if !known {
                    self.wrong(format!("{id:?} was never issued"));
                }
                known.then_some(id)
            }
            _ => {
                self.wrong(format!(
                    "damaged: {id:?}, {:?}, {} octets",
                    message.headers(),
                    message.body().len()
                ));
                None
            }
        }
    }

    fn account(&self, publisher: usize) -> MutexGuard<'_, Account> {
        self.accounts[publisher].lock().unwrap()
    }
}

/// The header `amqp-message-id`.
pub(crate) fn name(id: Id) -> String {
    format!("{}-{}", id.publisher, id.number)
}

/// A body that only this message can have: its identity, noise of a length that goes with it, and a sum of all that.
/// Some are longer than a read, NUL and line feed are among the octets.
pub(crate) fn body(id: Id) -> Vec<u8> {
    let mut noise = fastrand::Rng::with_seed(id.number << 8 | id.publisher as u64);
    let len = if noise.u32(..1000) == 0 { noise.usize(60_000..120_000) } else { noise.usize(..600) };
    let mut body = Vec::with_capacity(len + 24);
    body.extend((id.publisher as u64).to_be_bytes());
    body.extend(id.number.to_be_bytes());
    body.extend(std::iter::repeat_with(|| noise.u8(..)).take(len));
    body.extend(sum(&body).to_be_bytes());
    body
}

fn read(body: &[u8]) -> Option<Id> {
    let (octets, claimed) = body.split_last_chunk::<8>()?;
    let (publisher, rest) = octets.split_first_chunk::<8>()?;
    let (number, _) = rest.split_first_chunk::<8>()?;
    let publisher = u64::from_be_bytes(*publisher) as usize;
    (sum(octets) == u64::from_be_bytes(*claimed))
        .then(|| Id { publisher, number: u64::from_be_bytes(*number) })
}

/// FNV-1a.
fn sum(octets: &[u8]) -> u64 {
    octets
        .iter()
        .fold(0xcbf2_9ce4_8422_2325, |sum, octet| (sum ^ u64::from(*octet)).wrapping_mul(0x0100_0000_01b3))
}
