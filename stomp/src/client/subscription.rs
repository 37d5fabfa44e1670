use std::{
    future::poll_fn,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use futures_core::Stream;

use super::{
    Client, ConnectionError, Receipt, SendError, Unconfirmed,
    driver::{Outgoing, Payload},
    mailbox::Mailbox,
    receipt::Token,
};
use crate::{
    Headers,
    proto::{AckMode, Frame, SessionError, Verdict, Version},
};

/// A message of a subscription. Its headers and body are slices of the buffer it was read into (64 KiB, or the length of
/// a longer frame): copy what is to be kept for long.
#[derive(Debug, Clone)]
pub struct Message {
    pub(super) frame: Frame,
    pub(super) subscription: u64,
    /// The connection it came over. It cannot be acknowledged over another one.
    pub(super) connection: u64,
}

impl Message {
    /// The MESSAGE frame.
    #[must_use]
    pub const fn frame(&self) -> &Frame {
        &self.frame
    }

    /// The body.
    #[must_use]
    pub fn body(&self) -> &[u8] {
        self.frame.body()
    }

    /// The body, shared, not copied.
    #[must_use]
    pub fn body_bytes(&self) -> Bytes {
        self.frame.body_bytes()
    }

    /// The headers.
    #[must_use]
    pub const fn headers(&self) -> &Headers {
        self.frame.headers()
    }

    /// The value of the first header of this name.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.frame.header(name)
    }

    /// The MESSAGE frame, taken out.
    #[must_use]
    pub fn into_frame(self) -> Frame {
        self.frame
    }
}

/// Why a subscription ended before it was given up.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum SubscriptionError {
    /// The connection ended, and will not come back.
    #[error("the connection has ended: {0}")]
    Closed(ConnectionError),
    /// The server sent more than the credit allows, and than may exceed it
    /// ([`Subscribe::with_excess`](crate::proto::Subscribe::with_excess)). The subscription was cancelled; the connection and its other
    /// subscriptions go on, unless the server minds (RabbitMQ may: see [`Subscription`]). With [`AckMode::Auto`] this message, and those that were under way, are lost; otherwise the
    /// server has them, unacknowledged.
    #[error("the server sent more than the {credit} messages that were asked for at a time")]
    Overrun {
        /// The subscription's credit.
        credit: u16,
    },
}

/// The messages of one subscription, in order: a `Stream`, and [`Subscription::next`] for those who need no more.
///
/// Its credit (see [`Subscribe::with_prefetch`](crate::proto::Subscribe::with_prefetch)) bounds what is kept here, a
/// stream of RabbitMQ's apart, which exceeds it by up to a chunk
/// ([`STREAM_CHUNK`](crate::rabbitmq::STREAM_CHUNK)). A
/// subscription that is not read holds up nothing else: neither receipts nor heart-beats nor other subscriptions.
///
/// Dropping it sends UNSUBSCRIBE. What was delivered and not acknowledged stays the server's: RabbitMQ delivers it again
/// when the connection has ended. **RabbitMQ ends the connection itself** (ERROR `Subscription not found`; seen with 3.10.8
/// and 4.0.5) when a message was still on its way to a subscription that is given up: end one that is busy over a connection
/// that nothing else needs.
///
/// After a reconnect the server subscribes it anew. Messages that waited here to be taken are thrown away with the old
/// connection if they were to be acknowledged, since the server delivers them again; those that were taken and not
/// acknowledged are delivered again too, and the old ones can no longer be acknowledged ([`SendError::Stale`]).
#[derive(Debug)]
#[must_use = "dropping a subscription ends it"]
pub struct Subscription {
    pub(super) client: Client,
    pub(super) id: u64,
    pub(super) ack: AckMode,
    pub(super) mailbox: Arc<Mailbox>,
    /// UNSUBSCRIBE has been sent.
    pub(super) ended: bool,
}

impl Subscription {
    /// The next message; an error once when the subscription has ended by itself, and then `None`. Cancel safe: a
    /// message is taken or stays.
    pub async fn next(&mut self) -> Option<Result<Message, SubscriptionError>> {
        poll_fn(|cx| Pin::new(&mut *self).poll_next(cx)).await
    }

    /// Acknowledges `message` (and, in mode `client`, all before it). Returns when it is queued. Cancel safe: queued or
    /// not at all.
    ///
    /// # Errors
    /// [`SendError::Stale`]: the message came over a connection that is gone, the ACK was not sent, and the server will
    /// deliver the message again. Otherwise [`SendError`].
    pub async fn ack(&self, message: &Message) -> Result<(), SendError> {
        self.settle(Verdict::Ack, message).await
    }

    /// Refuses `message` (and, in mode `client`, all before it). What the server then does is its own: RabbitMQ puts it
    /// back. Cancel safe: queued or not at all.
    ///
    /// # Errors
    /// As [`Subscription::ack`]; there is no NACK in 1.0 ([`SendError::Refused`]).
    pub async fn nack(&self, message: &Message) -> Result<(), SendError> {
        self.settle(Verdict::Nack, message).await
    }

    /// Like [`Subscription::ack`], with a receipt. Cancel safe: queued or not at all.
    ///
    /// # Errors
    /// As there.
    pub async fn ack_with_receipt(&self, message: &Message) -> Result<Receipt, SendError> {
        self.settle_with_receipt(Verdict::Ack, message).await
    }

    /// Like [`Subscription::nack`], with a receipt. Cancel safe: queued or not at all.
    ///
    /// # Errors
    /// As there.
    pub async fn nack_with_receipt(&self, message: &Message) -> Result<Receipt, SendError> {
        self.settle_with_receipt(Verdict::Nack, message).await
    }

    /// Ends the subscription; returns when the server has receipted it. Messages not taken are gone; those that were to
    /// be acknowledged the server keeps. Cancel safe: UNSUBSCRIBE is sent in any case.
    ///
    /// # Errors
    /// [`Unconfirmed`]; the subscription is over all the same.
    pub async fn unsubscribe(mut self) -> Result<(), Unconfirmed> {
        let client = self.client.clone();
        client
            .in_time(async {
                let (token, receipt) = Token::with_receipt(client.room(0).await?);
                // From here on nothing is awaited before it is queued or refused.
                let place = client.place().await?;
                self.ended = true;
                place.send(Outgoing::receipted(Payload::Unsubscribe(self.id), token).into());
                Ok(receipt)
            })
            .await?
            .await
    }

    async fn settle(&self, verdict: Verdict, message: &Message) -> Result<(), SendError> {
        let payload = self.verdict(verdict, message, None)?;
        self.client.in_time(self.client.send_payload(payload, Some(message.connection))).await
    }

    async fn settle_with_receipt(&self, verdict: Verdict, message: &Message) -> Result<Receipt, SendError> {
        let payload = self.verdict(verdict, message, None)?;
        self.client.in_time(self.client.receipted(payload, 0, Some(message.connection))).await
    }

    /// Checks on this side what can be, so that the caller is told.
    pub(super) fn verdict(
        &self,
        verdict: Verdict,
        message: &Message,
        transaction: Option<u64>,
    ) -> Result<Payload, SendError> {
        if message.subscription != self.id {
            return Err(SendError::Refused(SessionError::NoSubscription(message.subscription)));
        }
        let version = self.client.version_of(message.connection)?;
        let has_id = message.header(if version == Version::V1_2 { "ack" } else { "message-id" }).is_some();
        if self.ack == AckMode::Auto || !has_id {
            return Err(SendError::Refused(SessionError::NothingToAcknowledge));
        }
        if verdict == Verdict::Nack && version == Version::V1_0 {
            let command = crate::Command::Nack;
            return Err(SendError::Refused(SessionError::NotInVersion { command, version }));
        }
        let (subscription, message) = (self.id, message.frame.clone());
        Ok(Payload::Settle { verdict, subscription, message, transaction })
    }
}

impl Stream for Subscription {
    type Item = Result<Message, SubscriptionError>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let (item, ack_is_due) = ready!(self.mailbox.poll_take(cx));
        if ack_is_due {
            self.client.wake_task();
        }
        Poll::Ready(item)
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        if !self.ended {
            self.client.leave_behind(Payload::Unsubscribe(self.id), None);
        }
    }
}
