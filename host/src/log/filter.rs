//! The log filter: its directives, and the file that may hold them.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use tracing_subscriber::filter::{LevelFilter, Targets};

use super::Error;

/// Largest filter file that is accepted.
const FILTER_BYTES_MAX: u64 = 16 * 1024;

/// Origin of the log filter: `error`, `warn`, `info`, `debug`, `trace`, `off`, or `module=level` items,
/// separated by commas.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Directives {
    /// Directives that never change; an empty string means `info`.
    Fixed(String),
    /// Directives in a file, which [`Log::reload`](super::Log::reload) reads again. Line ends count as commas.
    File(PathBuf),
}

impl Directives {
    /// Name of the variable that holds the directives.
    pub const VARIABLE: &str = "CALLREEL_LOG";

    /// Reads the directives from `CALLREEL_LOG`; `@FILE` names a file.
    #[must_use]
    pub fn from_env() -> Self {
        let text = std::env::var(Self::VARIABLE).unwrap_or_default();
        match text.strip_prefix('@') {
            Some(path) => Self::File(path.into()),
            None => Self::Fixed(text),
        }
    }

    pub(super) fn filter(&self) -> Result<Targets, Error> {
        let (origin, directives) = match self {
            Self::Fixed(directives) => ("CALLREEL_LOG".to_owned(), directives.clone()),
            Self::File(path) => (format!("CALLREEL_LOG=@{}", path.display()), read_filter(path)?),
        };
        parse_filter(&directives).ok_or(Error::Filter { origin, directives })
    }
}

/// Reads a filter's file. Its line ends become commas.
fn read_filter(path: &Path) -> Result<String, Error> {
    let read = || {
        let mut text = String::new();
        File::open(path)?.take(FILTER_BYTES_MAX + 1).read_to_string(&mut text)?;
        if text.len() as u64 > FILTER_BYTES_MAX {
            return Err(io::Error::other(format!("longer than {FILTER_BYTES_MAX} bytes")));
        }
        Ok(text)
    };
    let text = read().map_err(|error| Error::File { path: path.to_owned(), error })?;
    Ok(text.split_whitespace().collect::<Vec<_>>().join(","))
}

/// Makes a filter of directives; `info` if they are empty. `Targets` would take a word that is no level, and
/// a span in brackets, as a module, and log nothing of all other modules.
fn parse_filter(directives: &str) -> Option<Targets> {
    let items = directives.split(',').map(str::trim).filter(|item| !item.is_empty());
    let items: Vec<&str> = items.collect();
    if items.is_empty() {
        return Some(Targets::new().with_default(LevelFilter::INFO));
    }
    let is_level = |item: &str| item.parse::<LevelFilter>().is_ok();
    let is_bad = |item: &&str| item.contains('[') || !(item.contains('=') || is_level(item));
    if items.iter().any(is_bad) {
        return None;
    }
    items.join(",").parse().ok()
}

/// The filter without the lines about each try of a request to a store, unless the directives ask for more than
/// `info`: the outbox tells once that the home takes nothing.
pub(super) fn quiet(filter: Targets) -> Targets {
    const MODULE: &str = "object_store";
    let is_named = filter.iter().any(|(module, _)| module.starts_with(MODULE));
    match filter.default_level() {
        Some(LevelFilter::INFO) if !is_named => filter.with_target(MODULE, LevelFilter::WARN),
        _ => filter,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_is_levels_and_modules() {
        for good in ["", "info", "off", "callreel=debug,warn", " debug , mio=error "] {
            assert!(parse_filter(good).is_some(), "{good}");
        }
        for bad in [
            "loud",
            "callreel",
            "info,verbose",
            "callreel=loud",
            "callreel[call]=info",
            "[{peer}]=info",
        ] {
            assert!(parse_filter(bad).is_none(), "{bad}");
        }
    }
}
