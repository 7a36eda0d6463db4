//! Binary messages of audio, for providers that send it so.

use super::turn::Pending;
use super::{Error, Event, Session, Turn};
use crate::frame::{Media, MediaFrame};

impl<S: AsRef<[u8]> + AsMut<[u8]>> Session<S> {
    /// Takes one whole binary message of a provider that sends audio in such messages
    /// ([`Habits::has_binary_audio`](crate::frame::Habits::has_binary_audio)): samples of all the stream's
    /// tracks and nothing else. Two tracks alternate sample by sample
    /// ([`Start::is_interleaved`](crate::frame::Start::is_interleaved)). Its length is of no account: it may
    /// hold any number of sample frames.
    ///
    /// A binary message has neither a number nor a time, so its audio follows the audio before it. An
    /// empty one is [`Event::Ignored`] and counts nowhere: some providers end a stream with it.
    ///
    /// # Errors
    /// [`Error::Peer`]: with [`PeerError::Shape`](crate::frame::PeerError::Shape), the bytes are no whole
    /// number of sample frames. All of them are left out: a sample that went on in the next message could
    /// not be told from a byte that was lost, and after that all audio would be noise. With
    /// [`PeerError::Track`](crate::frame::PeerError::Track), the start announced two tracks that do not
    /// alternate.
    ///
    /// ```
    /// use callreel_core::format::{Codec, Format};
    /// use callreel_core::frame::{Body, Frame, Provider, Start};
    /// use callreel_core::session::Session;
    ///
    /// // A provider of your own, which sends 16-bit samples at 8 kHz.
    /// let format = Some(Format { codec: Codec::L16Le, sample_rate_hz: 8000 });
    /// # if cfg!(not(feature = "formats")) { return Ok(()); }
    /// let mut session = Session::new(Provider::Twilio, vec![0; 8192]);
    /// let start = Body::Start(Start { format, ..Start::new() });
    /// drop(session.handle_frame(Frame::new(None, b"", start))?);
    /// let mut turn = session.handle_audio(&[1, 0, 0xFF, 0xFF])?;
    /// let mut samples = [0; 4];
    /// assert_eq!((turn.poll_pcm(&mut samples), samples), (2, [1, -1, 0, 0]));
    /// # Ok::<(), callreel_core::session::Error>(())
    /// ```
    pub fn handle_audio<'t>(&mut self, bytes: &'t [u8]) -> Result<Turn<'_, 't, S>, Error> {
        if bytes.is_empty() {
            self.jitter.forget_closed_holes();
            let (event, pending) = (Event::Ignored, Pending::default());
            return Ok(Turn { session: self, event, gaps: [None; 2], pending });
        }
        let media = Media { tracks: self.tracks, chunk: None, timestamp_ms: None, bytes };
        self.handle_media(&MediaFrame {
            sequence: None,
            stream_id: b"",
            media,
            is_known: true,
            #[cfg(feature = "lenient")]
            is_odd_base64: false,
        })
    }
}
