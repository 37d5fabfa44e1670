use core::fmt;

/// A version of the protocol. Ordered: later is greater.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Version {
    /// STOMP 1.0: no escaping, no NACK, no heart-beats, no version header.
    V1_0,
    /// STOMP 1.1: escaping of `\n`, `\c` and `\\`; lines end in LF alone.
    V1_1,
    /// STOMP 1.2: escaping of `\r` too; lines end in LF or CRLF.
    V1_2,
}

impl Version {
    /// All versions, ascending: the order `accept-version` wants.
    pub const ALL: [Self; 3] = [Self::V1_0, Self::V1_1, Self::V1_2];

    /// The text used in the headers `version` and `accept-version`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::V1_0 => "1.0",
            Self::V1_1 => "1.1",
            Self::V1_2 => "1.2",
        }
    }

    /// The version of exactly this text.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|version| version.as_str() == text)
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
