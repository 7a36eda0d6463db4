//! Any bytes, cut anywhere, give the same events as the uncut bytes, and the same events as a
//! decoder written in the plain way.

#![no_main]

use arbitrary::Arbitrary;
use callreel_core::ws::{CloseCode, Decoder, Event, OVERHEAD_BYTES_MAX};
use libfuzzer_sys::fuzz_target;

#[derive(Arbitrary, Debug)]
struct Input<'b> {
    message_bytes_max: u8,
    cuts: [u8; 4],
    bytes: &'b [u8],
}

#[derive(Debug, PartialEq)]
enum Said {
    Text(Vec<u8>),
    Binary(Vec<u8>),
    Ping(Vec<u8>),
    Pong,
    Close(Option<u16>),
    Error(u16),
}

fuzz_target!(|input: Input<'_>| {
    let limit = usize::from(input.message_bytes_max) * 4;
    let whole = decode(input.bytes, &[usize::MAX], limit);
    let cuts = input.cuts.map(|cut| usize::from(cut) + 1);
    assert_eq!(decode(input.bytes, &cuts, limit), whole);
    assert_eq!(decode(input.bytes, &[1], limit), whole);
    assert_eq!(reference(input.bytes, limit), whole);
});

/// The decoder's events when the bytes arrive in pieces of these sizes, repeated in a cycle.
fn decode(mut bytes: &[u8], sizes: &[usize], limit: usize) -> Vec<Said> {
    let mut decoder = Decoder::new(limit);
    let mut buffer = vec![0; limit + OVERHEAD_BYTES_MAX];
    let mut held = 0;
    let mut found = Vec::new();
    for size in sizes.iter().cycle() {
        let count = bytes.len().min(*size).min(buffer.len() - held);
        assert!(count > 0 || bytes.is_empty(), "the buffer is full and the decoder waits");
        buffer[held..held + count].copy_from_slice(&bytes[..count]);
        bytes = &bytes[count..];
        let given = &mut buffer[..held + count];
        while let Some(event) = decoder.poll(given) {
            found.push(match event {
                Ok(Event::Text(text)) => {
                    let said = Said::Text(text.to_vec());
                    // The caller may change the text.
                    text.fill(0xFF);
                    said
                }
                Ok(Event::Binary(data)) => Said::Binary(data.to_vec()),
                Ok(Event::Ping(data)) => Said::Ping(data.to_vec()),
                Ok(Event::Pong) => Said::Pong,
                Ok(Event::Close(code)) => Said::Close(code.map(CloseCode::get)),
                Err(code) => Said::Error(code.get()),
            });
        }
        held = decoder.compact(given);
        if bytes.is_empty() {
            return found;
        }
    }
    found
}

/// RFC 6455, section 5, with copies and without regard to speed.
fn reference(mut bytes: &[u8], limit: usize) -> Vec<Said> {
    let mut found = Vec::new();
    let mut message: Option<(u8, Vec<u8>)> = None;
    let error = loop {
        let (&[first, second], rest) = match bytes.split_first_chunk::<2>() {
            Some(split) => split,
            None => return found,
        };
        let (fin, opcode) = (first >= 0x80, first & 15);
        let control = opcode >= 8;
        if first & 0x70 != 0 || second < 0x80 || !matches!(opcode, 0..=2 | 8..=10) {
            break 1002;
        }
        let short = usize::from(second & 0x7F);
        if control && (!fin || short > 125) {
            break 1002;
        }
        let length_bytes = [0, 2, 8][short.saturating_sub(125)];
        let Some((length, rest)) = rest.split_at_checked(length_bytes) else { return found };
        let extended = length.iter().fold(0u64, |sum, byte| sum << 8 | u64::from(*byte));
        let length = if short < 126 { short as u64 } else { extended };
        let minimal = [126, 1 << 16].iter().filter(|least| length >= **least).count();
        if [0, 2, 8][minimal] != length_bytes || length >> 63 != 0 {
            break 1002;
        }
        let Some((mask, rest)) = rest.split_first_chunk::<4>() else { return found };
        if !control {
            if (opcode == 0) != message.is_some() {
                break 1002;
            }
            let gathered = message.as_ref().map_or(0, |(_, data)| data.len());
            if length + gathered as u64 > limit as u64 {
                break 1009;
            }
        }
        let Some((payload, rest)) = rest.split_at_checked(length as usize) else { return found };
        let payload: Vec<u8> =
            payload.iter().zip(mask.iter().cycle()).map(|(byte, key)| byte ^ key).collect();
        bytes = rest;
        match opcode {
            8 => match close(&payload) {
                Ok(code) => {
                    found.push(Said::Close(code));
                    return found;
                }
                Err(code) => break code,
            },
            9 => found.push(Said::Ping(payload)),
            10 => found.push(Said::Pong),
            _ => {
                let (kind, data) = message.get_or_insert((opcode, Vec::new()));
                data.extend(payload);
                if *kind == 1
                    && let Err(error) = str::from_utf8(data)
                    && (fin || error.error_len().is_some())
                {
                    break 1007;
                }
                if fin {
                    let (kind, data) = message.take().unwrap();
                    found.push(if kind == 1 { Said::Text(data) } else { Said::Binary(data) });
                }
            }
        }
    };
    found.push(Said::Error(error));
    found
}

fn close(payload: &[u8]) -> Result<Option<u16>, u16> {
    let Some((code, reason)) = payload.split_first_chunk() else {
        return if payload.is_empty() { Ok(None) } else { Err(1002) };
    };
    let code = u16::from_be_bytes(*code);
    if !(1000..5000).contains(&code) || matches!(code, 1004..=1006 | 1015..=2999) {
        return Err(1002);
    }
    str::from_utf8(reason).map_err(|_| 1007u16)?;
    Ok(Some(code))
}
