use alloc::{format, string::String, vec::Vec};
use core::str::FromStr;

/// Where RabbitMQ's STOMP adapter sends a message, or takes one from.
///
/// Names are what AMQP calls them, unescaped. In a destination only `/` is escaped, as `%2F`; everything else stands for
/// itself, `%`, spaces and letters beyond ASCII included. (The colon is the business of STOMP's own escapes.) So a name
/// that holds the three characters `%2F` cannot be expressed.
///
/// ```
/// use stompwire::rabbitmq::Destination;
///
/// assert_eq!(Destination::amq_queue("a/b 100%").to_header()?, "/amq/queue/a%2Fb 100%");
/// assert_eq!(Destination::exchange("logs", "eu.error").to_header()?, "/exchange/logs/eu.error");
/// assert_eq!("/topic/eu.*".parse(), Ok(Destination::topic("eu.*")));
/// # Ok::<(), stompwire::rabbitmq::DestinationError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Destination {
    /// `/exchange/name/key`. The exchange must exist, or the connection ends with ERROR. SUBSCRIBE makes a queue and binds
    /// it with the key as its pattern.
    Exchange {
        /// Not the default exchange, whose name is empty: that is [`Destination::AmqQueue`].
        name: String,
        /// May be empty.
        routing_key: String,
    },
    /// `/amq/queue/name`: a queue that somebody else declared. A SEND to one that is not there is lost, with a RECEIPT.
    AmqQueue(String),
    /// `/queue/name`: a queue that is declared when it is first used ([`QueueOptions`](super::QueueOptions)).
    Queue(String),
    /// `/topic/key`: the exchange `amq.topic`. In SUBSCRIBE the key may hold the wildcards `*` and `#`.
    Topic(String),
    /// `/temp-queue/name`, in the header `reply-to` of SEND only: a queue of this connection's own, consumed by it from
    /// then on. Its messages come with `subscription:/temp-queue/name`. Who gets the request finds a
    /// [`Destination::ReplyQueue`] in its `reply-to`.
    TempQueue(String),
    /// `/reply-queue/name`, in SEND only: where an answer goes.
    ReplyQueue(String),
}

/// Why there is no such destination.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DestinationError {
    /// A name is empty that may not be.
    #[error("a destination of RabbitMQ needs a name")]
    Empty,
    /// RabbitMQ would take the `%2F` in this name for a slash.
    #[error("the name {0:?} holds %2F, which RabbitMQ takes for a slash")]
    Inexpressible(String),
    /// Not of a form that RabbitMQ knows; or, in a MESSAGE, not well escaped.
    #[error("not a destination of RabbitMQ: {0:?}")]
    Unknown(String),
}

impl Destination {
    /// An exchange, with a routing key that may be empty.
    #[must_use]
    pub fn exchange(name: impl Into<String>, routing_key: impl Into<String>) -> Self {
        Self::Exchange { name: name.into(), routing_key: routing_key.into() }
    }

    /// A queue that exists.
    #[must_use]
    pub fn amq_queue(name: impl Into<String>) -> Self {
        Self::AmqQueue(name.into())
    }

    /// A queue that is declared when it is first used.
    #[must_use]
    pub fn queue(name: impl Into<String>) -> Self {
        Self::Queue(name.into())
    }

    /// A routing key of `amq.topic`.
    #[must_use]
    pub fn topic(key: impl Into<String>) -> Self {
        Self::Topic(key.into())
    }

    /// The value of the header `destination` (or `reply-to`).
    ///
    /// # Errors
    /// [`DestinationError::Empty`], [`DestinationError::Inexpressible`].
    pub fn to_header(&self) -> Result<String, DestinationError> {
        Ok(match self {
            Self::Exchange { name, routing_key } if routing_key.is_empty() => {
                format!("/exchange/{}", escaped(name)?)
            }
            Self::Exchange { name, routing_key } => {
                format!("/exchange/{}/{}", escaped(name)?, escaped(routing_key)?)
            }
            Self::AmqQueue(name) => format!("/amq/queue/{}", escaped(name)?),
            Self::Queue(name) => format!("/queue/{}", escaped(name)?),
            Self::Topic(key) => format!("/topic/{}", escaped(key)?),
            Self::TempQueue(name) => format!("/temp-queue/{}", escaped(name)?),
            Self::ReplyQueue(name) => format!("/reply-queue/{}", escaped(name)?),
        })
    }

    /// Reads the header `destination` of a MESSAGE. RabbitMQ does not write there what was in SEND: a queue is `/queue/`,
    /// however it was addressed; and in the names `/`, `%` and every octet beyond ASCII are percent-encoded. Such a value
    /// put into a SEND as it is can lead elsewhere; one that was read here and written again leads back.
    ///
    /// ```
    /// use stompwire::rabbitmq::Destination;
    ///
    /// let destination = Destination::from_message("/queue/100%25 gr%C3%BCn")?;
    /// assert_eq!(destination, Destination::queue("100% grün"));
    /// assert_eq!(destination.to_header()?, "/queue/100% grün");
    /// # Ok::<(), stompwire::rabbitmq::DestinationError>(())
    /// ```
    ///
    /// # Errors
    /// [`DestinationError::Unknown`], for a name that is not UTF-8 too.
    pub fn from_message(header: &str) -> Result<Self, DestinationError> {
        parse(header, percent_decoded).ok_or_else(|| DestinationError::Unknown(header.into()))
    }
}

impl FromStr for Destination {
    type Err = DestinationError;

    /// Reads a destination as RabbitMQ does one of SEND or SUBSCRIBE. A text without a slash is a queue.
    fn from_str(header: &str) -> Result<Self, Self::Err> {
        if !header.is_empty() && !header.contains('/') {
            return Ok(Self::Queue(header.replace("%2F", "/")));
        }
        parse(header, |name| Some(name.replace("%2F", "/")))
            .ok_or_else(|| DestinationError::Unknown(header.into()))
    }
}

fn parse(header: &str, unescaped: impl Fn(&str) -> Option<String>) -> Option<Destination> {
    // Beyond this prefix a slash is part of the name.
    if let Some(name) = header.strip_prefix("/reply-queue/").filter(|name| !name.is_empty()) {
        return Some(Destination::ReplyQueue(unescaped(name)?));
    }
    let parts: Vec<&str> = header.split('/').collect();
    let (make, name): (fn(String) -> Destination, &str) = match parts[..] {
        ["", "exchange", name, ref key @ ..] if !name.is_empty() && key.len() <= 1 => {
            let routing_key = unescaped(key.first().copied().unwrap_or_default())?;
            return Some(Destination::Exchange { name: unescaped(name)?, routing_key });
        }
        ["", "amq", "queue", name] => (Destination::AmqQueue, name),
        ["", "queue", name] => (Destination::Queue, name),
        ["", "topic", key] => (Destination::Topic, key),
        ["", "temp-queue", name] => (Destination::TempQueue, name),
        _ => return None,
    };
    if name.is_empty() { None } else { Some(make(unescaped(name)?)) }
}

fn escaped(name: &str) -> Result<String, DestinationError> {
    if name.is_empty() {
        return Err(DestinationError::Empty);
    }
    if name.contains("%2F") {
        return Err(DestinationError::Inexpressible(name.into()));
    }
    Ok(name.replace('/', "%2F"))
}

fn percent_decoded(text: &str) -> Option<String> {
    let mut octets = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(octet) = rest.next() {
        octets.push(match octet {
            b'%' => {
                let digit = |octet: Option<u8>| char::from(octet?).to_digit(16);
                let value = digit(rest.next())? << 4 | digit(rest.next())?;
                u8::try_from(value).ok()?
            }
            other => other,
        });
    }
    String::from_utf8(octets).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_form_is_written_and_read() {
        let cases = [
            (Destination::exchange("x", "k"), "/exchange/x/k"),
            (Destination::exchange("x", ""), "/exchange/x"),
            (Destination::exchange("a/b", "c/d"), "/exchange/a%2Fb/c%2Fd"),
            (Destination::amq_queue("a:b 100%"), "/amq/queue/a:b 100%"),
            (Destination::queue("grün"), "/queue/grün"),
            (Destination::queue("%/"), "/queue/%%2F"),
            (Destination::topic("a.*.#"), "/topic/a.*.#"),
            (Destination::TempQueue("me".into()), "/temp-queue/me"),
            (Destination::ReplyQueue("amq.gen-x".into()), "/reply-queue/amq.gen-x"),
        ];
        for (destination, header) in cases {
            assert_eq!(destination.to_header().as_deref(), Ok(header));
            assert_eq!(header.parse(), Ok(destination), "{header}");
        }
    }

    #[test]
    fn what_rabbitmq_takes_for_the_same_is_read_as_the_same() {
        let cases = [
            ("bare", Destination::queue("bare")),
            ("/exchange/x/", Destination::exchange("x", "")),
            ("/queue/%2f", Destination::queue("%2f")),
            ("/reply-queue/a/b%2Fc", Destination::ReplyQueue("a/b/c".into())),
        ];
        for (header, destination) in cases {
            assert_eq!(header.parse(), Ok(destination), "{header}");
        }
    }

    #[test]
    fn what_is_none_is_refused() {
        let none = [
            "",
            "/",
            "/queue",
            "/queue/",
            "/queue/a/b",
            "/exchange",
            "/exchange/",
            "/exchange//k",
            "/exchange/x/k/l",
            "/amq/queue/",
            "/amq/other/a",
            "/topic/",
            "/temp-queue/",
            "/reply-queue/",
            "/Queue/a",
            "queue/a",
        ];
        for header in none {
            assert_eq!(header.parse::<Destination>(), Err(DestinationError::Unknown(header.into())));
        }
        assert_eq!(Destination::queue("").to_header(), Err(DestinationError::Empty));
        assert_eq!(Destination::exchange("", "k").to_header(), Err(DestinationError::Empty));
        let refused = Destination::exchange("x", "a%2Fb").to_header();
        assert_eq!(refused, Err(DestinationError::Inexpressible("a%2Fb".into())));
    }

    #[test]
    fn a_messages_destination_is_percent_decoded() {
        let read = Destination::from_message;
        assert_eq!(read("/queue/a%2Fb%25%C3%BC"), Ok(Destination::queue("a/b%ü")));
        assert_eq!(read("/exchange/x%0A/"), Ok(Destination::exchange("x\n", "")));
        for header in ["/queue/%", "/queue/%2", "/queue/%zz", "/queue/%+1", "/queue/%FF", "/queue/"] {
            assert_eq!(read(header), Err(DestinationError::Unknown(header.into())));
        }
    }
}
