//! OpenMetrics turned into Prometheus' text format 0.0.4.
//!
//! The crates that write 0.0.4 keep registries of their own. The two formats of the same metrics differ
//! only in lines of comments: a counter is described under the name of its sample, which ends with
//! `_total`, and there is no unit and no end mark.

/// Returns the metrics in the format 0.0.4. Exemplars, created times and types of OpenMetrics alone are
/// not supported: callreel has none.
pub(super) fn of_openmetrics(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 1024);
    // The help of a family comes before its type.
    let mut help = None;
    for line in text.lines() {
        if let Some(described) = line.strip_prefix("# HELP ") {
            help = described.split_once(' ').map(|(_name, help)| help);
        } else if let Some(typed) = line.strip_prefix("# TYPE ") {
            let (name, kind) = typed.split_once(' ').unwrap_or((typed, "untyped"));
            let total = if kind == "counter" { "_total" } else { "" };
            if let Some(help) = help.take() {
                out.extend(["# HELP ", name, total, " ", help, "\n"]);
            }
            out.extend(["# TYPE ", name, total, " ", kind, "\n"]);
        } else if !line.starts_with('#') {
            out.extend([line, "\n"]);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_comments_change() {
        let openmetrics = "# HELP calls Calls under way.\n# TYPE calls gauge\ncalls 1\n\
            # HELP ended_seconds Ends.\n# TYPE ended_seconds counter\n# UNIT ended_seconds seconds\n\
            ended_seconds_total{end=\"stop\"} 2.5\n# EOF\n";
        let text = "# HELP calls Calls under way.\n# TYPE calls gauge\ncalls 1\n\
            # HELP ended_seconds_total Ends.\n# TYPE ended_seconds_total counter\n\
            ended_seconds_total{end=\"stop\"} 2.5\n";
        assert_eq!(of_openmetrics(openmetrics), text);
    }
}
