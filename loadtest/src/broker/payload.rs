//! Bodies: PerfTest's header, then beacons or padding.
//!
//! The header is that of RabbitMQ's PerfTest: a sequence number of 4 octets and a time of 8 octets, both big-endian. The
//! time is in nanoseconds since the round began, and is the moment when the message was due at a fixed rate. Lane `l` of
//! `c` numbers its messages `l`, `l + c`, `l + 2c` …, so that a number says whose it is.

use crate::broker::setting::{BEACON, Setting};

/// Octets of the header, and so of the shortest body.
pub(crate) const HEADER: usize = 12;

/// What a consumer learns from a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stamp {
    /// Number of the message.
    pub(crate) sequence: u32,
    /// When it was sent, or due, in nanoseconds since the round began.
    pub(crate) time: u64,
}

impl Stamp {
    /// Reads the header.
    pub(crate) fn of(body: &[u8]) -> Option<Self> {
        let (sequence, rest) = body.split_first_chunk()?;
        let (time, _) = rest.split_first_chunk()?;
        Some(Self { sequence: u32::from_be_bytes(*sequence), time: u64::from_be_bytes(*time) })
    }
}

/// Makes bodies of one length.
#[derive(Debug, Clone)]
pub(crate) struct Template {
    octets: Vec<u8>,
}

impl Template {
    /// Bodies as `setting` has them.
    pub(crate) fn new(setting: &Setting) -> Self {
        let mut octets = vec![0; HEADER];
        for beacon in 0..setting.beacons {
            if octets.len() >= setting.body {
                break;
            }
            let start = octets.len();
            octets.extend_from_slice(
                format!("{{\"id\":\"{beacon:026}\",\"path\":\"/b.gif\",\"query\":{{\"page\":\"").as_bytes(),
            );
            let padding = (start + BEACON - 4).saturating_sub(octets.len());
            octets.extend((0..padding).map(|place| b'a' + (place % 26) as u8));
            octets.extend_from_slice(b"\"}}\n");
        }
        // A single beacon fills whatever length was asked for.
        let last = octets.len();
        octets.extend((last..setting.body).map(|place| b'a' + (place % 26) as u8));
        octets.truncate(setting.body);
        Self { octets }
    }

    /// The next body.
    pub(crate) fn body(&self, stamp: Stamp) -> Vec<u8> {
        let mut body = self.octets.clone();
        body[..4].copy_from_slice(&stamp.sequence.to_be_bytes());
        body[4..HEADER].copy_from_slice(&stamp.time.to_be_bytes());
        body
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::setting::QueueKind;

    #[test]
    fn bodies_have_their_length_and_perf_tests_header() {
        let base = Setting { body: 12, beacons: 1, window: 1, connections: 1, queue: QueueKind::Classic };
        let stamp = Stamp { sequence: 0x0102_0304, time: 0x0506_0708_090a_0b0c };
        for setting in [base, Setting { body: 256, ..base }, Setting { body: 65_536, ..base }] {
            let body = Template::new(&setting).body(stamp);
            assert_eq!(body.len(), setting.body);
            assert_eq!(body[..HEADER], [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]);
            assert_eq!(Stamp::of(&body), Some(stamp));
        }
        assert_eq!(Stamp::of(&[0; 11]), None);
    }

    #[test]
    fn packed_beacons_are_lines() {
        let base = Setting { body: 12, beacons: 1, window: 1, connections: 1, queue: QueueKind::Classic };
        let body = Template::new(&base.packed(20)).body(Stamp { sequence: 1, time: 2 });
        let lines: Vec<&[u8]> = body[HEADER..].split_inclusive(|octet| *octet == b'\n').collect();
        assert_eq!((lines.len(), body.len()), (20, HEADER + 20 * BEACON));
        for line in lines {
            assert_eq!(line.len(), BEACON);
            serde_json::from_slice::<serde_json::Value>(line).unwrap();
        }
    }
}
