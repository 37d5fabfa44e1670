/// What a [`Decoder`](super::Decoder) forgives a peer that takes the text lightly: peers of 1.0, whose text has padded
/// samples and few rules, and hand-written servers. All off by default; each switch is in force in every version and in
/// the handshake. Time stays linear and a frame still costs one allocation.
///
/// ```
/// use stompwire::proto::{Decoder, Lenience, Limits};
///
/// let mut lenience = Lenience::STRICT;
/// lenience.trim_headers = true;
/// let mut decoder = Decoder::new(Limits::default()).with_lenience(lenience);
/// let frame = decoder.decode(&mut "CONNECTED\nsession: 7 \n\n\0".into()).unwrap().unwrap();
/// assert_eq!(frame.header("session"), Some("7"));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Lenience {
    /// Skip a header line without a colon or with an empty name, as stomp.py does, instead of ending the connection. It
    /// is not kept with an empty value: a line that nobody can name has no reader, and a made-up name could be taken for
    /// a real one. A skipped line counts toward [`Limits::max_line`](super::Limits::max_line) and
    /// [`Limits::max_head`](super::Limits::max_head), not toward
    /// [`Limits::max_headers`](super::Limits::max_headers); a NUL, a stray carriage return or bad UTF-8 in it stays an
    /// error.
    pub skip_bad_headers: bool,
    /// Strip spaces and tabs around names and values, before anything is unescaped: 1.0's samples write
    /// `login: <username>`. A name of nothing but blanks is then an empty one. A line of nothing but blanks does not end
    /// the head.
    pub trim_headers: bool,
    /// Drop the body of a frame that may not have one (any but SEND, MESSAGE and ERROR) instead of refusing it (from 1.1
    /// on) or handing it over (1.0, which says that it is ignored). The limits hold for it all the same; a header
    /// `content-length` stays as it was sent.
    pub ignore_bodies: bool,
}

impl Lenience {
    /// Nothing is forgiven: the default.
    pub const STRICT: Self = Self { skip_bad_headers: false, trim_headers: false, ignore_bodies: false };

    /// Everything that can be is forgiven.
    pub const ALL: Self = Self { skip_bad_headers: true, trim_headers: true, ignore_bodies: true };
}
