//! The messages of the voice bot of a relayed call.

use std::time::Instant;

use callreel_core::format::Format;
use callreel_core::frame::bot::{self, BotFrame};
use callreel_core::frame::{PeerError, Text};
use callreel_core::ws::CloseCode;

use super::routing::Routed as _;
use super::{Call, Context};
use crate::audio::converted;
use crate::recording::FromBot;

/// Longest audio of one message that is converted to the format of its stream, in seconds.
const CONVERTED_SECONDS_MAX: f64 = 120.0;

impl Call {
    /// Handles a message of the bot, which has gone on to the provider. Audio that comes before a stream has
    /// begun is not heard.
    pub fn handle_bot_message(
        &mut self,
        message: &mut [u8],
        is_text: bool,
        context: &mut Context,
        now: Instant,
    ) {
        let Some(provider) = self.provider() else {
            return;
        };
        let mut told = None;
        let frame = match (is_text, std::str::from_utf8(message)) {
            (true, Ok(text)) => {
                told = bot::told_format(provider, text);
                bot::parse(provider, message).ok()
            }
            (true, Err(_)) => None,
            (false, _) => Some(bot::parse_binary(provider, message)),
        };
        match frame {
            None => self.tell_bot(FromBot::Unread, context, now),
            Some(BotFrame::Audio(bytes)) => self.tell_audio(bytes, told, context, now),
            Some(BotFrame::Clear) => self.tell_bot(FromBot::Clear, context, now),
            Some(BotFrame::Mark(name)) => {
                let name = name.and_then(|name| std::str::from_utf8(name).ok());
                let name = name.map(|name| Text::new(name).to_string());
                self.tell_bot(FromBot::Mark(name.as_deref()), context, now);
            }
            Some(_) => {}
        }
    }

    /// Notes that a message of the bot was too long to be read.
    pub fn note_unread_of_bot(&mut self, context: &mut Context, now: Instant) {
        self.tell_bot(FromBot::Unread, context, now);
    }

    /// Notes that the bot has to wait, since the provider takes no more.
    pub fn note_wait_of_bot(&mut self, context: &mut Context, now: Instant) {
        self.tell_bot(FromBot::Waits, context, now);
    }

    /// Gives audio to the stream that began last, in the format of that stream. `told`: the format that its
    /// message tells.
    fn tell_audio(
        &mut self,
        bytes: &[u8],
        told: Option<Format>,
        context: &mut Context,
        now: Instant,
    ) {
        let live = self.streams.iter().rfind(|stream| stream.is_live());
        let own = live.and_then(|stream| stream.session.format());
        let Some((told, own)) = told.zip(own).filter(|(told, own)| told != own) else {
            return self.tell_bot(FromBot::Audio(bytes), context, now);
        };
        let samples = bytes.len() / told.codec.width();
        let seconds = samples as f64 / f64::from(told.sample_rate_hz);
        if seconds > CONVERTED_SECONDS_MAX {
            return self.tell_bot(FromBot::Unread, context, now);
        }
        let converted = converted(bytes, told, own);
        self.tell_bot(FromBot::Audio(&converted), context, now);
    }

    /// Counts a message of the provider that cannot be read: it is too long or not UTF-8.
    pub(super) fn leave_out(&mut self, code: CloseCode, context: &mut Context, now: Instant) {
        if self.ended.is_some() {
            return;
        }
        self.heard = now;
        if let Some(line) = &mut self.line {
            // It is in no capture.
            line.clear();
        }
        let is_long = code == CloseCode::TOO_LONG;
        self.reject(if is_long { PeerError::Length } else { PeerError::Json }, context, now);
    }

    /// Notes that messages of the provider were left out, since the disk was behind.
    pub fn note_left_out(&mut self, messages: u64) {
        let recordings = self.streams.iter_mut().filter_map(|stream| stream.recording.as_mut());
        recordings.for_each(|recording| recording.note_left_out(messages));
    }

    /// Gives a message to the stream that began last.
    fn tell_bot(&mut self, message: FromBot<'_>, context: &mut Context, now: Instant) {
        let Some(stream) = self.streams.iter_mut().rfind(|stream| stream.is_live()) else {
            return;
        };
        if let Some(recording) = &mut stream.recording {
            recording.take_of_bot(message, now);
        }
        if let (Some(sent), FromBot::Audio(bytes)) = (&mut stream.sent, message) {
            sent.append_sent(bytes, context.segment_bytes_max, &mut context.posts, now);
        }
    }
}
