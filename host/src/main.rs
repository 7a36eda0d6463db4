//! The `callreel` command.

use std::future::Future;
use std::io::{self, ErrorKind, IsTerminal};
use std::net::SocketAddr;
use std::process::ExitCode;

use anyhow::{Context, anyhow};
use callreel::cli::{self, Cli, Command, LogFormat, ServeArgs};
use callreel::{Config, Listeners, caller, decode, demo, repair};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tracing::{info, warn};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;

fn main() -> ExitCode {
    let cli = Cli::from_args(std::env::args_os()).unwrap_or_else(|error| cli::exit(&error));
    let result = match cli.command {
        Command::Call(args) => {
            caller::run(&args.0).map(|report| report.is_good()).map_err(Into::into)
        }
        Command::Decode(args) => decode::run(&args.0).map(|_| true).map_err(Into::into),
        Command::Demo(args) => show(&args.0).map(|()| true),
        Command::Repair(args) => repair::run(&args.0).map_err(Into::into),
        Command::Serve(args) => serve(*args.0).map(|()| true),
    };
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn serve(args: ServeArgs) -> anyhow::Result<()> {
    start_log(args.log_format)?;
    let (listen, admin) = (args.listen, args.admin.0);
    let mut config = Config::try_from(args)?;
    share_descriptors(&mut config, admin.is_some(), raise_descriptor_limit());
    if config.http.twilio.verifier.is_none() && !listen.ip().is_loopback() {
        warn!(
            "whoever reaches {listen} can record here: set --public-url and an auth token before going public"
        );
    }
    // HTTP is two short requests a call; the calls themselves run on the engine's own threads.
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let served = runtime.block_on(async {
        let stop = termination().context("cannot listen for signals")?;
        let public = bind(listen, "--listen").await?;
        let admin = match admin {
            Some(address) => Some(bind(address, "--admin").await?),
            None => None,
        };
        if let Some(admin) = &admin {
            info!("console at http://{}/", admin.local_addr()?);
        }
        Ok(callreel::serve(Listeners { public, admin }, config, stop).await?)
    });
    // Every call is finished. Whoever waits for a webhook's server or for a file is not waited for.
    runtime.shutdown_background();
    served
}

fn show(args: &demo::Args) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let stop = async { drop(tokio::signal::ctrl_c().await) };
    Ok(runtime.block_on(demo::run(args, stop))?)
}

/// Raises the limit of file descriptors as far as the system lets us, and gives it.
fn raise_descriptor_limit() -> u64 {
    let limits = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limits.maximum, maximum: limits.maximum };
    let current = match setrlimit(Resource::Nofile, raised) {
        Ok(()) => limits.maximum,
        Err(_) => limits.current,
    };
    current.unwrap_or(u64::MAX)
}

/// Takes no more calls than there are descriptors for: one that is accepted is recorded.
fn share_descriptors(config: &mut Config, has_admin: bool, descriptors: u64) {
    /// Listeners, polls, the log, the lock, and what is opened for a moment.
    const OTHERS: usize = 32;
    /// Its socket, its file twice, and its capture.
    const PER_CALL: usize = 4;
    /// Its socket, and the recording that it saves or plays.
    const PER_ADMIN: usize = 2;
    let descriptors = usize::try_from(descriptors).unwrap_or(usize::MAX);
    let exchanges = config.http.exchanges_max.min(descriptors / 8).max(1);
    let admin = &mut config.admin.connections_max;
    *admin = (*admin).min(descriptors / 8 / PER_ADMIN).max(1);
    let admin = if has_admin { *admin * PER_ADMIN } else { 0 };
    let rest = descriptors.saturating_sub(exchanges + admin + OTHERS);
    let calls_max = (rest / PER_CALL).max(1);
    config.http.exchanges_max = exchanges;
    if config.http.calls_max.is_none_or(|wished| wished > calls_max) {
        info!(calls_max, descriptors, "the limit of open files (ulimit -n) limits the calls");
        config.http.calls_max = Some(calls_max);
    }
}

/// Logs to standard error. CALLREEL_LOG chooses what: a level, or `module=level` items with commas
/// between them.
fn start_log(format: LogFormat) -> anyhow::Result<()> {
    let directives = std::env::var("CALLREEL_LOG").unwrap_or_default();
    let filter = log_filter(&directives).ok_or_else(|| {
        anyhow!(
            "CALLREEL_LOG={directives:?} is no level: give error, warn, info, debug, trace or off, or \
             module=level items with commas between them"
        )
    })?;
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr);
    match format {
        LogFormat::Human => log.with_ansi(io::stderr().is_terminal()).init(),
        LogFormat::Json => log.json().init(),
    }
    Ok(())
}

/// What the directives choose; info if they are empty. The filter would take a word that is no level
/// for a module, and log nothing of all others.
fn log_filter(directives: &str) -> Option<EnvFilter> {
    let mut items = directives.split(',').map(str::trim).filter(|item| !item.is_empty()).peekable();
    if items.peek().is_none() {
        return Some(EnvFilter::new("info"));
    }
    if items.any(|item| !item.contains('=') && item.parse::<LevelFilter>().is_err()) {
        return None;
    }
    EnvFilter::try_new(directives).ok()
}

/// Resolves at the first SIGINT or SIGTERM. Later ones change nothing (tokio's handlers stay for
/// good): a shutdown is bounded, and cutting it short would cost audio.
fn termination() -> io::Result<impl Future<Output = ()>> {
    let (mut interrupt, mut terminate) =
        (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    Ok(async move {
        let name = tokio::select! {
            _ = interrupt.recv() => "SIGINT",
            _ = terminate.recv() => "SIGTERM",
        };
        info!(signal = name, "finishing every call, then stopping");
    })
}

async fn bind(address: SocketAddr, option: &str) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address).await.map_err(|error| explain_bind(address, option, &error))
}

fn explain_bind(address: SocketAddr, option: &str, error: &io::Error) -> anyhow::Error {
    let advice = match error.kind() {
        ErrorKind::AddrInUse => {
            "another program uses the port: stop it, or choose another port with"
        }
        ErrorKind::AddrNotAvailable => "no network interface has that address: choose another with",
        ErrorKind::PermissionDenied => "ports below 1024 need privileges: choose another port with",
        _ => return anyhow!("cannot listen on {address}: {error}"),
    };
    anyhow!("cannot listen on {address}: {advice} {option}")
}
