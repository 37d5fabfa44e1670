//! Header escaping (1.2 and 1.1, "Value Encoding"). One pass each way.

use bytes::{BufMut, BytesMut};

use super::{Command, Version};

/// Which escapes are in force for a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Escaping {
    /// The frames of the handshake: a backslash is a backslash, and CR could be taken for the end of a line.
    None,
    /// 1.0: a backslash is a backslash, and so is a CR, since lines end in LF alone.
    V1_0,
    /// 1.1: `\n`, `\c`, `\\`.
    V1_1,
    /// 1.2: `\r` too.
    V1_2,
}

impl Escaping {
    /// The escaping of a frame. `escape_connect` is the switch for brokers that unescape CONNECT although the
    /// specification forbids it (RabbitMQ).
    pub(crate) fn of(command: Command, version: Version, escape_connect: bool) -> Self {
        if command.is_handshake() {
            return if escape_connect && command != Command::Connected { Self::V1_2 } else { Self::None };
        }
        match version {
            Version::V1_0 => Self::V1_0,
            Version::V1_1 => Self::V1_1,
            Version::V1_2 => Self::V1_2,
        }
    }

    /// Appends `text` escaped. False if it holds an octet that cannot be expressed; `dst` is then left in between.
    pub(crate) fn put(self, text: &[u8], is_name: bool, dst: &mut BytesMut) -> bool {
        if is_plain(text) {
            dst.put_slice(text);
            return true;
        }
        for &octet in text {
            let escaped: &[u8] = match (octet, self) {
                (0, _) | (b'\n' | b'\r', Self::None) | (b'\n', Self::V1_0) => return false,
                (b'\n', _) => b"\\n",
                (b'\r', Self::V1_2) => b"\\r",
                (b'\\', Self::V1_1 | Self::V1_2) => b"\\\\",
                (b':', Self::V1_1 | Self::V1_2) => b"\\c",
                (b':', Self::None | Self::V1_0) if is_name => return false,
                _ => core::slice::from_ref(&octet),
            };
            dst.put_slice(escaped);
        }
        true
    }

    /// Unescapes in place. The new length, or `None` for an undefined or unfinished escape.
    pub(crate) fn unescape(self, text: &mut [u8]) -> Option<usize> {
        if matches!(self, Self::None | Self::V1_0) {
            return Some(text.len());
        }
        let Some(first) = memchr::memchr(b'\\', text) else { return Some(text.len()) };
        let (mut read, mut write) = (first, first);
        while read < text.len() {
            let mut octet = text[read];
            read += 1;
            if octet == b'\\' {
                octet = match (text.get(read)?, self) {
                    (b'n', _) => b'\n',
                    (b'c', _) => b':',
                    (b'\\', _) => b'\\',
                    (b'r', Self::V1_2) => b'\r',
                    _ => return None,
                };
                read += 1;
            }
            text[write] = octet;
            write += 1;
        }
        Some(write)
    }
}

/// Whether no version and no frame needs an escape in this text.
pub(crate) fn is_plain(text: &[u8]) -> bool {
    !text.iter().any(|&octet| matches!(octet, b'\n' | b'\r' | b':' | b'\\' | 0))
}

#[cfg(test)]
mod tests {
    use super::*;

    type Octets = &'static [u8];

    #[test]
    fn unescaping_is_one_pass() {
        let table: [(Escaping, Octets, Option<Octets>); 9] = [
            (Escaping::V1_2, br"a\\nb", Some(br"a\nb")),
            (Escaping::V1_2, br"\c\r\n\\", Some(b":\r\n\\")),
            (Escaping::V1_2, br"\t", None),
            (Escaping::V1_2, br"a\", None),
            (Escaping::V1_1, br"\r", None),
            (Escaping::V1_1, br"\n\c", Some(b"\n:")),
            (Escaping::None, br"\n\t\", Some(br"\n\t\")),
            (Escaping::V1_2, b"plain", Some(b"plain")),
            (Escaping::V1_2, b"", Some(b"")),
        ];
        for (escaping, wire, expected) in table {
            let mut text = wire.to_vec();
            let len = escaping.unescape(&mut text);
            assert_eq!(len.map(|len| &text[..len]), expected, "{escaping:?} {wire:?}");
        }
    }

    #[test]
    fn what_cannot_be_escaped_is_refused() {
        let table: [(Escaping, Octets, bool, Option<Octets>); 11] = [
            (Escaping::V1_2, b"a\r\n:\\", false, Some(br"a\r\n\c\\")),
            (Escaping::V1_1, b"a\rb\n", false, Some(b"a\rb\\n")),
            (Escaping::V1_2, b"a\0", false, None),
            (Escaping::None, b"a\nb", false, None),
            (Escaping::None, b"a\rb", false, None),
            (Escaping::None, b"a:b", false, Some(b"a:b")),
            (Escaping::None, b"a:b", true, None),
            (Escaping::None, br"a\b", false, Some(br"a\b")),
            (Escaping::V1_0, b"a\rb:\\", false, Some(b"a\rb:\\")),
            (Escaping::V1_0, b"a\nb", false, None),
            (Escaping::V1_2, b"", false, Some(b"")),
        ];
        for (escaping, text, is_name, expected) in table {
            let mut dst = BytesMut::new();
            let fits = escaping.put(text, is_name, &mut dst);
            assert_eq!(fits.then_some(&dst[..]), expected, "{escaping:?} {text:?}");
        }
    }
}
