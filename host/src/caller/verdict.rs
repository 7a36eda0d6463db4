//! The verdict of `callreel call`: the report of its calls, in words or as JSON.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use super::looks::End;
use super::{CallEnd, CallReport, Look, Report};
use crate::shown;

/// Most streams that the verdict lists; if there are more, it lists none.
const STREAMS_LISTED_MAX: usize = 5;

/// The error of the first call, if each call failed before its first message.
pub(super) fn first_failure_if_all_failed(report: &Report) -> Option<String> {
    let mut failures = report.calls.iter().map(|call| match &call.end {
        CallEnd::Failed { error } => Some(with_twilio_error(error, call)),
        _ => None,
    });
    let first = failures.next()??;
    failures.all(|failure| failure.is_some()).then_some(first)
}

/// The report as JSON.
pub(super) fn json(report: &Report) -> String {
    let text = serde_json::to_string_pretty(report).expect("a report always has a JSON form");
    shown::json(&text).into_owned() + "\n"
}

/// The report in lines for people.
pub(super) fn verdict(report: &Report) -> String {
    let mut text = String::new();
    let calls = report.calls.len();
    let rate = report.frames_sent as f64 / report.seconds;
    let is_twilio = report.provider == Look::twilio().name();
    let look = if is_twilio { String::new() } else { format!(" as {}", report.provider) };
    let _ = writeln!(
        text,
        "{calls} call{}{look}, {} frames sent in {:.1} s ({rate:.0} frames/s)",
        if calls == 1 { "" } else { "s" },
        report.frames_sent,
        report.seconds,
    );
    let late = &report.lateness;
    if late.worst_ms > 0.0 {
        let _ = writeln!(
            text,
            "own lateness: p50 {:.1} ms, p99 {:.1} ms, worst {:.1} ms{}",
            late.p50_ms,
            late.p99_ms,
            late.worst_ms,
            if late.p99_ms > 30.0 {
                " - too late: figures about the server do not count"
            } else {
                ""
            }
        );
    }
    if let Some(certificate) = &report.certificate {
        let certificate = certificate.to_string();
        let _ = writeln!(text, "certificate {}", shown::line(&certificate));
    }
    for ((good, end), count) in ends(report) {
        let end = shown::line(&end); // May quote the server.
        let _ = writeln!(text, "{} {count} x {end}", if good { "ok  " } else { "BAD " });
    }
    let notes: BTreeSet<_> = report.calls.iter().flat_map(|call| &call.notes).collect();
    for note in notes {
        let _ = writeln!(text, "note {}", shown::line(note));
    }
    let streams = streams(report);
    if streams.len() <= STREAMS_LISTED_MAX {
        for stream in streams {
            let _ = writeln!(text, "stream {}", shown::line(stream));
        }
    }
    if let Some(lag_ms) = close_lag_p99_ms(report) {
        let _ = writeln!(text, "from stop to close: p99 {lag_ms:.1} ms");
    }
    if let Some(cost) = &report.server {
        let _ = writeln!(
            text,
            "process {}: {:.2} us a frame, {:.3} cores, {:.1} KiB a call over {:.1} s with all \
             calls up (caller: {:.2} us a frame)",
            cost.pid,
            cost.cpu_us_per_frame,
            cost.cores,
            cost.kib_per_call,
            cost.window_s,
            cost.caller_cpu_us_per_frame,
        );
    }
    text
}

/// The ends of the calls, each with its number of calls; the bad ones first.
fn ends(report: &Report) -> BTreeMap<(bool, String), usize> {
    let mut ends = BTreeMap::new();
    for call in &report.calls {
        let after = if call.stopped { Look::named(report.provider).map_or("", after) } else { "" };
        let end = with_twilio_error(&format!("{}{after}", call.end), call);
        *ends.entry((call.good, end)).or_insert(0) += 1;
    }
    ends
}

/// The last step of the caller.
fn after(look: &'static Look) -> &'static str {
    match look.end {
        End::ServerCloses | End::Lingers => " after stop",
        End::CallerCloses | End::EmptyThenCloses | End::Farewell => " after the caller's close",
    }
}

fn with_twilio_error(text: &str, call: &CallReport) -> String {
    match call.twilio_error {
        Some(error) => format!("{text} ({error})"),
        None => text.to_owned(),
    }
}

/// Ids of the streams that began: the recordings are found by them.
fn streams(report: &Report) -> BTreeSet<&str> {
    let began = report.calls.iter().filter(|call| !matches!(call.end, CallEnd::Failed { .. }));
    began.map(|call| call.stream_sid.as_str()).collect()
}

fn close_lag_p99_ms(report: &Report) -> Option<f64> {
    let mut lags: Vec<f64> = report.calls.iter().filter_map(|call| call.close_lag_ms).collect();
    lags.sort_by(f64::total_cmp);
    let at = (lags.len() * 99).div_ceil(100).checked_sub(1)?;
    lags.get(at).copied()
}
