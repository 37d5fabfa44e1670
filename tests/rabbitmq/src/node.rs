//! A node and what can be done to it.

use std::fmt;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

use crate::builder::{Builder, Plan, node_name};
use crate::error::Error;
use crate::management::Management;
use crate::ports::Ports;
use crate::run::Run;
use crate::vhost::Vhost;
use crate::wait::wait_until;

/// Name and password of the administrator that every node has.
pub const GUEST: &str = "guest";

/// A queue that is asked for its length answers within microseconds, but a broker under load may be slow.
const EVAL_LIMIT: Duration = Duration::from_secs(10);
/// A table that is closed meanwhile, with the virtual host that it belongs to, needs none of it. It is listed a moment longer
/// than it answers; one that is still there after a second is an error.
const SYNC_TABLES: &str = "begin
    Sync = fun Again(Table, Left) ->
        case catch dets:sync(Table) of
            ok -> ok;
            Failed -> case lists:member(Table, dets:all()) of
                false -> closed;
                true when Left > 0 -> timer:sleep(10), Again(Table, Left - 1);
                true -> error({Table, Failed})
            end
        end
    end,
    [Sync(Table, 100) || Table <- dets:all()]
end";
/// Stopping waits for queues to write what they hold.
const STOP_LIMIT: Duration = Duration::from_secs(60);
const ALARM_LIMIT: Duration = Duration::from_secs(10);

/// A private RabbitMQ node. It is killed, and its folder removed, when this is dropped.
///
/// It may be used from several threads. What starts and ends the broker's process goes one at a time.
pub struct Node {
    pub(crate) inner: Arc<Inner>,
}

impl Node {
    /// Starts a node with the default settings: [`Node::builder`]`().start()`.
    ///
    /// # Errors
    ///
    /// Those of [`Builder::start`].
    pub fn start() -> Result<Self, Error> {
        Self::builder().start()
    }

    /// Settings of a node to be started.
    pub fn builder() -> Builder {
        Builder::new()
    }

    pub(crate) fn launch(plan: Plan) -> Result<Self, Error> {
        let run = Run::start(&plan)?;
        let management = Management::new(plan.ports.management());
        let inner = Inner {
            version: run.version().to_owned(),
            run: Mutex::new(Some(run)),
            lifecycle: Mutex::new(()),
            management,
            vhosts: AtomicU32::new(0),
            plan,
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// A virtual host with a name of its own, full permissions for `guest`, and nothing in it. It is deleted when the
    /// handle is dropped.
    ///
    /// # Errors
    ///
    /// [`Error::Management`] when the broker cannot be reached.
    pub fn new_vhost(&self) -> Result<Vhost, Error> {
        let number = self.inner.vhosts.fetch_add(1, Ordering::Relaxed) + 1;
        Vhost::create(Arc::clone(&self.inner), format!("test-{number}"), true)
    }

    /// The virtual host of this name, created with full permissions for `guest` if there is none. It is left in place
    /// when the handle is dropped. `/` is the one that a broker starts with.
    ///
    /// # Errors
    ///
    /// [`Error::Management`] when the broker cannot be reached.
    pub fn vhost(&self, name: &str) -> Result<Vhost, Error> {
        Vhost::create(Arc::clone(&self.inner), name.to_owned(), false)
    }

    /// Where it listens for STOMP.
    pub fn stomp_addr(&self) -> SocketAddr {
        self.inner.plan.ports.stomp()
    }

    /// Where it listens for STOMP over TLS, if built with [`Builder::tls`].
    pub fn stomp_tls_addr(&self) -> SocketAddr {
        self.inner.plan.ports.stomp_tls()
    }

    /// Where it listens for STOMP over WebSocket, if built with [`Builder::web_stomp`].
    pub fn web_stomp_addr(&self) -> SocketAddr {
        self.inner.plan.ports.web_stomp()
    }

    /// Where it listens for AMQP 0.9.1.
    pub fn amqp_addr(&self) -> SocketAddr {
        self.inner.plan.ports.amqp()
    }

    /// The management pages and API, for example `http://127.0.0.1:20003`. Log in as `guest`. The pages show no rates
    /// and statistics unless the node was built with `config("management_agent.disable_metrics_collector = false")`.
    pub fn management_url(&self) -> String {
        format!("http://{}", self.inner.plan.ports.management())
    }

    /// The name of its Erlang node, as in the log.
    pub fn name(&self) -> String {
        node_name(&self.inner.plan.ports)
    }

    /// The version of RabbitMQ, for example `3.10.8`.
    pub fn version(&self) -> &str {
        &self.inner.version
    }

    /// The process of the broker, an Erlang VM, for measuring its CPU time; `None` while it is down.
    pub fn pid(&self) -> Option<u32> {
        self.inner.run.lock().as_ref().map(Run::broker_pid)
    }

    /// Every process that belongs to the running node: broker, its helpers, epmd, watchdog. Empty while it is down.
    /// The helpers are found on Linux only.
    pub fn processes(&self) -> Vec<u32> {
        self.inner.run.lock().as_ref().map(Run::processes).unwrap_or_default()
    }

    /// The node's folder: configuration, data, and `rabbit.log`.
    pub fn folder(&self) -> &Path {
        self.inner.plan.folder()
    }

    /// Kills the broker with SIGKILL, and what belongs to it, and returns when all of it is gone. Ports, folder and
    /// data stay for [`Node::start_again`]. Does nothing when the node is down.
    ///
    /// # Errors
    ///
    /// [`Error::Timeout`] when a process outlives SIGKILL.
    pub fn kill(&self) -> Result<(), Error> {
        self.inner.kill()
    }

    /// Stops the broker in good order and returns when it is gone. Does nothing when the node is down.
    ///
    /// # Errors
    ///
    /// [`Error::Timeout`] when it takes longer than a minute; the broker is killed then.
    pub fn stop(&self) -> Result<(), Error> {
        self.inner.stop()
    }

    /// Starts the broker after [`Node::kill`] or [`Node::stop`], with the same ports, data and settings. When this
    /// returns its listeners accept connections and durable queues are back.
    ///
    /// # Errors
    ///
    /// [`Error::Running`] when it is not down; otherwise those of [`Builder::start`].
    pub fn start_again(&self) -> Result<(), Error> {
        self.inner.start_again()
    }

    /// [`Node::stop`], then [`Node::start_again`].
    ///
    /// # Errors
    ///
    /// Those of the two.
    pub fn restart(&self) -> Result<(), Error> {
        self.inner.stop()?;
        self.inner.start_again()
    }

    /// Stops RabbitMQ but leaves its process running, as `rabbitmqctl stop_app` does: every listener closes, the
    /// management API included.
    ///
    /// # Errors
    ///
    /// [`Error::NotRunning`], or [`Error::Eval`] when it takes longer than a minute.
    pub fn stop_app(&self) -> Result<(), Error> {
        self.inner.eval_within(&format!("{FORGET_STATISTICS}, rabbit:stop()"), STOP_LIMIT).map(drop)
    }

    /// Starts RabbitMQ after [`Node::stop_app`]. When this returns its listeners accept connections.
    ///
    /// # Errors
    ///
    /// [`Error::NotRunning`], or [`Error::Eval`] when it does not start.
    pub fn start_app(&self) -> Result<(), Error> {
        let started = "ok = rabbit:start(), ready = rabbit_boot_state:get()";
        self.inner.eval_within(started, self.inner.plan.start_limit).map(drop)
    }

    /// Raises or clears the memory alarm by moving the limit to zero or back to what is configured. On return the
    /// broker has told its connections, which then stop reading from publishers, or read again.
    ///
    /// # Errors
    ///
    /// [`Error::NotRunning`], or [`Error::Timeout`] when the broker does not follow.
    pub fn set_memory_alarm(&self, on: bool) -> Result<(), Error> {
        self.inner.set_alarm(&MEMORY, on)
    }

    /// Raises or clears the disk alarm by moving the limit beyond every disk or back to what is configured. On return
    /// the broker has told its connections, which then stop reading from publishers, or read again.
    ///
    /// # Errors
    ///
    /// [`Error::NotRunning`], or [`Error::Timeout`] when the broker does not follow.
    pub fn set_disk_alarm(&self, on: bool) -> Result<(), Error> {
        self.inner.set_alarm(&DISK, on)
    }

    /// Evaluates an Erlang expression inside the broker, as `rabbitmqctl eval` does but within a millisecond, and
    /// returns the term as text. Leave out the final full stop. The limit is 10 s.
    ///
    /// # Errors
    ///
    /// [`Error::Eval`] with the term that was raised, [`Error::NotRunning`] when the broker is down.
    pub fn eval(&self, expression: &str) -> Result<String, Error> {
        self.inner.eval(expression)
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // Virtual hosts that outlive the node share `inner`, so its own end would come too late.
        self.inner.kill().ok();
    }
}

impl fmt::Debug for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Node")
            .field("version", &self.inner.version)
            .field("stomp", &self.stomp_addr())
            .field("folder", &self.folder())
            .field("pid", &self.pid())
            .finish()
    }
}

/// What a [`Node`] and its virtual hosts share. The order of the fields is the order of their end: the processes go
/// before the folder.
#[derive(Debug)]
pub(crate) struct Inner {
    run: Mutex<Option<Run>>,
    /// Held while the broker's process is started or ended, which takes seconds; `run` is held for moments only.
    lifecycle: Mutex<()>,
    pub(crate) management: Management,
    version: String,
    vhosts: AtomicU32,
    plan: Plan,
}

impl Inner {
    pub(crate) fn eval(&self, expression: &str) -> Result<String, Error> {
        self.eval_within(expression, EVAL_LIMIT)
    }

    pub(crate) fn is_running(&self) -> bool {
        self.run.lock().is_some()
    }

    pub(crate) fn ports(&self) -> &Ports {
        &self.plan.ports
    }

    /// Writes to the disk what was declared: the log of Mnesia, and, with `members`, where the members of quorum queues and
    /// of streams are.
    pub(crate) fn flush(&self, members: bool) -> Result<(), Error> {
        // Without Mnesia (RabbitMQ 4 on Khepri) there is no such log, and no such delay.
        self.eval("catch mnesia:sync_log()")?;
        if members {
            self.eval(SYNC_TABLES)?;
        }
        Ok(())
    }

    fn eval_within(&self, expression: &str, limit: Duration) -> Result<String, Error> {
        let control = self.run.lock().as_ref().ok_or(Error::NotRunning)?.control()?;
        control.eval(expression, limit)
    }

    fn kill(&self) -> Result<(), Error> {
        let _one_at_a_time = self.lifecycle.lock();
        let run = self.run.lock().take();
        run.map_or(Ok(()), |mut run| run.kill())
    }

    fn stop(&self) -> Result<(), Error> {
        let _one_at_a_time = self.lifecycle.lock();
        if !self.is_running() {
            return Ok(());
        }
        // In a process of its own: the answer must be out before the VM goes. Once RabbitMQ has stopped nothing is
        // left to write, so the second that an orderly end of the VM takes is saved.
        self.eval(&format!("spawn(fun() -> {FORGET_STATISTICS}, rabbit:stop(), erlang:halt(0) end)"))?;
        let Some(mut run) = self.run.lock().take() else { return Ok(()) };
        let ended = run.wait_for_end(STOP_LIMIT);
        ended.and(run.kill())
    }

    fn start_again(&self) -> Result<(), Error> {
        let _one_at_a_time = self.lifecycle.lock();
        if self.is_running() {
            return Err(Error::Running);
        }
        let run = Run::start(&self.plan)?;
        *self.run.lock() = Some(run);
        Ok(())
    }

    fn set_alarm(&self, alarm: &Alarm, on: bool) -> Result<(), Error> {
        self.eval(if on { alarm.raise } else { alarm.clear })?;
        let is_on = format!(
            "lists:any(fun({{{{resource_limit, {}, _}}, _}}) -> true; (_) -> false end, rabbit_alarm:get_alarms())",
            alarm.resource
        );
        wait_until(
            || format!("the {} alarm is {}", alarm.resource, if on { "on" } else { "off" }),
            ALARM_LIMIT,
            || match self.eval(&is_on) {
                Ok(answer) if answer == on.to_string() => Ok(()),
                Ok(answer) => Err(format!("on = {answer}")),
                Err(error) => Err(error.to_string()),
            },
        )
    }
}

/// The management plugin of 3.10 turns the statistics off as it ends, in a way that makes every stop hang for 5 s.
/// Done before the stop it takes a millisecond. The plugin sets itself up again when it starts.
const FORGET_STATISTICS: &str = "(catch gen_event:delete_handler(rabbit_event, rabbit_mgmt_db_handler, []))";

/// How an alarm is raised and cleared: the same calls that `rabbitmqctl set_vm_memory_high_watermark` and
/// `set_disk_free_limit` make. The application's environment keeps what was configured.
struct Alarm {
    resource: &'static str,
    raise: &'static str,
    clear: &'static str,
}

const MEMORY: Alarm = Alarm {
    resource: "memory",
    raise: "vm_memory_monitor:set_vm_memory_high_watermark(0.0)",
    clear: "{ok, Limit} = application:get_env(rabbit, vm_memory_high_watermark), \
            vm_memory_monitor:set_vm_memory_high_watermark(Limit)",
};

const DISK: Alarm = Alarm {
    resource: "disk",
    raise: "rabbit_disk_monitor:set_disk_free_limit(1 bsl 62)",
    clear: "{ok, Limit} = application:get_env(rabbit, disk_free_limit), \
            rabbit_disk_monitor:set_disk_free_limit(Limit)",
};
