//! The `callreel` command.

use std::process::ExitCode;

use callreel::caller;
use clap::Parser;

#[derive(Parser)]
#[command(version)]
enum Command {
    Call(Box<caller::Args>),
}

fn main() -> anyhow::Result<ExitCode> {
    let Command::Call(args) = Command::parse();
    let report = caller::run(&args)?;
    Ok(if report.is_good() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
