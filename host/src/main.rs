//! The `callreel` command.

mod signals;

use std::io;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, anyhow};
use callreel::capacity::Shortage;
use callreel::cli::environment::Oddities;
use callreel::cli::{self, Cli, Command, ServeArgs};
use callreel::log::{self, Directives, Log, LogFormat};
use callreel::{
    Config, Listeners, caller, capacity, check, decode, demo, descriptors, list, ports, repair,
    tail, webhook,
};
use tokio::net::{TcpListener, TcpSocket};
use tracing::warn;

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
        Command::Check(args) => Ok(check::run(args.0.0)),
        Command::Completions(args) => {
            args.0.run();
            Ok(true)
        }
        Command::Decode(args) => match decode::run(&args.0) {
            Err(decode::Error::ReaderGone(_)) => Ok(false),
            result => result.map(|_| true).map_err(Into::into),
        },
        Command::Demo(args) => show(&args.0).map(|()| true),
        Command::List(args) => list::run(&args.0).map(|()| true).map_err(Into::into),
        Command::Man(args) => args.0.run().map(|()| true).map_err(Into::into),
        Command::Repair(args) => repair::run(&args.0).map_err(Into::into),
        Command::Serve(args) => serve(*args.0).map(|()| true),
        Command::Tail(args) => tail::run(&args.0).map(|()| true).map_err(Into::into),
        Command::Webhook(args) => webhook::command::run(&args.0).map_err(Into::into),
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
    let Oddities { misspelt, unknown } = Oddities::of_process();
    if let Some(misspelt) = misspelt.into_iter().next() {
        return Err(misspelt.into());
    }
    let log = Arc::new(Log::start(args.log_format, Directives::from_env())?);
    for variable in unknown {
        warn!("the variable {variable} is no setting of callreel: it has no effect");
    }
    let (listen, admin) = (args.listening.listen, args.admin.admin.0);
    args.files.rights().apply();
    let mut config = Config::try_from(args)?;
    let descriptors = descriptors::raise_limit();
    if let Some(Shortage { calls_max, .. }) =
        capacity::share(&mut config, admin.is_some(), descriptors)
    {
        warn!(calls_max, descriptors, "the limit of open files (ulimit -n) limits the calls");
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

fn bind(address: SocketAddr, option: &str) -> anyhow::Result<TcpListener> {
    listen(address).map_err(|error| anyhow!(ports::refusal(address, option, &error)))
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    // The same steps as `TcpListener::bind`, with a longer queue.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(UNACCEPTED_MAX)
}
