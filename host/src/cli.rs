//! Commands and their arguments, as they are typed: options, help and the form of each value.
//!
//! `config` makes the settings of the server of them.

mod config;
pub mod environment;
mod serve;

use std::ffi::OsString;

use clap::error::ErrorKind;
use clap::{ArgMatches, Args, CommandFactory as _, FromArgMatches, Parser, Subcommand};

pub use self::config::Error;
pub use self::serve::{
    AdminAddress, AdminArgs, DiskArgs, FilesArgs, LimitsArgs, ListeningArgs, ServeArgs, TwilioArgs,
    WebhookArgs,
};
use crate::{caller, decode, demo, log, repair, shown};

/// Records phone calls that a provider streams over WebSocket.
#[derive(Debug, Parser)]
#[command(
    name = "callreel",
    version,
    override_usage = "callreel [OPTIONS] [COMMAND]",
    after_help = EXAMPLES
)]
pub struct Cli {
    /// The command to run.
    #[command(subcommand)]
    pub command: Command,
}

const EXAMPLES: &str = "\
Without a command, callreel runs `serve` and takes the options of `serve`.

Examples:
  callreel                                    Record on 0.0.0.0:5050 into ./recordings
  callreel serve --help                       List all settings; each is also a variable CALLREEL_...
  CALLREEL_LOG=debug callreel                 Log more: error, warn, info (default), debug, trace";

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Place calls as Twilio does, for tests, demos, CI and load
    Call(Deferred<caller::Args>),
    /// Turn stored mu-law or captured frames into WAV
    Decode(Deferred<decode::Args>),
    /// Record a few calls on this machine, without an account at a provider, and check them
    Demo(Deferred<demo::Args>),
    /// Make WAV files playable that were not finished or have a wrong header
    Repair(Deferred<repair::Args>),
    /// Record calls (the default)
    Serve(Deferred<ServeArgs>),
}

/// Arguments of a command. clap builds them only when that command is used: building those of all
/// commands takes as long as decoding a short call.
#[derive(Debug)]
pub struct Deferred<A>(pub Box<A>);

impl<A: Args> Args for Deferred<A> {
    fn augment_args(command: clap::Command) -> clap::Command {
        command.defer(A::augment_args)
    }

    fn augment_args_for_update(command: clap::Command) -> clap::Command {
        command.defer(A::augment_args_for_update)
    }
}

impl<A: Args> FromArgMatches for Deferred<A> {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        A::from_arg_matches(matches).map(|args| Self(Box::new(args)))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        self.0.update_from_arg_matches(matches)
    }
}

impl Cli {
    /// Reads a command line. Its first item is the name of the program.
    ///
    /// # Errors
    /// The error of clap, which for `--help` and `--version` is not a failure. Hand it to [`exit`].
    pub fn from_args(args: impl IntoIterator<Item = OsString>) -> Result<Self, clap::Error> {
        let mut args: Vec<OsString> = args.into_iter().collect();
        let is_about_the_whole =
            |arg: &OsString| ["-h", "--help", "-V", "--version"].iter().any(|option| arg == option);
        let names_a_command = args.get(1).is_some_and(|arg| {
            is_about_the_whole(arg) || !arg.as_encoded_bytes().starts_with(b"-")
        });
        if !names_a_command {
            args.insert(args.len().min(1), "serve".into());
        }
        Self::try_parse_from(&args).map_err(|error| {
            // clap repeats arguments as they came, and a name that a shell filled in may hold anything.
            let shown = args.iter().map(|arg| shown::line(&arg.to_string_lossy()).into_owned());
            Self::try_parse_from(shown).err().unwrap_or(error)
        })
    }
}

/// The whole tree of commands, with the arguments of each. Takes as long as decoding a short call.
fn whole() -> clap::Command {
    let mut command = Cli::command();
    command.build();
    command
}

/// Prints the message of clap and ends the process: 0 after help, 2 after a mistake.
///
/// A value that cannot be used is one line; other mistakes come with clap's hints.
pub fn exit(error: &clap::Error) -> ! {
    let text = error.to_string();
    if error.kind() == ErrorKind::ValueValidation {
        log::complain(text.lines().next().unwrap_or_default());
    } else if text.lines().all(|line| shown::line(line) == line) {
        error.exit();
    } else {
        text.lines().for_each(log::complain);
    }
    std::process::exit(error.exit_code());
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroUsize;

    use super::*;

    pub(super) fn serve_args(args: &[&str]) -> Result<ServeArgs, clap::Error> {
        let args = std::iter::once("callreel").chain(args.iter().copied()).map(OsString::from);
        match Cli::from_args(args)?.command {
            Command::Serve(args) => Ok(*args.0),
            other => panic!("{other:?} is not serve"),
        }
    }

    #[test]
    fn the_command_line_is_sound() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
    }

    #[test]
    fn options_without_a_command_are_those_of_serve() {
        for args in [&["--max-calls", "3"][..], &["serve", "--max-calls", "3"]] {
            assert_eq!(serve_args(args).unwrap().limits.max_calls, NonZeroUsize::new(3));
        }
        assert_eq!(serve_args(&["--help"]).unwrap_err().kind(), ErrorKind::DisplayHelp);
        assert_eq!(serve_args(&["nonsense"]).unwrap_err().kind(), ErrorKind::InvalidSubcommand);
    }

    #[test]
    fn calls_are_read_at_the_interval_of_the_engine() {
        let interval = serve_args(&[]).unwrap().limits.read_interval;
        assert_eq!(interval, crate::engine::Config::default().read_interval);
    }

    #[test]
    fn a_bad_value_is_named_in_the_first_line() {
        for (args, words) in [
            (
                ["--public-url", "ftp://example.com"],
                "--public-url <URL>': must be the address at which Twilio",
            ),
            (["--listen", "5050"], "--listen <ADDRESS:PORT>'"),
            (["--max-calls", "0"], "--max-calls <COUNT>'"),
            (["--idle-timeout", "0"], "must be longer than 0"),
            (["--read-interval", "2s"], "must not be longer than 1s"),
            (["--greeting", "\u{7}"], "control characters"),
        ] {
            let error = serve_args(&args).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::ValueValidation);
            let text = error.to_string();
            assert!(text.lines().next().unwrap().contains(words), "{text}");
        }
    }
}
