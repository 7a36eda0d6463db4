//! The `callreel` command.

mod signals;

use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, anyhow};
use callreel::cli::{self, Cli, Command, ServeArgs};
use callreel::log::{self, Directives, Log, LogFormat};
use callreel::{Config, Listeners, caller, decode, demo, descriptors, repair};
use tokio::net::{TcpListener, TcpSocket};
use tracing::{info, warn};

use crate::signals::Hangup;

/// Connections waiting to be accepted, as far as the system allows. One too many is refused for a
/// second, until its peer tries again.
const UNACCEPTED_MAX: u32 = 4096;

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
    let code = match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            log::complain(&format!("error: {error:#}"));
            ExitCode::FAILURE
        }
    };
    log::flush();
    code
}

fn serve(args: ServeArgs) -> anyhow::Result<()> {
    let log = Arc::new(Log::start(args.log_format, Directives::from_env())?);
    let (listen, admin) = (args.listening.listen, args.admin.admin.0);
    args.files.rights().apply();
    let mut config = Config::try_from(args)?;
    share_descriptors(&mut config, admin.is_some(), descriptors::raise_limit());
    if config.http.twilio.verifier.is_none() && !listen.ip().is_loopback() {
        warn!(
            "anybody that reaches {listen} can record here: set --public-url and an auth token before going public"
        );
    }
    // HTTP is two short requests per call; calls run on the engine's own threads.
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let served = runtime.block_on(async {
        let stop = signals::take(Hangup::Reload(log)).context("cannot listen for signals")?;
        let public = bind(listen, "--listen")?;
        let admin = match admin {
            Some(address) => Some(bind(address, "--admin")?),
            None => None,
        };
        if let Some(admin) = &admin {
            info!("console at http://{}/", admin.local_addr()?);
        }
        Ok(callreel::serve(Listeners { public, admin }, config, stop).await?)
    });
    // Every call is finished. Tasks that still wait for the server of a webhook or for a file are not
    // waited for.
    runtime.shutdown_background();
    served
}

fn show(args: &demo::Args) -> anyhow::Result<()> {
    // The tables of the demo go to standard output; the log shows only bugs and broken disks.
    Log::start(LogFormat::Human, Directives::Fixed("error".to_owned()))?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let shown = runtime.block_on(async {
        let stop = signals::take(Hangup::Stop).context("cannot listen for signals")?;
        Ok(demo::run(args, stop).await?)
    });
    runtime.shutdown_background();
    shown
}

/// Limits the number of calls to the file descriptors there are: an accepted call is recorded.
fn share_descriptors(config: &mut Config, has_admin: bool, descriptors: u64) {
    /// Descriptors of listeners, polls, the log and the lock, and of files opened for a moment.
    const OTHERS: usize = 32;
    /// Descriptors of a call: its socket, and those of its recording.
    const PER_CALL: usize = 1 + callreel::recording::DESCRIPTORS;
    /// Descriptors of an admin connection: its socket, and the recording that it saves or plays.
    const PER_ADMIN: usize = 2;
    let descriptors = usize::try_from(descriptors).unwrap_or(usize::MAX);
    let exchanges = config.http.exchanges_max.min(descriptors / 8).max(2);
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

fn bind(address: SocketAddr, option: &str) -> anyhow::Result<TcpListener> {
    listen(address).map_err(|error| explain_bind(address, option, &error))
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    // The same steps as `TcpListener::bind`, with a longer queue.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(UNACCEPTED_MAX)
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
