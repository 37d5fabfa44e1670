//! The mark that every beacon carries: which run, which connection, which number on it, a payload and a checksum.
//!
//! All of it has a fixed width, so that the far end finds it with one search and reads it without parsing the line:
//! `r=RRRRRRRR&c=CCCC&s=SSSSSSSS&p=…96 letters…&x=XXXXXXXXXXXXXXXX`, numbers in lower-case hexadecimal.

use memchr::memmem::Finder;

/// Octets of the payload.
const PAYLOAD: usize = 96;
/// Octets of a mark without its checksum.
const BODY: usize = "r=01234567".len() + "&c=0123".len() + "&s=01234567".len() + "&p=".len() + PAYLOAD;
/// Octets of a mark.
pub(crate) const LEN: usize = BODY + "&x=0123456789abcdef".len();

/// Most connections that a mark can tell apart.
pub(crate) const CONNECTIONS: u32 = 1 << 16;

const LETTERS: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz012345";
const DIGITS: &[u8; 16] = b"0123456789abcdef";

/// Which beacon it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Mark {
    /// The run, so that what an earlier one left behind is told apart.
    pub(crate) run: u32,
    /// The connection, below [`CONNECTIONS`].
    pub(crate) connection: u32,
    /// The number on that connection.
    pub(crate) sequence: u32,
}

/// What is wrong with a line at the far end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Damage {
    /// There is no mark in it, or not all of one.
    NoMark,
    /// The checksum is not that of the octets.
    Checksum,
    /// The line is not one whole record.
    Line,
}

impl Mark {
    /// Appends the mark to `out`.
    pub(crate) fn write(self, out: &mut Vec<u8>) {
        let start = out.len();
        out.extend_from_slice(b"r=");
        hexadecimal(u64::from(self.run), 8, out);
        out.extend_from_slice(b"&c=");
        hexadecimal(u64::from(self.connection), 4, out);
        out.extend_from_slice(b"&s=");
        hexadecimal(u64::from(self.sequence), 8, out);
        out.extend_from_slice(b"&p=");
        let mut state =
            u64::from(self.run) << 40 ^ u64::from(self.connection) << 20 ^ u64::from(self.sequence);
        for _ in 0..PAYLOAD / 12 {
            let mut bits = scrambled(&mut state);
            for _ in 0..12 {
                out.push(LETTERS[(bits & 31) as usize]);
                bits >>= 5;
            }
        }
        let sum = checksum(&out[start..]);
        out.extend_from_slice(b"&x=");
        hexadecimal(sum, 16, out);
    }

    fn read(octets: &[u8]) -> Result<Self, Damage> {
        let mark = octets.get(..LEN).ok_or(Damage::NoMark)?;
        let number = |from: usize, digits: usize| {
            let text = std::str::from_utf8(&mark[from..from + digits]).map_err(|_| Damage::NoMark)?;
            u64::from_str_radix(text, 16).map_err(|_| Damage::NoMark)
        };
        if &mark[BODY..BODY + 3] != b"&x=" || number(BODY + 3, 16)? != checksum(&mark[..BODY]) {
            return Err(Damage::Checksum);
        }
        Ok(Self {
            run: number(2, 8)? as u32,
            connection: number(13, 4)? as u32,
            sequence: number(20, 8)? as u32,
        })
    }
}

/// Finds marks in lines as the edge writes them.
#[derive(Debug)]
pub(crate) struct Reader(Finder<'static>);

impl Default for Reader {
    fn default() -> Self {
        Self(Finder::new(b"\":\"r=".as_slice()).into_owned())
    }
}

impl Reader {
    /// The mark in a line without its line feed. The line has to begin and end as a record of version 1 does, and the
    /// mark has to be the whole value that it stands in.
    pub(crate) fn read(&self, line: &[u8]) -> Result<Mark, Damage> {
        if !line.starts_with(b"{\"v\":1,\"id\":\"") || !line.ends_with(b"\"}") {
            return Err(Damage::Line);
        }
        let at = self.0.find(line).ok_or(Damage::NoMark)? + 3;
        let mark = Mark::read(&line[at..])?;
        if line.get(at + LEN) == Some(&b'"') { Ok(mark) } else { Err(Damage::Line) }
    }
}

/// FNV-1a, 64 bits: any octet that changed changes it.
fn checksum(octets: &[u8]) -> u64 {
    octets
        .iter()
        .fold(0xcbf2_9ce4_8422_2325, |sum, &octet| (sum ^ u64::from(octet)).wrapping_mul(0x0100_0000_01b3))
}

/// The next of a sequence without a visible pattern (the mixing steps of SplitMix64).
fn scrambled(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut bits = *state;
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

fn hexadecimal(number: u64, digits: u32, out: &mut Vec<u8>) {
    out.extend((0..digits).rev().map(|place| DIGITS[(number >> (4 * place) & 15) as usize]));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(mark: Mark) -> Vec<u8> {
        let mut line =
            br#"{"v":1,"id":"018bcfe5-687b-7bab-8bab-0f3c1e5d7a90","method":"GET","query":""#.to_vec();
        mark.write(&mut line);
        line.extend_from_slice(br#"","ip":"127.0.0.1"}"#);
        line
    }

    #[test]
    fn a_mark_is_read_back_from_a_line() {
        let reader = Reader::default();
        for mark in [
            Mark { run: 0, connection: 0, sequence: 0 },
            Mark { run: u32::MAX, connection: CONNECTIONS - 1, sequence: u32::MAX },
            Mark { run: 7, connection: 3, sequence: 1_234_567 },
        ] {
            let mut octets = Vec::new();
            mark.write(&mut octets);
            assert_eq!(octets.len(), LEN);
            assert_eq!(reader.read(&line(mark)), Ok(mark));
        }
    }

    #[test]
    fn every_octet_that_changes_is_noticed() {
        let reader = Reader::default();
        let mark = Mark { run: 1, connection: 2, sequence: 3 };
        let whole = line(mark);
        let start = whole.windows(2).position(|two| two == b"r=").unwrap();
        for at in start..start + LEN {
            let mut damaged = whole.clone();
            damaged[at] ^= 1;
            assert!(reader.read(&damaged).is_err(), "octet {at}");
        }
        for len in 0..whole.len() {
            assert!(reader.read(&whole[..len]).is_err(), "the first {len} octets");
        }
    }
}
