//! Core alone on a microcontroller: counts the instructions of a media frame, stage by stage, and
//! proves that the path of a frame cannot panic.
//!
//! Under QEMU with `-icount shift=0` each instruction takes a nanosecond of the processor's time,
//! so the figures are the same in every run. The probe prints them over semihosting, one
//! `name = instructions` a line, then a checksum of the WAV it made.
#![cfg_attr(target_os = "none", no_std, no_main)]

#[cfg(all(target_os = "none", target_arch = "arm"))]
#[path = "arm.rs"]
mod processor;
#[cfg(all(target_os = "none", target_arch = "riscv32"))]
#[path = "riscv.rs"]
mod processor;

#[cfg(target_os = "none")]
mod device {
    use core::cell::RefCell;
    use core::hint::black_box;
    use core::panic::PanicInfo;

    use callreel_core::frame::Provider;
    use callreel_core::session::{RING_ONE_TRACK_MIN, Session};
    use callreel_core::wav::{Encoding, Spec, Writer};
    use callreel_core::ws::{Decoder, Event};
    use embedded_io::{ErrorKind, ErrorType, Seek, SeekFrom, Write};

    use crate::processor;

    const FRAMES: u32 = 500;
    const START: &[u8; 133] = br#"{"event":"start","sequenceNumber":"1","start":{"streamSid":"MZ00000000000000000000000000000000","callSid":"CA","tracks":["inbound"]}}"#;
    const MESSAGE_BYTES_MAX: usize = 512;
    const HEADER_BYTES: usize = 8;
    const CODES: usize = 256;
    const BLOCK_BYTES: usize = 512;

    /// Bytes of the file written since the last checksum, as they would go to a card.
    struct Block {
        bytes: [u8; BLOCK_BYTES],
        used: usize,
    }

    impl Block {
        /// Adds the block's bytes to a checksum (FNV-1a) and empties the block.
        fn sum_up(&mut self, sum: &mut u32) {
            for &byte in self.bytes.get(..self.used).unwrap_or_default() {
                *sum = (*sum ^ u32::from(byte)).wrapping_mul(0x0100_0193);
            }
            self.used = 0;
        }
    }

    /// A sink for the WAV writer that writes to a block.
    struct Sink<'a>(&'a RefCell<Block>);

    impl ErrorType for Sink<'_> {
        type Error = ErrorKind;
    }

    impl Write for Sink<'_> {
        fn write(&mut self, bytes: &[u8]) -> Result<usize, ErrorKind> {
            if let Ok(mut block) = self.0.try_borrow_mut() {
                let used = block.used;
                if let Some(room) = block.bytes.get_mut(used..used + bytes.len()) {
                    room.copy_from_slice(bytes);
                    block.used += bytes.len();
                }
            }
            answer(Ok(bytes.len()))
        }

        fn flush(&mut self) -> Result<(), ErrorKind> {
            answer(Ok(()))
        }
    }

    impl Seek for Sink<'_> {
        fn seek(&mut self, to: SeekFrom) -> Result<u64, ErrorKind> {
            answer(match to {
                SeekFrom::Start(at) => Ok(at),
                _ => Err(ErrorKind::Unsupported),
            })
        }
    }

    /// Returns the sink's answer. The proof build hides it from the optimiser, so that the proof
    /// holds for any sink.
    fn answer<T>(answer: Result<T, ErrorKind>) -> Result<T, ErrorKind> {
        if cfg!(feature = "prove-panic-free") { black_box(answer) } else { answer }
    }

    /// A masked WebSocket frame with a media message in Twilio's spelling.
    struct Wire {
        bytes: [u8; HEADER_BYTES + MESSAGE_BYTES_MAX],
        used: usize,
    }

    impl Wire {
        fn new() -> Self {
            Self { bytes: [0; HEADER_BYTES + MESSAGE_BYTES_MAX], used: 0 }
        }

        fn put(&mut self, text: &[u8]) {
            for &byte in text {
                if let Some(place) = self.bytes.get_mut(self.used) {
                    *place = byte;
                    self.used += 1;
                }
            }
        }

        fn put_number(&mut self, number: u32) {
            let (digits, first) = decimal(number);
            self.put(digits.get(first..).unwrap_or_default());
        }

        fn media(&mut self, frame: u32) {
            self.used = HEADER_BYTES;
            self.put(br#"{"event":"media","sequenceNumber":""#);
            self.put_number(10_000 + frame);
            self.put(br#"","media":{"track":"inbound","chunk":""#);
            self.put_number(10_000 + frame);
            self.put(br#"","timestamp":""#);
            self.put_number(100_000 + frame * 20);
            self.put(br#"","payload":""#);
            for letter in 0..212_u32 {
                let index = (letter * 7 + frame) % 64;
                let alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
                let letter = alphabet.get(index as usize).copied().unwrap_or(b'A');
                self.put(&[letter]);
            }
            self.put(br#"AA==""#);
            self.put(br#"},"streamSid":"MZ00000000000000000000000000000000"}"#);
            let payload = self.used - HEADER_BYTES;
            let mask = [1, 2, 3, 4];
            let [high, low] = (payload as u16).to_be_bytes();
            let [a, b, c, d] = mask;
            let text = self.bytes.get_mut(HEADER_BYTES..self.used).unwrap_or_default();
            text.iter_mut().zip(mask.iter().cycle()).for_each(|(byte, key)| *byte ^= key);
            let head = [0x81, 0x80 | 126, high, low, a, b, c, d];
            for (place, byte) in self.bytes.iter_mut().zip(head) {
                *place = byte;
            }
        }

        fn frame(&mut self) -> &mut [u8] {
            self.bytes.get_mut(..self.used).unwrap_or_default()
        }
    }

    struct Ticks(u32);

    impl Ticks {
        /// Adds the ticks that `work` takes. They must be fewer than the counter holds.
        fn add<T>(&mut self, work: impl FnOnce() -> T) -> T {
            let before = processor::ticks();
            let result = work();
            self.0 += processor::ticks().wrapping_sub(before) & processor::TICKS_MASK;
            result
        }

        fn print(&self, name: &[u8]) {
            say(name, self.0 * processor::INSTRUCTIONS_PER_TICK_X2 / (2 * FRAMES));
        }
    }

    /// Runs the measurement and prints the figures.
    pub(crate) fn measure() {
        let spec = Spec { channels: 1, sample_rate_hz: 8000, encoding: Encoding::Pcm16 };
        let mut wire = Wire::new();
        let mut decoder = Decoder::new(MESSAGE_BYTES_MAX);
        let mut session = Session::new(Provider::Twilio, [0; RING_ONE_TRACK_MIN]);
        let block = RefCell::new(Block { bytes: [0; BLOCK_BYTES], used: 0 });
        let mut sum = 0x811C_9DC5;
        let Ok(mut writer) = Writer::new(Sink(&block), spec) else { return };
        let mut start = *START;
        let _ = session.handle_message(black_box(&mut start));
        let (mut ws, mut message, mut wav) = (Ticks(0), Ticks(0), Ticks(0));
        let mut codes = [0; CODES];
        for frame in 0..FRAMES {
            wire.media(frame);
            let bytes = wire.frame();
            let event = ws.add(|| decoder.poll(bytes));
            let Some(Ok(Event::Text(text))) = event else { continue };
            let count = message.add(|| match &mut session.handle_message(text) {
                Ok(turn) => {
                    let count = turn.poll_wire(&mut codes);
                    turn.poll_wire(&mut []);
                    count
                }
                Err(_) => 0,
            });
            let recorded = codes.get(..count).unwrap_or_default();
            let _ = wav.add(|| writer.write_mulaw(recorded));
            ws.add(|| decoder.compact(wire.frame()));
            if let Ok(mut block) = block.try_borrow_mut() {
                block.sum_up(&mut sum);
            }
        }
        session.handle_end().poll_wire(&mut codes);
        let data_bytes = writer.data_bytes();
        let is_whole = writer.checkpoint().and_then(|()| writer.finish()).is_ok();
        ws.print(b"ws");
        message.print(b"message");
        wav.print(b"wav");
        say(b"samples", if is_whole { data_bytes / 2 } else { 0 });
        say(b"media", session.stats().media as u32);
        say(b"message_bytes", (wire.used - HEADER_BYTES) as u32);
        say(b"checksum", sum);
        #[cfg(feature = "prove-panic-free")]
        listen();
    }

    /// The path of a bot's audio, for the proof alone.
    #[cfg(feature = "prove-panic-free")]
    fn listen() {
        use callreel_core::frame::bot::{BotFrame, parse, parse_binary};
        use callreel_core::playout::Playout;

        let mut playout = Playout::new(black_box(8000));
        let mut text = [0; MESSAGE_BYTES_MAX];
        for step in 0..black_box(FRAMES) {
            let at = u64::from(step);
            let frame = match step % 2 {
                0 => parse(Provider::Twilio, black_box(&mut text)).unwrap_or(BotFrame::Clear),
                _ => parse_binary(Provider::Twilio, black_box(&text)),
            };
            black_box(match black_box(frame) {
                BotFrame::Audio(bytes) => {
                    playout.handle_audio(at, black_box(bytes.len() as u64));
                    0
                }
                BotFrame::Clear => playout.handle_clear(at),
                BotFrame::Mark(name) => {
                    playout.handle_mark(name);
                    playout.handle_echo(at, name.unwrap_or_default());
                    0
                }
                BotFrame::Other => playout.finish(at),
            });
            while black_box(playout.poll(black_box(at))).is_some() {}
            black_box((playout.take_utterance(), playout.truth(), playout.stats()));
        }
    }

    /// Prints `name = value` without the formatting machinery, which can panic.
    fn say(name: &[u8], value: u32) {
        let (digits, first) = decimal(value);
        for part in [name, b" = ", digits.get(first..).unwrap_or_default(), b"\n"] {
            for &byte in part {
                processor::print(byte);
            }
        }
    }

    fn decimal(mut number: u32) -> ([u8; 10], usize) {
        let mut digits = [b'0'; 10];
        let mut first = 10;
        for digit in digits.iter_mut().rev() {
            *digit = b'0' + (number % 10) as u8;
            number /= 10;
            first -= 1;
            if number == 0 {
                break;
            }
        }
        (digits, first)
    }

    /// With `prove-panic-free`, a probe that can reach this function does not link. That build
    /// leaves out the parser for all spellings except the commonest
    /// (`--cfg callreel_frequent_only`), because serde-json-core has code that can panic in theory.
    #[panic_handler]
    fn panic(_: &PanicInfo) -> ! {
        #[cfg(feature = "prove-panic-free")]
        {
            unsafe extern "C" {
                fn the_path_of_a_media_frame_can_panic() -> !;
            }
            // SAFETY: no such function exists, so this is never linked and never run.
            unsafe { the_path_of_a_media_frame_can_panic() }
        }
        #[cfg(not(feature = "prove-panic-free"))]
        processor::exit(false)
    }
}

#[cfg(not(target_os = "none"))]
fn main() {
    println!("build this for a microcontroller; see budgets.toml");
}
