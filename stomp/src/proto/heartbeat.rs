use core::{fmt, time::Duration};

use super::Time;

/// What one side says in the header `heart-beat` (1.2, "Heart-beating"). Zero stands for "none".
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct HeartBeat {
    /// The smallest time between heart-beats this side can send.
    pub send: Duration,
    /// The time between heart-beats this side would like to get.
    pub receive: Duration,
}

impl HeartBeat {
    /// No heart-beats.
    pub const NONE: Self = Self { send: Duration::ZERO, receive: Duration::ZERO };

    /// The same period both ways.
    #[must_use]
    pub const fn every(period: Duration) -> Self {
        Self { send: period, receive: period }
    }

    /// Reads the header's value: two unsigned numbers of milliseconds. `None` if malformed.
    #[must_use]
    pub fn parse(value: &str) -> Option<Self> {
        let millis = |text: &str| {
            let digits_only = !text.is_empty() && text.bytes().all(|octet| octet.is_ascii_digit());
            digits_only.then(|| text.parse().ok()).flatten().map(Duration::from_millis)
        };
        let (send, receive) = value.split_once(',')?;
        Some(Self { send: millis(send)?, receive: millis(receive)? })
    }

    /// What the header can say: whole milliseconds, rounded up so that a short period does not become "none".
    fn whole_millis(self) -> Self {
        let up = |period: Duration| {
            let millis = period.as_nanos().div_ceil(1_000_000);
            Duration::from_millis(u64::try_from(millis).unwrap_or(u64::MAX))
        };
        Self { send: up(self.send), receive: up(self.receive) }
    }
}

impl fmt::Display for HeartBeat {
    /// The header's value, in milliseconds rounded up.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { send, receive } = self.whole_millis();
        write!(f, "{},{}", send.as_millis(), receive.as_millis())
    }
}

/// Keeps the two clocks of a connection: when to send an end-of-line, and when the peer counts as gone.
#[derive(Debug, Clone)]
pub struct HeartBeatMonitor {
    /// Agreed period of what we send.
    outgoing: Option<Duration>,
    /// How long the peer may be silent, grace included.
    patience: Option<Duration>,
    last_write: Time,
    last_read: Time,
}

impl HeartBeatMonitor {
    /// Before the handshake: neither way.
    #[must_use]
    pub const fn idle(now: Time) -> Self {
        Self { outgoing: None, patience: None, last_write: now, last_read: now }
    }

    /// What `local` and `remote` agree on: each way the greater of the two periods, unless either is zero. The peer may
    /// be silent for `grace` periods (at least one).
    #[must_use]
    pub fn negotiated(local: HeartBeat, remote: HeartBeat, grace: f32, now: Time) -> Self {
        let local = local.whole_millis();
        let agree = |sends: Duration, wants: Duration| {
            (!sends.is_zero() && !wants.is_zero()).then(|| sends.max(wants))
        };
        Self {
            outgoing: agree(local.send, remote.receive),
            // What does not fit in a Duration never ends.
            patience: agree(remote.send, local.receive).map(|period| {
                let patience = period.as_secs_f64() * f64::from(grace).max(1.0);
                Duration::try_from_secs_f64(patience).unwrap_or(Duration::MAX)
            }),
            last_write: now,
            last_read: now,
        }
    }

    /// Octets were read: any octet is a sign of life.
    pub fn read(&mut self, now: Time) {
        self.last_read = now;
    }

    /// Octets were written: any octet postpones the end-of-line.
    pub fn wrote(&mut self, now: Time) {
        self.last_write = now;
    }

    /// The agreed outgoing period.
    #[must_use]
    pub const fn outgoing(&self) -> Option<Duration> {
        self.outgoing
    }

    /// How long the peer may be silent, grace included.
    #[must_use]
    pub const fn patience(&self) -> Option<Duration> {
        self.patience
    }

    /// When an end-of-line is due: at half the period, since some brokers round periods down.
    #[must_use]
    pub fn send_at(&self) -> Option<Time> {
        self.outgoing.map(|period| self.last_write.saturating_add(period / 2))
    }

    /// When the peer counts as gone.
    #[must_use]
    pub fn dead_at(&self) -> Option<Time> {
        self.patience.map(|patience| self.last_read.saturating_add(patience))
    }

    /// How long ago the peer last gave a sign of life.
    #[must_use]
    pub fn silence(&self, now: Time) -> Duration {
        now.saturating_sub(self.last_read)
    }
}

#[cfg(test)]
mod tests {
    use alloc::string::ToString;

    use super::*;

    const fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn the_header_is_two_unsigned_numbers() {
        assert_eq!(HeartBeat::parse("10,0"), Some(HeartBeat { send: ms(10), receive: ms(0) }));
        for bad in
            ["", "1", "1,", ",1", "+1,1", "1,-1", "1, 1", "1,1,1", "x,1", "1.5,1", "99999999999999999999,1"]
        {
            assert_eq!(HeartBeat::parse(bad), None, "{bad:?}");
        }
        assert_eq!(HeartBeat::every(ms(1500)).to_string(), "1500,1500");
        let short = HeartBeat { send: Duration::from_nanos(1), receive: Duration::from_micros(1001) };
        assert_eq!(short.to_string(), "1,2", "a short period is not \"none\"");
    }

    #[test]
    fn grace_is_at_least_one_period_and_may_be_endless() {
        let both = HeartBeat::every(ms(1000));
        let patience = |grace| HeartBeatMonitor::negotiated(both, both, grace, Time::ZERO).patience();
        assert_eq!(patience(2.5), Some(ms(2500)));
        for too_little in [0.0, -3.0, f32::NAN] {
            assert_eq!(patience(too_little), Some(ms(1000)), "{too_little}");
        }
        assert_eq!(patience(f32::INFINITY), Some(Duration::MAX));
    }

    #[test]
    fn what_was_said_in_the_header_counts() {
        let local = HeartBeat { send: Duration::from_micros(1500), receive: Duration::from_micros(2500) };
        let remote = HeartBeat::every(ms(1));
        let monitor = HeartBeatMonitor::negotiated(local, remote, 1.0, Time::ZERO);
        assert_eq!((monitor.outgoing(), monitor.patience()), (Some(ms(2)), Some(ms(3))));
    }

    #[test]
    fn each_way_the_greater_period_unless_either_is_zero() {
        let table = [
            ((10, 20), (30, 40), Some(40), Some(30)),
            ((50, 60), (30, 40), Some(50), Some(60)),
            ((0, 20), (30, 40), None, Some(30)),
            ((10, 0), (30, 40), Some(40), None),
            ((10, 20), (0, 0), None, None),
        ];
        for ((cx, cy), (sx, sy), outgoing, incoming) in table {
            let local = HeartBeat { send: ms(cx), receive: ms(cy) };
            let remote = HeartBeat { send: ms(sx), receive: ms(sy) };
            let monitor = HeartBeatMonitor::negotiated(local, remote, 1.0, Time::ZERO);
            assert_eq!(monitor.outgoing(), outgoing.map(ms), "{local} {remote}");
            assert_eq!(monitor.dead_at(), incoming.map(ms), "{local} {remote}");
        }
    }

    #[test]
    fn any_octet_postpones() {
        let both = HeartBeat::every(ms(1000));
        let mut monitor = HeartBeatMonitor::negotiated(both, both, 2.0, ms(0));
        assert_eq!((monitor.send_at(), monitor.dead_at()), (Some(ms(500)), Some(ms(2000))));
        monitor.wrote(ms(400));
        monitor.read(ms(700));
        assert_eq!((monitor.send_at(), monitor.dead_at()), (Some(ms(900)), Some(ms(2700))));
        assert_eq!(monitor.silence(ms(1000)), ms(300));
    }
}
