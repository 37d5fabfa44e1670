use crate::proto::{Command, Version};

/// Why a frame is answered with ERROR.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Refusal {
    #[error("{command} needs the header {header:?}")]
    MissingHeader { command: Command, header: &'static str },
    #[error("the header {header:?} of {command} is not valid: {value:?}")]
    BadHeader { command: Command, header: &'static str, value: String },
    #[error("STOMP {version} has no {command}")]
    NotInVersion { command: Command, version: Version },
    #[error("access refused: login or passcode is wrong")]
    Credentials,
    #[error("the broker was told to refuse this CONNECT")]
    ToldToRefuseConnect,
    #[error("the broker was told to fail this SEND")]
    ToldToFailSend,
    #[error("the queue {0:?} is full")]
    QueueFull(String),
    #[error("a message of {octets} octets is longer than the queue may hold ({max_octets})")]
    TooLong { octets: usize, max_octets: usize },
    #[error("there are {0} queues already, as many as there may be")]
    TooManyQueues(usize),
    #[error("this connection has {0} subscriptions already, as many as it may have")]
    TooManySubscriptions(usize),
    #[error("this connection has a subscription {0:?} already")]
    SubscriptionExists(String),
    #[error("this connection has no subscription {0:?}")]
    NoSubscription(String),
    #[error("nothing waits for an acknowledgement under {0:?}")]
    NothingToAcknowledge(String),
    #[error("this connection has a transaction {0:?} already")]
    TransactionExists(String),
    #[error("this connection has no transaction {0:?}")]
    NoTransaction(String),
    #[error("this connection has {0} transactions already, as many as it may have")]
    TooManyTransactions(usize),
    #[error("the transactions of this connection hold as much as they may")]
    TransactionsFull,
}
