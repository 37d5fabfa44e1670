//! AMQP 0.9.1 through lapin.
//!
//! A publish is a future that comes to the confirm, in lapin's own order of things: it queues the frames when first
//! polled, is done with that when they are written, and then waits. As many as the window holds are polled together, so
//! that lapin writes many messages in one system call; awaiting each publish on its own would make it a straw man.

use std::{future::Future, pin::Pin};

use ::lapin::{
    BasicProperties, Channel, Confirmation, Connection, ConnectionProperties,
    options::{
        BasicAckOptions, BasicConsumeOptions, BasicPublishOptions, BasicQosOptions, ConfirmSelectOptions,
        QueueDeclareOptions, QueueDeleteOptions,
    },
    types::{AMQPValue, FieldTable},
    uri::AMQPUri,
};
use futures_util::{FutureExt, StreamExt, stream::FuturesUnordered};

use super::{Arrived, Consumer, Driver, Failure, Link, Publisher, Settled};
use crate::broker::setting::QueueKind;

/// AMQP's code for a farewell without complaint.
const SUCCESS: u16 = 200;

type Publishing = Pin<Box<dyn Future<Output = (u64, Result<Confirmation, ::lapin::Error>)> + Send>>;

pub(crate) enum Lapin {}

impl Driver for Lapin {
    type Publisher = LapinPublisher;
    type Consumer = LapinConsumer;

    async fn publisher(link: &Link) -> Result<LapinPublisher, Failure> {
        let (connection, channel) = open(uri(link)?).await?;
        if link.confirms {
            let select = channel.confirm_select(ConfirmSelectOptions::default());
            select.await.map_err(Failure::of("confirm.select"))?;
        }
        Ok(LapinPublisher {
            connection,
            channel,
            queue: link.queue.clone(),
            mode: if link.persistent { 2 } else { 1 },
            in_flight: FuturesUnordered::new(),
        })
    }

    async fn consumer(link: &Link) -> Result<LapinConsumer, Failure> {
        let (connection, channel) = open(uri(link)?).await?;
        let qos = channel.basic_qos(link.prefetch, BasicQosOptions::default());
        qos.await.map_err(Failure::of("basic.qos"))?;
        let mut arguments = FieldTable::default();
        if link.kind == QueueKind::Stream {
            arguments.insert("x-stream-offset".into(), AMQPValue::LongString("first".into()));
        }
        let consume = channel.basic_consume(
            link.queue.as_str().into(),
            "loadtest".into(),
            BasicConsumeOptions::default(),
            arguments,
        );
        let messages = consume.await.map_err(Failure::of("basic.consume"))?;
        Ok(LapinConsumer { connection, channel, messages, last: None })
    }
}

pub(crate) struct LapinPublisher {
    connection: Connection,
    channel: Channel,
    queue: String,
    mode: u8,
    in_flight: FuturesUnordered<Publishing>,
}

impl Publisher for LapinPublisher {
    async fn publish(&mut self, number: u64, body: Vec<u8>) -> Result<(), Failure> {
        let (channel, queue, mode) = (self.channel.clone(), self.queue.as_str().into(), self.mode);
        let properties =
            BasicProperties::default().with_delivery_mode(mode).with_message_id(number.to_string().into());
        self.in_flight.push(Box::pin(async move {
            let options = BasicPublishOptions::default();
            let outcome = match channel.basic_publish("".into(), queue, options, &body, properties).await {
                Ok(confirm) => confirm.await,
                Err(error) => Err(error),
            };
            (number, outcome)
        }));
        Ok(())
    }

    async fn settled(&mut self, into: &mut Vec<Settled>) -> Result<(), Failure> {
        let mut next = match self.in_flight.next().await {
            Some(first) => Some(first),
            None => std::future::pending().await,
        };
        while let Some((number, outcome)) = next {
            into.push(match outcome.map_err(Failure::of("basic.publish"))? {
                Confirmation::Nack(_) => Settled::Refused(number),
                _ => Settled::One(number),
            });
            next = self.in_flight.next().now_or_never().flatten();
        }
        Ok(())
    }

    fn health(&self) -> Result<(), Failure> {
        standing(&self.connection)
    }

    async fn close(self) {
        drop(self.connection.close(SUCCESS, "done".into()).await);
    }
}

pub(crate) struct LapinConsumer {
    connection: Connection,
    channel: Channel,
    messages: ::lapin::Consumer,
    last: Option<u64>,
}

impl Consumer for LapinConsumer {
    async fn next(&mut self) -> Result<Arrived, Failure> {
        match self.messages.next().await {
            Some(Ok(delivery)) => {
                self.last = Some(delivery.delivery_tag);
                Ok(Arrived::of(&delivery.data))
            }
            Some(Err(error)) => Err(Failure(error.to_string())),
            None => Err(Failure("the consumer was cancelled".to_owned())),
        }
    }

    async fn acknowledge(&mut self) -> Result<(), Failure> {
        match self.last.take() {
            Some(last) => {
                let ack = self.channel.basic_ack(last, BasicAckOptions { multiple: true });
                ack.await.map(drop).map_err(Failure::of("basic.ack"))
            }
            None => Ok(()),
        }
    }

    fn health(&self) -> Result<(), Failure> {
        standing(&self.connection)
    }

    async fn close(self) {
        drop(self.connection.close(SUCCESS, "done".into()).await);
    }
}

/// Declares the queue of a round. `keep` is how many octets of the newest messages it holds at most.
pub(crate) async fn declare(
    uri: &AMQPUri,
    queue: &str,
    kind: QueueKind,
    durable: bool,
    keep: Option<u64>,
) -> Result<(), Failure> {
    let (connection, channel) = open(uri).await?;
    let mut arguments = FieldTable::default();
    arguments.insert("x-queue-type".into(), AMQPValue::LongString(kind.as_str().into()));
    if let Some(keep) = keep.and_then(|keep| i64::try_from(keep).ok()) {
        arguments.insert("x-max-length-bytes".into(), AMQPValue::LongLongInt(keep));
    }
    let options = if durable { QueueDeclareOptions::durable() } else { QueueDeclareOptions::default() };
    let declared = channel.queue_declare(queue.into(), options, arguments).await;
    drop(connection.close(SUCCESS, "done".into()).await);
    declared.map(drop).map_err(Failure::of("queue.declare"))
}

/// Deletes the queue of a round with what is left in it.
pub(crate) async fn delete(uri: &AMQPUri, queue: &str) -> Result<(), Failure> {
    let (connection, channel) = open(uri).await?;
    let deleted = channel.queue_delete(queue.into(), QueueDeleteOptions::default()).await;
    drop(connection.close(SUCCESS, "done".into()).await);
    deleted.map(drop).map_err(Failure::of("queue.delete"))
}

fn uri(link: &Link) -> Result<&AMQPUri, Failure> {
    link.endpoints.amqp.as_ref().ok_or_else(|| Failure("no AMQP URI was given".to_owned()))
}

async fn open(uri: &AMQPUri) -> Result<(Connection, Channel), Failure> {
    let connect = Connection::connect_uri(uri.clone(), ConnectionProperties::default());
    let connection = connect.await.map_err(Failure::of("AMQP"))?;
    let channel = connection.create_channel().await.map_err(Failure::of("channel.open"))?;
    Ok((connection, channel))
}

fn standing(connection: &Connection) -> Result<(), Failure> {
    if connection.status().connected() { Ok(()) } else { Err(Failure("the connection was lost".to_owned())) }
}
