//! Several nodes that are one broker.

use std::thread;
use std::time::Duration;

use crate::builder::{Builder, Plan, node_name, secret};
use crate::control::erlang_binary;
use crate::error::Error;
use crate::node::Node;
use crate::ports::Ports;
use crate::run::{PORT_TAKEN, Run};
use crate::wait::wait_until;

/// Attempts to find ports that nobody else takes between our look and the brokers' binds.
const ATTEMPTS: u32 = 3;
/// For nodes that run to see each other, and for a queue to elect a leader.
const SOON: Duration = Duration::from_secs(30);

/// Private RabbitMQ nodes on loopback that form a cluster. They are killed when this is dropped.
///
/// The nodes find each other through an epmd of the cluster's own, which outlives them. What is said of one [`Node`]
/// holds for each; one that was killed is let in again by [`Node::start_again`].
#[derive(Debug)]
pub struct Cluster {
    // The order of the fields is the order of their end: nodes, their registry, its folder.
    nodes: Vec<Node>,
    _registry: Run,
    _plan: Plan,
}

impl Cluster {
    /// Starts `size` nodes with these settings, and returns when each sees all the others. Three take some 10 s.
    ///
    /// # Errors
    ///
    /// Those of [`Builder::start`]; [`Error::Timeout`] when the nodes do not find each other.
    pub fn start(builder: &Builder, size: usize) -> Result<Self, Error> {
        let mut attempt = 1;
        loop {
            match Self::launch(builder, size) {
                Err(Error::Start { log, .. }) if attempt < ATTEMPTS && log.contains(PORT_TAKEN) => {
                    attempt += 1;
                }
                outcome => return outcome,
            }
        }
    }

    fn launch(builder: &Builder, size: usize) -> Result<Self, Error> {
        let plan = Plan::new(builder, Ports::reserve()?)?;
        let registry = Run::start_registry(&plan)?;
        let member = builder.clone().member(&secret(), plan.ports.epmd());
        // All at once they would wait for each other's locks, with pauses of seconds.
        let first = Node::launch(Plan::new(&member, Ports::reserve()?)?)?;
        let joining = member
            .config("cluster_formation.peer_discovery_backend = classic_config")
            .config(format!("cluster_formation.classic_config.nodes.1 = {}", first.name()));
        let others = thread::scope(|scope| {
            let starting: Vec<_> = (1..size).map(|_| scope.spawn(|| join(joining.clone()))).collect();
            let ended =
                |_| Error::Start { reason: "the thread that starts it panicked".into(), log: String::new() };
            starting.into_iter().map(|node| node.join().map_err(ended)?).collect::<Result<Vec<_>, _>>()
        })?;
        let nodes = [first].into_iter().chain(others).collect();
        let cluster = Self { nodes, _registry: registry, _plan: plan };
        cluster.wait_until_whole()?;
        Ok(cluster)
    }

    /// The nodes, those that are down included.
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// Waits until every node runs and sees that the others do.
    ///
    /// # Errors
    ///
    /// [`Error::Timeout`] with what each of them sees.
    pub fn wait_until_whole(&self) -> Result<(), Error> {
        wait_until(
            || format!("{} nodes see each other", self.nodes.len()),
            SOON,
            || {
                let seen: Vec<String> = self
                    .nodes
                    .iter()
                    .map(|node| node.eval(RUNNING).unwrap_or_else(|error| error.to_string()))
                    .collect();
                let all = self.nodes.len().to_string();
                if seen.iter().all(|seen| *seen == all) { Ok(()) } else { Err(seen.join(", ")) }
            },
        )
    }

    /// Which of [`Cluster::nodes`] has the leader of a quorum queue. Waits for one to be elected.
    ///
    /// # Errors
    ///
    /// [`Error::Timeout`]; [`Error::NotRunning`] when no node runs.
    pub fn leader(&self, vhost: &str, queue: &str) -> Result<usize, Error> {
        let expression =
            LEADER.replace("VHOST", &erlang_binary(vhost)).replace("QUEUE", &erlang_binary(queue));
        let mut leader = None;
        wait_until(
            || format!("queue {queue} has a leader"),
            SOON,
            || {
                let asked = self.nodes.iter().find(|node| node.pid().is_some()).ok_or(Error::NotRunning);
                let name =
                    asked.and_then(|node| node.eval(&expression)).map_err(|error| error.to_string())?;
                leader =
                    self.nodes.iter().position(|node| node.pid().is_some() && name == quoted(&node.name()));
                leader.map(drop).ok_or(name)
            },
        )?;
        leader.ok_or(Error::NotRunning)
    }

    /// Waits until what was declared is on the disk of every node that runs, so that it survives a kill. See
    /// [`Vhost::declare_queue`](crate::Vhost::declare_queue).
    ///
    /// # Errors
    ///
    /// [`Error::Eval`].
    pub fn flush(&self) -> Result<(), Error> {
        for node in self.nodes.iter().filter(|node| node.pid().is_some()) {
            node.inner.flush(true)?;
        }
        Ok(())
    }
}

/// Starts a node that finds the first one, and itself, in its configuration.
fn join(joining: Builder) -> Result<Node, Error> {
    let ports = Ports::reserve()?;
    let itself = format!("cluster_formation.classic_config.nodes.2 = {}", node_name(&ports));
    Node::launch(Plan::new(&joining.config(itself), ports)?)
}

/// How Erlang prints a node's name.
fn quoted(name: &str) -> String {
    format!("'{name}'")
}

/// Comes to the number of nodes on which RabbitMQ runs, as seen from this one.
const RUNNING: &str = "
    length(case erlang:function_exported(rabbit_nodes, list_running, 0) of
        true -> rabbit_nodes:list_running();
        false -> rabbit_nodes:all_running()
    end)";

/// Comes to the name of the node. Every member is asked: the queue's record may name a leader that is gone.
const LEADER: &str = "
    {ok, Queue} = rabbit_amqqueue:lookup(rabbit_misc:r(VHOST, queue, QUEUE)),
    {Member, _} = amqqueue:get_pid(Queue),
    {ok, _, {_, Leader}} = ra:members([{Member, Node} || Node <- [node() | nodes()]], 1000),
    Leader";
