//! The verdict of `callreel call`: the report of its calls, in words or as JSON.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use super::looks::End;
use super::{CallEnd, CallReport, Heard, Latency, Look, Report, Utterance};
use crate::shown;

/// Most streams that the verdict lists; if there are more, it lists none.
const STREAMS_LISTED_MAX: usize = 5;

/// Most utterances that the verdict lists.
const LINES_MAX: usize = 40;

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
    text.push_str(&conversations(report));
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

/// The conversations with bots, in lines; empty if there are none.
fn conversations(report: &Report) -> String {
    let mut text = String::new();
    let all: Vec<&Heard> = report.calls.iter().filter_map(|call| call.heard.as_ref()).collect();
    if all.is_empty() {
        return text;
    }
    let sum = |value: fn(&Heard) -> f64| all.iter().map(|heard| value(heard)).sum::<f64>();
    let count = |value: fn(&Heard) -> u64| all.iter().map(|heard| value(heard)).sum::<u64>();
    let _ = writeln!(
        text,
        "the bot sent {:.2} s of audio in {}, the longest with {:.2} s: {:.2} s heard, {:.2} s \
         cleared ({}), {:.2} s not heard before the end",
        sum(|heard| heard.received_s),
        counted(count(|heard| heard.messages), "message"),
        all.iter().map(|heard| heard.largest_message_s).fold(0.0, f64::max),
        sum(|heard| heard.heard_s),
        sum(|heard| heard.cleared_s),
        counted(count(|heard| heard.clears), "clear"),
        sum(|heard| heard.unheard_s),
    );
    let (marks, nameless) = (count(|heard| heard.marks), count(|heard| heard.nameless_marks));
    if marks > 0 {
        let nameless =
            if nameless > 0 { format!(", {nameless} without a name") } else { String::new() };
        let echoes = count(|heard| heard.echoes);
        let _ = writeln!(text, "{} of the bot{nameless}; {echoes} echoed", counted(marks, "mark"));
    }
    if let [heard] = all[..] {
        timeline(heard, &mut text);
    }
    let turns = || all.iter().flat_map(|heard| &heard.turns);
    let unanswered = turns().filter(|turn| turn.answer_s.is_none()).count() as u64;
    if let Some(Latency { median_ms, worst_ms }) = Latency::of(turns()) {
        let _ = writeln!(
            text,
            "latency of the answers: median {median_ms:.0} ms, worst {worst_ms:.0} ms in {}, {unanswered} \
             without an answer",
            counted(turns().count() as u64, "turn"),
        );
    }
    for heard in &all {
        slow_turns(heard, &mut text);
        if let Some(file) = &heard.file {
            let path = file.display().to_string();
            let _ = writeln!(text, "saved both sides to {}", shown::line(&path));
        }
    }
    text
}

/// Lines for the utterances of both sides, in the order of their times.
fn timeline(heard: &Heard, text: &mut String) {
    let utterances = |side: &'static str, all: &[Utterance]| {
        let line = |u: &Utterance| {
            (u.from_s, format!("{:>7.2} s  {side} speaks for {:.2} s", u.from_s, u.to_s - u.from_s))
        };
        all.iter().map(line).collect::<Vec<_>>()
    };
    let mut lines = utterances("the caller", &heard.said);
    lines.extend(utterances("the bot", &heard.utterances));
    if let Some(at) = heard.hung_up_s {
        lines.push((at, format!("{at:>7.2} s  the bot hangs up")));
    }
    lines.sort_by(|(one, _), (other, _)| one.total_cmp(other));
    for (_, line) in lines.iter().take(LINES_MAX) {
        let _ = writeln!(text, "{line}");
    }
    if lines.len() > LINES_MAX {
        let _ =
            writeln!(text, "           and {} more (--json lists them)", lines.len() - LINES_MAX);
    }
}

/// Lines for the turns that were answered too late, or not at all.
fn slow_turns(heard: &Heard, text: &mut String) {
    for turn in heard.turns.iter().filter(|turn| turn.is_too_slow) {
        let answer = match turn.latency_ms {
            Some(ms) => format!("is answered after {ms:.0} ms"),
            None => "is not answered".to_owned(),
        };
        let _ = writeln!(
            text,
            "BAD  the turn that ends at {:.2} s {answer}, above --max-latency",
            turn.to_s
        );
    }
    if heard.is_too_slow && heard.turns.iter().all(|turn| !turn.is_too_slow) {
        let _ =
            writeln!(text, "BAD  no answer was heard, so that no latency is below --max-latency");
    }
}

fn counted(count: u64, name: &str) -> String {
    format!("{count} {name}{}", if count == 1 { "" } else { "s" })
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
