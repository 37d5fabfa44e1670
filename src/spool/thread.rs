//! The thread of a spool.

use std::sync::Arc;

use crossbeam_channel::{Receiver, Sender};

use super::{
    Refused, SpoolOptions,
    shared::{Command, Shared},
};

pub(super) struct Worker {
    shared: Arc<Shared>,
    commands: Receiver<Command>,
}

impl Worker {
    pub(super) fn new(_options: SpoolOptions, shared: Arc<Shared>, commands: Receiver<Command>) -> Self {
        Self { shared, commands }
    }

    pub(super) fn run(self, opened: &Sender<()>) {
        drop(opened.send(()));
        while let Ok(command) = self.commands.recv() {
            match command {
                Command::Append { reply, .. } => drop(reply.send(Err(Refused::Failing))),
                Command::Read { reply, .. } => drop(reply.send(Err(Refused::Failing))),
                Command::Wake => {}
            }
            if self.shared.is_closing() {
                return;
            }
        }
    }
}
