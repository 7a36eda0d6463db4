//! Commands and their arguments, as they are typed: options, help and the form of each value.
//!
//! `config` makes the settings of the server of them.

mod config;
pub mod environment;
mod home;
mod manual;
mod relay;
mod serve;
mod settings;

use std::ffi::OsString;

use clap::error::ErrorKind;
use clap::{ArgMatches, Args, CommandFactory as _, FromArgMatches, Parser, Subcommand};

pub use self::config::Error;
pub use self::home::{EvictAfter, HomeArgs};
pub use self::manual::{CompletionsArgs, ManArgs, ManualError};
pub use self::serve::{
    AdminAddress, AdminArgs, DiskArgs, FilesArgs, LimitsArgs, ListeningArgs, ServeArgs, TwilioArgs,
    WebhookArgs,
};
use crate::{
    bot, caller, console_command, decode, demo, export, home_command, list, log, repair, shown,
    tail, webhook,
};

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
  callreel serve -h                           List all settings, one a line
  callreel serve --help                       Explain them; each is also a variable CALLREEL_...
  callreel check                              Try the settings before a call does
  CALLREEL_LOG=debug callreel                 Log more: error, warn, info (default), debug, trace";

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Answer calls as a small voice bot, to rehearse two-way calls with
    Bot(Deferred<bot::Args>),
    /// Place calls as Twilio or another provider does, for tests, demos, CI and load
    Call(Deferred<caller::Args>),
    /// Try the settings of `serve` on this machine before a call does
    Check(Deferred<CheckArgs>),
    /// Print the completions of a shell
    Completions(Deferred<CompletionsArgs>),
    /// Show the recordings in a home, those of all recorders, in the console
    Console(Deferred<console_command::Args>),
    /// Turn stored mu-law or captured frames into WAV
    Decode(Deferred<decode::Args>),
    /// Record a few calls on this machine, without an account at a provider, and check them
    Demo(Deferred<demo::Args>),
    /// Turn a finished WAV into FLAC, with the same samples in about half the room
    Export(Deferred<export::Args>),
    /// List, download and compare recordings in a home, and upload them by hand
    Home(Deferred<home_command::Args>),
    /// List finished recordings, newest first
    List(Deferred<list::Args>),
    /// Print the manual page of a command, or write all pages
    Man(Deferred<ManArgs>),
    /// Make WAV files playable that were not finished or have a wrong header
    Repair(Deferred<repair::Args>),
    /// Record calls (the default)
    Serve(Deferred<ServeArgs>),
    /// Print a line as each call of a running server begins and ends
    Tail(Deferred<tail::Args>),
    /// Try webhook receivers, and send messages again that they did not take
    Webhook(Deferred<webhook::command::Args>),
}

const CHECK_NOTES: &str = "\
It takes the options and variables of `serve`. Run it as the user of the server: another one may have
other rights. It writes files into the directories and removes them, changes nothing else, and may run
beside the server. The only requests that leave this machine are those to
--public-url and to --home, where it puts an object and removes it.

Exit code: 0 if nothing keeps `serve` from taking calls, warnings included; 1 if something does; 2 if the
command line is wrong.";

/// Settings of `callreel check`: those of `serve`.
#[derive(Debug)]
pub struct CheckArgs(pub ServeArgs);

impl Args for CheckArgs {
    fn augment_args(command: clap::Command) -> clap::Command {
        ServeArgs::augment_args(command).after_help(CHECK_NOTES)
    }

    fn augment_args_for_update(command: clap::Command) -> clap::Command {
        ServeArgs::augment_args_for_update(command).after_help(CHECK_NOTES)
    }
}

impl FromArgMatches for CheckArgs {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        ServeArgs::from_arg_matches(matches).map(Self)
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        self.0.update_from_arg_matches(matches)
    }
}

/// Arguments of a command. clap builds them only when that command is used: building those of all
/// commands takes as long as decoding a short call.
#[derive(Debug)]
pub struct Deferred<A>(pub Box<A>);

impl<A: Args> Args for Deferred<A> {
    fn augment_args(command: clap::Command) -> clap::Command {
        command.defer(|command| {
            // The command's own description is better than that of its settings.
            let about = command.get_about().cloned().unwrap_or_default();
            A::augment_args(command).about(about)
        })
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
        if args.iter().any(|arg| arg == "-h") {
            // Most likely it ends with the help, whose short form has one line an option.
            let matches = shortened(whole()).try_get_matches_from(&args)?;
            return Self::from_arg_matches(&matches);
        }
        Self::of(&args).map_err(|error| {
            // clap repeats arguments as they came, and a name that a shell filled in may hold anything.
            let shown = args.iter().map(|arg| shown::line(&arg.to_string_lossy()).into_owned());
            Self::try_parse_from(shown).err().unwrap_or(error)
        })
    }

    fn of(args: &[OsString]) -> Result<Self, clap::Error> {
        let mut command = Self::command();
        let matches = command.try_get_matches_from_mut(args)?;
        let mut cli =
            Self::from_arg_matches(&matches).map_err(|error| error.format(&mut command))?;
        if let Command::Serve(args) = &mut cli.command
            && let Some((name, matches)) = matches.subcommand()
            && let Some(command) = command.find_subcommand(name)
        {
            args.0.settings = settings::of(matches, command);
        }
        Ok(cli)
    }
}

/// Longest default value that the short help shows.
const DEFAULT_MAX: usize = 20;

/// The whole tree of commands, with the arguments of each. Takes as long as decoding a short call.
fn whole() -> clap::Command {
    let mut command = Cli::command();
    command.build();
    command
}

/// The commands with short help: of each option the first statement and a short default, without its
/// variable.
fn shortened(command: clap::Command) -> clap::Command {
    let short = |arg: clap::Arg| {
        let help = arg.get_help().map(ToString::to_string).unwrap_or_default();
        let (text, _default) = help.split_once(" [default: ").unwrap_or((&help, ""));
        let first = first_statement(text).to_owned();
        let is_long = arg.get_default_values().iter().any(|value| value.len() > DEFAULT_MAX);
        let arg = if is_long { arg.hide_default_value(true) } else { arg };
        arg.help(first).long_help(None::<&str>).hide_env(true).hide_possible_values(true)
    };
    command.mut_args(short).mut_subcommands(shortened)
}

/// The text up to the first full stop, semicolon or colon outside of parentheses.
fn first_statement(text: &str) -> &str {
    let mut depth = 0_usize;
    for (at, character) in text.char_indices() {
        match character {
            '(' => depth += 1,
            ')' => depth = depth.saturating_sub(1),
            '.' | ';' | ':' if depth == 0 && text[at + 1..].starts_with(' ') => return &text[..at],
            _ => {}
        }
    }
    text
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
