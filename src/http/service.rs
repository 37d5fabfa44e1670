//! One request: find its route, read its body if it has one, hand the beacon to the intake, answer; where the route
//! promises more than that the beacon was accepted, when that has come about.

use std::convert::Infallible;
use std::future::Future;
use std::mem;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use hyper::body::{Body as _, Incoming};
use hyper::header::{HeaderValue, REFERER, USER_AGENT};
use hyper::http::request::Parts;
use hyper::service::Service;
use hyper::{HeaderMap, Method, Request};
use tokio::time::{Instant, sleep};

use super::answer::{self, Answer};
use super::body::{self, BodyError};
use super::client_ip::client_ip;
use super::cors;
use super::server::Route;
use super::wire::Progress;
use super::worker::Worker;
use crate::beacon::Beacon;
use crate::intake::Verdict;
use crate::ticket::{Ack, Waiting};

/// `X-Beacon-Status` of an answer whose promise could not be kept.
const UNCONFIRMED: &str = "unconfirmed";

/// The service of one connection.
#[derive(Debug, Clone)]
pub(super) struct Front {
    worker: Rc<Worker>,
    progress: Rc<Progress>,
    peer: Rc<str>,
}

impl Front {
    /// `peer` is the address of the other end, formatted once for all its requests.
    pub(super) fn new(worker: Rc<Worker>, progress: Rc<Progress>, peer: Rc<str>) -> Self {
        Self { worker, progress, peer }
    }
}

impl Service<Request<Incoming>> for Front {
    type Response = Answer;
    type Error = Infallible;
    type Future = Answering;

    fn call(&self, request: Request<Incoming>) -> Answering {
        self.progress.begin();
        let (parts, body) = request.into_parts();
        let step = match self.course(&parts, &body) {
            Course::Refuse(answer) => Step::Now(Some(self.finish(self.refuse(answer, &body)))),
            Course::Take(index) => match self.take(index, parts, b"") {
                Taken::Answered(answer) => Step::Now(Some(self.finish(answer))),
                Taken::Waits(wait) => {
                    let front = self.clone();
                    Step::Later(Box::pin(async move { front.finish(front.wait(wait).await) }))
                }
            },
            Course::Read(index) => Step::Later(Box::pin(self.clone().read(index, parts, body))),
        };
        Answering { step, progress: Rc::clone(&self.progress) }
    }
}

/// The answer to one request: there at once, or when the body and what its route promises are.
pub(super) struct Answering {
    step: Step,
    progress: Rc<Progress>,
}

enum Step {
    Now(Option<Answer>),
    /// Its body is read, or what it promises is waited for. Both have their limits.
    Later(Pin<Box<dyn Future<Output = Answer>>>),
}

impl Future for Answering {
    type Output = Result<Answer, Infallible>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let answer = match &mut self.step {
            Step::Now(answer) => answer.take().expect("hyper does not poll a future that was ready"),
            Step::Later(answering) => ready!(answering.as_mut().poll(cx)),
        };
        self.progress.answer();
        Poll::Ready(Ok(answer))
    }
}

/// What became of a beacon at the intake.
enum Taken {
    /// All that its client is told is known.
    Answered(Answer),
    /// The route promises more.
    Waits(Wait),
}

/// What is kept of a request that waits.
struct Wait {
    waiting: Waiting,
    /// Its route.
    index: usize,
    /// Whether the client can use a 503.
    can_retry: bool,
    origin: Option<HeaderValue>,
}

/// What to do with a request, by its head.
enum Course {
    /// Answer; it is no beacon.
    Refuse(Answer),
    /// It is a beacon for this route.
    Take(usize),
    /// It is a beacon for this route once its body is there.
    Read(usize),
}

impl Front {
    fn course(&self, parts: &Parts, body: &Incoming) -> Course {
        let shared = &self.worker.shared;
        let found = shared.routes.iter().position(|route| route.path == parts.uri.path());
        let Some(index) = found else { return Course::Refuse(answer::no_such_path()) };
        match parts.method {
            Method::GET | Method::HEAD | Method::POST if body.is_end_stream() => Course::Take(index),
            Method::GET | Method::HEAD | Method::POST
                if body::announces_more(body, shared.max_body_bytes) =>
            {
                let answer = answer::body_too_long(shared.max_body_bytes);
                Course::Refuse(self.with_cors(&parts.headers, answer))
            }
            Method::GET | Method::HEAD | Method::POST => Course::Read(index),
            Method::OPTIONS => {
                let origin = shared.cors.origin(&parts.headers);
                Course::Refuse(answer::options(cors::preflight(&parts.headers, origin)))
            }
            _ => Course::Refuse(answer::no_such_method()),
        }
    }

    /// Reads the body, then answers. A body with `Transfer-Encoding` ends its connection: with a proxy in front that
    /// measures such a body differently, what follows could be another client's request.
    async fn read(self, index: usize, parts: Parts, body: Incoming) -> Answer {
        let shared = &self.worker.shared;
        let is_chunked = body::is_chunked(&body);
        let answer = match body::read(body, shared.max_body_bytes, shared.body_timeout).await {
            Ok(octets) => {
                self.worker.stats().body_octets.add(octets.len() as u64);
                let answer = match self.take(index, parts, &octets) {
                    Taken::Answered(answer) => answer,
                    Taken::Waits(wait) => {
                        // A waiting request keeps no body.
                        drop(octets);
                        self.wait(wait).await
                    }
                };
                if !is_chunked {
                    return self.finish(answer);
                }
                answer::closing(answer)
            }
            Err(problem) => {
                let answer = match problem {
                    BodyError::TooLong => answer::body_too_long(shared.max_body_bytes),
                    BodyError::Broken => answer::body_broken(),
                    BodyError::TooLate => {
                        self.worker.stats().timeouts.add(1);
                        answer::body_too_late()
                    }
                };
                self.with_cors(&parts.headers, answer)
            }
        };
        self.progress.leave_unread();
        self.finish(answer)
    }

    /// Hands the beacon to the intake and answers as it says, or as what comes of the beacon will.
    fn take(&self, index: usize, mut parts: Parts, body: &[u8]) -> Taken {
        let shared = &self.worker.shared;
        let Route { name, reply, rings, ack, .. } = &shared.routes[index];
        let proxied = shared.client_ip_header.as_ref().and_then(|name| client_ip(&parts.headers, name));
        let beacon = Beacon {
            route: name,
            method: parts.method.as_str(),
            path: parts.uri.path(),
            query: parts.uri.query(),
            ip: proxied.unwrap_or(&self.peer),
            ua: parts.headers.get(USER_AGENT).map(HeaderValue::as_bytes),
            referer: parts.headers.get(REFERER).map(HeaderValue::as_bytes),
            body,
        };
        let waiting = (*ack != Ack::Accepted).then(|| Waiting::new(*ack));
        let verdict = self.worker.intake.borrow_mut().take(&beacon, rings, waiting.as_ref());
        if verdict == Verdict::Rejected {
            return Taken::Answered(self.with_cors(&parts.headers, answer::no_room()));
        }
        let origin = shared.cors.origin(&parts.headers);
        if let Some(waiting) = waiting {
            let can_retry = parts.method == Method::POST;
            return Taken::Waits(Wait { waiting, index, can_retry, origin });
        }
        // The request's map becomes the answer's, and hyper makes the answer's the next request's: no allocation.
        let mut headers = mem::take(&mut parts.headers);
        headers.clear();
        let mut answer = answer::usual(*reply, headers);
        if let Some(origin) = origin {
            cors::allow(answer.headers_mut(), origin);
        }
        Taken::Answered(answer)
    }

    /// Waits for what the route promises: for as long as it may, and at shutdown for as long as there are connections.
    async fn wait(&self, wait: Wait) -> Answer {
        let Wait { waiting, index, can_retry, origin } = wait;
        let Route { reply, ack, ack_timeout, .. } = &self.worker.shared.routes[index];
        let began = Instant::now();
        let kept = tokio::select! {
            biased;
            kept = waiting => Some(kept),
            () = sleep(*ack_timeout) => None,
            () = self.worker.last_word() => None,
        };
        let acks = self.worker.shared.stats.acks(*ack);
        acks.count(kept, began.elapsed());
        let mut answer = match kept {
            Some(Ok(())) => answer::with_status(answer::usual(*reply, HeaderMap::new()), ack.as_str()),
            _ if can_retry => answer::with_status(answer::unconfirmed(), UNCONFIRMED),
            _ => answer::with_status(answer::usual(*reply, HeaderMap::new()), UNCONFIRMED),
        };
        if let Some(origin) = origin {
            cors::allow(answer.headers_mut(), origin);
        }
        answer
    }

    fn with_cors(&self, request: &HeaderMap, mut answer: Answer) -> Answer {
        if let Some(origin) = self.worker.shared.cors.origin(request) {
            cors::allow(answer.headers_mut(), origin);
        }
        answer
    }

    /// An answer that does not wait for the body: if there is one, the connection ends.
    fn refuse(&self, answer: Answer, body: &Incoming) -> Answer {
        if body.is_end_stream() {
            return answer;
        }
        self.progress.leave_unread();
        answer::closing(answer)
    }

    /// What all answers have in common.
    fn finish(&self, answer: Answer) -> Answer {
        self.worker.stats().response(answer.status());
        if self.worker.is_stopping() { answer::closing(answer) } else { answer }
    }
}
