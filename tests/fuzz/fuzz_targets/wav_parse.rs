//! The beginning of any file, given in as small pieces as the parser asks for, gives the answer of the
//! whole, and that of a parser written in the plain way. A format that is found has a header that gives
//! it back.

#![no_main]

use callreel_core::wav::{Length, ParseError, header, parse};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let whole = parse(bytes);
    let mut held = 0;
    while let Err(ParseError::NeedMore { bytes_min }) = parse(&bytes[..held]) {
        assert!(bytes_min > held, "no progress behind {held} bytes");
        let last = bytes.get(..bytes_min - 1).unwrap_or(bytes);
        assert_eq!(parse(last), Err(ParseError::NeedMore { bytes_min }), "a byte too many");
        held = bytes_min.min(bytes.len());
        if held < bytes_min {
            break;
        }
    }
    assert_eq!(parse(&bytes[..held]), whole);
    assert_eq!(reference(bytes), whole.ok().map(|layout| (layout.data_at, layout.fact_at)));

    let Ok(layout) = whole else { return };
    let Some(spec) = layout.spec() else { return };
    for length in [Length::Bytes(layout.data_size), Length::Unknown] {
        let start = header(spec, length);
        let read = parse(&start).expect("a header is whole");
        assert_eq!((read.spec(), read.data_at), (Some(spec), start.len()));
        assert!(read.is_header_of(spec));
    }
    if layout.is_header_of(spec) {
        let written = header(spec, Length::Unknown);
        assert_eq!(written.len(), layout.data_at);
        assert_eq!(parse(&written).map(|read| read.format), Ok(layout.format));
    }
});

/// Places of the samples and of the number of sample frames, found with 64-bit places.
fn reference(bytes: &[u8]) -> Option<(usize, Option<usize>)> {
    let long = |at: u64| {
        let at = usize::try_from(at).ok()?;
        Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
    };
    if bytes.get(..4)? != b"RIFF" || bytes.get(8..12)? != b"WAVE" {
        return None;
    }
    let (mut at, mut has_format, mut fact_at) = (12u64, false, None);
    loop {
        let (name, size) = (long(at)?.to_le_bytes(), long(at + 4)?);
        at += 8;
        match &name {
            b"data" => return has_format.then_some((at as usize, fact_at)),
            b"fmt " if size < 16 => return None,
            b"fmt " => has_format = true,
            b"fact" if size == 4 => fact_at = Some(at as usize),
            _ => {}
        }
        at += u64::from(size).next_multiple_of(2);
    }
}
