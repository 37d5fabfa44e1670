//! What many runs share: the program under judgement and a RabbitMQ of our own.

use std::{
    env,
    path::{Path, PathBuf},
};

use rabbitmq_node::{Node, Vhost};

use crate::Error;

/// A broker and a program.
#[derive(Debug)]
pub(crate) struct Rig {
    program: PathBuf,
    // Before its node, which it belongs to.
    vhost: Vhost,
    node: Node,
}

impl Rig {
    /// Starts RabbitMQ.
    ///
    /// # Errors
    /// [`Error::Broker`], with what is missing.
    pub(crate) fn start(program: &Path) -> Result<Self, Error> {
        let node = Node::start().map_err(Error::broker)?;
        let vhost = node.new_vhost().map_err(Error::broker)?;
        Ok(Self { program: program.to_owned(), vhost, node })
    }

    pub(crate) fn program(&self) -> &Path {
        &self.program
    }

    pub(crate) fn node(&self) -> &Node {
        &self.node
    }

    pub(crate) fn vhost(&self) -> &Vhost {
        &self.vhost
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
