//! The messages that a provider must be sent.

#![cfg_attr(
    not(any(feature = "providers", feature = "webex")),
    expect(dead_code, reason = "a provider alone needs a part of it")
)]

use core::fmt;

use super::dialogue::{Ask, Cause, Dialogue};
use super::{Provider, Text};

/// Most bytes of a [`Reply`].
pub const REPLY_BYTES_MAX: usize = 512;

/// The text of a message for the provider: `Display` writes it, JSON of at most [`REPLY_BYTES_MAX`] bytes.
///
/// [`Turn::reply`](crate::session::Turn::reply) returns it. Send it as one text message, behind the replies
/// of earlier turns.
///
/// ```
/// use callreel_core::frame::{Provider, REPLY_BYTES_MAX};
/// use callreel_core::session::Session;
///
/// # #[cfg(feature = "audiocodes")] {
/// let mut session = Session::new(Provider::AudioCodes, [0; 0]);
/// let mut text = *br#"{"type":"connection.validate","conversationId":"c-1"}"#;
/// let turn = session.handle_message(&mut text)?;
/// let text = turn.reply().map(|reply| reply.to_string()).unwrap_or_default();
/// assert_eq!(text, r#"{"type":"connection.validated","success":true}"#);
/// assert!(text.len() <= REPLY_BYTES_MAX);
/// # }
/// # Ok::<(), callreel_core::session::Error>(())
/// ```
#[derive(Clone, Copy, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Reply<'t> {
    words: Words,
    dialogue: Dialogue,
    /// Time of the question.
    time: Text<'t>,
}

/// Content of a reply.
#[derive(Clone, Copy, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
enum Words {
    #[cfg(feature = "audiocodes")]
    AudioCodes(super::audiocodes::Words),
    #[cfg(feature = "genesys")]
    Genesys(super::genesys::Words),
    #[cfg(feature = "sinch")]
    Sinch,
    #[cfg(feature = "webex")]
    Webex,
}

impl<'t> Reply<'t> {
    /// The answer to a message that `dialogue` has noted; `None` if the provider expects none.
    pub(crate) fn to(provider: Provider, cause: Cause<'_, 't>, dialogue: Dialogue) -> Option<Self> {
        let words = match (provider, cause) {
            #[cfg(feature = "audiocodes")]
            (Provider::AudioCodes, cause) => {
                super::audiocodes::reply(cause, dialogue).map(Words::AudioCodes)
            }
            #[cfg(feature = "genesys")]
            (Provider::Genesys, cause) => super::genesys::reply(cause).map(Words::Genesys),
            #[cfg(feature = "sinch")]
            (Provider::Sinch, Cause::Start(_)) => Some(Words::Sinch),
            #[cfg(feature = "webex")]
            (Provider::Webex, Cause::Ask(Ask::Ping(_))) => Some(Words::Webex),
            _ => None,
        };
        let time = if let Cause::Ask(Ask::Ping(time)) = cause { *time } else { Text::new("") };
        Some(Self { words: words?, dialogue, time })
    }
}

impl fmt::Display for Reply<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let _ = &f;
        match self.words {
            #[cfg(feature = "audiocodes")]
            Words::AudioCodes(words) => super::audiocodes::write(words, &self.dialogue, f),
            #[cfg(feature = "genesys")]
            Words::Genesys(words) => super::genesys::write(words, &self.dialogue, f),
            #[cfg(feature = "sinch")]
            Words::Sinch => f.write_str(super::sinch::ANSWER),
            #[cfg(feature = "webex")]
            Words::Webex => super::webex::write_pong(self.time, &self.dialogue, f),
        }
    }
}
