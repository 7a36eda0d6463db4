//! The voice bot of a relayed call in its recording: what it sends, and its channel in the file.

use std::sync::Arc;
use std::time::Instant;

use callreel_core::playout::Piece;
use callreel_core::session::{Run, Turn};

use super::heard::Heard;
use super::{Posts, Recording};
use crate::record::BotRecord;

/// Bytes of the caller's audio that get the bot's beside them at one time.
const MONO_BYTES: usize = 512;

/// Something that a bot sends to its provider.
#[derive(Clone, Copy, Debug)]
pub enum FromBot<'b> {
    /// Audio in the wire format of the stream.
    Audio(&'b [u8]),
    /// All audio that has not been heard is taken back.
    Clear,
    /// The provider is to tell when the audio so far has been heard, under this name.
    Mark(Option<&'b str>),
    /// A message that cannot be read.
    Unread,
    /// The bot has to wait, since the provider takes no more.
    Waits,
}

impl Recording {
    /// The same recording, with the voice bot of the call on its second channel: the session has one track,
    /// the format of the recording two.
    #[must_use]
    pub fn hearing_bot(self, now: Instant) -> Self {
        Self { heard: Some(Box::new(Heard::new(self.format, now))), ..self }
    }

    /// The same recording, which goes on with the bot of the file before.
    #[must_use]
    pub fn hearing_like(self, before: &mut Self) -> Self {
        if let Some(bot) = before.bot_record() {
            Arc::make_mut(&mut before.record).bot = Some(bot);
        }
        let heard = before.heard.take().map(|heard| Box::new(heard.in_next_file()));
        Self { heard, ..self }
    }

    /// Takes a message of the bot. Without a bot, changes nothing.
    pub fn take_of_bot(&mut self, message: FromBot<'_>, now: Instant) {
        self.with_bot(|heard| match message {
            FromBot::Audio(bytes) => heard.take_audio(bytes, now),
            FromBot::Clear => heard.take_clear(now),
            FromBot::Mark(name) => heard.take_mark(name, now),
            FromBot::Unread => heard.note_unread(),
            FromBot::Waits => heard.note_wait(),
        });
    }

    /// Appends audio that the bot sent, whether it is heard or not: whole samples of the one track of this
    /// recording, in its wire format. Audio that does not fit into the largest file is left out.
    pub fn append_sent(
        &mut self,
        mut bytes: &[u8],
        bytes_max: u64,
        posts: &mut Posts,
        now: Instant,
    ) {
        while !bytes.is_empty() && !self.is_longer_than(bytes_max) {
            let room = self.room();
            let (part, rest) = bytes.split_at(bytes.len().min(room.len()));
            room[..part.len()].copy_from_slice(part);
            self.append(part.len(), posts, now);
            bytes = rest;
        }
    }

    /// Notes that messages of the provider were left out, since the disk was behind.
    pub const fn note_left_out(&mut self, messages: u64) {
        self.left_out += messages;
        self.to_note = true;
    }

    /// Takes the provider's word that a mark of the bot has been reached. Without a bot, changes nothing.
    pub fn take_echo(&mut self, name: &str, now: Instant) {
        self.with_bot(|heard| heard.take_echo(name, now));
    }

    /// Takes all audio of a turn of one track, and the bot's audio of the same time beside it.
    pub(super) fn take_beside_bot<S: AsRef<[u8]> + AsMut<[u8]>>(
        &mut self,
        turn: &mut Turn<'_, '_, S>,
        posts: &mut Posts,
        now: Instant,
    ) {
        let Some(mut heard) = self.heard.take() else {
            return;
        };
        let width = self.format.codec.width();
        let mut room = [0; MONO_BYTES];
        while !turn.is_drained() {
            let (samples, caller) = match turn.poll_run(&mut room) {
                Run::Bytes(0) => break,
                Run::Bytes(count) => ((count / width) as u64, Some(&room[..count])),
                Run::Silence(samples) => (samples, None),
            };
            self.append_beside(samples, caller, &mut heard, posts, now);
        }
        heard.note_clock(self.end_sample(), now);
        self.heard = Some(heard);
        self.with_bot(|_| ());
    }

    /// Appends `samples` samples of the caller, silence if there are none, and what is heard of the bot
    /// meanwhile.
    fn append_beside(
        &mut self,
        samples: u64,
        mut caller: Option<&[u8]>,
        heard: &mut Heard,
        posts: &mut Posts,
        now: Instant,
    ) {
        let codec = self.format.codec;
        let width = codec.width();
        let silence = [codec.silence(); MONO_BYTES];
        let until = self.end_sample() + samples;
        // Bytes of the room that are filled: pieces that follow each other are measured together.
        let mut filled = 0;
        while let rest @ 1.. =
            until.saturating_sub(self.end_sample() + (filled / (2 * width)) as u64)
        {
            let (count, is_heard) = match heard.poll(until) {
                Some(Piece::Audio(count @ 1..)) => (count.min(rest), true),
                Some(Piece::Silence(count @ 1..)) => (count.min(rest), false),
                _ => (rest, false),
            };
            if caller.is_none() && !is_heard {
                self.append_some(std::mem::take(&mut filled), posts, now);
                self.append_silence(count, posts, now);
                continue;
            }
            let mut rest = usize::try_from(count).unwrap_or(usize::MAX);
            while rest > 0 {
                let room = &mut self.room()[filled..];
                let most = (rest.saturating_mul(width)).min(room.len() / 2).min(MONO_BYTES);
                if most < width {
                    self.append_some(std::mem::take(&mut filled), posts, now);
                    continue;
                }
                let of_bot = match is_heard {
                    true => Some(heard.front(most)).filter(|samples| !samples.is_empty()),
                    false => None,
                };
                let of_bot = of_bot.unwrap_or(&silence[..most]);
                let of_caller = caller.unwrap_or(&silence);
                let bytes = of_bot.len().min(of_caller.len()) / width * width;
                codec.interleave(of_caller, of_bot, &mut room[..2 * bytes]);
                if is_heard {
                    heard.pass(bytes);
                }
                caller = caller.map(|samples| &samples[bytes..]);
                filled += 2 * bytes;
                rest -= bytes / width;
            }
        }
        self.append_some(filled, posts, now);
    }

    /// Appends the first `count` bytes of the room, if there are any.
    fn append_some(&mut self, count: usize, posts: &mut Posts, now: Instant) {
        if count > 0 {
            self.append(count, posts, now);
        }
    }

    /// Ends the bot's side.
    pub(super) fn end_bot(&mut self) {
        self.with_bot(Heard::end);
    }

    /// The facts of the bot's side so far, if there is one.
    pub(super) fn bot_record(&self) -> Option<Box<BotRecord>> {
        self.heard.as_ref().map(|heard| Box::new(heard.record()))
    }

    /// Does something with the bot's side, and notes the utterances that are over.
    fn with_bot(&mut self, work: impl FnOnce(&mut Heard)) {
        let Some(heard) = &mut self.heard else {
            return;
        };
        work(heard);
        self.to_note |= heard.note_utterances(self.first_sample);
    }
}
