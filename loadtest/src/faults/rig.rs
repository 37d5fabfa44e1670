//! What many runs share: the program under judgement, a RabbitMQ of our own, and three of them where a node is to be lost.

use std::{
    cell::OnceCell,
    env,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use rabbitmq_node::{Cluster, Node, QueueKind, QueueOptions, Vhost};

use crate::{Error, faults::fault::Fault};

/// Nodes of the cluster: a quorum queue then lives on with two.
const CLUSTER: usize = 3;

/// A program, and brokers that are started when they are needed first.
#[derive(Debug)]
pub(crate) struct Rig {
    program: PathBuf,
    single: OnceCell<Brokers>,
    cluster: OnceCell<Brokers>,
}

/// One broker or several, with a virtual host of ours.
#[derive(Debug)]
pub(crate) struct Brokers {
    // Before the nodes, which it belongs to.
    vhost: Vhost,
    nodes: Nodes,
}

#[derive(Debug)]
enum Nodes {
    One(Node),
    Clustered(Box<Cluster>),
}

impl Rig {
    /// Nothing runs yet.
    pub(crate) fn new(program: &Path) -> Self {
        Self { program: program.to_owned(), single: OnceCell::new(), cluster: OnceCell::new() }
    }

    pub(crate) fn program(&self) -> &Path {
        &self.program
    }

    /// The brokers for runs of this kind.
    ///
    /// # Errors
    /// [`Error::Node`], with what is missing, when they cannot be started.
    pub(crate) fn brokers(&self, fault: Fault) -> Result<&Brokers, Error> {
        let cell = if fault == Fault::NodeLoss { &self.cluster } else { &self.single };
        match cell.get() {
            Some(brokers) => Ok(brokers),
            None => {
                let started = Brokers::start(fault == Fault::NodeLoss)?;
                Ok(cell.get_or_init(|| started))
            }
        }
    }
}

impl Brokers {
    fn start(clustered: bool) -> Result<Self, Error> {
        let nodes = if clustered {
            Nodes::Clustered(Box::new(Cluster::start(&Node::builder(), CLUSTER).map_err(Error::broker)?))
        } else {
            Nodes::One(Node::start().map_err(Error::broker)?)
        };
        let vhost = nodes.first().new_vhost().map_err(Error::broker)?;
        Ok(Self { vhost, nodes })
    }

    pub(crate) fn vhost(&self) -> &Vhost {
        &self.vhost
    }

    /// The only node, or the first of several.
    pub(crate) fn node(&self) -> &Node {
        self.nodes.first()
    }

    /// Where each node listens for STOMP.
    pub(crate) fn addresses(&self) -> Vec<SocketAddr> {
        match &self.nodes {
            Nodes::One(node) => vec![node.stomp_addr()],
            Nodes::Clustered(cluster) => cluster.nodes().iter().map(Node::stomp_addr).collect(),
        }
    }

    /// The URL by which an address of these brokers, or of a proxy to it, is reached.
    pub(crate) fn url(&self, address: SocketAddr) -> String {
        format!("stomp://guest:guest@{address}/{}", self.vhost.name())
    }

    /// Declares a queue: one that is replicated, if there is more than one node.
    ///
    /// # Errors
    /// [`Error::Node`].
    pub(crate) fn declare(&self, queue: &str) -> Result<(), Error> {
        let kind = if let Nodes::One(_) = self.nodes { QueueKind::Classic } else { QueueKind::Quorum };
        self.vhost.declare_queue(queue, &QueueOptions::of_kind(kind)).map_err(Error::broker)?;
        match &self.nodes {
            Nodes::One(_) => Ok(()),
            Nodes::Clustered(cluster) => cluster.flush().map_err(Error::broker),
        }
    }

    /// The cluster, and the node in it that leads `queue`.
    ///
    /// # Errors
    /// [`Error::Node`] when none does, [`Error::Argument`] when there is no cluster.
    pub(crate) fn leader(&self, queue: &str) -> Result<(&Cluster, &Node), Error> {
        match &self.nodes {
            Nodes::One(_) => Err(Error::Argument("a node can be lost only in a cluster".into())),
            Nodes::Clustered(cluster) => {
                let leader = cluster.leader(self.vhost.name(), queue).map_err(Error::broker)?;
                Ok((cluster, &cluster.nodes()[leader]))
            }
        }
    }
}

impl Nodes {
    fn first(&self) -> &Node {
        match self {
            Self::One(node) => node,
            Self::Clustered(cluster) => &cluster.nodes()[0],
        }
    }
}

/// The program given, or the `beacon-edge` beside this one.
///
/// # Errors
/// [`Error::Argument`] with how to build it, when there is none.
pub(crate) fn program(given: Option<&Path>) -> Result<PathBuf, Error> {
    let beside = || {
        let own = env::current_exe().ok()?;
        let folder = own.parent()?;
        // A test's program is one folder below.
        let folders = [Some(folder), folder.parent()];
        folders.into_iter().flatten().map(|folder| folder.join("beacon-edge")).find(|path| path.is_file())
    };
    match given {
        Some(path) if path.is_file() => Ok(path.to_owned()),
        Some(path) => Err(Error::Argument(format!("--edge {}: there is no such file", path.display()))),
        None => beside().ok_or_else(|| {
            Error::Argument(
                "there is no beacon-edge beside this program: build it the same way \
                 (cargo build --release -p beacon-edge) or say with --edge where it is"
                    .into(),
            )
        }),
    }
}
