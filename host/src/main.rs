//! The `callreel` command.

mod signals;
mod sockets;

use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context;
use callreel::cli::{self, Cli, Command, ServeArgs};
use callreel::log::{self, Directives, Log, LogFormat};
use callreel::{Config, Listeners, Stop, caller, decode, demo, descriptors, repair};
use tracing::{info, warn};

use crate::signals::Program;
use crate::sockets::Inherited;

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
    // Before other threads: it changes the environment.
    let inherited = Inherited::take()?;
    let log = Arc::new(Log::start(args.log_format, Directives::from_env())?);
    let (listen, admin) = (args.listening.listen, args.admin.admin.0);
    let shares_port = args.listening.reuse_port;
    let mut config = Config::try_from(args)?;
    let has_admin = admin.is_some() || inherited.admin.is_some();
    share_descriptors(&mut config, has_admin, descriptors::raise_limit());
    if config.http.twilio.verifier.is_none() && !listen.ip().is_loopback() {
        warn!(
            "anybody that reaches {listen} can record here: set --public-url and an auth token before going public"
        );
    }
    // HTTP is two short requests per call; calls run on the engine's own threads.
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let served = runtime.block_on(async {
        let stop = Stop::default();
        signals::take(Program::Serve(log), &stop).context("cannot listen for signals")?;
        let public = match inherited.public {
            Some(socket) => sockets::adopt(socket)?,
            None => sockets::bind(listen, "--listen", shares_port)?,
        };
        let admin = match (inherited.admin, admin) {
            (Some(socket), _) => Some(sockets::adopt(socket)?),
            (None, Some(address)) => Some(sockets::bind(address, "--admin", false)?),
            (None, None) => None,
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
        let stop = Stop::default();
        signals::take(Program::Demo, &stop).context("cannot listen for signals")?;
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
