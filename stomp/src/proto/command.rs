use core::fmt;

/// The command of a frame (STOMP 1.2, "Augmented BNF"). Case-sensitive on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(missing_docs)] // the protocol's own words
pub enum Command {
    Connect,
    Stomp,
    Connected,
    Send,
    Subscribe,
    Unsubscribe,
    Ack,
    Nack,
    Begin,
    Commit,
    Abort,
    Disconnect,
    Message,
    Receipt,
    Error,
}

impl Command {
    /// Every command.
    pub const ALL: [Self; 15] = [
        Self::Connect,
        Self::Stomp,
        Self::Connected,
        Self::Send,
        Self::Subscribe,
        Self::Unsubscribe,
        Self::Ack,
        Self::Nack,
        Self::Begin,
        Self::Commit,
        Self::Abort,
        Self::Disconnect,
        Self::Message,
        Self::Receipt,
        Self::Error,
    ];

    /// The word on the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        let line = self.line();
        line.split_at(line.len() - 1).0
    }

    /// The command line: the word and its end-of-line.
    pub(crate) const fn line(self) -> &'static str {
        match self {
            Self::Connect => "CONNECT\n",
            Self::Stomp => "STOMP\n",
            Self::Connected => "CONNECTED\n",
            Self::Send => "SEND\n",
            Self::Subscribe => "SUBSCRIBE\n",
            Self::Unsubscribe => "UNSUBSCRIBE\n",
            Self::Ack => "ACK\n",
            Self::Nack => "NACK\n",
            Self::Begin => "BEGIN\n",
            Self::Commit => "COMMIT\n",
            Self::Abort => "ABORT\n",
            Self::Disconnect => "DISCONNECT\n",
            Self::Message => "MESSAGE\n",
            Self::Receipt => "RECEIPT\n",
            Self::Error => "ERROR\n",
        }
    }

    /// The command of exactly these octets.
    #[must_use]
    pub fn parse(word: &[u8]) -> Option<Self> {
        // A match on slices compiles to comparisons by length: no table, no hashing.
        Some(match word {
            b"MESSAGE" => Self::Message,
            b"RECEIPT" => Self::Receipt,
            b"SEND" => Self::Send,
            b"ACK" => Self::Ack,
            b"NACK" => Self::Nack,
            b"ERROR" => Self::Error,
            b"CONNECTED" => Self::Connected,
            b"CONNECT" => Self::Connect,
            b"STOMP" => Self::Stomp,
            b"SUBSCRIBE" => Self::Subscribe,
            b"UNSUBSCRIBE" => Self::Unsubscribe,
            b"BEGIN" => Self::Begin,
            b"COMMIT" => Self::Commit,
            b"ABORT" => Self::Abort,
            b"DISCONNECT" => Self::Disconnect,
            _ => return None,
        })
    }

    /// Whether a frame of this command may have a body: SEND, MESSAGE and ERROR (1.2, "Body").
    #[must_use]
    pub const fn may_have_body(self) -> bool {
        matches!(self, Self::Send | Self::Message | Self::Error)
    }

    /// Whether it belongs to the handshake, where headers are never escaped (1.2, "Value Encoding"; STOMP is treated
    /// like CONNECT).
    #[must_use]
    pub const fn is_handshake(self) -> bool {
        matches!(self, Self::Connect | Self::Stomp | Self::Connected)
    }

    /// Whether a server sends it (the others a client sends).
    #[must_use]
    pub const fn is_from_server(self) -> bool {
        matches!(self, Self::Connected | Self::Message | Self::Receipt | Self::Error)
    }
}

impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
