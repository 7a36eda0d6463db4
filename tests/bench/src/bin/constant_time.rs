//! Decodes one payload under valgrind, to check that base64 and mu-law take the same steps for any
//! data.
//!
//! `constant_time SEED` decodes a payload made from the seed; callgrind counts the instructions.
//! Six words in place of a seed tell memcheck that the payload's characters are undefined.
//! Memcheck then reports each branch and each address that depends on one of them. `bytes` and
//! `words` decode base64 by core's two methods, `url` the alphabet for URLs by the first, `samples` and `wav` go on to samples and to the
//! bytes of a file, and `table` looks the samples up in a table.

use std::hint::black_box;

use base64ct::{Base64, Base64Url, Encoding as _};
use callreel_core::{g711, wav};

#[path = "../../../../core/src/base64.rs"]
mod base64;

/// A frame of 20 ms.
const PAYLOAD_BYTES: usize = 160;

/// Characters left defined: `base64ct` decodes the last group, and a branch shows whether it is
/// padded.
const LAST_GROUP_CHARS: usize = 4;

fn main() {
    let seed = std::env::args().nth(1).unwrap_or_default();
    let mut state = seed.bytes().fold(1u64, |sum, byte| sum * 131 + u64::from(byte));
    let codes: [u8; PAYLOAD_BYTES] = std::array::from_fn(|_| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 56) as u8
    });
    let mut text = [0; PAYLOAD_BYTES.div_ceil(3) * 4];
    match seed.as_str() {
        "url" => Base64Url::encode(&codes, &mut text),
        _ => Base64::encode(&codes, &mut text),
    }
    .expect("there is room");
    let (body, _last) = text.split_at_mut(PAYLOAD_BYTES.div_ceil(3) * 4 - LAST_GROUP_CHARS);
    if matches!(seed.as_str(), "bytes" | "words" | "url" | "samples" | "wav" | "table") {
        make_undefined(body);
    }
    let mut is_odd = false;
    let decoded = match seed.as_str() {
        "words" => base64::decode_any_by_words(black_box(&mut text), &mut is_odd),
        "bytes" | "url" => base64::decode_any_by_bytes(black_box(&mut text), &mut is_odd),
        _ => Some(decode(black_box(&mut text))),
    };
    let decoded = black_box(decoded.expect("it is base64"));
    match seed.as_str() {
        "bytes" | "words" | "url" => {}
        "wav" => {
            let mut file = [0; 2 * PAYLOAD_BYTES];
            black_box(wav::Encoding::Pcm16.encode_mulaw(decoded, &mut file));
            black_box(&file);
            black_box(wav::Encoding::Mulaw.encode_mulaw(decoded, &mut file));
            black_box(&file);
        }
        "table" => drop(black_box(look_up(decoded))),
        _ => drop(black_box(to_samples(decoded))),
    }
}

#[inline(never)]
fn decode(text: &mut [u8]) -> &[u8] {
    base64::decode_any_in_place(text, &mut false).expect("it is base64")
}

#[inline(never)]
fn to_samples(codes: &[u8]) -> [i16; PAYLOAD_BYTES] {
    let mut samples = [0; PAYLOAD_BYTES];
    g711::decode_mulaw_all(codes, &mut samples);
    samples
}

#[inline(never)]
fn look_up(codes: &[u8]) -> [i16; PAYLOAD_BYTES] {
    let mut samples = [0; PAYLOAD_BYTES];
    for (sample, code) in samples.iter_mut().zip(codes) {
        *sample = g711::decode_mulaw(*code);
    }
    samples
}

/// Memcheck's client request MAKE_MEM_UNDEFINED (valgrind.h, memcheck.h). Does nothing outside
/// valgrind.
#[cfg(target_arch = "x86_64")]
fn make_undefined(bytes: &mut [u8]) {
    const MAKE_MEM_UNDEFINED: usize = 0x4D43_0001;
    let request = [MAKE_MEM_UNDEFINED, bytes.as_ptr() as usize, bytes.len(), 0, 0, 0];
    let mut result = 0usize;
    // SAFETY: the rotations add up to two whole turns and rbx is exchanged with itself, so a
    // processor does nothing here. Valgrind reads the six words at rax and sets rdx.
    unsafe {
        std::arch::asm!(
            "rol rdi, 3", "rol rdi, 13", "rol rdi, 61", "rol rdi, 51", "xchg rbx, rbx",
            in("rax") request.as_ptr(),
            inout("rdx") result,
            inout("rdi") 0usize => _,
        );
    }
    black_box(result);
}

#[cfg(not(target_arch = "x86_64"))]
fn make_undefined(_bytes: &mut [u8]) {
    unimplemented!("the request is spelled for x86-64 only");
}
