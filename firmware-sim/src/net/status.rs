//! Answers that are made here: the state of the appliance, and TwiML.

use core::fmt::{self, Write};

use callreel_firmware_sim::gate;
use callreel_firmware_sim::http::Refusal;
use smoltcp::wire::IpAddress;

use super::{CALLS_MAX, Front, TX_BYTES, board};

/// Most bytes of an answer, beside its head.
const BODY_BYTES_MAX: usize = TX_BYTES - 110;

/// Text in a part of a connection's buffer: the request in it has been read.
struct Text<'b> {
    buffer: &'b mut [u8],
    length: usize,
}

impl Write for Text<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let end = self.length + text.len();
        self.buffer.get_mut(self.length..end).ok_or(fmt::Error)?.copy_from_slice(text.as_bytes());
        self.length = end;
        Ok(())
    }
}

impl Front {
    /// Not inlined, like the other answer: so the stack is as deep as one of them.
    #[inline(never)]
    pub(super) fn send_status(&mut self, index: usize) {
        let mut body = [0; BODY_BYTES_MAX];
        let mut text = Text { buffer: &mut body, length: 0 };
        let room = self.put_status(&mut text);
        let length = text.length;
        debug_assert!(room.is_ok());
        self.reply(index, "200 OK", "application/json", &body[..length]);
    }

    /// Fits with every number at its longest, but for the second fault of the configuration: then that is
    /// left out.
    fn put_status(&self, text: &mut Text<'_>) -> fmt::Result {
        let calls = self.slots.iter().filter(|slot| slot.is_used).count();
        let (card, config) = (self.card, &self.config);
        write!(
            text,
            r#"{{"message":"callreel appliance is running","version":"{}","name":"{}","uptime_ms":{},"#,
            env!("CARGO_PKG_VERSION"),
            config.name,
            board::uptime_ms(),
        )?;
        if let Some(sum) = board::image_crc32() {
            write!(text, r#""image_crc32":{sum},"#)?;
        }
        if let Some(date) = self.clock.at(board::uptime_ms()) {
            write!(text, r#""time":"{date}","#)?;
        }
        if let Some(IpAddress::Ipv4(address)) = self.address() {
            write!(text, r#""address":"{address}","#)?;
        }
        write!(
            text,
            r#""boots":{},"reset":"{}","restarts":{},"quick_restarts":{},"calls":{calls},"calls_max":{CALLS_MAX},"refused":{},"card_ready":{},"card_ready_ms":{},"card_checked":{},"card_bytes_free":{},"card_keep_free_bytes":{},"recorded":{},"recovered":{},"removed":{},"stack_bytes":{},"stack_bytes_peak":{},"config":"{}""#,
            self.boots,
            self.reset.cause,
            self.reset.restarts,
            board::quick_restarts(),
            self.refused,
            card.is_ready,
            card.ready_ms,
            card.is_checked,
            card.bytes_free,
            card.keep_free_bytes,
            card.recorded,
            card.recovered,
            card.removed,
            board::stack_bytes(),
            board::stack_bytes_peak(),
            match config.faults_count {
                _ if !config.is_found => "none",
                0 => "read",
                _ => "faulty",
            },
        )?;
        if config.faults_count > 0 {
            write!(text, r#","config_faults":{},"config_errors":["#, config.faults_count)?;
            for (index, fault) in config.faults.iter().enumerate() {
                let comma = if index > 0 { "," } else { "" };
                let (before, room) = (text.length, text.buffer.len() - "]}\n".len());
                let put =
                    write!(text, r#"{comma}{{"line":{},"error":"{}"}}"#, fault.line, fault.error);
                if put.is_err() || text.length > room {
                    text.length = before;
                    break;
                }
            }
            text.write_str("]")?;
        }
        text.write_str("}\n")
    }

    fn address(&self) -> Option<IpAddress> {
        let own = self.interface.as_ref()?.ip_addrs().first()?;
        Some(own.address())
    }

    #[inline(never)]
    pub(super) fn send_twiml(&mut self, index: usize) {
        let mut body = [0; 400];
        let mut text = Text { buffer: &mut body, length: 0 };
        let result = gate::put_twiml(&mut text, &self.config, self.request(index));
        let length = text.length;
        match result {
            Ok(()) => self.reply(index, "200 OK", "text/xml", &body[..length]),
            Err(_) => self.refuse(index, Refusal::MALFORMED),
        }
    }
}
