//! The home of finished recordings: whether it takes objects.

use super::Report;
use crate::home::{Config, Home, Probe};

const SUBJECT: &str = "home";

/// Puts an object into the home, reads it and removes it.
pub(super) async fn check(report: &mut Report, config: &Config) {
    let home = match Home::open(config) {
        Ok(home) => home,
        Err(error) => return report.fail(SUBJECT, error),
    };
    match home.probe().await {
        Ok(Probe::Good) => {
            report.good(SUBJECT, format!("{} takes, gives and removes objects", config.address));
        }
        Ok(Probe::Limited(warnings)) => {
            warnings.iter().for_each(|warning| report.warn(SUBJECT, warning));
        }
        Ok(Probe::Away(reason)) => report.warn(
            SUBJECT,
            format!(
                "{} cannot be reached: {reason}; recordings would wait on the disk",
                config.address
            ),
        ),
        Err(error) => report.fail(SUBJECT, error),
    }
}
