//! AMQP 0.9.1 through amqprs.

use std::{collections::VecDeque, future::pending};

use ::amqprs::{
    Ack, BasicProperties, Cancel, CloseChannel, FieldTable, FieldValue, Nack, Return,
    callbacks::{ChannelCallback, DefaultConnectionCallback},
    channel::{
        BasicAckArguments, BasicConsumeArguments, BasicPublishArguments, BasicQosArguments, Channel,
        ConfirmSelectArguments, ConsumerMessage,
    },
    connection::{Connection, OpenConnectionArguments},
};
use async_trait::async_trait;
use tokio::sync::mpsc;

use super::{Arrived, Consumer, Driver, Failure, Link, Publisher, Settled};
use crate::broker::setting::QueueKind;

/// Acknowledgements that wait to be taken beside one for each message of the window.
const SPARE: usize = 16;
/// Acknowledgements that are taken at a time.
const AT_A_TIME: usize = 256;

pub(crate) enum Amqprs {}

impl Driver for Amqprs {
    type Publisher = AmqprsPublisher;
    type Consumer = AmqprsConsumer;

    async fn publisher(link: &Link) -> Result<AmqprsPublisher, Failure> {
        let (connection, channel) = open(link).await?;
        let (acknowledge, acknowledged) = mpsc::channel(link.window + SPARE);
        let register = channel.register_callback(Acknowledgements(acknowledge));
        register.await.map_err(Failure::of("callback"))?;
        if link.confirms {
            let select = channel.confirm_select(ConfirmSelectArguments::default());
            select.await.map_err(Failure::of("confirm.select"))?;
        }
        Ok(AmqprsPublisher {
            connection,
            channel,
            to: BasicPublishArguments::new("", &link.queue),
            mode: if link.persistent { 2 } else { 1 },
            confirms: link.confirms,
            acknowledged,
            taken: Vec::with_capacity(AT_A_TIME),
            written: VecDeque::new(),
        })
    }

    async fn consumer(link: &Link) -> Result<AmqprsConsumer, Failure> {
        let (connection, channel) = open(link).await?;
        let qos = channel.basic_qos(BasicQosArguments::new(0, link.prefetch, false));
        qos.await.map_err(Failure::of("basic.qos"))?;
        let mut arguments = BasicConsumeArguments::new(&link.queue, "loadtest");
        arguments.manual_ack(true);
        if link.kind == QueueKind::Stream {
            let mut offset = FieldTable::new();
            let (Ok(name), Ok(first)) = ("x-stream-offset".try_into(), "first".to_owned().try_into()) else {
                return Err(Failure("x-stream-offset does not fit".to_owned()));
            };
            offset.insert(name, FieldValue::S(first));
            arguments.arguments(offset);
        }
        let consume = channel.basic_consume_rx(arguments);
        let (_, messages) = consume.await.map_err(Failure::of("basic.consume"))?;
        Ok(AmqprsConsumer { connection, channel, messages, last: None })
    }
}

pub(crate) struct AmqprsPublisher {
    connection: Connection,
    channel: Channel,
    to: BasicPublishArguments,
    mode: u8,
    confirms: bool,
    acknowledged: mpsc::Receiver<Settled>,
    taken: Vec<Settled>,
    written: VecDeque<u64>,
}

impl Publisher for AmqprsPublisher {
    async fn publish(&mut self, number: u64, body: Vec<u8>) -> Result<(), Failure> {
        let properties = BasicProperties::default()
            .with_delivery_mode(self.mode)
            .with_message_id(&number.to_string())
            .finish();
        let publish = self.channel.basic_publish(properties, body, self.to.clone());
        publish.await.map_err(Failure::of("basic.publish"))?;
        if !self.confirms {
            self.written.push_back(number);
        }
        Ok(())
    }

    async fn settled(&mut self, into: &mut Vec<Settled>) -> Result<(), Failure> {
        if !self.confirms {
            let Some(last) = self.written.pop_back() else { return pending().await };
            self.written.clear();
            into.push(Settled::UpTo(last));
            return Ok(());
        }
        if self.acknowledged.recv_many(&mut self.taken, AT_A_TIME).await == 0 {
            return Err(Failure("the channel was closed".to_owned()));
        }
        into.append(&mut self.taken);
        Ok(())
    }

    fn health(&self) -> Result<(), Failure> {
        standing(&self.connection, &self.channel)
    }

    async fn close(self) {
        let Self { connection, channel, acknowledged, .. } = self;
        drop(acknowledged);
        drop(channel.close().await);
        drop(connection.close().await);
    }
}

/// Delivery tags count from 1 on each channel, messages from 0.
struct Acknowledgements(mpsc::Sender<Settled>);

#[async_trait]
impl ChannelCallback for Acknowledgements {
    async fn close(&mut self, _: &Channel, _: CloseChannel) -> Result<(), ::amqprs::error::Error> {
        Ok(())
    }

    async fn cancel(&mut self, _: &Channel, _: Cancel) -> Result<(), ::amqprs::error::Error> {
        Ok(())
    }

    async fn flow(&mut self, _: &Channel, active: bool) -> Result<bool, ::amqprs::error::Error> {
        Ok(active)
    }

    async fn publish_ack(&mut self, _: &Channel, ack: Ack) {
        let number = ack.delivery_tag().saturating_sub(1);
        let settled = if ack.mutiple() { Settled::UpTo(number) } else { Settled::One(number) };
        // A lane that has gone wants none.
        self.0.send(settled).await.ok();
    }

    async fn publish_nack(&mut self, _: &Channel, nack: Nack) {
        self.0.send(Settled::Refused(nack.delivery_tag().saturating_sub(1))).await.ok();
    }

    async fn publish_return(&mut self, _: &Channel, _: Return, _: BasicProperties, _: Vec<u8>) {}
}

pub(crate) struct AmqprsConsumer {
    connection: Connection,
    channel: Channel,
    messages: mpsc::UnboundedReceiver<ConsumerMessage>,
    last: Option<u64>,
}

impl Consumer for AmqprsConsumer {
    async fn next(&mut self) -> Result<Arrived, Failure> {
        let Some(message) = self.messages.recv().await else {
            return Err(Failure("the channel was closed".to_owned()));
        };
        self.last = message.deliver.map(|deliver| deliver.delivery_tag());
        Ok(Arrived::of(&message.content.unwrap_or_default()))
    }

    async fn acknowledge(&mut self) -> Result<(), Failure> {
        match self.last.take() {
            Some(last) => {
                let ack = self.channel.basic_ack(BasicAckArguments::new(last, true));
                ack.await.map_err(Failure::of("basic.ack"))
            }
            None => Ok(()),
        }
    }

    fn health(&self) -> Result<(), Failure> {
        standing(&self.connection, &self.channel)
    }

    async fn close(self) {
        drop(self.channel.close().await);
        drop(self.connection.close().await);
    }
}

async fn open(link: &Link) -> Result<(Connection, Channel), Failure> {
    let uri = link.endpoints.amqp.as_ref().ok_or_else(|| Failure("no AMQP URI was given".to_owned()))?;
    let authority = &uri.authority;
    let mut arguments = OpenConnectionArguments::new(
        &authority.host,
        authority.port,
        &authority.userinfo.username,
        &authority.userinfo.password,
    );
    arguments.virtual_host(&uri.vhost);
    let connection = Connection::open(&arguments).await.map_err(Failure::of("AMQP"))?;
    let register = connection.register_callback(DefaultConnectionCallback);
    register.await.map_err(Failure::of("callback"))?;
    let channel = connection.open_channel(None).await.map_err(Failure::of("channel.open"))?;
    Ok((connection, channel))
}

fn standing(connection: &Connection, channel: &Channel) -> Result<(), Failure> {
    if !connection.is_open() {
        return Err(Failure("the connection was lost".to_owned()));
    }
    if channel.is_open() { Ok(()) } else { Err(Failure("the broker has closed the channel".to_owned())) }
}
