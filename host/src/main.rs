//! The `callreel` command.

mod signals;
mod sockets;

use std::process::ExitCode;
use std::sync::Arc;
use std::thread;

use anyhow::Context;
use callreel::capacity::Shortage;
use callreel::cli::environment::Oddities;
use callreel::cli::{self, Cli, Command, ServeArgs};
use callreel::console_command::{self, Console};
use callreel::log::{self, Directives, Log, LogFormat};
use callreel::{
    Config, Listeners, Stop, bot, caller, capacity, check, decode, demo, descriptors, export,
    home_command, list, repair, tail, webhook,
};
use tracing::warn;

use crate::signals::Program;
use crate::sockets::Inherited;

/// Most threads that serve requests.
const WORKERS_MAX: usize = 2;

fn main() -> ExitCode {
    let cli = Cli::from_args(std::env::args_os()).unwrap_or_else(|error| cli::exit(&error));
    let result = match cli.command {
        Command::Bot(args) => bot::run(&args.0).map(|()| true).map_err(Into::into),
        Command::Call(args) => caller::run(&args.0).map_err(Into::into),
        Command::Check(args) => Ok(check::run(args.0.0)),
        Command::Completions(args) => {
            args.0.run();
            Ok(true)
        }
        Command::Console(args) => console(&args.0).map(|()| true),
        Command::Decode(args) => match decode::run(&args.0) {
            Err(decode::Error::ReaderGone(_)) => Ok(false),
            result => result.map(|_| true).map_err(Into::into),
        },
        Command::Demo(args) => show(&args.0).map(|()| true),
        Command::Export(args) => export::run(&args.0).map_err(Into::into),
        Command::Home(args) => home_command::run(&args.0).map_err(Into::into),
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
    // Before other threads: it changes the environment.
    let inherited = Inherited::take()?;
    let log = Arc::new(Log::start(args.log_format, Directives::from_env())?);
    for variable in unknown {
        warn!("the variable {variable} is no setting of callreel: it has no effect");
    }
    let (listen, admin) = (args.listening.listen, args.admin.admin.0);
    let shares_port = args.listening.reuse_port;
    args.files.rights().apply();
    let mut config = Config::try_from(args)?;
    let has_admin = admin.is_some() || inherited.admin.is_some();
    let descriptors = descriptors::raise_limit();
    if let Some(Shortage { calls_max, .. }) = capacity::share(&mut config, has_admin, descriptors) {
        warn!(calls_max, descriptors, "the limit of open files (ulimit -n) limits the calls");
    }
    // HTTP is two short requests per call; calls run on the engine's own threads. On one processor a second
    // worker would only be woken in vain.
    let workers =
        thread::available_parallelism().map_or(WORKERS_MAX, |cores| cores.get().min(WORKERS_MAX));
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(workers).enable_all().build()?;
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
        Ok(callreel::serve(Listeners { public, admin }, config, stop).await?)
    });
    // Every call is finished. Tasks that still wait for the server of a webhook or for a file are not
    // waited for.
    runtime.shutdown_background();
    served
}

fn console(args: &console_command::Args) -> anyhow::Result<()> {
    let log = Arc::new(Log::start(args.log_format, Directives::from_env())?);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(WORKERS_MAX)
        .enable_all()
        .build()?;
    let served = runtime.block_on(async {
        let stop = Stop::default();
        signals::take(Program::Serve(log), &stop).context("cannot listen for signals")?;
        let console = Console::open(args).await?;
        let listener = sockets::bind(args.admin, "--admin", false)?;
        console.serve(listener, stop).await;
        Ok(())
    });
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
