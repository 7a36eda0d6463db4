//! Events of a call besides audio: digits, marks and faults, each at its time.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use clap::ValueEnum;

use crate::units;

/// Rank of the faults behind which nothing is sent.
const RANK_OF_ENDS: u8 = 3;

/// An action at a certain media time of a call.
#[derive(Clone, Debug, PartialEq)]
pub struct Cue {
    /// Media time of the action. `None`: at once for faults of delivery, else half-way through the
    /// call.
    pub at: Option<Duration>,
    /// The action.
    pub action: Action,
}

/// The action of a cue.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// The far party presses a key.
    Dtmf(char),
    /// Twilio reports that the audio before the mark of this name was played.
    Mark(String),
    /// A fault, with its own measure of time if it has one.
    Fault(Fault, Option<Duration>),
}

impl Action {
    /// Rank among the actions of one instant, regardless of the order in which they were asked for.
    pub(super) fn rank(&self) -> u8 {
        match self {
            Self::Fault(fault, _) => fault.rank(),
            Self::Dtmf(_) | Self::Mark(_) => 1,
        }
    }

    /// Whether nothing is sent on the connection after the action.
    pub(super) fn ends_connection(&self) -> bool {
        matches!(self, Self::Fault(fault, _) if fault.rank() == RANK_OF_ENDS)
    }
}

/// The faults that a call can have. `--help` prints these doc comments.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[non_exhaustive]
pub enum Fault {
    /// Ends with a close frame (1000) but no stop
    StopMissing,
    /// Ends the TCP stream (FIN) without stop or close
    Fin,
    /// Resets the TCP connection
    Rst,
    /// Ends the TCP stream in the middle of a frame
    HalfFrame,
    /// Sends a frame without a mask (the right answer is close code 1002)
    Unmasked,
    /// Sends a frame with a reserved bit set (1002)
    Rsv,
    /// Sends a frame with a reserved opcode (1002)
    ReservedOpcode,
    /// Sends a continuation frame with no message to continue (1002)
    LoneContinuation,
    /// Sends a ping in fragments (1002)
    FragmentedControl,
    /// Sends a text message that is not UTF-8 (1007)
    BadUtf8,
    /// Declares a frame of 2^62 bytes (1009)
    HugeFrame,
    /// Sends nothing until the server gives up, for VALUE (120 s) at most
    Silent,
    /// Answers no ping from here on; with silent, like a peer that is gone
    NoPong,
    /// Sends nothing for VALUE (1 s), then all frames due in one burst
    Stall,
    /// Loses VALUE (300 ms) of media and their numbers
    Gap,
    /// Loses VALUE (300 ms) of media, but no number
    GapNoHole,
    /// Sends one frame VALUE (300 ms) late
    Late,
    /// Swaps two neighbouring frames
    Reorder,
    /// Sends one frame twice
    Duplicate,
    /// Lets timestamps jump forward by VALUE (60 s)
    TimestampJump,
    /// Sends a media message with broken base64
    BadBase64,
    /// Sends a message that is not JSON
    BadJson,
    /// Sends a binary message
    Binary,
    /// Sends media before start
    MediaBeforeStart,
    /// Sends media after stop
    MediaAfterStop,
    /// Sends start again with the same ids
    SecondStart,
    /// Sends start again with another stream id
    SecondStartOther,
    /// Drops the connection and goes on over a new one, with the same ids
    Reconnect,
    /// Places the same call again, with the same ids and audio
    Replay,
    /// Writes byte by byte
    SplitBytes,
    /// Sends messages in three fragments with a ping between them
    Fragments,
    /// Dribbles every frame over its 20 ms
    Slow,
    /// Echoes each mark of a bot VALUE (300 ms) late
    LateEcho,
    /// Echoes each mark of a bot as soon as it comes
    EarlyEcho,
    /// Echoes no mark of a bot
    NoEcho,
}

impl Fault {
    /// Default length or size of the fault.
    pub(super) fn default_measure(self) -> Duration {
        match self {
            Self::Silent => Duration::from_secs(120),
            Self::TimestampJump => Duration::from_secs(60),
            Self::Stall => Duration::from_secs(1),
            _ => Duration::from_millis(300),
        }
    }

    /// The close codes a server may end the call with; empty: any ending is right.
    pub(super) fn expected_codes(self) -> &'static [u16] {
        match self {
            Self::Fin | Self::Rst | Self::HalfFrame | Self::Silent => &[],
            Self::Unmasked
            | Self::Rsv
            | Self::ReservedOpcode
            | Self::LoneContinuation
            | Self::FragmentedControl => &[1002],
            Self::BadUtf8 => &[1007],
            Self::HugeFrame => &[1009],
            Self::Binary => &[1000, 1003],
            Self::BadJson => &[1000, 1007, 1008],
            _ => &[1000],
        }
    }

    /// Rank of the fault among the cues of one instant: ways of writing and answering first, then
    /// single events, then a stall, and last the faults that hold the call up or end it, since no cue
    /// would come after them.
    fn rank(self) -> u8 {
        match self {
            _ if self.is_of_echo() => 0,
            Self::Fragments | Self::NoPong | Self::Slow | Self::SplitBytes => 0,
            Self::Stall => 2,
            Self::StopMissing
            | Self::Fin
            | Self::Rst
            | Self::HalfFrame
            | Self::Unmasked
            | Self::Rsv
            | Self::ReservedOpcode
            | Self::LoneContinuation
            | Self::FragmentedControl
            | Self::BadUtf8
            | Self::HugeFrame
            | Self::Silent
            | Self::Reconnect => RANK_OF_ENDS,
            _ => 1,
        }
    }

    /// Whether the fault is one of the echoes of a bot's marks.
    pub(super) const fn is_of_echo(self) -> bool {
        matches!(self, Self::EarlyEcho | Self::LateEcho | Self::NoEcho)
    }

    fn name(self) -> String {
        let value = self.to_possible_value().expect("no fault is skipped");
        value.get_name().to_owned()
    }
}

impl fmt::Display for Cue {
    /// Formats the cue as its option spells it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.action {
            Action::Dtmf(digit) => write!(f, "{digit}")?,
            Action::Mark(name) => f.write_str(name)?,
            Action::Fault(fault, None) => f.write_str(&fault.name())?,
            Action::Fault(fault, Some(measure)) => write!(f, "{}={measure:?}", fault.name())?,
        }
        self.at.map_or(Ok(()), |at| write!(f, "@{at:?}"))
    }
}

impl FromStr for Cue {
    type Err = String;

    /// Parses a fault: `NAME[=DURATION][@TIME]`.
    fn from_str(text: &str) -> Result<Self, String> {
        let (fault, at) = split_time(text)?;
        let (name, measure) = match fault.split_once('=') {
            Some((name, measure)) => (name, Some(parse_duration(measure)?)),
            None => (fault, None),
        };
        let fault = Fault::from_str(name, false)
            .map_err(|_| format!("no such fault; known are {}", names().join(", ")))?;
        Ok(Self { at, action: Action::Fault(fault, measure) })
    }
}

/// Parses `DIGIT[@TIME]`.
pub(super) fn parse_dtmf(text: &str) -> Result<Cue, String> {
    let (digit, at) = split_time(text)?;
    match digit.parse() {
        Ok(digit @ ('0'..='9' | '*' | '#' | 'A'..='D')) => {
            Ok(Cue { at, action: Action::Dtmf(digit) })
        }
        _ => Err("a key is one of 0-9 * # A-D, as in 1@2s".to_owned()),
    }
}

/// Parses `NAME[@TIME]`.
pub(super) fn parse_mark(text: &str) -> Result<Cue, String> {
    let (name, at) = split_time(text)?;
    Ok(Cue { at, action: Action::Mark(name.to_owned()) })
}

/// Parses a duration that is part of a cue.
fn parse_duration(text: &str) -> Result<Duration, String> {
    units::duration(text).map_err(|advice| format!("`{text}` is no duration: {advice}"))
}

/// The help of `--fault`, with one line a fault.
pub(super) fn help() -> String {
    let lines = Fault::value_variants().iter().map(|fault| {
        let value = fault.to_possible_value().expect("no fault is skipped");
        format!("{:<18} {}", value.get_name(), value.get_help().unwrap_or_default())
    });
    let lines: Vec<_> = lines.collect();
    format!(
        "Injects a fault: NAME[=VALUE][@TIME], TIME and VALUE like 2s or 300ms; may be given again. \
         Without TIME the fault happens half-way through the call, or from the start if it is a way \
         of writing or answering:\n{}",
        lines.join("\n")
    )
}

fn split_time(text: &str) -> Result<(&str, Option<Duration>), String> {
    match text.rsplit_once('@') {
        Some((what, at)) => Ok((what, Some(parse_duration(at)?))),
        None => Ok((text, None)),
    }
}

fn names() -> Vec<String> {
    Fault::value_variants().iter().map(|fault| fault.name()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_may_have_a_measure_and_a_time() {
        let parse = |text: &str| text.parse::<Cue>();
        let (ms, s) = (Duration::from_millis, Duration::from_secs);
        let gap = |measure, at| Ok(Cue { at, action: Action::Fault(Fault::Gap, measure) });
        assert_eq!(parse("gap"), gap(None, None));
        assert_eq!(parse("gap=500ms"), gap(Some(ms(500)), None));
        assert_eq!(parse("gap@1.5s"), gap(None, Some(ms(1500))));
        assert_eq!(parse("gap=500ms@1m"), gap(Some(ms(500)), Some(s(60))));
        assert!(parse("gpa").unwrap_err().contains("gap-no-hole"));
        assert!(parse("gap@soon").unwrap_err().contains("`soon` is no duration"));
    }

    #[test]
    fn keys_and_marks_may_have_a_time() {
        let digit = Cue { at: Some(Duration::from_secs(2)), action: Action::Dtmf('#') };
        assert_eq!(parse_dtmf("#@2s"), Ok(digit));
        assert!(parse_dtmf("12").is_err());
        let mark = Cue { at: None, action: Action::Mark("said hello".to_owned()) };
        assert_eq!(parse_mark("said hello"), Ok(mark));
    }

    #[test]
    fn help_has_a_line_for_every_fault() {
        assert_eq!(help().lines().count(), 1 + Fault::value_variants().len());
    }
}
