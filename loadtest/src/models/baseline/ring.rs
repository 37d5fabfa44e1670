//! Lines to a publisher beside the request path. Between "window 1" and beacon-edge's own way each step is one argument
//! here: window, connections, whether the answer waits, lines in a message.

use std::{
    sync::{Arc, mpsc as std_mpsc},
    thread,
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use stompwire::{
    Headers,
    client::{BrokerUrl, Window},
    publisher::{Message, Outcome, Outcomes, Publisher, PublisherOptions},
};
use tokio::sync::{mpsc, oneshot};

use super::{args::ServerArgs, counts::Counts};
use crate::Error;

/// Lines that may wait, as on beacon-edge's ring.
const PLACES: usize = 262_144;

/// Octets of a message with several lines, as in beacon-edge.
const MOST_OCTETS: usize = 64 * 1024;

/// The longest pause before connecting again, as the edges of these measurements have it.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// The longest wait of a request for its receipt.
const RECEIPT: Duration = Duration::from_secs(5);

/// Where requests put their lines; a handle.
#[derive(Debug, Clone)]
pub(super) struct Ring {
    lines: mpsc::Sender<Item>,
    at_once: bool,
}

#[derive(Debug)]
struct Item {
    line: Bytes,
    /// Told when the line is confirmed.
    waits: Option<oneshot::Sender<()>>,
}

/// What a message carries back.
#[derive(Debug, Default)]
struct Token {
    lines: u64,
    waits: Vec<oneshot::Sender<()>>,
}

impl Ring {
    /// Starts the thread of the publisher.
    pub(super) fn start(args: &ServerArgs, url: BrokerUrl, counts: Arc<Counts>) -> Result<Self, Error> {
        let mut options = PublisherOptions::new(vec![url], &args.destination);
        options.connections = args.connections;
        options.connect.window = Window { frames: args.window, ..Window::default() };
        options.backoff.max = LONGEST_PAUSE;
        let (lines, items) = mpsc::channel(PLACES);
        let (pack, linger) = (args.pack, Duration::from_millis(args.linger_ms));
        let (report, started) = std_mpsc::sync_channel(1);
        thread::Builder::new()
            .name("publisher".to_owned())
            .spawn(move || {
                let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
                    Ok(runtime) => runtime,
                    Err(error) => return drop(report.send(Err(error.to_string()))),
                };
                runtime.block_on(async {
                    match Publisher::start(options) {
                        Ok((publisher, outcomes)) => {
                            drop(report.send(Ok(())));
                            tokio::spawn(count(outcomes, counts));
                            feed(items, &publisher, pack, linger).await;
                        }
                        Err(error) => drop(report.send(Err(error.to_string()))),
                    }
                });
            })
            .map_err(Error::io("thread of the publisher"))?;
        match started.recv() {
            Ok(Ok(())) => Ok(Self { lines, at_once: args.answer_at_once }),
            Ok(Err(text)) => Err(Error::Argument(text)),
            Err(_) => Err(Error::Argument("the publisher's thread has ended".to_owned())),
        }
    }

    /// Puts a line on the ring, and waits for its receipt unless it is answered at once. `false`: no room, or no receipt.
    pub(super) async fn put(&self, line: Bytes, counts: &Counts) -> bool {
        let (waits, receipt) = match self.at_once {
            true => (None, None),
            false => {
                let (sender, receiver) = oneshot::channel();
                (Some(sender), Some(receiver))
            }
        };
        if self.lines.try_send(Item { line, waits }).is_err() {
            return false;
        }
        counts.accept(1);
        match receipt {
            None => true,
            Some(receipt) => matches!(tokio::time::timeout(RECEIPT, receipt).await, Ok(Ok(()))),
        }
    }
}

async fn feed(mut items: mpsc::Receiver<Item>, publisher: &Publisher<Token>, pack: usize, linger: Duration) {
    let mut number = 0u64;
    // A line that did not fit into the last message.
    let mut left_over = None;
    loop {
        let first = match left_over.take() {
            Some(item) => item,
            None => match items.recv().await {
                Some(item) => item,
                None => return,
            },
        };
        let (body, token) = if pack > 1 {
            if items.len() < pack {
                tokio::time::sleep(linger).await;
            }
            collect(first, &mut items, pack, &mut left_over)
        } else {
            (first.line, Token { lines: 1, waits: first.waits.into_iter().collect() })
        };
        number += 1;
        let message = Message { id: format!("{number:x}"), headers: Headers::new(), body, token };
        if publisher.publish(message).await.is_err() {
            return;
        }
    }
}

/// Joins what waits behind `first`, up to the bounds of a message.
fn collect(
    first: Item,
    items: &mut mpsc::Receiver<Item>,
    pack: usize,
    left_over: &mut Option<Item>,
) -> (Bytes, Token) {
    let mut body = BytesMut::with_capacity(MOST_OCTETS);
    let mut token = Token::default();
    let mut add = |item: Item, body: &mut BytesMut| {
        body.extend_from_slice(&item.line);
        token.lines += 1;
        token.waits.extend(item.waits);
        token.lines
    };
    let mut lines = add(first, &mut body);
    while lines < pack as u64
        && let Ok(item) = items.try_recv()
    {
        if body.len() + item.line.len() > MOST_OCTETS {
            *left_over = Some(item);
            break;
        }
        lines = add(item, &mut body);
    }
    (body.freeze(), token)
}

async fn count(mut outcomes: Outcomes<Token>, counts: Arc<Counts>) {
    while let Some(outcome) = outcomes.recv().await {
        // Anything else comes only when the publisher is closed, which this one never is.
        if let Outcome::Confirmed { token, .. } = outcome {
            counts.confirm(token.lines);
            for waits in token.waits {
                // A request that has given up.
                waits.send(()).unwrap_or_default();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_bounded_in_lines_and_octets_and_nothing_is_left_out() {
        let (sender, mut items) = mpsc::channel(16);
        let item = |octets: usize| Item { line: vec![b'x'; octets].into(), waits: None };
        for octets in [1, 2, 3, 40_000, 30_000, 5] {
            sender.try_send(item(octets)).unwrap();
        }
        let mut left_over = None;
        let first = items.try_recv().unwrap();
        let (body, token) = collect(first, &mut items, 3, &mut left_over);
        assert_eq!((body.len(), token.lines, left_over.is_none()), (6, 3, true));
        let first = items.try_recv().unwrap();
        let (body, token) = collect(first, &mut items, 3, &mut left_over);
        assert_eq!((body.len(), token.lines), (40_000, 1));
        let (body, token) = collect(left_over.take().unwrap(), &mut items, 3, &mut left_over);
        assert_eq!((body.len(), token.lines), (30_005, 2));
    }
}
