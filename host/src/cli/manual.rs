//! Completions for shells and manual pages, made of the commands themselves.

use std::io;
use std::path::{Path, PathBuf};

use clap::{Args, CommandFactory as _};
use clap_complete::Shell;

use super::{Cli, whole};
use crate::log;

/// Settings of `callreel completions`.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  source <(callreel completions bash)
  callreel completions zsh > ~/.zfunc/_callreel
  callreel completions fish > ~/.config/fish/completions/callreel.fish")]
pub struct CompletionsArgs {
    /// Shell that reads the completions
    #[arg(value_name = "SHELL")]
    pub shell: Shell,
}

impl CompletionsArgs {
    /// Prints the completions to standard output.
    pub fn run(&self) {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut whole(), "callreel", &mut script);
        let _ = log::say_bytes(&script);
    }
}

/// Settings of `callreel man`.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  callreel man serve | man -l -
  callreel man --dir /usr/local/share/man/man1")]
pub struct ManArgs {
    /// Command to print the page of [default: callreel itself]
    #[arg(value_name = "COMMAND", conflicts_with = "dir")]
    pub command: Option<String>,

    /// Write the pages of all commands to this directory; it must exist, and pages there are replaced
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
}

/// Reasons why there is no manual page.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ManualError {
    /// There is no such command.
    #[error("callreel has no command `{0}`: `callreel --help` lists the commands")]
    Command(String),
    /// A page cannot be written.
    #[error("cannot write manual pages to {}: {cause}", .dir.display())]
    Write {
        /// The directory.
        dir: PathBuf,
        /// The system's error.
        cause: io::Error,
    },
}

impl ManArgs {
    /// Prints the page of a command to standard output, or writes the pages of all commands.
    ///
    /// # Errors
    /// See [`ManualError`]. Some pages may have been written.
    pub fn run(&self) -> Result<(), ManualError> {
        match &self.dir {
            Some(dir) => {
                write_all(dir).map_err(|cause| ManualError::Write { dir: dir.clone(), cause })
            }
            None => print(self.command.as_deref()),
        }
    }
}

fn write_all(dir: &Path) -> io::Result<()> {
    clap_mangen::generate_to(Cli::command(), dir)
}

fn print(name: Option<&str>) -> Result<(), ManualError> {
    let whole = whole();
    let command = match name {
        None => whole,
        Some(name) => {
            let command = whole.find_subcommand(name).cloned();
            let command = command.ok_or_else(|| ManualError::Command(name.to_owned()))?;
            let full_name = format!("callreel-{}", command.get_name());
            command.display_name(full_name)
        }
    };
    let mut page = Vec::new();
    // A page in memory can always be written.
    let _ = clap_mangen::Man::new(command).render(&mut page);
    let _ = log::say_bytes(&page);
    Ok(())
}
