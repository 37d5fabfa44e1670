//! A virtual host: where one test has its queues, exchanges and users.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};

use crate::control::erlang_binary;
use crate::error::Error;
use crate::management::percent_encoded;
use crate::node::{GUEST, Inner};
use crate::queue::{Message, QueueCounts, QueueKind, QueueOptions};
use crate::wait::wait_until;

/// Messages asked for in one request: their bodies come as base64 in one JSON document.
const MESSAGES_PER_REQUEST: usize = 500;

/// A virtual host of a [`Node`](crate::Node). One made by [`Node::new_vhost`](crate::Node::new_vhost) is deleted, with
/// all that is in it, when this is dropped.
///
/// A handle does not keep its node alive: once the node is dropped every function fails.
pub struct Vhost {
    node: Arc<Inner>,
    name: String,
    delete_on_drop: bool,
}

impl Vhost {
    pub(crate) fn create(node: Arc<Inner>, name: String, delete_on_drop: bool) -> Result<Self, Error> {
        node.management.put(&["vhosts", &name], &json!({}))?;
        let vhost = Self { node, name, delete_on_drop };
        vhost.set_permissions(GUEST, ".*", ".*", ".*")?;
        Ok(vhost)
    }

    /// Its name, not percent-encoded: the `host` header of STOMP.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// `stomp://guest:guest@127.0.0.1:PORT/VHOST`, with the virtual host percent-encoded.
    pub fn stomp_url(&self) -> String {
        self.stomp_url_as(GUEST, GUEST)
    }

    /// [`Vhost::stomp_url`] with another user, see [`Vhost::add_user`].
    pub fn stomp_url_as(&self, user: &str, password: &str) -> String {
        self.url("stomp", user, password, self.stomp_addr())
    }

    /// `stomp+ssl://guest:guest@127.0.0.1:PORT/VHOST`, if the node was built with [`Builder::tls`](crate::Builder::tls).
    pub fn stomp_tls_url(&self) -> String {
        self.url("stomp+ssl", GUEST, GUEST, self.node.ports().stomp_tls())
    }

    /// `ws://guest:guest@127.0.0.1:PORT/ws?vhost=VHOST`, if the node was built with
    /// [`Builder::web_stomp`](crate::Builder::web_stomp).
    pub fn web_stomp_url(&self) -> String {
        self.web_url("ws", self.node.ports().web_stomp())
    }

    /// `wss://guest:guest@127.0.0.1:PORT/ws?vhost=VHOST`, if the node was built with
    /// [`Builder::web_stomp`](crate::Builder::web_stomp) and [`Builder::tls`](crate::Builder::tls).
    pub fn web_stomp_tls_url(&self) -> String {
        self.web_url("wss", self.node.ports().web_stomp_tls())
    }

    /// `amqp://guest:guest@127.0.0.1:PORT/VHOST`, with the virtual host percent-encoded.
    pub fn amqp_url(&self) -> String {
        self.url("amqp", GUEST, GUEST, self.node.ports().amqp())
    }

    /// Where the node listens for STOMP.
    pub fn stomp_addr(&self) -> SocketAddr {
        self.node.ports().stomp()
    }

    /// The user of the URLs, an administrator with full permissions.
    pub fn user(&self) -> &str {
        GUEST
    }

    /// The password of [`Vhost::user`].
    pub fn password(&self) -> &str {
        GUEST
    }

    /// Declares a queue. One that exists must have the same options. When this returns, a durable queue survives
    /// [`Node::kill`](crate::Node::kill).
    ///
    /// The last is this crate's doing. RabbitMQ 3.10 answers before its tables have left the process: a classic queue has
    /// been seen to be gone after a kill right behind its declaration, and a quorum queue or stream whose registration
    /// (written half a second later) is missing never gets a leader again. Give a queue that was declared by other means
    /// a second before a kill.
    ///
    /// # Errors
    ///
    /// [`Error::Management`], with status 400 when the queue exists with other options.
    pub fn declare_queue(&self, queue: &str, options: &QueueOptions) -> Result<(), Error> {
        self.node.management.put(&["queues", &self.name, queue], &options.to_json())?;
        self.node.flush(options.kind != QueueKind::Classic)
    }

    /// Deletes a queue and what is in it.
    ///
    /// # Errors
    ///
    /// [`Error::Management`], with status 404 when there is none.
    pub fn delete_queue(&self, queue: &str) -> Result<(), Error> {
        self.node.management.delete(&["queues", &self.name, queue])
    }

    /// Drops the messages that are ready.
    ///
    /// # Errors
    ///
    /// [`Error::Management`], for a stream too.
    pub fn purge(&self, queue: &str) -> Result<(), Error> {
        self.node.management.delete(&["queues", &self.name, queue, "contents"])
    }

    /// The messages that a queue holds at this moment, ready and unacknowledged. See [`Vhost::queue_counts`].
    ///
    /// # Errors
    ///
    /// Those of [`Vhost::queue_counts`].
    pub fn queue_depth(&self, queue: &str) -> Result<u64, Error> {
        self.queue_counts(queue).map(|counts| counts.total())
    }

    /// The messages that a queue holds at this moment. The queue itself is asked, not the statistics, which lag
    /// behind by seconds: whatever was confirmed to a publisher before the call is counted.
    ///
    /// # Errors
    ///
    /// [`Error::NoQueue`]; [`Error::NotRunning`]; [`Error::Eval`] when the queue does not answer, as a quorum queue
    /// does while it has no leader.
    pub fn queue_counts(&self, queue: &str) -> Result<QueueCounts, Error> {
        let expression =
            COUNTS.replace("VHOST", &erlang_binary(&self.name)).replace("QUEUE", &erlang_binary(queue));
        let term = self.node.eval(&expression)?;
        if term == "not_found" {
            return Err(Error::NoQueue { vhost: self.name.clone(), queue: queue.to_owned() });
        }
        parse_counts(&term).ok_or(Error::Eval { expression, reason: format!("came to {term}") })
    }

    /// Waits until a queue holds exactly `depth` messages, ready and unacknowledged.
    ///
    /// # Errors
    ///
    /// [`Error::Timeout`] with the depth last seen.
    pub fn wait_for_depth(&self, queue: &str, depth: u64, limit: Duration) -> Result<(), Error> {
        wait_until(
            || format!("queue {queue} holds {depth} messages"),
            limit,
            || match self.queue_depth(queue) {
                Ok(seen) if seen == depth => Ok(()),
                Ok(seen) => Err(format!("{seen} messages")),
                Err(error) => Err(error.to_string()),
            },
        )
    }

    /// Takes up to `count` messages from the head of a queue. They are gone from it then. Fewer come back when the
    /// queue has fewer. Streams cannot be read this way.
    ///
    /// # Errors
    ///
    /// [`Error::Management`].
    pub fn get_messages(&self, queue: &str, count: usize) -> Result<Vec<Message>, Error> {
        let mut messages = Vec::new();
        while messages.len() < count {
            let wanted = MESSAGES_PER_REQUEST.min(count - messages.len());
            let ask = json!({ "count": wanted, "ackmode": "ack_requeue_false", "encoding": "base64" });
            let answer = self.node.management.post(&["queues", &self.name, queue, "get"], &ask)?;
            let page: Option<Vec<Message>> =
                answer.as_array().and_then(|page| page.iter().map(parse_message).collect());
            let page = page.ok_or_else(|| Error::Management {
                method: "POST",
                path: format!("/api/queues/{}/{}/get", percent_encoded(&self.name), percent_encoded(queue)),
                status: Some(200),
                reason: format!("not a list of messages: {answer}"),
            })?;
            if page.is_empty() {
                break;
            }
            messages.extend(page);
        }
        Ok(messages)
    }

    /// Publishes a message through the management API and says whether a queue took it. `properties` under their AMQP
    /// names, for example `{"delivery_mode": 2}`. For tests of queues; it is slow.
    ///
    /// # Errors
    ///
    /// [`Error::Management`], with status 404 when there is no such exchange. The default exchange is
    /// `amq.default`.
    pub fn publish(
        &self,
        exchange: &str,
        key: &str,
        payload: &[u8],
        properties: &Value,
    ) -> Result<bool, Error> {
        let message = json!({
            "properties": properties,
            "routing_key": key,
            "payload": STANDARD.encode(payload),
            "payload_encoding": "base64",
        });
        let answer = self.node.management.post(&["exchanges", &self.name, exchange, "publish"], &message)?;
        Ok(answer["routed"] == Value::Bool(true))
    }

    /// Declares a durable exchange of type `direct`, `fanout`, `topic` or `headers`.
    ///
    /// # Errors
    ///
    /// [`Error::Management`].
    pub fn declare_exchange(&self, exchange: &str, kind: &str) -> Result<(), Error> {
        let body = json!({ "type": kind, "durable": true, "auto_delete": false, "arguments": {} });
        self.node.management.put(&["exchanges", &self.name, exchange], &body)
    }

    /// Binds a queue to an exchange.
    ///
    /// # Errors
    ///
    /// [`Error::Management`], with status 404 when either is missing.
    pub fn bind(&self, exchange: &str, queue: &str, key: &str) -> Result<(), Error> {
        let body = json!({ "routing_key": key, "arguments": {} });
        self.node.management.post(&["bindings", &self.name, "e", exchange, "q", queue], &body).map(drop)
    }

    /// Sets a policy: `definition` (for example `{"overflow": "reject-publish", "max-length": 10}`) holds for the
    /// queues whose name matches the regular expression `pattern`.
    ///
    /// # Errors
    ///
    /// [`Error::Management`], with status 400 when the definition is not valid.
    pub fn set_policy(&self, policy: &str, pattern: &str, definition: &Value) -> Result<(), Error> {
        self.put_policy("queues", policy, pattern, definition)
    }

    /// [`Vhost::set_policy`] for exchanges, for example `{"alternate-exchange": "unrouted"}`.
    ///
    /// # Errors
    ///
    /// [`Error::Management`], with status 400 when the definition is not valid.
    pub fn set_exchange_policy(&self, policy: &str, pattern: &str, definition: &Value) -> Result<(), Error> {
        self.put_policy("exchanges", policy, pattern, definition)
    }

    fn put_policy(&self, to: &str, policy: &str, pattern: &str, definition: &Value) -> Result<(), Error> {
        let body = json!({ "pattern": pattern, "definition": definition, "apply-to": to, "priority": 1 });
        self.node.management.put(&["policies", &self.name, policy], &body)
    }

    /// Removes a policy.
    ///
    /// # Errors
    ///
    /// [`Error::Management`], with status 404 when there is none.
    pub fn delete_policy(&self, policy: &str) -> Result<(), Error> {
        self.node.management.delete(&["policies", &self.name, policy])
    }

    /// Makes a user without permissions, or changes its password. Users belong to the node, not to the virtual host.
    ///
    /// # Errors
    ///
    /// [`Error::Management`].
    pub fn add_user(&self, user: &str, password: &str) -> Result<(), Error> {
        self.node.management.put(&["users", user], &json!({ "password": password, "tags": "" }))
    }

    /// Sets what a user may configure, write and read in this virtual host: regular expressions on the names of
    /// queues and exchanges; an empty one allows nothing.
    ///
    /// # Errors
    ///
    /// [`Error::Management`], with status 400 when there is no such user.
    pub fn set_permissions(&self, user: &str, configure: &str, write: &str, read: &str) -> Result<(), Error> {
        let body = json!({ "configure": configure, "write": write, "read": read });
        self.node.management.put(&["permissions", &self.name, user], &body)
    }

    /// Closes every client connection of this virtual host from the broker's side and says how many there were.
    ///
    /// # Errors
    ///
    /// [`Error::NotRunning`], or [`Error::Eval`].
    pub fn close_all_connections(&self) -> Result<usize, Error> {
        let expression = CLOSE_ALL.replace("VHOST", &erlang_binary(&self.name));
        let term = self.node.eval(&expression)?;
        term.parse().map_err(|_| Error::Eval { expression, reason: format!("came to {term}") })
    }

    fn url(&self, scheme: &str, user: &str, password: &str, address: SocketAddr) -> String {
        let [user, password, vhost] = [user, password, &self.name].map(percent_encoded);
        format!("{scheme}://{user}:{password}@{address}/{vhost}")
    }

    fn web_url(&self, scheme: &str, address: SocketAddr) -> String {
        format!("{scheme}://{GUEST}:{GUEST}@{address}/ws?vhost={}", percent_encoded(&self.name))
    }
}

impl Drop for Vhost {
    fn drop(&mut self) {
        if self.delete_on_drop && self.node.is_running() {
            // The broker may be stopped just now, and the virtual host ends with the node anyway.
            self.node.management.delete(&["vhosts", &self.name]).ok();
        }
    }
}

impl fmt::Debug for Vhost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Vhost").field("name", &self.name).field("stomp", &self.stomp_addr()).finish()
    }
}

/// Comes to `{Ready, Unacknowledged}` or `not_found`. A classic queue answers from its own state. The general call
/// answers for the other types from a table that is refreshed every few seconds, so a quorum queue's state machine is
/// asked, and for a stream the counters of its writer.
const COUNTS: &str = "
    Name = rabbit_misc:r(VHOST, queue, QUEUE),
    case rabbit_amqqueue:lookup(Name) of
        {ok, Queue} ->
            case amqqueue:get_type(Queue) of
                rabbit_quorum_queue ->
                    Ask = fun(F) -> {ok, {_, N}, _} = ra:leader_query(amqqueue:get_pid(Queue), F), N end,
                    {Ask(fun rabbit_fifo:query_messages_ready/1), Ask(fun rabbit_fifo:query_messages_checked_out/1)};
                rabbit_stream_queue ->
                    #{offset := Last, first_offset := First} =
                        maps:get({osiris_writer, Name}, osiris_counters:overview()),
                    {Last + 1 - max(First, 0), 0};
                _ ->
                    [{_, R}, {_, U}] = rabbit_amqqueue:info(Queue, [messages_ready, messages_unacknowledged]),
                    {R, U}
            end;
        {error, not_found} -> not_found
    end";

/// Comes to the number of connections.
const CLOSE_ALL: &str = "
    Connections = rabbit_connection_tracking:list(VHOST),
    rabbit_connection_tracking:close_connections(Connections, \"closed by a test\", 0),
    length(Connections)";

fn parse_counts(term: &str) -> Option<QueueCounts> {
    let (ready, unacknowledged) = term.strip_prefix('{')?.strip_suffix('}')?.split_once(',')?;
    Some(QueueCounts { ready: ready.parse().ok()?, unacknowledged: unacknowledged.parse().ok()? })
}

fn parse_message(message: &Value) -> Option<Message> {
    let text = |name: &str| message[name].as_str().map(str::to_owned);
    Some(Message {
        payload: STANDARD.decode(message["payload"].as_str()?).ok()?,
        exchange: text("exchange")?,
        routing_key: text("routing_key")?,
        redelivered: message["redelivered"].as_bool()?,
        // A message without properties has an empty list here.
        properties: message["properties"].as_object().cloned().unwrap_or_else(Map::new),
    })
}
