//! One connection to a server: TCP, TLS if the URL says so, the WebSocket handshake, and after that raw
//! frames out and the server's pings and close in.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::{FutureExt as _, SinkExt as _, StreamExt as _};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::http::HeaderValue;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, WebSocketConfig};
use tokio_tungstenite::tungstenite::{self, Message, Utf8Bytes};
use tokio_tungstenite::{WebSocketStream, client_async_with_config};
use url::Url;

use super::certificate::TlsClient;
use super::proof::{Header, Signed};
use super::refusal::SPEAKS_TLS;
use super::{CallEnd, Error};

/// Longest time for connecting, and for each handshake after it.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// The cause of an error if a server does not answer in time.
pub(super) const NO_ANSWER: &str = "no answer within 10 s";

/// Read buffer of one connection: the server sends little to a recorder's caller.
const READ_BUFFER_BYTES: usize = 4096;

/// Most bytes of pongs that wait for a server that does not read; a later pong replaces the last one.
const PONG_BYTES_MAX: usize = 4096;

/// Longest message that a server may send: 16 MiB of audio in base64, and then some. A bot may send a long
/// greeting in one message.
const MESSAGE_BYTES_MAX: usize = 32 << 20;

/// Longest time for the server to take a write: as long as callreel waits for a peer.
const WRITE_PATIENCE: Duration = Duration::from_secs(60);

/// Most messages of the server that are read between two of our frames.
const HEARD_AT_ONCE_MAX: usize = 64;

/// Close code that stands for a close frame without a code (RFC 6455, 7.1.5).
const NO_STATUS_CODE: u16 = 1005;

/// The target of a connection.
#[derive(Clone, Debug)]
pub(super) struct Target {
    pub(super) url: Url,
    /// `HOST:PORT` that TCP connects to, instead of the URL's own.
    connect: Option<String>,
    pub(super) tls: bool,
}

impl Target {
    /// A target at the address of the URL.
    pub(super) fn new(url: Url) -> Self {
        let tls = matches!(url.scheme(), "wss" | "https");
        Self { url, connect: None, tls }
    }

    /// A target at `connect` instead: `HOST:PORT` without TLS, as behind a proxy that ends it, or
    /// `tls://HOST:PORT`.
    pub(super) fn through(url: Url, connect: &str) -> Self {
        let (address, tls) = match connect.strip_prefix("tls://") {
            Some(address) => (address, true),
            None => (connect, false),
        };
        Self { url, connect: Some(address.to_owned()), tls }
    }

    /// `HOST:PORT` that TCP connects to.
    pub(super) fn address(&self) -> String {
        let port = self.url.port_or_known_default().unwrap_or(80);
        let host = self.url.host_str().unwrap_or_default();
        self.connect.clone().unwrap_or_else(|| format!("{host}:{port}"))
    }

    pub(super) async fn open(&self, tls: &TlsClient) -> Result<Socket, Error> {
        let address = self.address();
        let failed = |cause| Error::Connect { address: address.clone(), cause };
        let late = || io::Error::new(io::ErrorKind::TimedOut, NO_ANSWER);
        let tcp = timeout(CONNECT_TIMEOUT, TcpStream::connect(&address)).await;
        let tcp = tcp.unwrap_or_else(|_| Err(late())).map_err(failed)?;
        // A frame is one packet: waiting for more to send with it would spoil the pace.
        tcp.set_nodelay(true).map_err(failed)?;
        if !self.tls {
            return Ok(Socket::new(Io::Plain(tcp)));
        }
        let host = self.url.host_str().unwrap_or_default().to_owned();
        let name = ServerName::try_from(host).map_err(|e| failed(io::Error::other(e)))?;
        let connector = tls.connector().map_err(|_| Error::NoRoots)?;
        let connected = timeout(CONNECT_TIMEOUT, connector.connect(name, tcp)).await;
        let connected = connected.unwrap_or_else(|_| Err(late())).map_err(|cause| {
            let certificate = tls.shown().map(Box::new);
            Error::Tls { address: address.clone(), cause, certificate }
        })?;
        Ok(Socket::new(Io::Tls(Box::new(connected))))
    }
}

/// The part of a handshake that tells of the provider.
#[derive(Clone, Debug, Default)]
pub(super) struct Greeting {
    pub(super) subprotocol: Option<&'static str>,
    pub(super) headers: Vec<Header>,
    pub(super) signed: Option<Signed>,
}

/// An open connection after its WebSocket handshake.
///
/// *Invariant:* between two calls no frame of ours is half written, except for a fault that wants it.
/// So tungstenite may write its pongs and closes whenever it is polled. They are written out before our
/// next frame.
pub(super) struct Line {
    ws: WebSocketStream<Socket>,
    /// The end according to the server's close frame, once received.
    closed: Option<CallEnd>,
    /// Texts of the server that nobody has taken yet; `None` if they are not kept.
    texts: Option<VecDeque<Utf8Bytes>>,
}

impl Line {
    /// Connects and does the WebSocket handshake.
    ///
    /// # Errors
    /// No connection, no TLS, or an answer that is not 101 (with its status and first line).
    pub(super) async fn connect(
        target: &Target,
        tls: &TlsClient,
        greeting: &Greeting,
    ) -> Result<Self, Error> {
        let handshake = |cause| Error::Handshake { address: target.address(), cause };
        let mut request =
            target.url.as_str().into_client_request().map_err(|e| handshake(e.to_string()))?;
        let headers = request.headers_mut();
        headers.insert("user-agent", HeaderValue::from_static(super::USER_AGENT));
        if let Some(subprotocol) = greeting.subprotocol {
            headers.insert("sec-websocket-protocol", HeaderValue::from_static(subprotocol));
        }
        let signed = greeting.signed.as_ref();
        let proof = signed.map(|signed| &signed.headers[..]).unwrap_or_default();
        for (name, value) in greeting.headers.iter().chain(proof) {
            let value = HeaderValue::from_str(value).map_err(|_| {
                handshake(format!("`{name}` cannot have the value that was asked for"))
            })?;
            headers.insert(*name, value);
        }
        let config = WebSocketConfig::default()
            .read_buffer_size(READ_BUFFER_BYTES)
            .write_buffer_size(0)
            .max_write_buffer_size(PONG_BYTES_MAX)
            .max_message_size(Some(MESSAGE_BYTES_MAX))
            .max_frame_size(Some(MESSAGE_BYTES_MAX));
        let socket = target.open(tls).await?;
        let shaken = client_async_with_config(request, socket, Some(config));
        match timeout(CONNECT_TIMEOUT, shaken).await {
            Ok(Ok((ws, _))) => Ok(Self { ws, closed: None, texts: None }),
            Ok(Err(tungstenite::Error::Http(response))) => {
                let body = response.body().as_deref().unwrap_or_default();
                let signed_url = signed.map(|signed| signed.url.as_str());
                Err(Error::refused(response.status().as_u16(), body, &target.url, signed_url))
            }
            Ok(Err(tungstenite::Error::Io(cause))) => Err(handshake(cause.to_string())),
            Ok(Err(cause)) => Err(handshake(cause.to_string())),
            Err(_) => Err(handshake(NO_ANSWER.to_owned())),
        }
    }

    /// Writes bytes as they are, past tungstenite, after the pongs that it has begun to write.
    ///
    /// # Errors
    /// The connection failed, or the server did not take the bytes within a minute.
    pub(super) async fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        // A closing connection is no error here: the next read reports it.
        if let Err(tungstenite::Error::Io(cause)) = timeout(WRITE_PATIENCE, self.ws.flush()).await?
        {
            return Err(cause);
        }
        self.write_on(bytes).await
    }

    /// Continues a [`write`](Self::write), which may have been empty.
    ///
    /// # Errors
    /// As for `write`.
    pub(super) async fn write_on(&mut self, bytes: &[u8]) -> io::Result<()> {
        timeout(WRITE_PATIENCE, self.ws.get_mut().io.write_all(bytes)).await?
    }

    /// Reads the server's messages so far, without waiting; pings are answered.
    ///
    /// Returns the end of the call, if it has ended.
    pub(super) fn hear(&mut self) -> Option<CallEnd> {
        for _ in 0..HEARD_AT_ONCE_MAX {
            let heard = self.ws.next().now_or_never()?;
            if let Some(end) = self.take(heard) {
                return Some(end);
            }
        }
        None
    }

    /// From now on texts of the server are kept for [`text`](Self::text) and [`next_text`](Self::next_text).
    pub(super) fn keep_texts(&mut self) {
        self.texts = Some(VecDeque::new());
    }

    /// The oldest text of the server that was heard and not taken.
    pub(super) fn text(&mut self) -> Option<Utf8Bytes> {
        self.texts.as_mut()?.pop_front()
    }

    /// Waits for the server's next text, until `deadline`.
    ///
    /// # Errors
    /// The end of the call, or `None` if the time is over.
    pub(super) async fn next_text(
        &mut self,
        deadline: Instant,
    ) -> Result<Utf8Bytes, Option<CallEnd>> {
        loop {
            if let Some(text) = self.text() {
                return Ok(text);
            }
            let heard = timeout_at(deadline, self.next()).await.map_err(|_| None)?;
            if let Some(end) = self.take(heard) {
                return Err(Some(end));
            }
        }
    }

    /// Waits for the server's next message; returns it if it is a text or binary one. If this is dropped before,
    /// no message is lost.
    ///
    /// # Errors
    /// The end of the call.
    pub(super) async fn next_message(&mut self) -> Result<Option<Message>, CallEnd> {
        match self.next().await {
            Some(Ok(message @ (Message::Text(_) | Message::Binary(_)))) => Ok(Some(message)),
            heard => self.take(heard).map_or(Ok(None), Err),
        }
    }

    /// Waits for the server to end the call, and answers its close frame.
    ///
    /// A server that sent a close frame and leaves TCP open counts as closed.
    pub(super) async fn ending(&mut self, within: Duration) -> CallEnd {
        let deadline = Instant::now() + within;
        while let Ok(heard) = timeout_at(deadline, self.next()).await {
            if let Some(end) = self.take(heard) {
                return end;
            }
        }
        self.closed.take().unwrap_or(CallEnd::StillOpen)
    }

    /// Waits for the server's next message and sends pongs meanwhile: the last of many may still be
    /// unsent, since tungstenite had no room for it when it read the ping.
    async fn next(&mut self) -> Option<tungstenite::Result<Message>> {
        poll_fn(|cx| {
            let heard = self.ws.poll_next_unpin(cx);
            if heard.is_pending() {
                // Nothing to handle: the flush is done, or will wake us.
                let _ = self.ws.poll_flush_unpin(cx);
            }
            heard
        })
        .await
    }

    fn take(&mut self, heard: Option<tungstenite::Result<Message>>) -> Option<CallEnd> {
        match heard {
            Some(Ok(Message::Close(frame))) => {
                self.closed = Some(match frame {
                    Some(CloseFrame { code, reason }) => {
                        CallEnd::Closed { code: code.into(), reason: reason.as_str().to_owned() }
                    }
                    None => CallEnd::Closed { code: NO_STATUS_CODE, reason: String::new() },
                });
                None
            }
            Some(Ok(Message::Text(text))) => {
                if let Some(texts) = &mut self.texts {
                    // A server that talks without end is not remembered without end.
                    texts.truncate(HEARD_AT_ONCE_MAX);
                    texts.push_back(text);
                }
                None
            }
            Some(Ok(_)) => None,
            Some(Err(cause)) => Some(self.closed.take().unwrap_or_else(|| end_of(cause))),
            None => Some(self.closed.take().unwrap_or(CallEnd::Dropped)),
        }
    }

    /// Sends a close frame of our own, without a code if there is none.
    pub(super) async fn close(&mut self, code: Option<u16>) -> io::Result<()> {
        let frame = |code| CloseFrame { code: CloseCode::from(code), reason: "".into() };
        self.ws.close(code.map(frame)).await.map_err(io::Error::other)
    }

    /// Ends our direction of the TCP stream.
    pub(super) async fn finish_writing(&mut self) -> io::Result<()> {
        self.ws.get_mut().io.tcp_mut().shutdown().await
    }

    /// Lets the connection be reset, not finished, when it is dropped.
    pub(super) fn reset_on_drop(&mut self) -> io::Result<()> {
        self.ws.get_mut().io.tcp_mut().set_zero_linger()
    }

    /// With `mute`, every pong and close is dropped instead of sent; without, they are sent again.
    pub(super) fn mute_answers(&mut self, mute: bool) {
        self.ws.get_mut().mute = mute;
    }
}

fn end_of(cause: tungstenite::Error) -> CallEnd {
    use tungstenite::Error as Cause;
    use tungstenite::error::ProtocolError;
    match cause {
        Cause::ConnectionClosed
        | Cause::AlreadyClosed
        | Cause::Protocol(ProtocolError::ResetWithoutClosingHandshake) => CallEnd::Dropped,
        Cause::Io(cause) if cause.kind() == io::ErrorKind::UnexpectedEof => CallEnd::Dropped,
        Cause::Io(_) => CallEnd::Reset,
        other => CallEnd::Unintelligible { error: other.to_string() },
    }
}

/// The byte stream under the WebSocket; through its `AsyncWrite` only tungstenite writes.
pub(super) struct Socket {
    io: Io,
    mute: bool,
    /// Whether bytes of the server were read.
    has_heard: bool,
}

impl Socket {
    fn new(io: Io) -> Self {
        Self { io, mute: false, has_heard: false }
    }
}

enum Io {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl Io {
    fn tcp_mut(&mut self) -> &mut TcpStream {
        match self {
            Self::Plain(tcp) => tcp,
            Self::Tls(tls) => tls.get_mut().0,
        }
    }

    async fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::Plain(tcp) => tcp.write_all(bytes).await,
            Self::Tls(tls) => {
                tls.write_all(bytes).await?;
                tls.flush().await
            }
        }
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let is_plain = matches!(self.io, Io::Plain(_));
        let read = match &mut self.io {
            Io::Plain(tcp) => Pin::new(tcp).poll_read(cx, buf),
            Io::Tls(tls) => Pin::new(tls).poll_read(cx, buf),
        };
        let heard = &buf.filled()[before..];
        if !heard.is_empty() && !std::mem::replace(&mut self.has_heard, true) && is_plain {
            // An alert of TLS: the answer of a server that waits for a handshake of TLS.
            if heard.starts_with(&[0x15, 0x03]) {
                return Poll::Ready(Err(io::Error::other(SPEAKS_TLS)));
            }
        }
        read
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.mute {
            return Poll::Ready(Ok(bytes.len()));
        }
        match &mut self.io {
            Io::Plain(tcp) => Pin::new(tcp).poll_write(cx, bytes),
            Io::Tls(tls) => Pin::new(tls).poll_write(cx, bytes),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.io {
            Io::Plain(tcp) => Pin::new(tcp).poll_flush(cx),
            Io::Tls(tls) => Pin::new(tls).poll_flush(cx),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.io {
            Io::Plain(tcp) => Pin::new(tcp).poll_shutdown(cx),
            Io::Tls(tls) => Pin::new(tls).poll_shutdown(cx),
        }
    }
}
