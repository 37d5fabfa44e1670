//! Numbers as header values.

/// A number as text, on the stack.
#[derive(Default)]
pub(crate) struct Digits {
    text: [u8; 20],
}

impl Digits {
    pub(crate) fn of(&mut self, mut number: u64) -> &str {
        let mut at = self.text.len();
        loop {
            at -= 1;
            self.text[at] = b'0' + (number % 10) as u8;
            number /= 10;
            if number == 0 {
                break;
            }
        }
        core::str::from_utf8(&self.text[at..]).unwrap_or_default()
    }
}
