//! Records of a peer after its handshake, of every type, length and content, and bytes that are none: the
//! server lives, the audio before them is kept, and no other call notices.
//!
//! The records are sealed here with the keys of a real handshake, so that they are as valid as records of a
//! library, which would send no such content.

use std::io::Write as _;
use std::net::{Shutdown, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::{Config, TestRunner};
use rustix::net::sockopt;
use tokio_rustls::rustls::crypto::cipher::{
    MessageEncrypter, OutboundChunks, OutboundPlainMessage,
};
use tokio_rustls::rustls::version::{TLS12, TLS13};
use tokio_rustls::rustls::{
    ClientConnection, ConnectionTrafficSecrets, ContentType, ProtocolVersion, StreamOwned,
    SupportedCipherSuite, SupportedProtocolVersion,
};

use super::Secured;
use crate::harness::line::Line;
use crate::harness::peer::{FIN, PONG, Peer, TEXT, frame, pcm};
use crate::harness::process::{PATIENCE, Setup};
use crate::harness::shelf;

/// Most content of a record.
const CONTENT_MAX: usize = 1 << 14;

/// Bytes of a record before its content: type, version and length.
const RECORD_HEAD: usize = 5;

/// Most growth of memory by all peers together.
const GROWTH_MAX: u64 = 64 << 20;

/// Audio that the server has read before the first odd record.
const BEFORE: Duration = Duration::from_millis(200);

/// A peer of a call that seals its own records.
struct Sealer {
    peer: Peer,
    socket: TcpStream,
    cipher: Box<dyn MessageEncrypter>,
    sequence: u64,
}

impl Sealer {
    /// Begins a call with this version of TLS, and takes the keys over.
    fn start(secured: &Secured, version: &'static SupportedProtocolVersion, id: &str) -> Self {
        let line = connect(secured, version);
        let mut peer = Peer::upgrade(Line::Tls(Box::new(line)), id, "").unwrap();
        peer.start(&[]);
        peer.say(BEFORE);
        peer.sync();
        let socket = peer.socket.tcp().try_clone().unwrap();
        // The call goes on without the state of TLS.
        let plain = Line::Plain(socket.try_clone().unwrap());
        let Line::Tls(line) = std::mem::replace(&mut peer.socket, plain) else {
            unreachable!("the line is one of TLS")
        };
        let suite = line.conn.negotiated_cipher_suite().unwrap();
        let (sequence, secrets) = line.conn.dangerous_extract_secrets().unwrap().tx;
        let (ConnectionTrafficSecrets::Aes128Gcm { key, iv }
        | ConnectionTrafficSecrets::Aes256Gcm { key, iv }
        | ConnectionTrafficSecrets::Chacha20Poly1305 { key, iv }) = secrets
        else {
            unreachable!("a cipher of ring")
        };
        let cipher = match suite {
            SupportedCipherSuite::Tls13(suite) => suite.aead_alg.encrypter(key, iv),
            SupportedCipherSuite::Tls12(suite) => {
                let fixed = suite.aead_alg.key_block_shape().fixed_iv_len;
                let (fixed, explicit) = iv.as_ref().split_at(fixed);
                suite.aead_alg.encrypter(key, fixed, explicit)
            }
        };
        Self { peer, socket, cipher, sequence }
    }

    /// A valid record with this type and content.
    fn seal(&mut self, typ: ContentType, content: &[u8]) -> Vec<u8> {
        let payload = OutboundChunks::Single(content);
        let message = OutboundPlainMessage { typ, version: ProtocolVersion::TLSv1_2, payload };
        let record = self.cipher.encrypt(message, self.sequence).unwrap();
        self.sequence += 1;
        record.encode()
    }
}

/// A connection of this version of TLS, whose keys can be taken out.
fn connect(
    secured: &Secured,
    version: &'static SupportedProtocolVersion,
) -> StreamOwned<ClientConnection, TcpStream> {
    let mut config = secured.authority.client_config(&[version]);
    config.enable_secret_extraction = true;
    let mut tls = ClientConnection::new(config.into(), "localhost".try_into().unwrap()).unwrap();
    let mut socket = secured.server.connect_tcp();
    while tls.is_handshaking() {
        tls.complete_io(&mut socket).unwrap();
    }
    StreamOwned::new(tls, socket)
}

/// A thing that a peer sends.
#[derive(Clone, Debug)]
enum Step {
    /// Chunks of audio in records of this size.
    Audio { chunks: usize, record_bytes: usize },
    /// A valid record.
    Record { typ: u8, content: Vec<u8> },
    /// Valid records without content.
    Empty { typ: u8, count: usize },
    /// A record of audio with one bit of its content changed.
    Bent { at: usize },
    /// The beginning of a record of audio; the rest never comes.
    Cut { bytes: usize },
    /// The head of a record with this length, and some bytes of its content.
    Head { typ: u8, length: u16, bytes: usize },
    /// A record of audio that has come before.
    Again,
    /// Any bytes.
    Bytes(Vec<u8>),
    /// The end of the stream in TLS.
    CloseNotify,
}

const ALERT: u8 = 21;
const HANDSHAKE: u8 = 22;
const APPLICATION_DATA: u8 = 23;

fn step() -> impl Strategy<Value = Step> {
    let typ = prop_oneof![6 => 20..=24_u8, 1 => any::<u8>()];
    let content = || {
        prop_oneof![
            4 => prop::collection::vec(any::<u8>(), 0..40),
            1 => prop::collection::vec(any::<u8>(), 0..CONTENT_MAX),
            // More than a record may hold.
            1 => (CONTENT_MAX - 2..CONTENT_MAX + 300).prop_map(|length| vec![0; length]),
        ]
    };
    // Messages of the handshake by their type, with a right length and a wrong one.
    let handshake =
        (any::<u8>(), content(), any::<bool>()).prop_map(|(kind, content, is_right)| {
            let length = if is_right { content.len() as u32 } else { 0x00FF_FFFF };
            let head = [&[kind][..], &length.to_be_bytes()[1..]].concat();
            Step::Record { typ: HANDSHAKE, content: [head, content].concat() }
        });
    prop_oneof![
        6 => (1..30_usize, prop_oneof![Just(1), Just(7), Just(160), Just(CONTENT_MAX)])
            .prop_map(|(chunks, record_bytes)| Step::Audio { chunks, record_bytes }),
        2 => (typ.clone(), content()).prop_map(|(typ, content)| Step::Record { typ, content }),
        1 => handshake,
        1 => (0..3_u8, any::<u8>())
            .prop_map(|(level, kind)| Step::Record { typ: ALERT, content: vec![level, kind] }),
        // A new key that is not used, asked for or not.
        1 => (0..4_u8).prop_map(|asks| Step::Record { typ: HANDSHAKE, content: vec![24, 0, 0, 1, asks] }),
        1 => (typ.clone(), 1..2000_usize).prop_map(|(typ, count)| Step::Empty { typ, count }),
        2 => (1..20_usize).prop_map(|count| Step::Empty { typ: APPLICATION_DATA, count }),
        1 => (0..400_usize).prop_map(|at| Step::Bent { at }),
        1 => (1..300_usize).prop_map(|bytes| Step::Cut { bytes }),
        1 => (typ, any::<u16>(), 0..20_000_usize)
            .prop_map(|(typ, length, bytes)| Step::Head { typ, length, bytes }),
        1 => Just(Step::Again),
        1 => prop::collection::vec(any::<u8>(), 1..600).prop_map(Step::Bytes),
        1 => Just(Step::CloseNotify),
    ]
}

/// Sends a step, as far as the server takes it.
fn perform(sealer: &mut Sealer, step: &Step) -> std::io::Result<()> {
    let data = ContentType::ApplicationData;
    let media = |sealer: &mut Sealer| frame(FIN | TEXT, sealer.peer.next_media().as_bytes());
    let bytes = match step {
        Step::Audio { chunks, record_bytes } => {
            let content: Vec<u8> = (0..*chunks).flat_map(|_| media(sealer)).collect();
            content.chunks(*record_bytes).flat_map(|piece| sealer.seal(data, piece)).collect()
        }
        Step::Record { typ, content } => sealer.seal(ContentType::from(*typ), content),
        Step::Empty { typ, count } => {
            (0..*count).flat_map(|_| sealer.seal(ContentType::from(*typ), &[])).collect()
        }
        Step::Bent { at } => {
            let content = frame(FIN | TEXT, sealer.peer.lost_media().as_bytes());
            let mut record = sealer.seal(data, &content);
            let at = RECORD_HEAD + at % (record.len() - RECORD_HEAD);
            record[at] ^= 1 << (at % 8);
            record
        }
        Step::Cut { bytes } => {
            let content = frame(FIN | TEXT, sealer.peer.lost_media().as_bytes());
            let mut record = sealer.seal(data, &content);
            record.truncate((*bytes).min(record.len() - 1));
            record
        }
        Step::Head { typ, length, bytes } => {
            let head = [&[*typ, 3, 3][..], &length.to_be_bytes()].concat();
            [head, vec![0x55; *bytes]].concat()
        }
        Step::Again => {
            let content = media(sealer);
            sealer.seal(data, &content).repeat(2)
        }
        Step::Bytes(bytes) => bytes.clone(),
        Step::CloseNotify => sealer.seal(ContentType::Alert, &[1, 0]),
    };
    sealer.socket.write_all(&bytes)
}

/// Places a call that goes on by these steps. Checks that it is recorded up to the first odd one at least,
/// and that nothing is in the recording but audio that was sent.
fn check(secured: &Secured, version: &'static SupportedProtocolVersion, id: &str, steps: &[Step]) {
    let mut sealer = Sealer::start(secured, version, id);
    // As in BoringSSL, 32 records without content in a row are too many.
    let mut empty_in_a_row = 0;
    let mut is_harmless = |step: &Step| {
        match step {
            Step::Audio { .. } => empty_in_a_row = 0,
            Step::Empty { typ: APPLICATION_DATA, count } => empty_in_a_row += count,
            _ => return false,
        }
        empty_in_a_row < 32
    };
    let mut certain = sealer.peer.codes.len();
    let (mut is_certain, mut is_foreign) = (true, false);
    for step in steps {
        if perform(&mut sealer, step).is_err() {
            break;
        }
        is_certain &= is_harmless(step);
        is_foreign |=
            matches!(step, Step::Record { typ: APPLICATION_DATA, content } if !content.is_empty());
        if is_certain {
            certain = sealer.peer.codes.len();
        }
    }
    let _ = sealer.socket.shutdown(Shutdown::Write);
    let recording = shelf::wait_for(&secured.recordings(), id);
    let (samples, sent) = (recording.samples(), pcm(&sealer.peer.codes));
    assert!(samples.len() >= certain, "{id}: {} samples of {certain}", samples.len());
    assert!(samples[..certain] == sent[..certain], "{id}: {:?}", recording.record);
    // Content of any bytes may be the head of a frame, which takes the audio behind it for its own content.
    assert!(is_foreign || sent.starts_with(samples), "{id}: {:?}", recording.record);
    let ends = ["disconnect", "reset", "protocol", "close"];
    assert!(ends.contains(&recording.word("end")), "{id}: {:?}", recording.record);
}

#[test]
fn whatever_records_a_peer_sends_the_server_lives_and_no_other_call_notices() {
    let secured = Secured::start(&["--read-interval", "0"]);
    let mut witness = Sealer::start(&secured, &TLS13, "MZwitness").peer;
    drop(witness);
    let line = Line::Tls(Box::new(connect(&secured, &TLS13)));
    witness = Peer::upgrade(line, "MZbeside", "").unwrap();
    witness.start(&[]);
    let before = secured.server.memory("VmHWM");
    let mut number = 0;
    let mut beside = |steps: &[Step]| {
        for version in [&TLS13, &TLS12] {
            number += 1;
            check(&secured, version, &format!("MZ{number}"), steps);
            witness.say(Duration::from_millis(20));
            witness.sync();
        }
    };
    // Cases that once were worth a thought.
    let audio = || Step::Audio { chunks: 3, record_bytes: 160 };
    let record = |typ, content: &[u8]| Step::Record { typ, content: content.to_vec() };
    for steps in [
        vec![Step::Audio { chunks: 5, record_bytes: 1 }, Step::CloseNotify, audio()],
        vec![Step::Audio { chunks: 300, record_bytes: CONTENT_MAX }],
        vec![Step::Empty { typ: APPLICATION_DATA, count: 31 }, audio()],
        vec![Step::Empty { typ: APPLICATION_DATA, count: 5000 }, audio()],
        // New keys without end, a renegotiation, a change of ciphers, tickets of a client.
        vec![record(HANDSHAKE, &[24, 0, 0, 1, 1].repeat(100)), audio()],
        vec![record(HANDSHAKE, &[1, 0, 0, 2, 3, 3]), audio()],
        vec![record(HANDSHAKE, &[0, 0, 0, 0]), audio()],
        vec![record(20, &[1]), audio()],
        vec![record(HANDSHAKE, &[4, 0, 0, 2, 0, 0]), audio()],
        // A message of the handshake that never ends.
        vec![record(HANDSHAKE, &[&[4, 0xFF, 0xFF, 0xFF][..], &[0; 16_000]].concat()); 8],
        vec![record(HANDSHAKE, &[&[4, 0, 0xFF, 0xFF][..], &[0; 16_000]].concat()); 8],
        vec![record(ALERT, &[1, 90]); 50],
        vec![record(ALERT, &[2, 40]), audio()],
        vec![Step::Head { typ: APPLICATION_DATA, length: 0xFFFF, bytes: 0x10000 }],
        vec![Step::Head { typ: APPLICATION_DATA, length: 16_000, bytes: 15_999 }],
        vec![Step::Again, audio()],
    ] {
        beside(&steps);
    }
    let cases = if std::env::var_os("CALLREEL_LONG").is_some() { 2000 } else { 30 };
    let mut runner =
        TestRunner::new(Config { failure_persistence: None, ..Config::with_cases(cases) });
    let steps = prop::collection::vec(step(), 1..8);
    // A failure panics here, with its steps: the witness cannot be shared with a smaller case.
    for _ in 0..cases {
        let steps = steps.new_tree(&mut runner).unwrap().current();
        let shown = format!("{steps:?}");
        let _shown = OnPanic(&shown);
        beside(&steps);
    }
    let growth = secured.server.memory("VmHWM").saturating_sub(before);
    eprintln!("records of {number} peers: the server grew by {} KiB", growth / 1024);
    assert!(growth <= GROWTH_MAX, "{growth} bytes");
    let witness = witness.finish();
    let recording = shelf::wait_for(&secured.recordings(), "MZbeside");
    assert_eq!(recording.state(), ("complete", "stop"));
    assert!(recording.samples() == witness.pcm());
}

/// Shows the steps of a failed case.
struct OnPanic<'s>(&'s str);

impl Drop for OnPanic<'_> {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("the steps: {:.2000}", self.0);
        }
    }
}

#[test]
fn records_with_next_to_no_content_hold_up_no_other_call() {
    // Far more than the sockets hold, so that the sender has to wait for the server.
    const RECORDS: usize = 500_000;
    let (dir, authority) =
        (tempfile::tempdir().unwrap(), crate::harness::pki::Authority::new("Test"));
    let files = authority.issue(|_| ()).write(dir.path());
    let files = files.each_ref().map(String::as_str);
    // On one processor, so that one thread reads both calls.
    let setup = Setup::through(&["taskset", "-c", "0"], &dir.path().join("rec")).plain();
    let server = setup.args(&files).env("CALLREEL_ADMIN", "127.0.0.1:0").start();
    let secured = Secured { server, authority, dir };
    let mut flood = Sealer::start(&secured, &TLS13, "MZflood");
    // As many records without content as are allowed in a row, then one with a byte of a pong.
    let pongs = frame(FIN | PONG, &[]);
    let mut pongs = pongs.iter().cycle();
    let mut seal = |number: usize| {
        let content = if number.is_multiple_of(32) { pongs.next().cloned() } else { None };
        flood.seal(ContentType::ApplicationData, content.as_slice())
    };
    let records: Vec<u8> = (0..RECORDS).flat_map(&mut seal).collect();
    sockopt::set_socket_send_buffer_size(&flood.socket, 1 << 16).unwrap();
    flood.socket.set_write_timeout(Some(4 * PATIENCE)).unwrap();
    let line = Line::Tls(Box::new(connect(&secured, &TLS13)));
    let mut other = Peer::upgrade(line, "MZother", "").unwrap();
    other.start(&[]);
    other.sync();
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            flood.socket.write_all(&records).expect("the server reads on");
            is_over.store(true, Ordering::Relaxed);
        });
        // The first round may come before the flood.
        for round in 0..3 {
            other.say(Duration::from_millis(200));
            other.sync();
            assert!(!is_over.load(Ordering::Relaxed), "round {round}: heard after the flood alone");
        }
    });
    let other = other.finish();
    let recording = shelf::wait_for(&secured.recordings(), "MZother");
    assert!(recording.samples() == other.pcm());
    let _ = flood.socket.shutdown(Shutdown::Write);
    assert!(shelf::wait_for(&secured.recordings(), "MZflood").samples() == flood.peer.pcm());
}
