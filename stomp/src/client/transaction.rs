use super::{
    Client, Message, Receipt, SendError, Subscription, Unconfirmed,
    driver::{Outgoing, Payload},
    receipt::Token,
};
use crate::proto::{Frame, Verdict};

/// A transaction on one connection (1.2, "BEGIN"): the server acts on its frames at COMMIT, or not at all. Dropping it
/// aborts it; so does the end of the connection, and so does a frame of it that was queued and could not be sent (it
/// cannot be encoded, or the server reads nothing): it is never committed in part.
///
/// With RabbitMQ a receipt on COMMIT comes before its messages are confirmed, and nothing is atomic over several
/// queues; for confirmed publishing use receipts and no transaction.
#[derive(Debug)]
#[must_use = "dropping a transaction aborts it"]
pub struct Transaction {
    pub(super) client: Client,
    pub(super) id: u64,
    pub(super) connection: u64,
    /// COMMIT or ABORT has been sent.
    pub(super) ended: bool,
}

impl Transaction {
    /// Queues a SEND as part of the transaction. Cancel safe: queued or not at all.
    ///
    /// # Errors
    /// [`SendError`]; [`SendError::Stale`] when the connection, and with it the transaction, is gone.
    pub async fn send(&self, frame: Frame) -> Result<(), SendError> {
        let payload = Payload::InTransaction { transaction: self.id, frame };
        self.client.in_time(self.client.send_payload(payload, Some(self.connection))).await
    }

    /// The same with a receipt: that the server has taken the frame, not that the transaction is committed. Cancel safe:
    /// queued or not at all.
    ///
    /// # Errors
    /// As [`Transaction::send`].
    pub async fn send_with_receipt(&self, frame: Frame) -> Result<Receipt, SendError> {
        let len = frame.body().len();
        let payload = Payload::InTransaction { transaction: self.id, frame };
        self.client.in_time(self.client.receipted(payload, len, Some(self.connection))).await
    }

    /// Acknowledges a message of `subscription` when the transaction is committed. Cancel safe: queued or not at all.
    ///
    /// # Errors
    /// As [`Subscription::ack`].
    pub async fn ack(&self, subscription: &Subscription, message: &Message) -> Result<(), SendError> {
        self.settle(Verdict::Ack, subscription, message).await
    }

    /// Refuses a message of `subscription` when the transaction is committed. Cancel safe: queued or not at all.
    ///
    /// # Errors
    /// As [`Subscription::nack`].
    pub async fn nack(&self, subscription: &Subscription, message: &Message) -> Result<(), SendError> {
        self.settle(Verdict::Nack, subscription, message).await
    }

    /// Commits; returns when the server has receipted it. Not cancel safe: whether it was committed is then unknown.
    ///
    /// # Errors
    /// [`Unconfirmed`]; [`Unconfirmed::NotSent`] means that it was aborted.
    pub async fn commit(self) -> Result<(), Unconfirmed> {
        let id = self.id;
        self.end(Payload::Commit(id)).await
    }

    /// Aborts; returns when the server has receipted it. Cancel safe: ABORT is sent in any case.
    ///
    /// # Errors
    /// [`Unconfirmed`]; the transaction will not be committed all the same.
    pub async fn abort(self) -> Result<(), Unconfirmed> {
        let id = self.id;
        self.end(Payload::Abort(id)).await
    }

    async fn settle(
        &self,
        verdict: Verdict,
        subscription: &Subscription,
        message: &Message,
    ) -> Result<(), SendError> {
        let payload = subscription.verdict(verdict, message, Some(self.id))?;
        self.client.in_time(self.client.send_payload(payload, Some(self.connection))).await
    }

    async fn end(mut self, payload: Payload) -> Result<(), Unconfirmed> {
        let client = self.client.clone();
        client
            .in_time(async {
                let (token, receipt) = Token::with_receipt(client.room(0).await?);
                let place = client.place().await?;
                client.check(Some(self.connection))?;
                self.ended = true;
                let outgoing = Outgoing::receipted(payload, token).only_on(self.connection);
                place.send(outgoing.into());
                Ok(receipt)
            })
            .await?
            .await
    }
}

impl Drop for Transaction {
    fn drop(&mut self) {
        if !self.ended {
            self.client.leave_behind(Payload::Abort(self.id), Some(self.connection));
        }
    }
}
