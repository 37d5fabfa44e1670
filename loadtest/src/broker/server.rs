//! The broker that is measured: a private one of our own, or one that is there.

use std::time::Duration;

use rabbitmq_node::Node;
use tokio::{runtime, time::timeout};

use crate::{
    Error,
    broker::{
        driver::{Endpoints, Failure, declare, delete},
        setting::QueueKind,
    },
    cpu::Process,
};

/// How long the declaration of a queue, or its end, may take.
const QUEUE: Duration = Duration::from_secs(20);

/// A broker, and how it is reached.
#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) endpoints: Endpoints,
    /// Its process, for its CPU time.
    pub(crate) process: Option<Process>,
    /// What is known of it: names and values.
    pub(crate) facts: Vec<(String, String)>,
    /// Ended when this is dropped.
    node: Option<Node>,
}

impl Server {
    /// Starts a private RabbitMQ, with these lines in its `rabbitmq.conf`.
    pub(crate) fn private(config: &[String]) -> Result<Self, Error> {
        let failed = |error: rabbitmq_node::Error| Error::Broker(error.to_string());
        // Schedulers that spin while they wait would be counted as CPU per message.
        let builder = config.iter().fold(Node::builder(), rabbitmq_node::Builder::config);
        let node = builder.busy_wait(false).start().map_err(failed)?;
        let stomp = node.vhost("/").map_err(failed)?.stomp_url();
        let endpoints =
            Endpoints::loopback(&stomp, node.amqp_addr()).map_err(|failure| Error::Broker(failure.0))?;
        let process = node
            .pid()
            .and_then(|pid| i32::try_from(pid).ok())
            .map(|pid| Process::attach(Some("rabbitmq"), pid))
            .transpose()?;
        let erlang = node.eval("list_to_atom(erlang:system_info(otp_release))").map_err(failed)?;
        let schedulers = node.eval("erlang:system_info(schedulers_online)").map_err(failed)?;
        let settings = match config {
            [] => "the defaults".to_owned(),
            given => given.join(", "),
        };
        let facts = [
            ("Broker", format!("RabbitMQ {}, a private node on this machine's loopback", node.version())),
            (
                "Erlang",
                format!("OTP {}, {schedulers} schedulers, no busy waiting", erlang.trim_matches('\'')),
            ),
            ("Broker's settings", format!("{settings}; plugins rabbitmq_management, rabbitmq_stomp")),
        ];
        let facts = facts.map(|(name, value)| (name.to_owned(), value)).into();
        Ok(Self { endpoints, process, facts, node: Some(node) })
    }

    /// Uses brokers that are there.
    pub(crate) fn given(endpoints: Endpoints, process: Option<Process>) -> Self {
        let facts = vec![("Broker".to_owned(), endpoints.describe())];
        Self { endpoints, process, facts, node: None }
    }

    /// The broker's version, if it is ours.
    pub(crate) fn version(&self) -> Option<&str> {
        self.node.as_ref().map(Node::version)
    }

    /// Declares a queue for a round, where that can be done: over AMQP.
    pub(crate) fn declare(
        &self,
        queue: &str,
        kind: QueueKind,
        durable: bool,
        keep: Option<u64>,
    ) -> Result<(), Failure> {
        match &self.endpoints.amqp {
            Some(uri) => within(declare(uri, queue, kind, durable, keep)),
            None => Ok(()),
        }
    }

    /// Deletes it again.
    pub(crate) fn delete(&self, queue: &str) -> Result<(), Failure> {
        match &self.endpoints.amqp {
            Some(uri) => within(delete(uri, queue)),
            None => Ok(()),
        }
    }
}

fn within(what: impl Future<Output = Result<(), Failure>>) -> Result<(), Failure> {
    let runtime = runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure(format!("runtime: {error}")))?;
    let outcome = runtime.block_on(async { timeout(QUEUE, what).await });
    runtime.shutdown_timeout(Duration::from_secs(1));
    outcome.unwrap_or_else(|_| Err(Failure("the broker has not answered for 20 s".to_owned())))
}
