//! `callreel check`: tries the settings of `serve` on this machine before a call does.
//!
//! It says of each thing that a recorder needs whether it is good, and else tells the remedy. It changes
//! nothing that is there, leaves nothing behind, and may run beside a server.

mod acme;
mod disk;
mod home;
mod network;

use std::fmt;
use std::io;

use self::network::Port;
use crate::capacity::{self, Shortage};
use crate::cli::ServeArgs;
use crate::cli::environment::Oddities;
use crate::{Config, descriptors, log, tasks};

/// The judgement of one thing.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Verdict {
    /// Nothing is to be done.
    Good,
    /// Calls are recorded, but not as well or as safely as they might be.
    Warning,
    /// `serve` would not start, or calls would be lost.
    Error,
}

/// The lines so far, on standard output.
#[derive(Debug)]
struct Report {
    errors: usize,
    warnings: usize,
    has_colour: bool,
}

impl Report {
    /// Prints a line. A reader that is gone changes nothing: the exit code tells the result.
    fn say(&mut self, verdict: Verdict, subject: &str, text: impl fmt::Display) {
        let (word, colour) = match verdict {
            Verdict::Good => ("good", 32),
            Verdict::Warning => ("warning", 33),
            Verdict::Error => ("ERROR", 31),
        };
        self.warnings += usize::from(verdict == Verdict::Warning);
        self.errors += usize::from(verdict == Verdict::Error);
        let text = text.to_string();
        let text = crate::shown::line(&text);
        let line = match self.has_colour {
            true => format!("\x1b[{colour}m{word:<7}\x1b[0m  {subject:<11}  {text}\n"),
            false => format!("{word:<7}  {subject:<11}  {text}\n"),
        };
        let _ = log::say_bytes(line.as_bytes());
    }

    fn good(&mut self, subject: &str, text: impl fmt::Display) {
        self.say(Verdict::Good, subject, text);
    }

    fn warn(&mut self, subject: &str, text: impl fmt::Display) {
        self.say(Verdict::Warning, subject, text);
    }

    fn fail(&mut self, subject: &str, text: impl fmt::Display) {
        self.say(Verdict::Error, subject, text);
    }
}

/// Tries the settings, and prints a line for each thing. Returns whether there was no error.
#[must_use]
pub fn run(args: ServeArgs) -> bool {
    let mut report = Report { errors: 0, warnings: 0, has_colour: log::has_colour(&io::stdout()) };
    let (listen, ports, has_admin) =
        (args.listening.listen, ports(&args), args.admin.admin.0.is_some());
    let (max_calls, store) = (args.limits.max_calls, args.store_config());
    args.files.rights().apply();
    let url = args.public_url();
    environment(&mut report);
    let config = Config::try_from(args);
    match &config {
        Ok(_) => report.good("settings", "they fit together"),
        Err(error) => report.fail("settings", error),
    }
    disk::check(&mut report, &store);
    let (mut certificate, mut home) = (None, None);
    if let Ok(mut config) = config {
        home = config.home.clone();
        certificate = config.acme.clone().map(|acme| (acme, config.http.certificate.clone()));
        open_files(&mut report, &mut config, has_admin, max_calls.map(Into::into));
        network::check_signatures(&mut report, &config.http);
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    match runtime {
        Ok(runtime) => tasks::run_on(&runtime, async {
            let mut is_up = false;
            for (index, port) in ports.iter().enumerate() {
                let is_callreels = port.check(&mut report).await;
                is_up |= is_callreels && index == 0;
            }
            if let Some((config, certificate)) = &certificate {
                acme::check(&mut report, config, certificate.as_ref(), listen).await;
            }
            if let Some(config) = &home {
                home::check(&mut report, config).await;
            }
            network::check_public_url(&mut report, url.as_ref(), is_up).await;
        }),
        Err(error) => report.fail("network", format!("it cannot be tried: {error}")),
    }
    let Report { errors, warnings, .. } = report;
    let plural = |count: usize, word: &str| match count {
        1 => format!("1 {word}"),
        count => format!("{count} {word}s"),
    };
    let (found, warned) = (plural(errors, "error"), plural(warnings, "warning"));
    let _ = log::say(&format!("{found}, {warned}"));
    errors == 0
}

/// The listeners of these settings, the public one first.
fn ports(args: &ServeArgs) -> Vec<Port> {
    let (listening, admin) = (&args.listening, &args.admin);
    let public = Port {
        subject: "public port",
        option: "--listen",
        address: listening.listen,
        path: "/",
        speaks_tls: listening.tls_cert.is_some() || !args.acme.acme.is_empty(),
        checks_clients: listening.tls_client_ca.is_some(),
    };
    let admin = admin.admin.0.map(|address| Port {
        subject: "admin port",
        option: "--admin",
        address,
        path: "/healthz",
        speaks_tls: admin.admin_tls,
        checks_clients: false,
    });
    [public].into_iter().chain(admin).collect()
}

fn environment(report: &mut Report) {
    let Oddities { misspelt, unknown } = Oddities::of_process();
    for misspelt in &misspelt {
        report.fail("environment", misspelt);
    }
    for variable in &unknown {
        let text = format!("the variable {variable} is no setting of callreel: it has no effect");
        report.warn("environment", text);
    }
    if misspelt.is_empty() && unknown.is_empty() {
        report.good("environment", "each variable of callreel is a setting");
    }
}

fn open_files(report: &mut Report, config: &mut Config, has_admin: bool, wished: Option<usize>) {
    let limit = descriptors::raise_limit();
    let shortage = capacity::share(config, has_admin, limit);
    let calls = config.http.calls_max.unwrap_or_default();
    const REMEDY: &str = "raise it (ulimit -n, or LimitNOFILE of the systemd unit)";
    match shortage {
        Some(Shortage { calls_max, is_asked_for: true }) => report.warn(
            "open files",
            format!(
                "the limit of {limit} open files allows {calls_max} calls at one time, but --max-calls is {}: \
                 {REMEDY}",
                wished.unwrap_or_default()
            ),
        ),
        Some(Shortage { calls_max, is_asked_for: false }) => report.warn(
            "open files",
            format!("the limit of {limit} open files allows only {calls_max} calls at one time: {REMEDY}"),
        ),
        None => report.good("open files", format!("{limit}: {calls} calls at one time")),
    }
}
