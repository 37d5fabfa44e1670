/// What a [`Decoder`](super::Decoder) lets a peer make it hold. Checked before the octets in question are buffered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Octets on the wire of one line, its end not counted.
    pub max_line: usize,
    /// Headers of one frame; repeated ones count.
    pub max_headers: usize,
    /// Octets of command line, header lines and the blank line together. At most 1 GiB.
    pub max_head: usize,
    /// Octets of the body of a whole frame.
    pub max_body: usize,
    /// Octets of a body that comes in parts, by [`Decoder::decode_part`](super::Decoder::decode_part), which nothing
    /// else reads; they are never held together. Up to `max_body` it changes nothing.
    pub max_long_body: u64,
    /// End-of-lines between two frames within one second (a session starts a new count each second, so that years of
    /// heart-beats are fine and a flood of them is not).
    pub max_eols: usize,
}

impl Default for Limits {
    /// Lines 16 KiB, 256 headers, head 64 KiB (RabbitMQ allows as much before login), body 16 MiB (RabbitMQ 4's
    /// largest message) or, in parts, 1 GiB, 4,096 end-of-lines.
    fn default() -> Self {
        Self {
            max_line: 16 * 1024,
            max_headers: 256,
            max_head: 64 * 1024,
            max_body: 16 * 1024 * 1024,
            max_long_body: 1 << 30,
            max_eols: 4096,
        }
    }
}

impl Limits {
    /// Offsets into a head are kept in 32 bits.
    pub(crate) const HARD_MAX_HEAD: usize = 1 << 30;
}
