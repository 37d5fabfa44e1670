//! The command line of beacon-edge.

use std::{
    io::{IsTerminal, Write as _},
    path::{Path, PathBuf},
    process::ExitCode,
    sync::mpsc,
    thread,
    time::Duration,
};

use beacon_edge::{
    Config, Edge,
    config::{Broker, LogConfig, LogFormat},
    edge::Report,
    spool::command::SpoolCommand,
};
use clap::{Parser, Subcommand};
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

/// Takes web beacons over HTTP, answers a 1x1 GIF or 204, and gets every beacon into RabbitMQ over STOMP, confirmed.
///
/// Without a configuration it serves on http://127.0.0.1:8080 with a broker inside the process: for a first look.
#[derive(Debug, Parser)]
#[command(name = "beacon-edge", version, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    serve: Serve,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the edge server (the default).
    Serve(Serve),
    /// Print the configuration in force as TOML, passwords hidden, and exit.
    Config(Serve),
    /// Look at the spool's files, or publish one that was left over.
    #[command(subcommand)]
    Spool(SpoolCommand),
}

#[derive(Debug, clap::Args)]
struct Serve {
    /// A TOML file; every key has a default. BEACON_EDGE__SECTION__KEY in the environment overrides it.
    #[arg(short, long, value_name = "FILE", global = true)]
    config: Option<PathBuf>,
}

/// The shutdown left beacons unconfirmed.
const EXIT_UNCONFIRMED: u8 = 3;
/// The configuration is wrong.
const EXIT_CONFIG: u8 = 2;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let (prints, arguments) = match cli.command {
        Some(Command::Config(arguments)) => (true, arguments),
        Some(Command::Serve(arguments)) => (false, arguments),
        Some(Command::Spool(command)) => return spool(&command),
        None => (false, cli.serve),
    };
    let config = match load(arguments.config.as_deref()) {
        Ok(config) => config,
        Err(status) => return status,
    };
    if prints {
        // A closed pipe is the reader's choice.
        drop(write!(std::io::stdout(), "{}", config.to_toml()));
        return ExitCode::SUCCESS;
    }
    if let Err(error) = start_log(&config.log) {
        eprintln!("beacon-edge: log.level: {error}");
        return ExitCode::from(EXIT_CONFIG);
    }
    serve(&config, arguments.config.as_deref())
}

fn load(file: Option<&Path>) -> Result<Config, ExitCode> {
    // What is not Unicode in one of our variables makes a value that is refused by name.
    let text = |os: std::ffi::OsString| os.to_string_lossy().into_owned();
    let environment = std::env::vars_os().map(|(name, value)| (text(name), text(value)));
    Config::load(file, environment).map_err(|error| {
        eprintln!("beacon-edge: {error}");
        ExitCode::from(EXIT_CONFIG)
    })
}

fn spool(command: &SpoolCommand) -> ExitCode {
    let config = match load(command.config_file()) {
        Ok(config) => config,
        Err(status) => return status,
    };
    if let Err(error) = start_log(&config.log) {
        eprintln!("beacon-edge: log.level: {error}");
        return ExitCode::from(EXIT_CONFIG);
    }
    command.run(&config)
}

fn serve(config: &Config, file: Option<&Path>) -> ExitCode {
    // Before anything runs, so that no signal is missed.
    let signals = match watch_signals() {
        Ok(signals) => signals,
        Err(error) => {
            eprintln!("beacon-edge: signals cannot be watched: {error}");
            return ExitCode::FAILURE;
        }
    };
    let edge = match Edge::start(config) {
        Ok(edge) => edge,
        Err(error) => {
            eprintln!("beacon-edge: {error}");
            return ExitCode::FAILURE;
        }
    };
    tracing::info!(
        http = %edge.http_addr(),
        admin = edge.admin_addr().map(tracing::field::display),
        config = file.map(|file| tracing::field::display(file.display())),
        "beacon-edge {} serves",
        env!("CARGO_PKG_VERSION")
    );
    if config.destinations.values().any(|destination| destination.brokers.contains(&Broker::Embedded)) {
        // A closed standard output must not end a server.
        drop(welcome(config, &edge));
    }
    let Ok(name) = signals.recv() else { return ExitCode::FAILURE };
    let deadline = config.shutdown.deadline;
    tracing::info!(
        signal = name,
        ?deadline,
        "shutting down: answering what is in flight, delivering what was accepted"
    );
    thread::Builder::new()
        .name("impatient".into())
        .spawn(move || {
            if signals.recv().is_ok() {
                eprintln!("beacon-edge: second signal: ending at once, unconfirmed beacons are lost");
                std::process::exit(i32::from(EXIT_UNCONFIRMED));
            }
        })
        .map_or_else(|error| tracing::warn!(%error, "a second signal will not be heard"), drop);
    tell(&edge.shutdown(deadline))
}

/// The one line about what was confirmed and what was not.
fn tell(report: &Report) -> ExitCode {
    let (took, cut) = (report.took, report.connections_cut);
    if report.is_clean() && report.in_spool() > 0 {
        let spooled = report.in_spool();
        tracing::info!(
            ?took,
            connections_cut = cut,
            spooled,
            "stopped, nothing was lost: {spooled} beacons are in the spool and will be sent by the next run; {report}"
        );
        ExitCode::SUCCESS
    } else if report.is_clean() {
        tracing::info!(?took, connections_cut = cut, "stopped, everything accepted was delivered; {report}");
        ExitCode::SUCCESS
    } else {
        tracing::error!(?took, connections_cut = cut, "stopped before everything was delivered; {report}");
        ExitCode::from(EXIT_UNCONFIRMED)
    }
}

/// For the newcomer: where to click.
fn welcome(config: &Config, edge: &Edge) -> std::io::Result<()> {
    let http = edge.http_addr();
    let mut out = std::io::stdout().lock();
    writeln!(out, "\nbeacon-edge runs with the broker inside the process: in memory, for a first look.\n")?;
    for (name, route) in &config.routes {
        writeln!(out, "  {name:<8} http://{http}{}", route.path)?;
    }
    if let Some(admin) = edge.admin_addr() {
        writeln!(out, "  {:<8} http://{admin}/   shows the beacons that the broker has confirmed", "status")?;
    }
    if let Some(route) = config.routes.values().find(|route| route.path.ends_with(".gif")) {
        writeln!(out, "  {:<8} curl -i 'http://{http}{}?event=hello'", "try", route.path)?;
    }
    if let Some(broker) = edge.embedded() {
        let queue = config.destinations.values().next().map_or("", |destination| &destination.destination);
        writeln!(out, "  {:<8} stomp://{}, destination {queue}", "broker", broker.local_addr())?;
    }
    writeln!(
        out,
        "\nFor RabbitMQ: BEACON_EDGE__DESTINATIONS__MAIN__BROKERS='[\"stomp://guest:guest@127.0.0.1:61613/\"]'\n"
    )?;
    out.flush()
}

fn start_log(config: &LogConfig) -> Result<(), tracing_subscriber::filter::ParseError> {
    let mut filter = EnvFilter::try_new(&config.level)?;
    // What becomes of the connections is told here by destination and broker, once each.
    if !config.level.contains("stompwire") {
        filter = filter.add_directive("stompwire=off".parse()?);
    }
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match config.format {
        LogFormat::Text => log.with_ansi(std::io::stderr().is_terminal()).with_target(false).init(),
        LogFormat::Json => log.json().init(),
    }
    Ok(())
}

/// SIGTERM and SIGINT by name, as they come.
fn watch_signals() -> std::io::Result<mpsc::Receiver<&'static str>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let context = runtime.enter();
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    drop(context);
    let (sender, receiver) = mpsc::sync_channel(2);
    thread::Builder::new().name("signals".into()).spawn(move || {
        runtime.block_on(async move {
            loop {
                let name = tokio::select! {
                    Some(()) = terminate.recv() => "SIGTERM",
                    Some(()) = interrupt.recv() => "SIGINT",
                    else => return,
                };
                if sender.send(name).is_err() {
                    // Nobody listens any more: the process is about to end.
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
            }
        });
    })?;
    Ok(receiver)
}
