//! The second model's agent: takes chunks of lines from Redis, joins each into a message and publishes it over AMQP with
//! confirms, several at a time. What is not confirmed is kept and published again over the next connection; what a killed
//! agent held is lost, as LPOP has removed it.

use std::{
    collections::VecDeque, convert::Infallible, io::Write as _, net::Ipv4Addr, sync::Arc, time::Duration,
};

use bytes::{Bytes, BytesMut};
use lapin::{
    BasicProperties, Channel, Confirmation, Connection, ConnectionProperties, PublisherConfirm,
    options::{BasicPublishOptions, ConfirmSelectOptions},
};
use tokio::{
    net::TcpListener,
    time::{sleep, timeout},
};

use super::{
    args::AgentArgs,
    counts::{Counts, tell},
    redis::Redis,
};
use crate::Error;

/// How long an empty list is left alone: beacon-edge's linger.
const POLL: Duration = Duration::from_millis(5);

/// Before connecting again.
const PAUSE: Duration = Duration::from_millis(200);

/// To a connection, and to a confirm.
const LIMIT: Duration = Duration::from_secs(30);

/// Lines that belong together in a message.
#[derive(Debug, Clone)]
struct Chunk {
    body: Bytes,
    lines: u64,
}

/// Runs for good.
pub(super) fn run(args: &AgentArgs) -> Result<(), Error> {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Error::io("runtime"))?;
    runtime.block_on(async {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
            .await
            .map_err(Error::io("listener for the counts"))?;
        let address = listener.local_addr().map_err(Error::io("listener for the counts"))?;
        let counts = Arc::new(Counts::default());
        tokio::spawn(tell(listener, counts.clone()));
        println!("listening counts={address}");
        std::io::stdout().flush().map_err(Error::io("standard output"))?;
        let mut agent = Agent { args, counts: &counts, kept: VecDeque::new(), last_complaint: String::new() };
        loop {
            let Err(error) = agent.session().await;
            agent.complain_once(error.to_string());
            sleep(PAUSE).await;
        }
    })
}

type Failure = Box<dyn std::error::Error>;

struct Agent<'a> {
    args: &'a AgentArgs,
    counts: &'a Counts,
    /// Chunks that a lost connection has left without a confirm, and those of this one: at most `in_flight`.
    kept: VecDeque<Chunk>,
    last_complaint: String,
}

impl Agent<'_> {
    /// Publishes what was kept, then chunk after chunk, until something fails.
    async fn session(&mut self) -> Result<Infallible, Failure> {
        let connection =
            timeout(LIMIT, Connection::connect(&self.args.amqp, ConnectionProperties::default())).await??;
        let channel = timeout(LIMIT, connection.create_channel()).await??;
        timeout(LIMIT, channel.confirm_select(ConfirmSelectOptions::default())).await??;
        let mut redis = Redis::connect(self.args.redis).await?;
        // One for each of `kept`, in the same order.
        let mut confirms = VecDeque::new();
        for chunk in &self.kept {
            confirms.push_back(publish(&channel, &self.args.queue, chunk).await?);
        }
        loop {
            let chunk = match self.kept.len() < self.args.in_flight.max(1) {
                true => join(timeout(LIMIT, redis.pop(&self.args.key, self.args.chunk.max(1))).await??),
                false => None,
            };
            if let Some(chunk) = chunk {
                self.counts.accept(chunk.lines);
                // Kept before it is published: whatever happens, it is published again.
                self.kept.push_back(chunk.clone());
                confirms.push_back(publish(&channel, &self.args.queue, &chunk).await?);
            } else if let Some(oldest) = confirms.pop_front() {
                self.confirmed(oldest).await?;
            } else {
                sleep(POLL).await;
            }
        }
    }

    /// Waits for the confirm of the oldest chunk and lets go of it.
    async fn confirmed(&mut self, confirm: PublisherConfirm) -> Result<(), Failure> {
        match timeout(LIMIT, confirm).await?? {
            Confirmation::Ack(_) => {}
            other => return Err(format!("not confirmed: {other:?}").into()),
        }
        if let Some(chunk) = self.kept.pop_front() {
            self.counts.confirm(chunk.lines);
        }
        Ok(())
    }

    /// Says what is wrong when it changes.
    fn complain_once(&mut self, text: String) {
        if text != self.last_complaint {
            eprintln!("agent: {text}; trying again");
            self.last_complaint = text;
        }
    }
}

async fn publish(channel: &Channel, queue: &str, chunk: &Chunk) -> Result<PublisherConfirm, Failure> {
    let properties = BasicProperties::default().with_delivery_mode(2);
    let options = BasicPublishOptions::default();
    let sent = channel.basic_publish("".into(), queue.into(), options, &chunk.body, properties);
    Ok(timeout(LIMIT, sent).await??)
}

fn join(lines: Vec<Bytes>) -> Option<Chunk> {
    let count = lines.len() as u64;
    let mut body = BytesMut::with_capacity(lines.iter().map(Bytes::len).sum());
    lines.iter().for_each(|line| body.extend_from_slice(line));
    (count > 0).then(|| Chunk { body: body.freeze(), lines: count })
}
