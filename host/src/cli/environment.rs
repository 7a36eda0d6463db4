//! Variables of the environment that look like settings and are none.
//!
//! A setting under a misspelt name has no effect, and nothing tells: a recorder with a misspelt token
//! records for anybody. The names of the settings come from the options themselves. Values are never
//! read here.

use std::collections::{BTreeMap, BTreeSet};

use super::whole;
use crate::log::Directives;
use crate::shown;

/// Prefix of the variables that are callreel's alone.
const OURS: &str = "CALLREEL_";

/// Variable that Twilio's own tools read as well.
pub(super) const TWILIO_TOKEN: &str = "TWILIO_AUTH_TOKEN";

/// Variables of callreel's own tests.
const OF_TESTS: [&str; 7] = [
    "CALLREEL_CASES",
    "CALLREEL_G722",
    "CALLREEL_JSON_SUITE",
    "CALLREEL_LONG",
    "CALLREEL_PYTHON",
    "CALLREEL_REQUIRE_SIM",
    "CALLREEL_TEST_TLS",
];

/// A variable that nearly has the name of a setting.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error(
    "the variable {given} has no effect: is {meant} meant? Rename it or remove it (env -u {given})"
)]
pub struct Misspelt {
    /// Name of the variable.
    pub given: String,
    /// Name of the setting, or names with `or` between them.
    pub meant: String,
}

/// Variables that have no effect.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Oddities {
    /// Names that nearly are one of a setting.
    pub misspelt: Vec<Misspelt>,
    /// Other names with callreel's prefix, fit to be shown.
    pub unknown: Vec<String>,
}

impl Oddities {
    /// The oddities of this process's environment.
    #[must_use]
    pub fn of_process() -> Self {
        Self::of(std::env::vars_os().map(|(name, _)| name.to_string_lossy().into_owned()))
    }

    fn of(names: impl Iterator<Item = String>) -> Self {
        let names: BTreeSet<String> = names.collect();
        let mut oddities = Self::default();
        let settings = settings();
        for name in &names {
            if settings.contains_key(name) || OF_TESTS.contains(&name.as_str()) || is_service(name)
            {
                continue;
            }
            let meant = meant(name, &settings);
            let is_ours = name.starts_with(OURS);
            // Other programs have variables of Twilio's, too. With the right one set, all is well.
            let is_foreign = !is_ours && meant.iter().all(|setting| names.contains(*setting));
            let given = shown::line(name).into_owned();
            if !meant.is_empty() && !is_foreign {
                oddities.misspelt.push(Misspelt { given, meant: meant.join(" or ") });
            } else if is_ours {
                oddities.unknown.push(given);
            }
        }
        oddities
    }
}

/// Names of all settings, and whether each is a secret.
type Settings = BTreeMap<String, bool>;

/// The variables of all options of all commands, and those that are no options.
fn settings() -> Settings {
    let whole = whole();
    let arguments = whole.get_subcommands().flat_map(clap::Command::get_arguments);
    let of_options = arguments.filter_map(|argument| {
        let name = argument.get_env()?.to_str()?.to_owned();
        Some((name, argument.is_hide_env_values_set()))
    });
    let others = [(Directives::VARIABLE.to_owned(), false), (TWILIO_TOKEN.to_owned(), true)];
    of_options.chain(others).collect()
}

/// Whether Kubernetes makes such a variable, for a service whose name is or begins with `callreel`.
fn is_service(name: &str) -> bool {
    name.strip_prefix("CALLREEL").is_some_and(|rest| {
        rest.starts_with("_PORT")
            || rest.ends_with("_PORT")
            || ["_PORT_", "_SERVICE_HOST", "_SERVICE_PORT"].iter().any(|mark| rest.contains(mark))
    })
}

/// The settings whose names are nearest to this one, if any is near.
fn meant<'s>(name: &str, settings: &'s Settings) -> Vec<&'s str> {
    let near = |(setting, is_secret): (&'s String, &bool)| {
        distance(name, setting, *is_secret).map(|distance| (distance, setting.as_str()))
    };
    let near: Vec<(usize, &str)> = settings.iter().filter_map(near).collect();
    let least = near.iter().map(|(distance, _)| *distance).min();
    near.into_iter()
        .filter_map(|(distance, setting)| (Some(distance) == least).then_some(setting))
        .collect()
}

/// The number of slips between a name and that of a setting; `None` if the two are not near. The case and
/// the separators do not count.
fn distance(name: &str, setting: &str, is_secret: bool) -> Option<usize> {
    /// Longest name, without its prefix, of which one letter alone may differ.
    const SHORT: usize = 5;
    let words = |name: &str| -> Vec<String> {
        let words = name.split(['_', '-', '.']).filter(|word| !word.is_empty());
        words.map(str::to_uppercase).collect()
    };
    let (given, right) = (words(name), words(setting));
    let sorted = |words: &[String]| {
        let mut words = words.to_vec();
        words.sort_unstable();
        words
    };
    if sorted(&given) == sorted(&right) {
        return Some(0);
    }
    let own_letters = right[1..].concat().len();
    let slips_max = if own_letters <= SHORT { 1 } else { 2 };
    let slips = strsim::damerau_levenshtein(&given.concat(), &right.concat());
    if slips <= slips_max {
        return Some(slips);
    }
    (is_secret && is_without_a_word(&given, &right)).then_some(slips_max + 1)
}

/// Whether a name is another one without one of its words, but with the first and the last of them.
fn is_without_a_word(given: &[String], right: &[String]) -> bool {
    given.len() + 1 == right.len()
        && given.first() == right.first()
        && given.last() == right.last()
        && given.iter().all(|word| right.contains(word))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(names: &[&str]) -> Oddities {
        Oddities::of(names.iter().map(|name| (*name).to_owned()))
    }

    #[test]
    fn a_name_that_nearly_is_a_setting_is_led_to_it() {
        for (given, meant) in [
            ("CALLREEL_AUTHTOKEN", "CALLREEL_AUTH_TOKEN"),
            ("CALLREEL_AUTH_TOKN", "CALLREEL_AUTH_TOKEN"),
            ("CALLREEL_AUHT_TOKEN", "CALLREEL_AUTH_TOKEN"),
            ("CALLREEL_TOKEN_AUTH", "CALLREEL_AUTH_TOKEN"),
            ("CALREEL_AUTH_TOKEN", "CALLREEL_AUTH_TOKEN"),
            ("CALL_REEL_AUTH_TOKEN", "CALLREEL_AUTH_TOKEN"),
            ("callreel_auth_token", "CALLREEL_AUTH_TOKEN"),
            ("CALLREEL_TOKEN", "CALLREEL_ADMIN_TOKEN or CALLREEL_AUTH_TOKEN"),
            ("CALLREEL_SECRET", "CALLREEL_WEBHOOK_SECRET"),
            ("TWILIO_AUTHTOKEN", "TWILIO_AUTH_TOKEN"),
            ("TWILIO_TOKEN", "TWILIO_AUTH_TOKEN"),
            ("CALLREEL_DIRS", "CALLREEL_DIR"),
            ("CALLREEL_LOGS", "CALLREEL_LOG"),
            ("CALLREEL_PUBLICURL", "CALLREEL_PUBLIC_URL"),
            ("CALLREEL_DAYS_KEEP", "CALLREEL_KEEP_DAYS"),
            ("CALLREEL_LISTNE", "CALLREEL_LISTEN"),
        ] {
            let found = of(&[given, "HOME", "PATH"]);
            let misspelt = Misspelt { given: given.to_owned(), meant: meant.to_owned() };
            assert_eq!(found.misspelt, [misspelt], "{given}");
            assert!(found.unknown.is_empty(), "{given}");
        }
    }

    #[test]
    fn settings_links_of_services_and_variables_of_others_are_no_oddities() {
        let silent = of(&[
            "CALLREEL_DIR",
            "CALLREEL_LOG",
            "CALLREEL_LONG",
            "CALLREEL_PORT",
            "CALLREEL_PORT_5050_TCP_ADDR",
            "CALLREEL_SERVICE_HOST",
            "CALLREEL_SERVICE_PORT_HTTP",
            "CALLREEL_ADMIN_SERVICE_HOST",
            "CALLREEL_ADMIN_PORT_5051_TCP",
            "CALLBACK_URL",
            "TWILIO_ACCOUNT_SID",
            "TWILIO_API_SECRET",
            "TWILIO_AUTH_TOKEN",
            "TWILIO_TOKEN",
            "TWILIO_AUTHTOKEN",
        ]);
        assert_eq!(silent, Oddities::default());
        let unknown = ["CALLREEL_BACKUP_BUCKET", "CALLREEL_IMAGE", "CALLREEL_VERSION"];
        let found = of(&unknown);
        assert_eq!((found.misspelt, found.unknown), (vec![], unknown.map(str::to_owned).to_vec()));
    }
}
