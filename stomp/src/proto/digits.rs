//! Numbers as header values.

use bytes::{BufMut, BytesMut};

/// Digits of the longest number.
const MAX: usize = 20;

/// A number as text, on the stack.
#[derive(Default)]
pub(crate) struct Digits {
    text: [u8; MAX],
}

impl Digits {
    pub(crate) fn of(&mut self, number: u64) -> &str {
        let at = write(number, &mut self.text);
        core::str::from_utf8(&self.text[at..]).unwrap_or_default()
    }
}

/// Whether `text` is the number as it is written here: without leading zeros.
pub(crate) fn says(text: &[u8], mut number: u64) -> bool {
    for (left, &octet) in text.iter().enumerate().rev() {
        if u64::from(octet) != u64::from(b'0') + number % 10 {
            return false;
        }
        number /= 10;
        if number == 0 {
            return left == 0;
        }
    }
    false
}

/// Appends `content-length:194\n\n`, the last line of a usual head and the blank line.
///
/// A usual length is put together in a register: octets written one by one and read back as a block wait for each other.
pub(crate) fn put_content_length(length: u64, dst: &mut BytesMut) {
    dst.put_slice(b"content-length:");
    if length >= 1_000_000 {
        dst.put_slice(Digits::default().of(length).as_bytes());
        dst.put_slice(b"\n\n");
        return;
    }
    let (mut word, mut count, mut rest) = (u64::from(u16::from_le_bytes(*b"\n\n")), 2, length);
    loop {
        word = word << 8 | (u64::from(b'0') + rest % 10);
        (rest, count) = (rest / 10, count + 1);
        if rest == 0 {
            break;
        }
    }
    dst.put_u64_le(word);
    dst.truncate(dst.len() - (8 - count));
}

/// Writes the number at the end of `text`, which is long enough; where it starts.
fn write(mut number: u64, text: &mut [u8]) -> usize {
    let mut at = text.len();
    loop {
        at -= 1;
        text[at] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            return at;
        }
    }
}

#[cfg(test)]
mod tests {
    use alloc::{format, string::String};

    use super::*;

    #[test]
    fn numbers_are_written_as_the_standard_library_does() {
        for number in
            [0, 9, 10, 194, 99_999, 999_999, 1_000_000, 1 << 20, u64::from(u32::MAX), u64::MAX - 1, u64::MAX]
        {
            assert_eq!(Digits::default().of(number), format!("{number}"));
            let line = format!("content-length:{number}\n\n");
            assert!(says(format!("{number}").as_bytes(), number));
            for other in
                [format!("0{number}"), format!("{number}0"), format!("{}1", number / 10), String::new()]
            {
                assert_eq!(says(other.as_bytes(), number), other == format!("{number}"), "{other} {number}");
            }
            let mut dst = BytesMut::from("a");
            put_content_length(number, &mut dst);
            assert_eq!(dst, format!("a{line}"));
        }
    }
}
