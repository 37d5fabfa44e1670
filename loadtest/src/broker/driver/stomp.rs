//! STOMP 1.2 through stompwire: its `Publisher` with confirms, its `Client` without and to consume.

use std::{
    collections::VecDeque,
    future::pending,
    time::{Duration, Instant},
};

use stompwire::{
    Frame, Headers,
    client::{AckMode, BrokerUrl, Client, ConnectOptions, Message, State, Subscribe, Subscription, Window},
    publisher::{self, LaneState, Outcome, Outcomes, PublisherOptions},
    rabbitmq::STREAM_CHUNK,
};

use super::{Arrived, Consumer, Driver, Failure, Link, Publisher, Settled};
use crate::broker::setting::QueueKind;

/// How long closing may take.
const CLOSE: Duration = Duration::from_secs(2);
/// How long connecting may take, and how often one looks.
const CONNECT: Duration = Duration::from_secs(10);
const LOOK: Duration = Duration::from_millis(2);
/// Outcomes that are taken at a time.
const AT_A_TIME: usize = 256;

pub(crate) enum Stomp {}

impl Driver for Stomp {
    type Publisher = StompPublisher;
    type Consumer = StompConsumer;

    async fn publisher(link: &Link) -> Result<StompPublisher, Failure> {
        let url = url(link)?;
        if !link.confirms {
            let client = connect(url, link).await?;
            let template = Frame::send(&destination(link), bytes::Bytes::new());
            let written = VecDeque::new();
            return Ok(StompPublisher::Plain { client, template, persistent: link.persistent, written });
        }
        let mut options = PublisherOptions::new(vec![url.clone()], &destination(link));
        if !link.persistent {
            options.headers = [("destination", &*destination(link))].into_iter().collect();
        }
        options.connect = connect_options(link);
        options.rebalance = None;
        let (publisher, outcomes) = publisher::Publisher::start(options).map_err(Failure::of("headers"))?;
        let publisher =
            StompPublisher::Confirmed { publisher, outcomes, taken: Vec::with_capacity(AT_A_TIME) };
        publisher.connected().await?;
        Ok(publisher)
    }

    async fn consumer(link: &Link) -> Result<StompConsumer, Failure> {
        let client = connect(url(link)?, link).await?;
        let mut subscribe =
            Subscribe::to(destination(link)).with_ack(AckMode::Client).with_prefetch(link.prefetch);
        if link.kind == QueueKind::Stream {
            subscribe = subscribe.with_excess(STREAM_CHUNK).with_header("x-stream-offset", "first");
        }
        let messages = client.subscribe(subscribe).await.map_err(Failure::of("SUBSCRIBE"))?;
        Ok(StompConsumer { client, messages, last: None })
    }
}

pub(crate) enum StompPublisher {
    Confirmed { publisher: publisher::Publisher<u64>, outcomes: Outcomes<u64>, taken: Vec<Outcome<u64>> },
    Plain { client: Client, template: Frame, persistent: bool, written: VecDeque<u64> },
}

impl StompPublisher {
    /// Waits for the first connection.
    async fn connected(&self) -> Result<(), Failure> {
        let start = Instant::now();
        loop {
            let Self::Confirmed { publisher, .. } = self else { return Ok(()) };
            let lane = publisher.lanes().pop();
            match lane {
                Some(lane) if lane.state == LaneState::Connected => return Ok(()),
                Some(lane) if lane.last_error.is_some() || start.elapsed() > CONNECT => {
                    let reason = lane.last_error.unwrap_or_else(|| "no connection within 10 s".to_owned());
                    return Err(Failure(format!("STOMP: {reason}")));
                }
                _ => tokio::time::sleep(LOOK).await,
            }
        }
    }
}

impl Publisher for StompPublisher {
    async fn publish(&mut self, number: u64, body: Vec<u8>) -> Result<(), Failure> {
        match self {
            Self::Confirmed { publisher, .. } => {
                let message = publisher::Message {
                    id: number.to_string(),
                    headers: Headers::new(),
                    body: body.into(),
                    token: number,
                };
                publisher.publish(message).await.map_err(|_| Failure("the publisher was closed".to_owned()))
            }
            Self::Plain { client, template, persistent, written } => {
                let destination = template.header("destination").unwrap_or_default();
                let mut frame = Frame::send(destination, body);
                if *persistent {
                    frame = frame.with_header("persistent", "true");
                }
                frame = frame.with_header("amqp-message-id", &number.to_string());
                client.send(frame).await.map_err(Failure::of("SEND"))?;
                written.push_back(number);
                Ok(())
            }
        }
    }

    async fn settled(&mut self, into: &mut Vec<Settled>) -> Result<(), Failure> {
        match self {
            Self::Confirmed { outcomes, taken, .. } => {
                if outcomes.recv_many(taken, AT_A_TIME).await == 0 {
                    return Err(Failure("the publisher has ended".to_owned()));
                }
                for outcome in taken.drain(..) {
                    into.push(match outcome {
                        Outcome::Confirmed { token, .. } => Settled::One(token),
                        Outcome::Abandoned { token, .. } | Outcome::GivenUp { token, .. } => {
                            Settled::Refused(token)
                        }
                        other => return Err(Failure(format!("a message was not sent: {other:?}"))),
                    });
                }
                Ok(())
            }
            Self::Plain { written, .. } => match written.pop_back() {
                Some(last) => {
                    written.clear();
                    into.push(Settled::UpTo(last));
                    Ok(())
                }
                None => pending().await,
            },
        }
    }

    fn health(&self) -> Result<(), Failure> {
        match self {
            Self::Confirmed { publisher, .. } => {
                if publisher.board().totals().failures == 0 {
                    return Ok(());
                }
                let lost = publisher.lanes().pop().and_then(|lane| lane.last_error);
                Err(Failure(lost.unwrap_or_else(|| "the connection was lost".to_owned())))
            }
            Self::Plain { client, .. } => standing(client),
        }
    }

    async fn close(self) {
        match self {
            // The outcomes are dropped first, so that none of them is waited for.
            Self::Confirmed { publisher, outcomes, .. } => {
                drop(outcomes);
                publisher.close(CLOSE).await;
            }
            Self::Plain { client, .. } => drop(client.close(CLOSE).await),
        }
    }
}

pub(crate) struct StompConsumer {
    client: Client,
    messages: Subscription,
    last: Option<Message>,
}

impl Consumer for StompConsumer {
    async fn next(&mut self) -> Result<Arrived, Failure> {
        match self.messages.next().await {
            Some(Ok(message)) => {
                let arrived = Arrived::of(message.body());
                self.last = Some(message);
                Ok(arrived)
            }
            Some(Err(error)) => Err(Failure(error.to_string())),
            None => Err(Failure("the subscription has ended".to_owned())),
        }
    }

    async fn acknowledge(&mut self) -> Result<(), Failure> {
        match self.last.take() {
            Some(last) => self.messages.ack(&last).await.map_err(Failure::of("ACK")),
            None => Ok(()),
        }
    }

    fn health(&self) -> Result<(), Failure> {
        standing(&self.client)
    }

    async fn close(self) {
        let Self { client, messages, .. } = self;
        drop(messages);
        drop(client.close(CLOSE).await);
    }
}

fn url(link: &Link) -> Result<&BrokerUrl, Failure> {
    link.endpoints.stomp.as_ref().ok_or_else(|| Failure("no STOMP URI was given".to_owned()))
}

/// Queues are declared beforehand; where that cannot be done, the first frame to `/queue/` does it.
fn destination(link: &Link) -> String {
    let place = if link.endpoints.amqp.is_some() { "/amq/queue" } else { "/queue" };
    format!("{place}/{}", link.queue)
}

fn connect_options(link: &Link) -> ConnectOptions {
    let mut options = ConnectOptions::default();
    // The lane keeps the window; this one only must not be smaller.
    options.window = Window { frames: link.window + 1, bytes: u32::MAX as usize };
    options
}

async fn connect(url: &BrokerUrl, link: &Link) -> Result<Client, Failure> {
    Client::connect(url, connect_options(link)).await.map_err(Failure::of("STOMP"))
}

fn standing(client: &Client) -> Result<(), Failure> {
    match &*client.state().borrow() {
        State::Closed { cause } => Err(Failure(cause.to_string())),
        _ => Ok(()),
    }
}
