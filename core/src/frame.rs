//! The common vocabulary of the providers' messages.
//!
//! [`parse`] turns one text message of a [`Provider`] into a [`Frame`]. Wire names live in the
//! provider's own file and nowhere else.

mod members;
mod twilio;

pub(crate) use self::twilio::SID_BYTES;

use core::fmt;

use heapless::Vec;

/// Deepest nesting of arrays and objects: the parser recurses, and a device's stack is small.
pub const DEPTH_MAX: usize = 32;

const _: () = assert!(DEPTH_MAX <= u32::BITS as usize, "a bit for each level");

/// Most custom parameters of a stream that are kept; further ones are counted.
///
/// Fewer on a microcontroller: while a start is parsed, the stack holds several copies of them.
pub const PARAMETERS_MAX: usize = if cfg!(target_pointer_width = "64") { 32 } else { 8 };

/// Provider of a connection's messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum Provider {
    /// Twilio Media Streams, and senders that speak its dialect.
    Twilio,
}

impl Provider {
    /// Name in records and logs.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Twilio => "twilio",
        }
    }
}

/// Reason that a peer's message was not taken. Each costs that message and nothing else.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum PeerError {
    /// The payload is not base64: standard alphabet, padded, no blanks, no stray bits (RFC 4648,
    /// section 4).
    Base64,
    /// Arrays and objects nest deeper than [`DEPTH_MAX`].
    Depth,
    /// Not JSON (RFC 8259).
    Json,
    /// Not an object; or a field that the event needs is absent, has another type, or occurs twice.
    Shape,
    /// Audio of a track that the stream did not announce.
    Track,
}

impl PeerError {
    /// Every reason, in the order of [`index`](Self::index).
    pub const ALL: [Self; 5] = [Self::Base64, Self::Depth, Self::Json, Self::Shape, Self::Track];

    /// Index in [`ALL`](Self::ALL).
    #[must_use]
    pub const fn index(self) -> usize {
        self as usize
    }

    /// One word for records.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Base64 => "base64",
            Self::Depth => "depth",
            Self::Json => "json",
            Self::Shape => "shape",
            Self::Track => "track",
        }
    }
}

impl fmt::Display for PeerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Base64 => "the peer's payload is not padded standard base64",
            Self::Depth => "the peer's message nests too deep",
            Self::Json => "the peer's message is not JSON",
            Self::Shape => "the peer's message has a missing, repeated or mistyped field",
            Self::Track => "the peer sent audio of a track it did not announce",
        })
    }
}

impl core::error::Error for PeerError {}

/// One message of a provider.
#[derive(Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Frame<'t> {
    /// Number among the stream's messages, if the message has one.
    pub sequence: Option<u64>,
    /// Id of the message's stream, as it stands between the quotes; empty if there is none.
    pub stream_id: &'t [u8],
    /// Content of the message.
    pub body: Body<'t>,
    /// The stream id equals the `known` id that was given to the parser.
    pub(crate) is_known: bool,
}

impl<'t> Frame<'t> {
    /// The message without the space that a start takes; `None` if it is not media.
    #[must_use]
    #[inline]
    pub const fn media(&self) -> Option<MediaFrame<'t>> {
        match self {
            Self { sequence, stream_id, body: Body::Media(media), is_known } => {
                let (sequence, stream_id, media) = (*sequence, *stream_id, *media);
                Some(MediaFrame { sequence, stream_id, media, is_known: *is_known })
            }
            _ => None,
        }
    }
}

/// One media message of a provider.
#[derive(Clone, Copy, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct MediaFrame<'t> {
    /// Number among the stream's messages, if the message has one.
    pub sequence: Option<u64>,
    /// Id of the message's stream, as it stands between the quotes; empty if there is none.
    pub stream_id: &'t [u8],
    /// The audio.
    pub media: Media<'t>,
    /// As in [`Frame`].
    pub(crate) is_known: bool,
}

/// Content of a message.
#[derive(Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[cfg_attr(
    target_pointer_width = "64",
    expect(
        clippy::large_enum_variant,
        reason = "a start is rare, lives on the stack for a moment, and there is no heap to box it on"
    )
)]
pub enum Body<'t> {
    /// The connection is open; nothing else is known yet.
    Connected,
    /// A key was pressed.
    Dtmf(Dtmf<'t>),
    /// Audio that was sent to the call has been played.
    Mark(Mark<'t>),
    /// Audio.
    Media(Media<'t>),
    /// An event of no use to a recorder, known or unknown.
    Other,
    /// Media that cannot be taken, and the reason.
    Rejected(PeerError),
    /// A stream begins.
    Start(Start<'t>),
    /// The stream is over.
    Stop,
}

/// A piece of a track's audio.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Media<'t> {
    /// Track of the audio.
    pub track: Track,
    /// Number among the chunks of the track (with some providers, of the stream).
    pub chunk: Option<u64>,
    /// Place in media time, in milliseconds by the provider's documentation (but see
    /// [`MediaClock`](crate::session::MediaClock)), from an origin of the provider's choice.
    pub timestamp_ms: Option<u64>,
    /// Mu-law codes, decoded from base64.
    pub codes: &'t [u8],
}

/// A direction of the call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Track {
    /// From the far party to the provider.
    Inbound,
    /// From the provider to the far party.
    Outbound,
}

impl Track {
    /// Name in records and logs.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Inbound => "inbound",
            Self::Outbound => "outbound",
        }
    }
}

/// The tracks that a stream announces.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Tracks {
    /// Inbound and outbound.
    Both,
    /// One track.
    One(Track),
}

impl Tracks {
    /// Channels of the recording: one for each track.
    #[must_use]
    pub const fn channels(self) -> u16 {
        match self {
            Self::Both => 2,
            Self::One(_) => 1,
        }
    }

    /// The channel of `track`, inbound first; `None` when it was not announced.
    #[must_use]
    pub fn channel(self, track: Track) -> Option<usize> {
        match self {
            Self::Both => Some(track as usize),
            Self::One(announced) => (announced == track).then_some(0),
        }
    }

    /// The tracks in the order of their channels.
    pub fn iter(self) -> impl Iterator<Item = Track> {
        [Track::Inbound, Track::Outbound].into_iter().filter(move |t| self.channel(*t).is_some())
    }
}

/// Content of a stream's start message.
#[derive(Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Start<'t> {
    /// Id of the stream; empty if not given. Not checked in any way: not fit for a path.
    pub stream_id: Text<'t>,
    /// Id of the call; empty if not given.
    pub call_id: Text<'t>,
    /// Id of the account; empty if not given.
    pub account_id: Text<'t>,
    /// The tracks announced; inbound if none is named.
    pub tracks: Tracks,
    /// Encoding of the audio, in the provider's words; empty if not given.
    pub encoding: Text<'t>,
    /// Whether the format is 8 kHz mono mu-law, the one format recorded; true if no format is given.
    pub supported: bool,
    /// Parameters that the user gave the stream: at most [`PARAMETERS_MAX`] names and values.
    pub parameters: Vec<(Text<'t>, Text<'t>), PARAMETERS_MAX>,
    /// Number of further parameters, not kept.
    pub parameters_dropped: u32,
    /// Fields of a type other than the provider documents. Fields that recording needs are read as far
    /// as they make sense, the others as if they were absent.
    pub odd_fields: u32,
}

/// A pressed key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Dtmf<'t> {
    /// The key, one character.
    pub digit: Text<'t>,
}

/// The echo of a mark.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Mark<'t> {
    /// Name that the mark was given; empty if there is none.
    pub name: Text<'t>,
}

/// A JSON string as it stands between its quotes; `Display` and [`chars`](Self::chars) undo the escapes.
/// Equality compares the spelling: different texts may mean the same characters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Text<'t>(&'t str);

impl<'t> Text<'t> {
    /// Wraps the text between a JSON string's quotes.
    #[must_use]
    pub const fn new(escaped: &'t str) -> Self {
        Self(escaped)
    }

    /// Whether the string is empty.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0.is_empty()
    }

    /// The text with its escapes left in.
    #[must_use]
    pub const fn as_escaped(self) -> &'t str {
        self.0
    }

    /// The characters, with escapes undone. A surrogate pair is one character; half a pair, and an
    /// escape that JSON does not know, are U+FFFD.
    pub fn chars(self) -> impl Iterator<Item = char> + 't {
        Unescape(self.0)
    }
}

impl fmt::Display for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use fmt::Write as _;
        self.chars().try_for_each(|character| f.write_char(character))
    }
}

struct Unescape<'t>(&'t str);

impl Unescape<'_> {
    /// Takes four hexadecimal digits, if they come next.
    fn unit(&mut self) -> Option<u32> {
        let unit = hex(self.0.as_bytes().first_chunk()?)?;
        self.0 = self.0.get(4..)?;
        Some(unit)
    }

    /// Takes the second half of a surrogate pair, if it comes next.
    fn low_surrogate(&mut self) -> Option<u32> {
        let mut ahead = Unescape(self.0.strip_prefix("\\u")?);
        let low = ahead.unit().filter(|unit| (0xDC00..0xE000).contains(unit))?;
        self.0 = ahead.0;
        Some(low)
    }
}

impl Iterator for Unescape<'_> {
    type Item = char;

    fn next(&mut self) -> Option<char> {
        let mut take = || {
            let character = self.0.chars().next()?;
            self.0 = self.0.get(character.len_utf8()..)?;
            Some(character)
        };
        let plain = take()?;
        if plain != '\\' {
            return Some(plain);
        }
        let code = match take() {
            Some('b') => 0x08,
            Some('f') => 0x0C,
            Some('n') => 0x0A,
            Some('r') => 0x0D,
            Some('t') => 0x09,
            Some('u') => match self.unit() {
                Some(high @ 0xD800..0xDC00) => match self.low_surrogate() {
                    Some(low) => 0x10000 + ((high - 0xD800) << 10) + (low - 0xDC00),
                    None => high,
                },
                Some(unit) => unit,
                None => return Some(char::REPLACEMENT_CHARACTER),
            },
            Some(same @ ('"' | '\\' | '/')) => same as u32,
            _ => return Some(char::REPLACEMENT_CHARACTER),
        };
        Some(char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER))
    }
}

/// Parses one text message, and decodes its payload in place. Takes linear time.
///
/// `text` must be UTF-8, as [`ws`](crate::ws) ensures. It is scratch memory: its escapes are rewritten
/// and its payload is decoded. Only a message other than media may be parsed again.
///
/// The parser extracts, it does not validate: JSON with a fault inside an unused field may pass, though
/// other parsers refuse it. Messages that other parsers accept, within the limits, are read with equal
/// values, in any spelling: blanks, key order, escapes, numbers bare or quoted, unknown events and
/// fields.
///
/// # Errors
/// [`PeerError`]: count the message and go on with the next.
#[inline]
pub fn parse(provider: Provider, text: &mut [u8]) -> Result<Frame<'_>, PeerError> {
    parse_known(provider, text, b"")
}

/// Like [`parse`], faster for messages that name the stream `known`: an id seen before need not be
/// checked again. `known` is an earlier [`Frame::stream_id`], or empty.
#[inline]
pub(crate) fn parse_known<'t>(
    provider: Provider,
    text: &'t mut [u8],
    known: &[u8],
) -> Result<Frame<'t>, PeerError> {
    match provider {
        Provider::Twilio => twilio::parse(text, known),
    }
}

/// Keys of one provider that [`canonicalise`] treats specially.
struct Dialect {
    /// Keys of whole numbers, bare or quoted.
    numbers: &'static [&'static [u8]],
    /// Keys of objects with contents of the user's own: no key in there is the provider's.
    free: &'static [&'static [u8]],
}

/// Rewrites a JSON text in place so that the parser, which knows one spelling only, reads every legal
/// spelling.
///
/// - Escaped characters that need no escape (`\/`, `\u0065`) are spelled plainly, so that keys, event
///   names and base64 compare equal. Other escapes stay for [`Text`].
/// - Quoted numbers lose their quotes. A value that is not a whole number of 64 bits makes its key
///   unknown, as if it were absent: audio with a nonsensical timestamp is still audio.
/// - Bytes freed at the end become blanks.
/// - A byte order mark becomes blanks.
///
/// Takes linear time. Text that is not JSON stays invalid. Returns the number of keys made unknown.
///
/// # Errors
/// [`PeerError::Depth`]: deeper than [`DEPTH_MAX`], found before anything recurses. [`PeerError::Json`]:
/// quotes, colons or bare values stand where the parser could count another depth.
fn canonicalise(text: &mut [u8], dialect: &Dialect) -> Result<u32, PeerError> {
    if let Some(mark) = text.get_mut(..3).filter(|start| **start == *b"\xEF\xBB\xBF") {
        mark.fill(b' ');
    }
    let mut pass = Pass { text, read: 0, write: 0, hidden: 0 };
    let mut depth = 0;
    // One bit for each open array (0) or object (1), the innermost lowest.
    let mut objects = 0u32;
    let mut free_depth = None;
    // Start of the key before the current value, if the value must be a number.
    let mut number_key = None;
    let mut before_free = false;
    while let Some(byte) = pass.peek() {
        match byte {
            b'"' => {
                let string = pass.string();
                if let Some(key) = number_key.take() {
                    pass.end_value()?;
                    pass.unquote(string, key);
                } else if objects & 1 == 0 || !pass.colon() {
                    pass.end_value()?;
                } else if free_depth.is_none() {
                    let name = pass.text.get(string.clone()).unwrap_or_default();
                    number_key = dialect.numbers.contains(&name).then_some(string.start);
                    before_free = dialect.free.contains(&name);
                }
                continue;
            }
            b'{' | b'[' => {
                depth += 1;
                if depth > DEPTH_MAX {
                    return Err(PeerError::Depth);
                }
                objects = objects << 1 | u32::from(byte == b'{');
                if core::mem::take(&mut before_free) {
                    free_depth = Some(depth);
                }
                pass.hide(number_key.take());
            }
            b'}' | b']' => {
                if free_depth == Some(depth) {
                    free_depth = None;
                }
                depth = depth.saturating_sub(1);
                objects >>= 1;
            }
            b' ' | b'\t' | b'\n' | b'\r' => {}
            b',' => before_free = false,
            _ => {
                pass.bare(number_key.take())?;
                continue;
            }
        }
        pass.keep();
    }
    pass.text.get_mut(pass.write..).unwrap_or_default().fill(b' ');
    Ok(pass.hidden)
}

/// *Invariant: write <= read <= text's length; the bytes before `write` are rewritten.*
struct Pass<'t> {
    text: &'t mut [u8],
    read: usize,
    write: usize,
    /// Keys made unknown.
    hidden: u32,
}

impl Pass<'_> {
    fn peek(&self) -> Option<u8> {
        self.text.get(self.read).copied()
    }

    fn peek_past_blanks(&self) -> Option<u8> {
        let rest = self.text.get(self.read..)?;
        rest.iter().copied().find(|byte| !matches!(byte, b' ' | b'\t' | b'\n' | b'\r'))
    }

    fn put(&mut self, byte: u8) {
        if let Some(place) = self.text.get_mut(self.write) {
            *place = byte;
            self.write += 1;
        }
    }

    fn keep(&mut self) {
        if let Some(byte) = self.peek() {
            self.read += 1;
            self.put(byte);
        }
    }

    /// Rewrites a string up to and including its closing quote; returns the new range of its contents.
    fn string(&mut self) -> core::ops::Range<usize> {
        self.keep();
        let start = self.write;
        loop {
            match self.peek() {
                None => return start..self.write,
                Some(b'"') => {
                    let end = self.write;
                    self.keep();
                    return start..end;
                }
                Some(b'\\') => self.escape(),
                Some(_) => self.keep(),
            }
        }
    }

    /// Rewrites one escape: as the plain character if it may stand by itself, else unchanged.
    fn escape(&mut self) {
        let rest = self.text.get(self.read..).unwrap_or_default();
        let plain = match rest {
            [_, b'/', ..] => Some((b'/', 2)),
            [_, b'u', a, b, c, d, ..] => match hex(&[*a, *b, *c, *d]) {
                Some(code @ 0x20..0x7F) if !matches!(code as u8, b'"' | b'\\') => {
                    Some((code as u8, 6))
                }
                _ => None,
            },
            _ => None,
        };
        if let Some((character, length)) = plain {
            self.read += length;
            self.put(character);
        } else {
            self.keep();
            self.keep();
        }
    }

    /// Removes the quotes of a number that was just rewritten, or hides the key of an invalid one.
    fn unquote(&mut self, string: core::ops::Range<usize>, key: usize) {
        let digits = self.text.get_mut(string.clone()).unwrap_or_default();
        if !is_u64(digits) {
            return self.hide(Some(key));
        }
        // A bare number may not begin with a zero.
        let zeros = digits.iter().take_while(|digit| **digit == b'0').count();
        digits.get_mut(..zeros.min(digits.len() - 1)).unwrap_or_default().fill(b' ');
        for quote in [string.start.wrapping_sub(1), string.end] {
            if let Some(byte) = self.text.get_mut(quote) {
                *byte = b' ';
            }
        }
    }

    /// Keeps a bare value; hides its key if that needs a number and the value is none.
    fn bare(&mut self, key: Option<usize>) -> Result<(), PeerError> {
        let start = self.write;
        while let Some(b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z' | b'+' | b'-' | b'.') = self.peek() {
            self.keep();
        }
        let value = self.text.get(start..self.write).unwrap_or_default();
        if !is_u64(value) {
            // `null` is not odd: some senders write it for an absent field.
            let before = self.hidden + u32::from(value != b"null");
            self.hide(key);
            self.hidden = self.hidden.min(before);
        }
        self.end_value()
    }

    /// Checks that a value ends here.
    ///
    /// The parser skips a bare value up to the next comma or bracket, and a quote in there begins no
    /// string for it; after `[,` it reads a colon as such a value. Brackets that the parser counts must
    /// not be inside a string here.
    fn end_value(&self) -> Result<(), PeerError> {
        match self.peek_past_blanks() {
            None | Some(b',' | b'}' | b']') => Ok(()),
            Some(_) => Err(PeerError::Json),
        }
    }

    /// Skips the colon that makes the string before it a key; returns whether it came next.
    fn colon(&mut self) -> bool {
        let found = self.peek_past_blanks() == Some(b':');
        while found && self.peek() != Some(b':') {
            self.keep();
        }
        if found {
            self.keep();
        }
        found
    }

    /// Makes a key unknown; its contents begin at `key`.
    fn hide(&mut self, key: Option<usize>) {
        if let Some(byte) = key.and_then(|key| self.text.get_mut(key)) {
            *byte = b' ';
            self.hidden = self.hidden.saturating_add(1);
        }
    }
}

/// Compares two texts by words, since `memcmp` on small machines goes by bytes.
#[inline]
pub(crate) fn is_same<const N: usize>(text: &[u8; N], expected: &[u8; N]) -> bool {
    let (Some(last), Some(last_expected)) = (text.last_chunk(), expected.last_chunk()) else {
        return text == expected;
    };
    let difference = |word, expected| usize::from_ne_bytes(word) ^ usize::from_ne_bytes(expected);
    // The last word may overlap the words below.
    let mut all = difference(*last, *last_expected);
    for (word, expected) in text.as_chunks().0.iter().zip(expected.as_chunks().0) {
        all |= difference(*word, *expected);
    }
    all == 0
}

fn is_u64(digits: &[u8]) -> bool {
    parse_u64(digits).is_some()
}

/// Reads decimal digits, nothing else.
fn parse_u64(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0u64, |number, digit| {
        let value = digit.wrapping_sub(b'0');
        if value > 9 {
            return None;
        }
        number.checked_mul(10)?.checked_add(u64::from(value))
    })
}

fn hex(digits: &[u8; 4]) -> Option<u32> {
    digits.iter().try_fold(0, |code, digit| Some(code << 4 | char::from(*digit).to_digit(16)?))
}

#[cfg(test)]
mod tests {
    use std::format;
    use std::string::String;
    use std::vec::Vec;

    use super::*;

    const DIALECT: Dialect = Dialect { numbers: &[b"n", b"m"], free: &[b"free"] };

    fn canonical(text: &str) -> Result<String, PeerError> {
        let mut text = Vec::from(text);
        canonicalise(&mut text, &DIALECT)?;
        Ok(String::from(String::from_utf8_lossy(&text).trim_end()))
    }

    #[test]
    fn needless_escapes_are_spelled_plainly_and_needed_ones_stay() {
        assert_eq!(canonical(r#"{"\u0065":"\/\u002b\u0041"}"#).unwrap(), r#"{"e":"/+A"}"#);
        let needed = r#"{"a":"\"\\\b\n\u0000\u0022\u005c\u007f\u00e9\ud83d\ude00"}"#;
        assert_eq!(canonical(needed).unwrap(), needed);
        assert_eq!(canonical(r#"["\\u0041","\\\u0041"]"#).unwrap(), r#"["\\u0041","\\A"]"#);
    }

    #[test]
    fn numbers_lose_their_quotes_and_nonsense_loses_its_key() {
        for (given, expected) in [
            (r#"{"n":"12"}"#, r#"{"n": 12 }"#),
            (r#"{"n" : "0012" }"#, r#"{"n" :    12  }"#),
            (r#"{"n":"0"}"#, r#"{"n": 0 }"#),
            (r#"{"n":"000"}"#, r#"{"n":   0 }"#),
            (r#"{"n":18446744073709551615}"#, r#"{"n":18446744073709551615}"#),
            (r#"{"n":18446744073709551616}"#, r#"{" ":18446744073709551616}"#),
            (r#"{"n":"18446744073709551616"}"#, r#"{" ":"18446744073709551616"}"#),
            (r#"{"n":-1,"m":1.5}"#, r#"{" ":-1," ":1.5}"#),
            (r#"{"n":"","m":"1 "}"#, r#"{" ":""," ":"1 "}"#),
            (r#"{"n":null,"m":true}"#, r#"{" ":null," ":true}"#),
            (r#"{"n":[1],"m":{"n":"1"}}"#, r#"{" ":[1]," ":{"n": 1 }}"#),
            (r#"{"n":"\u0031"}"#, r#"{"n": 1 }"#),
        ] {
            assert_eq!(canonical(given).unwrap(), expected, "{given}");
        }
    }

    #[test]
    fn what_the_user_named_is_not_taken_for_ours() {
        let free = r#"{"free":{"n":"01","free":{"m":"x"}}}"#;
        assert_eq!(canonical(free).unwrap(), free);
        assert_eq!(
            canonical(r#"{"free":{"n":"1"},"n":"1"}"#).unwrap(),
            r#"{"free":{"n":"1"},"n": 1 }"#
        );
    }

    #[test]
    fn nothing_before_a_pile_of_brackets_hides_it_from_the_depth_limit() {
        // If the parser recursed into a pile, this stack would overflow and end the process.
        let tokens = ["[", "{", "\"", ",", ":", "a", "5", "\\", "]", "}", " ", "\"k\":"];
        let beginnings =
            ["", "[", r#"{"x":"#, r#"{"x":["#, r#"{"start":{"timestamp":"5" "#, r#"{"timestamp":"#];
        let pile = "[".repeat(700);
        // Miri runs a sample of them.
        let step = if cfg!(miri) { 5003 } else { 1 };
        let all = move || {
            for beginning in beginnings {
                for number in (0..tokens.len().pow(4)).step_by(step) {
                    let token = |place| tokens[number / tokens.len().pow(place) % tokens.len()];
                    let soup: String = (0..4).map(token).collect();
                    let text = format!("{beginning}{soup}{pile}");
                    assert!(parse(Provider::Twilio, &mut Vec::from(&*text)).is_err(), "{text}");
                }
            }
        };
        let thread = std::thread::Builder::new().stack_size(96 << 10).spawn(all);
        thread.unwrap().join().unwrap();
    }

    #[test]
    fn text_means_what_json_means() {
        let text = |escaped: &'static str| -> String { Text::new(escaped).chars().collect() };
        assert_eq!(text(r#"a\"\\\/\b\f\n\r\tz"#), "a\"\\/\u{8}\u{c}\n\r\tz");
        assert_eq!(text(r"\u00e9\u20ac\ud83d\ude00\uD83D\uDE00"), "é€😀😀");
        assert_eq!(text(r"\ud83d"), "\u{fffd}");
        assert_eq!(text(r"\ud83dx\ude00\u0041"), "\u{fffd}x\u{fffd}A");
        assert_eq!(text(r"\ud83d\ud83d\ude00"), "\u{fffd}😀");
        assert_eq!(text(r"\x\u12"), "\u{fffd}\u{fffd}12");
        assert_eq!(text(r"\"), "\u{fffd}");
        assert_eq!(format!("{}", Text::new(r"caf\u00e9")), "café");
    }
}
