//! The task of a client: one connection after the other, and what happens in between.

use std::{future::Future, sync::Arc, time::Duration};

use tokio::time::{Instant, sleep};

use super::{
    ConnectionError, Reconnect, State, connector::Connector, desk::Desk, driver::Driver, link::Link,
};
use crate::proto::Connected;

pub(super) struct Supervisor<C: Connector> {
    connector: C,
    desk: Desk,
    reconnect: Option<Reconnect>,
    /// Connections made.
    number: u64,
    /// Attempts in a row that failed.
    failures: u32,
}

impl<C: Connector> Supervisor<C> {
    pub(super) const fn new(connector: C, desk: Desk, reconnect: Option<Reconnect>) -> Self {
        Self { connector, desk, reconnect, number: 0, failures: 0 }
    }

    /// Tries every host once. For the caller of `connect`, who wants to know. When it returns the state is connected,
    /// however soon the server may end it.
    pub(super) async fn first(&mut self) -> Result<Link<C::Transport>, ConnectionError> {
        let mut tries_left = self.connector.hosts();
        loop {
            tries_left = tries_left.saturating_sub(1);
            match self.connector.connect().await {
                Ok((link, connected)) => {
                    self.connected(connected);
                    return Ok(link);
                }
                Err(cause) if tries_left == 0 || !cause.is_retryable() => return Err(cause),
                Err(_) => {}
            }
        }
    }

    /// Runs until the end.
    pub(super) async fn run(mut self, mut first: Option<Link<C::Transport>>) {
        let mut cause = ConnectionError::Io(Arc::new(std::io::ErrorKind::NotConnected.into()));
        let end = loop {
            let mut link = match first.take() {
                Some(link) => link,
                None => match self.attempt(&cause).await {
                    Ok(Some(link)) => link,
                    Ok(None) => break ConnectionError::ClosedByUs,
                    Err(error) => {
                        cause = error;
                        match self.pause(&cause).await {
                            Next::Attempt => continue,
                            Next::End(end) => break end,
                        }
                    }
                },
            };
            let since = Instant::now();
            cause = Driver::new(&mut link, &mut self.desk, self.number).run().await;
            let orderly = matches!(cause, ConnectionError::ClosedByUs);
            if !orderly && self.goes_on(&cause) {
                self.desk.connection_lost();
                let lived = since.elapsed();
                if self.reconnect.is_some_and(|reconnect| lived >= reconnect.backoff.max) {
                    self.failures = 0;
                }
                // The socket goes before the next one comes.
                drop(link);
                match self.pause(&cause).await {
                    Next::Attempt => continue,
                    Next::End(end) => break end,
                }
            }
            self.desk.finish(&cause);
            link.shutdown().await;
            break cause;
        };
        self.desk.finish(&end);
    }

    fn goes_on(&self, cause: &ConnectionError) -> bool {
        self.reconnect.is_some() && cause.is_retryable() && !self.desk.is_closing
    }

    /// One attempt; `None` if the client was closed meanwhile.
    async fn attempt(
        &mut self,
        cause: &ConnectionError,
    ) -> Result<Option<Link<C::Transport>>, ConnectionError> {
        self.desk.enter(State::Connecting);
        let Some(attempt) = unless_closed(&mut self.desk, cause, self.connector.connect()).await else {
            return Ok(None);
        };
        let (link, connected) = attempt?;
        self.connected(connected);
        Ok(Some(link))
    }

    fn connected(&mut self, connected: Connected) {
        self.number += 1;
        self.desk.enter(State::Connected { number: self.number, connected: Arc::new(connected) });
    }

    /// Counts a failure and waits before the next attempt.
    async fn pause(&mut self, cause: &ConnectionError) -> Next {
        let Some(reconnect) = self.reconnect.filter(|_| cause.is_retryable()) else {
            return Next::End(cause.clone());
        };
        self.failures = self.failures.saturating_add(1);
        if reconnect.max_attempts.is_some_and(|most| self.failures > most) {
            crate::log::warn!(%cause, attempts = self.failures - 1, "gave up reconnecting to the broker");
            return Next::End(cause.clone());
        }
        // The other hosts of the list are tried at once.
        let hosts = u32::try_from(self.connector.hosts()).unwrap_or(u32::MAX).max(1);
        let pause = if self.failures.is_multiple_of(hosts) {
            reconnect.backoff.pause(self.failures / hosts)
        } else {
            Duration::ZERO
        };
        if self.failures == 1 {
            crate::log::warn!(%cause, ?pause, "the connection to the broker is lost; reconnecting");
        } else {
            crate::log::debug!(%cause, ?pause, failures = self.failures, "still no connection to the broker");
        }
        self.desk.enter(State::Waiting { failures: self.failures, pause, cause: cause.clone() });
        match unless_closed(&mut self.desk, cause, sleep(pause)).await {
            Some(()) => Next::Attempt,
            None => Next::End(ConnectionError::ClosedByUs),
        }
    }
}

enum Next {
    Attempt,
    End(ConnectionError),
}

/// Waits for `what` while the handles are served; `None` if one of them closes the client.
async fn unless_closed<F: Future>(desk: &mut Desk, cause: &ConnectionError, what: F) -> Option<F::Output> {
    tokio::select! {
        biased;
        output = what => Some(output),
        () = desk.serve_unconnected(cause) => None,
    }
}
