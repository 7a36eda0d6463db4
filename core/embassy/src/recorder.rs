//! The part of a firmware: takes a call from a socket and records it into a file, both asynchronous. It needs
//! neither `std` nor an allocator.

use callreel_core::frame::Provider;
use callreel_core::http::{self, Head};
use callreel_core::session::{Event, RING_BOTH_TRACKS_MIN, Session, Turn};
use callreel_core::wav::{Composer, Encoding, Step};
use callreel_core::ws::{self, CloseCode, Decoder, OVERHEAD_BYTES_MAX};
use embedded_io_async::{Read, Seek, SeekFrom, Write};

/// Bytes of the longest message that is taken.
const MESSAGE_BYTES_MAX: usize = 2048;

/// Bytes of samples between two checkpoints: a second of one track.
const CHECKPOINT_BYTES: u32 = 16_000;

type Ring = [u8; RING_BOTH_TRACKS_MIN];

/// The reason that a recording cannot begin or go on.
#[derive(Debug)]
pub(crate) enum Error<E> {
    /// The peer is gone, or its request is not one for a WebSocket.
    Peer,
    /// The file failed, or would pass 4 GiB. It is whole up to its last checkpoint.
    File(Option<E>),
}

impl<E> From<E> for Error<E> {
    fn from(error: E) -> Self {
        Self::File(Some(error))
    }
}

/// The bytes of a connection that have come and are not used up.
struct Received {
    bytes: [u8; MESSAGE_BYTES_MAX + OVERHEAD_BYTES_MAX],
    held: usize,
}

impl Received {
    /// Adds bytes that have come; returns their number, 0 at the end.
    ///
    /// This is the one copy: embassy-net lends its receive ring (`TcpSocket::read_with`), but core needs a message
    /// in one piece, and moves the rest of the bytes to the front. A ring breaks a message in two at its end, and
    /// moves nothing. `read` copies each byte once, some 500 instructions for a media message on a Cortex-M3.
    async fn read<S: Read>(&mut self, socket: &mut S) -> usize {
        let room = self.bytes.get_mut(self.held..).unwrap_or_default();
        let count = socket.read(room).await.unwrap_or(0);
        self.held += count;
        count
    }
}

/// Answers the request for a WebSocket, and records the call. Returns the code to close the connection with; the
/// file is complete then, or empty if no stream has begun.
///
/// The future holds all memory of the call, 9.6 KB on x86-64: the receive buffer, the session with a ring of both
/// tracks, and the samples of a write, some of it more than once. `RING_ONE_TRACK_MIN` spares 2.5 KB and more.
pub(crate) async fn record<S, F>(socket: &mut S, file: F) -> Result<CloseCode, Error<F::Error>>
where
    S: Read + Write,
    F: Write + Seek,
{
    let mut received = Received { bytes: [0; _], held: 0 };
    shake_hands(socket, &mut received).await.ok_or(Error::Peer)?;
    let mut session = Session::new(Provider::Twilio, [0; RING_BOTH_TRACKS_MIN]);
    let mut decoder = Decoder::new(MESSAGE_BYTES_MAX);
    let mut recording = Recording { file, composer: None, checkpointed: 0 };
    let code = 'call: loop {
        let bytes = &mut received.bytes[..received.held];
        while let Some(event) = decoder.poll(bytes) {
            match event {
                Ok(ws::Event::Text(text)) => {
                    let Ok(turn) = session.handle_message(text) else { continue }; // Counted.
                    if let Some(code) = recording.keep(turn).await? {
                        break 'call code;
                    }
                }
                Ok(ws::Event::Ping(payload)) => {
                    let pong = ws::pong(payload);
                    // A peer that is gone is found at the next read.
                    let _ = socket.write_all(&pong).await;
                }
                Ok(ws::Event::Close(_)) => break 'call CloseCode::NORMAL,
                Ok(_) => {}
                Err(code) => break 'call code,
            }
        }
        received.held = decoder.compact(bytes);
        if received.read(socket).await == 0 {
            break CloseCode::GOING_AWAY;
        }
    };
    // However the call ended, the file gets the samples that are held, and its sizes.
    recording.keep(session.handle_end()).await?;
    recording.seal().await?;
    Ok(code)
}

/// Reads the request and answers it. The bytes behind it stay in `received`.
async fn shake_hands<S: Read + Write>(socket: &mut S, received: &mut Received) -> Option<()> {
    loop {
        if let Some(head) = Head::parse(&received.bytes[..received.held]).ok()? {
            let (length, accept) = (head.bytes(), head.accept().ok()?);
            received.bytes.copy_within(length..received.held, 0);
            received.held -= length;
            for part in http::answer(&accept, None) {
                socket.write_all(part.as_bytes()).await.ok()?;
            }
            return Some(());
        }
        if received.read(socket).await == 0 {
            return None;
        }
    }
}

/// A file that grows, by core's order of writes.
struct Recording<F> {
    file: F,
    /// From the start of the stream on.
    composer: Option<Composer>,
    /// Bytes of samples at the last checkpoint.
    checkpointed: u32,
}

impl<F: Write + Seek> Recording<F> {
    /// Begins the file at the start and writes the samples of a turn; returns the code to close the connection
    /// with, if the call is over.
    ///
    /// A turn may be kept while the file is awaited.
    async fn keep(
        &mut self,
        mut turn: Turn<'_, '_, Ring>,
    ) -> Result<Option<CloseCode>, Error<F::Error>> {
        let code = match *turn.event() {
            Event::Started { spec, .. } => {
                self.composer = Some(Composer::new(spec));
                self.drive().await?;
                None
            }
            Event::Refused(_) => Some(CloseCode::UNSUPPORTED),
            Event::Restart | Event::Stopped => Some(CloseCode::NORMAL),
            _ => None,
        };
        let Some(composer) = &mut self.composer else { return Ok(code) };
        let (mut codes, mut samples) = ([0; 128], [0; 256]);
        while let count @ 1.. = turn.poll_wire(&mut codes) {
            let length = 2 * Encoding::Pcm16.encode_mulaw(&codes[..count], &mut samples);
            let at = composer.append(length).map_err(|_| Error::File(None))?;
            write_at(&mut self.file, at, &samples[..length]).await?;
            composer.done();
        }
        if composer.data_bytes() - self.checkpointed >= CHECKPOINT_BYTES {
            self.checkpointed = composer.data_bytes();
            composer.checkpoint();
            self.drive().await?;
        }
        Ok(code)
    }

    /// Completes the file.
    async fn seal(&mut self) -> Result<(), Error<F::Error>> {
        if let Some(composer) = &mut self.composer {
            composer.seal();
        }
        self.drive().await
    }

    /// Does the steps that are left.
    async fn drive(&mut self) -> Result<(), Error<F::Error>> {
        let Some(composer) = &mut self.composer else { return Ok(()) };
        while let Some(step) = composer.step() {
            match step {
                Step::Write { at, bytes } => write_at(&mut self.file, at, &bytes).await?,
                Step::Flush => self.file.flush().await?,
                Step::WriteChunks { .. } => {}
            }
            composer.done();
        }
        Ok(())
    }
}

async fn write_at<F: Write + Seek>(file: &mut F, at: u32, bytes: &[u8]) -> Result<(), F::Error> {
    file.seek(SeekFrom::Start(at.into())).await?;
    file.write_all(bytes).await
}
