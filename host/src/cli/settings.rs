//! The settings of a server as they are in force, for its console: without secrets.

use clap::parser::ValueSource;
use clap::{ArgMatches, Command};

use crate::admin::{SetBy, Setting};

/// The settings that `matches` holds of the options of `command`, in their order. Those that are neither given nor
/// have a default are left out.
pub(super) fn of(matches: &ArgMatches, command: &Command) -> Vec<Setting> {
    let options = command.get_arguments().filter_map(|option| {
        let name = option.get_long().filter(|name| *name != "help")?;
        let id = option.get_id().as_str();
        let set_by = match matches.value_source(id)? {
            ValueSource::DefaultValue => SetBy::Default,
            ValueSource::EnvVariable => SetBy::Environment,
            _ => SetBy::CommandLine,
        };
        let given = matches.get_raw(id)?.map(|value| public(&value.to_string_lossy()));
        let value =
            (!option.is_hide_env_values_set()).then(|| given.collect::<Vec<_>>().join(", "));
        Some(Setting { name: format!("--{name}"), value, set_by })
    });
    options.collect()
}

/// A value without the login and the query of the URL in it, if it has one: they may be secret.
fn public(value: &str) -> String {
    let Some((before, url)) = value.split_once("://") else { return value.to_owned() };
    let (server, path) = url.split_at(url.find(['/', '?', '#']).unwrap_or(url.len()));
    let host = server.rsplit_once('@').map_or(server, |(_login, host)| host);
    let (path, query) = path.split_at(path.find(['?', '#']).unwrap_or(path.len()));
    let end = if query.is_empty() { "" } else { "?..." };
    format!("{before}://{host}{path}{end}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_have_no_login_and_no_query() {
        for (given, shown) in [
            ("30s", "30s"),
            ("127.0.0.1:5051", "127.0.0.1:5051"),
            ("s3://bucket/prefix", "s3://bucket/prefix"),
            ("https://me:pw@h.example/a@b?key=1", "https://h.example/a@b?..."),
            ("/x=wss://me@bot.example#k", "/x=wss://bot.example?..."),
            ("https://h.example?token=1", "https://h.example?..."),
        ] {
            assert_eq!(public(given), shown);
        }
    }
}
