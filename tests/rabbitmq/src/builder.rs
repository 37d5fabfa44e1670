//! How a node is to be started.

use std::fmt::{self, Write as _};
use std::fs::{self, Permissions};
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tempfile::TempDir;

use crate::error::Error;
use crate::install::Install;
use crate::node::Node;
use crate::ports::Ports;
use crate::run::PORT_TAKEN;

/// A node takes 2.5 to 6 s on an idle machine; programs that keep every core busy make it minutes.
const START_LIMIT: Duration = Duration::from_secs(240);
/// Attempts to find ports that nobody else takes between our look and the broker's bind.
const PORT_ATTEMPTS: u32 = 3;

/// Settings of a node that is to be started. Made by [`Node::builder`].
#[derive(Debug, Clone)]
#[must_use = "a builder does nothing until `start`"]
pub struct Builder {
    config: Vec<String>,
    plugins: Vec<String>,
    environment: Vec<(String, String)>,
    erl_args: Vec<String>,
    tls: Option<Tls>,
    web_stomp: bool,
    busy_wait: bool,
    start_limit: Duration,
    /// What nodes of one cluster share; each has its own otherwise.
    cookie: Option<String>,
}

/// What a node's TLS listeners show and demand, in PEM. The files lie in the node's folder and go with it.
#[derive(Clone)]
pub struct Tls {
    certificate: String,
    key: String,
    client_authority: Option<String>,
}

impl Tls {
    /// The certificate to show, with those that lead to its authority behind it, and its key.
    #[must_use]
    pub fn new(certificate: impl Into<String>, key: impl Into<String>) -> Self {
        Self { certificate: certificate.into(), key: key.into(), client_authority: None }
    }

    /// Admits only clients that show a certificate of this authority.
    #[must_use]
    pub fn require_client_certificate(mut self, authority: impl Into<String>) -> Self {
        self.client_authority = Some(authority.into());
        self
    }

    /// The key of `rabbitmq.conf`, the file, and what is in it.
    fn files(&self) -> impl Iterator<Item = (&'static str, &'static str, &str)> {
        [
            Some(("certfile", "certificate.pem", &*self.certificate)),
            Some(("keyfile", "key.pem", &*self.key)),
            self.client_authority.as_deref().map(|pem| ("cacertfile", "client-authority.pem", pem)),
        ]
        .into_iter()
        .flatten()
    }

    /// The lines of `rabbitmq.conf` under a prefix.
    fn config(&self, prefix: &str, folder: &Path) -> String {
        let mut text = String::new();
        for (key, file, _) in self.files() {
            // Writing to a String cannot fail.
            writeln!(text, "{prefix}.{key} = {}", folder.join(file).display()).ok();
        }
        if self.client_authority.is_some() {
            writeln!(text, "{prefix}.verify = verify_peer\n{prefix}.fail_if_no_peer_cert = true").ok();
        }
        text
    }
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls").finish_non_exhaustive()
    }
}

impl Builder {
    pub(crate) fn new() -> Self {
        Self {
            config: Vec::new(),
            plugins: ["rabbitmq_management", "rabbitmq_stomp"].map(String::from).into(),
            environment: Vec::new(),
            erl_args: Vec::new(),
            tls: None,
            web_stomp: false,
            busy_wait: true,
            start_limit: START_LIMIT,
            cookie: None,
        }
    }

    /// Lets the node into the cluster that has this secret and this registry of names.
    pub(crate) fn member(mut self, cookie: &str, epmd: SocketAddr) -> Self {
        self.cookie = Some(cookie.to_owned());
        self.env("ERL_EPMD_PORT", epmd.port().to_string())
    }

    /// Adds a line to `rabbitmq.conf`, for example `stomp.trailing_lf = false`. It wins over an earlier line with the
    /// same key and over the ones of this crate.
    pub fn config(mut self, line: impl Into<String>) -> Self {
        self.config.push(line.into());
        self
    }

    /// Raises the memory alarm when the broker uses more than this many octets. Default: 40 % of the machine's memory.
    pub fn memory_watermark(self, octets: u64) -> Self {
        self.config(format!("vm_memory_high_watermark.absolute = {octets}"))
    }

    /// Raises the disk alarm when fewer octets are free. Default: 50 MB.
    pub fn disk_free_limit(self, octets: u64) -> Self {
        self.config(format!("disk_free_limit.absolute = {octets}"))
    }

    /// Enables one more plugin, for example `rabbitmq_prometheus`. Its listeners are for the caller to configure.
    pub fn plugin(mut self, name: impl Into<String>) -> Self {
        self.plugins.push(name.into());
        self
    }

    /// Opens a listener for STOMP over TLS, and one for WebSocket over TLS with [`Builder::web_stomp`].
    pub fn tls(mut self, tls: Tls) -> Self {
        self.tls = Some(tls);
        self
    }

    /// Enables the plugin `rabbitmq_web_stomp`, STOMP over WebSocket on the path `/ws`, on a port of its own.
    pub fn web_stomp(mut self) -> Self {
        self.web_stomp = true;
        self.plugin("rabbitmq_web_stomp")
    }

    /// Sets an environment variable of the broker. Apart from `PATH` it inherits none of the test's.
    pub fn env(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.environment.push((name.into(), value.into()));
        self
    }

    /// Adds an argument of the Erlang VM, for example `+S 1:1`. Arguments are split at blanks.
    pub fn erl_args(mut self, arguments: impl Into<String>) -> Self {
        self.erl_args.push(arguments.into());
        self
    }

    /// Whether idle schedulers of the Erlang VM spin for some microseconds before they sleep. RabbitMQ's own default
    /// is no. Here it is yes, because it halves the time to start (2.5 s against 5.5 s on a virtual machine with two
    /// cores); say no where the broker's CPU time is measured.
    pub fn busy_wait(mut self, on: bool) -> Self {
        self.busy_wait = on;
        self
    }

    /// How long the start may take. Default: 240 s; 2 to 5 s are usual. The start
    /// hands some 10,000 file operations from thread to thread, and each waits its turn: beside programs that keep
    /// every core busy it takes minutes.
    pub fn start_limit(mut self, limit: Duration) -> Self {
        self.start_limit = limit;
        self
    }

    /// Starts the node. When this returns its listeners accept connections.
    ///
    /// # Errors
    ///
    /// [`Error::NotInstalled`] without RabbitMQ on the machine; [`Error::Start`] with the end of the node's log when
    /// the broker does not come up.
    pub fn start(self) -> Result<Node, Error> {
        let mut attempt = 1;
        loop {
            match Node::launch(Plan::new(&self, Ports::reserve()?)?) {
                Err(Error::Start { log, .. }) if attempt < PORT_ATTEMPTS && log.contains(PORT_TAKEN) => {
                    attempt += 1;
                }
                outcome => return outcome,
            }
        }
    }
}

/// Everything that stays the same over the runs of a node: its programs, ports, folder and environment.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) install: Install,
    pub(crate) ports: Ports,
    pub(crate) start_limit: Duration,
    /// What accepts connections once the node is up.
    pub(crate) listeners: Vec<SocketAddr>,
    folder: TempDir,
    environment: Vec<(String, String)>,
}

impl Plan {
    pub(crate) fn new(builder: &Builder, ports: Ports) -> Result<Self, Error> {
        let install = Install::find()?;
        let folder = tempfile::Builder::new()
            .prefix("rabbitmq-node-")
            .tempdir()
            .map_err(Error::io("create a temporary folder for the node"))?;
        let environment = environment(builder, &ports, folder.path());
        write_files(builder, &ports, folder.path())?;
        let listeners = listeners(builder, &ports);
        Ok(Self { install, ports, start_limit: builder.start_limit, listeners, folder, environment })
    }

    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// What the broker's scripts and the VM print.
    pub(crate) fn console_file(&self) -> PathBuf {
        self.folder().join("console.txt")
    }

    /// The broker's log.
    pub(crate) fn log_file(&self) -> PathBuf {
        self.folder().join(LOG)
    }

    /// The whole environment of the broker and of epmd.
    pub(crate) fn environment(&self) -> impl Iterator<Item = (&str, &str)> {
        self.environment.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }
}

const LOG: &str = "rabbit.log";
const HOME: &str = "home";
const CONFIG: &str = "rabbitmq.conf";
const ADVANCED_CONFIG: &str = "advanced.config";
const ENABLED_PLUGINS: &str = "enabled_plugins";

fn environment(builder: &Builder, ports: &Ports, folder: &Path) -> Vec<(String, String)> {
    let inside = |name: &str| folder.join(name).display().to_string();
    let busy_wait = if builder.busy_wait { "+sbwt very_short +sbwtdio very_short" } else { "" };
    let erl_args =
        format!("-kernel inet_dist_use_interface {{127,0,0,1}} {busy_wait} {}", builder.erl_args.join(" "));
    let fixed = [
        ("PATH", std::env::var("PATH").unwrap_or_else(|_| "/usr/local/bin:/usr/bin:/bin".into())),
        ("HOME", inside(HOME)),
        ("LC_ALL", "C.UTF-8".into()),
        ("ERL_CRASH_DUMP_SECONDS", "0".into()),
        ("ERL_EPMD_ADDRESS", "127.0.0.1".into()),
        ("ERL_EPMD_PORT", ports.epmd().port().to_string()),
        // The scripts then become the VM instead of staying its parent, and leave the standard input open.
        ("RABBITMQ_ALLOW_INPUT", "1".into()),
        ("RABBITMQ_NODENAME", node_name(ports)),
        ("RABBITMQ_DIST_PORT", ports.distribution().port().to_string()),
        ("RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS", erl_args),
        ("RABBITMQ_CONFIG_FILE", inside(CONFIG)),
        ("RABBITMQ_ADVANCED_CONFIG_FILE", inside(ADVANCED_CONFIG)),
        ("RABBITMQ_ENABLED_PLUGINS_FILE", inside(ENABLED_PLUGINS)),
        ("RABBITMQ_MNESIA_BASE", inside("data")),
        ("RABBITMQ_LOG_BASE", folder.display().to_string()),
        ("RABBITMQ_LOGS", inside(LOG)),
        ("RABBITMQ_PID_FILE", inside("pid")),
        // These do not exist: nothing of the machine's own broker may be read.
        ("RABBITMQ_CONF_ENV_FILE", inside("no-rabbitmq-env.conf")),
        ("RABBITMQ_CONFIG_FILES", inside("no-conf.d/*.conf")),
    ];
    fixed
        .map(|(name, value)| (name.to_owned(), value))
        .into_iter()
        .chain(builder.environment.clone())
        .collect()
}

/// The name of the Erlang node.
pub(crate) fn node_name(ports: &Ports) -> String {
    format!("rabbitmq-node-{}@localhost", ports.amqp().port())
}

fn write_files(builder: &Builder, ports: &Ports, folder: &Path) -> Result<(), Error> {
    let write = |name: &str, text: &str| {
        fs::write(folder.join(name), text).map_err(Error::io(format!("write the node's {name}")))
    };
    write(CONFIG, &config(builder, ports, folder))?;
    for (_, file, pem) in builder.tls.iter().flat_map(Tls::files) {
        write(file, pem)?;
    }
    write(ADVANCED_CONFIG, "[].\n")?;
    write(ENABLED_PLUGINS, &format!("[{}].\n", builder.plugins.join(",")))?;
    fs::create_dir(folder.join(HOME)).map_err(Error::io("create the node's home"))?;
    let cookie = format!("{HOME}/.erlang.cookie");
    write(&cookie, builder.cookie.as_ref().unwrap_or(&secret()))?;
    fs::set_permissions(folder.join(&cookie), Permissions::from_mode(0o400))
        .map_err(Error::io("protect the node's cookie"))
}

/// A cookie.
pub(crate) fn secret() -> String {
    std::iter::repeat_with(fastrand::alphanumeric).take(32).collect()
}

fn listeners(builder: &Builder, ports: &Ports) -> Vec<SocketAddr> {
    let (tls, web_stomp) = (builder.tls.is_some(), builder.web_stomp);
    [
        (ports.amqp(), true),
        (ports.stomp(), true),
        (ports.management(), true),
        (ports.stomp_tls(), tls),
        (ports.web_stomp(), web_stomp),
        (ports.web_stomp_tls(), tls && web_stomp),
    ]
    .into_iter()
    .filter_map(|(address, open)| open.then_some(address))
    .collect()
}

fn config(builder: &Builder, ports: &Ports, folder: &Path) -> String {
    let mut text = format!(
        "listeners.tcp.1 = {amqp}\n\
         stomp.listeners.tcp.1 = {stomp}\n\
         management.tcp.ip = {ip}\n\
         management.tcp.port = {port}\n\
         management.rates_mode = none\n\
         management_agent.disable_metrics_collector = true\n\
         log.console = false\n\
         log.file.level = info\n",
        amqp = ports.amqp(),
        stomp = ports.stomp(),
        ip = ports.management().ip(),
        port = ports.management().port(),
    );
    // Writing to a String cannot fail.
    if builder.web_stomp {
        writeln!(text, "web_stomp.tcp.listener = {}", ports.web_stomp()).ok();
    }
    if let Some(tls) = &builder.tls {
        writeln!(text, "stomp.listeners.ssl.1 = {}", ports.stomp_tls()).ok();
        text.push_str(&tls.config("ssl_options", folder));
        if builder.web_stomp {
            writeln!(text, "web_stomp.ssl.listener = {}", ports.web_stomp_tls()).ok();
            text.push_str(&tls.config("web_stomp.ssl", folder));
        }
    }
    for line in &builder.config {
        writeln!(text, "{line}").ok();
    }
    text
}
