//! Issues marked beacons over keep-alive connections at a steady rate, and notes in a book what each answer promised.

use std::{
    cell::RefCell,
    future::poll_fn,
    net::SocketAddr,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    task::Poll,
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use tokio::{
    runtime::{Builder, LocalOptions},
    task::JoinSet,
};

use crate::{
    Error,
    faults::{
        book::{Book, Shape},
        mark::{LEN, Mark},
        mode::Mode,
    },
    http::{
        connection::{Connection, ReadBuffer},
        fleet::FleetOptions,
        pacer::Pacer,
        worker::thread_died,
    },
};

/// The longest wait for an answer: longer than any route's `ack_timeout`.
const ANSWER_LIMIT: Duration = Duration::from_secs(15);
/// One in so many beacons is a POST.
const POST_EVERY: u32 = 4;

/// What is to be sent.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Order {
    pub(crate) address: SocketAddr,
    pub(crate) run: u32,
    pub(crate) shape: Shape,
    /// Beacons a second, over all connections.
    pub(crate) rate: f64,
    pub(crate) mode: Mode,
    /// Times count from here.
    pub(crate) origin: Instant,
}

/// Counts that others read while beacons are sent.
#[derive(Debug, Default)]
pub(crate) struct Live {
    pub(crate) sent: AtomicU64,
    pub(crate) promised: AtomicU64,
    stop: AtomicBool,
}

/// A thread that sends.
#[derive(Debug)]
pub(crate) struct Load {
    live: Arc<Live>,
    thread: Option<JoinHandle<Result<Book, Error>>>,
}

impl Load {
    /// Begins to send.
    ///
    /// # Errors
    /// When there is no thread or timer.
    pub(crate) fn start(order: Order) -> Result<Self, Error> {
        let live = Arc::new(Live::default());
        let theirs = Arc::clone(&live);
        let thread = thread::Builder::new()
            .name("load".into())
            .spawn(move || send_all(order, theirs))
            .map_err(Error::io("thread for the load"))?;
        Ok(Self { live, thread: Some(thread) })
    }

    pub(crate) fn live(&self) -> &Live {
        &self.live
    }

    /// Whether all has been sent, or the thread is gone.
    pub(crate) fn is_done(&self) -> bool {
        self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// What became of it, once it is done.
    ///
    /// # Errors
    /// When the thread failed.
    pub(crate) fn join(mut self) -> Result<Book, Error> {
        let ended = self.thread.take().map(JoinHandle::join);
        ended
            .unwrap_or_else(|| Ok(Err(thread_died("it was joined"))))
            .map_err(|_| thread_died("it panicked"))?
    }
}

impl Drop for Load {
    /// Sends nothing more.
    fn drop(&mut self) {
        self.live.stop.store(true, Relaxed);
    }
}

fn send_all(order: Order, live: Arc<Live>) -> Result<Book, Error> {
    let runtime = Builder::new_current_thread()
        .enable_all()
        .build_local(LocalOptions::default())
        .map_err(Error::io("runtime for the load"))?;
    runtime.block_on(async {
        let sender = Rc::new(Sender {
            order,
            live,
            pacer: Pacer::new(order.shape.connections as usize, order.origin)?,
            buffer: ReadBuffer::default(),
            book: RefCell::new(Book::new(order.shape)),
        });
        let mut connections = JoinSet::new();
        for number in 0..order.shape.connections {
            connections.spawn_local(Rc::clone(&sender).drive(number));
        }
        let all = async {
            while let Some(ended) = connections.join_next().await {
                ended.map_err(thread_died)?;
            }
            Ok::<(), Error>(())
        };
        tokio::select! {
            ended = all => ended?,
            () = sender.pacer.run() => {}
        }
        Ok(sender.book.replace(Book::new(Shape::of(0, 1))))
    })
}

#[derive(Debug)]
struct Sender {
    order: Order,
    live: Arc<Live>,
    pacer: Pacer,
    buffer: ReadBuffer,
    book: RefCell<Book>,
}

impl Sender {
    /// All beacons of one connection, each when it is due or as soon after that as it can.
    async fn drive(self: Rc<Self>, number: u32) {
        let Order { address, shape, rate, .. } = self.order;
        let options = FleetOptions {
            address,
            connections: 1,
            threads: 1,
            timeout: ANSWER_LIMIT,
            tls: None,
            churn: None,
            pin: false,
        };
        let mut connection = Connection::new(&options);
        for sequence in 0..shape.each {
            let place = u64::from(sequence) * u64::from(shape.connections) + u64::from(number);
            self.sleep_until(number as usize, (place as f64 * 1e9 / rate) as u64).await;
            while !connection.is_open() {
                if self.is_stopped() {
                    return;
                }
                tokio::time::sleep(connection.pause()).await;
                // What is wrong shows as a longer pause.
                drop(connection.open().await);
            }
            if self.is_stopped() {
                return;
            }
            self.exchange(&mut connection, Mark { run: self.order.run, connection: number, sequence }).await;
        }
    }

    async fn exchange(&self, connection: &mut Connection, mark: Mark) {
        let Some(place) = self.order.shape.place(mark) else { return };
        render(mark, &mut connection.request);
        self.book.borrow_mut().issue(place);
        self.live.sent.fetch_add(1, Relaxed);
        let answer = connection.exchange(&self.buffer, Instant::now() + ANSWER_LIMIT).await.outcome;
        let elapsed = self.order.origin.elapsed();
        self.pacer.wake_due(u64::try_from(elapsed.as_nanos()).unwrap_or(u64::MAX));
        match answer {
            Ok(answer) if self.order.mode.is_promise(&answer) => {
                let at_ms = u32::try_from(elapsed.as_millis()).unwrap_or(u32::MAX);
                self.book.borrow_mut().promise(place, at_ms);
                self.live.promised.fetch_add(1, Relaxed);
            }
            Ok(_) => self.book.borrow_mut().refuse(place),
            Err(_) => {}
        }
    }

    async fn sleep_until(&self, connection: usize, due: u64) {
        let mut asleep = false;
        poll_fn(|cx| {
            if self.order.origin.elapsed().as_nanos() >= u128::from(due) || self.is_stopped() {
                return Poll::Ready(());
            }
            if !std::mem::replace(&mut asleep, true) {
                self.pacer.wake_at(connection, due, cx.waker());
            }
            Poll::Pending
        })
        .await;
    }

    fn is_stopped(&self) -> bool {
        self.live.stop.load(Relaxed)
    }
}

/// A GET with the mark as its query, or a POST with it as its body.
fn render(mark: Mark, out: &mut Vec<u8>) {
    const FIELDS: &[u8] = b" HTTP/1.1\r\nHost: edge.example\r\nUser-Agent: Mozilla/5.0 (judge)\r\n";
    out.clear();
    if mark.sequence.is_multiple_of(POST_EVERY) {
        out.extend_from_slice(b"POST /b");
        out.extend_from_slice(FIELDS);
        out.extend_from_slice(format!("Content-Length: {LEN}\r\n\r\n").as_bytes());
        mark.write(out);
    } else {
        out.extend_from_slice(b"GET /b.gif?");
        mark.write(out);
        out.extend_from_slice(FIELDS);
        out.extend_from_slice(b"\r\n");
    }
}
