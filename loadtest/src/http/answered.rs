//! The file of answered sequence numbers (`--answered`): one a line, in no order.
//!
//! The threads that make the load hand over blocks of lines to a thread that writes, so that a slow disk is not measured
//! as a slow server; when the disk stays behind by 64 blocks, they wait for it.

use std::{
    fs::File,
    io::Write,
    path::{Path, PathBuf},
    sync::mpsc::{Receiver, SyncSender, sync_channel},
    thread::{self, JoinHandle},
};

use crate::Error;

/// Octets of lines handed over together, about 10,000 numbers.
const BLOCK: usize = 64 * 1024;

/// Blocks that may wait for the disk.
const BACKLOG: usize = 64;

/// The open file.
#[derive(Debug)]
pub struct AnsweredLog {
    path: PathBuf,
    blocks: SyncSender<Vec<u8>>,
    writer: JoinHandle<std::io::Result<()>>,
}

impl AnsweredLog {
    /// Creates the file, or empties it.
    ///
    /// # Errors
    /// [`Error::Output`] when it cannot be created.
    pub fn create(path: &Path) -> Result<Self, Error> {
        let file = File::create(path).map_err(|source| Error::Output { path: path.to_owned(), source })?;
        let (blocks, queue) = sync_channel(BACKLOG);
        let writer = thread::Builder::new()
            .name("answered".to_owned())
            .spawn(move || write_blocks(file, &queue))
            .map_err(Error::io("thread for the answered numbers"))?;
        Ok(Self { path: path.to_owned(), blocks, writer })
    }

    /// A buffer for one thread.
    pub fn buffer(&self) -> AnsweredBuffer {
        AnsweredBuffer { lines: Vec::with_capacity(BLOCK), blocks: self.blocks.clone() }
    }

    /// Waits until everything is written. All buffers have to be gone by then.
    ///
    /// # Errors
    /// [`Error::Output`] when writing failed at any time.
    pub fn finish(self) -> Result<(), Error> {
        drop(self.blocks);
        let written =
            self.writer.join().unwrap_or_else(|_| Err(std::io::Error::other("the writing thread panicked")));
        written.map_err(|source| Error::Output { path: self.path, source })
    }
}

/// Collects the numbers of one thread; what it holds is handed over when it is full and when it is dropped.
#[derive(Debug)]
pub struct AnsweredBuffer {
    lines: Vec<u8>,
    blocks: SyncSender<Vec<u8>>,
}

impl AnsweredBuffer {
    /// Notes an answered number.
    pub fn push(&mut self, seq: u64) {
        // 20 digits and a newline are the longest line.
        if self.lines.len() + 21 > BLOCK {
            self.hand_over();
        }
        // Writing to a Vec cannot fail.
        writeln!(self.lines, "{seq}").unwrap_or_default();
    }

    fn hand_over(&mut self) {
        let block = std::mem::replace(&mut self.lines, Vec::with_capacity(BLOCK));
        // The writer ends early only at a write error, which `finish` reports.
        self.blocks.send(block).unwrap_or_default();
    }
}

impl Drop for AnsweredBuffer {
    fn drop(&mut self) {
        if !self.lines.is_empty() {
            self.hand_over();
        }
    }
}

fn write_blocks(mut file: File, queue: &Receiver<Vec<u8>>) -> std::io::Result<()> {
    queue.iter().try_for_each(|block| file.write_all(&block))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_of_every_buffer_is_in_the_file_once() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("answered");
        let log = AnsweredLog::create(&path).unwrap();
        let buffers: Vec<AnsweredBuffer> = (0..3).map(|_| log.buffer()).collect();
        for (lane, mut buffer) in buffers.into_iter().enumerate() {
            (0..20_000).for_each(|n| buffer.push(lane as u64 * 20_000 + n));
        }
        log.finish().unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        let mut numbers: Vec<u64> = text.lines().map(|line| line.parse().unwrap()).collect();
        numbers.sort_unstable();
        assert_eq!(numbers, (0..60_000).collect::<Vec<_>>());
    }

    #[test]
    fn a_file_that_cannot_be_created_is_named() {
        let error = AnsweredLog::create(Path::new("/nonexistent/answered")).unwrap_err().to_string();
        assert!(error.starts_with("cannot write /nonexistent/answered: "), "{error}");
    }
}
