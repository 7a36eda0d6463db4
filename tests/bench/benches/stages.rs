//! Cost of each stage: core through its public API beside other people's crates, in one run.
//! `cargo bench -p callreel-bench`. One item is one media message.

use callreel_bench::peers::{self, Borrowed, Event};
use callreel_bench::{CODES, START, masked, media};
use callreel_core::frame::{self, Provider};
use callreel_core::session::{RING_ONE_TRACK_MIN, Session};
use callreel_core::ws;
use divan::Bencher;

fn main() {
    divan::main();
}

/// The message measured again and again, and its payload.
fn text() -> (String, String) {
    let text = media(1000);
    let payload = text.split(r#""payload":""#).nth(1).and_then(|rest| rest.split('"').next());
    let payload = payload.expect("a media message has a payload").to_owned();
    (text, payload)
}

#[divan::bench_group]
mod a_bytes_to_text {
    use super::*;

    #[divan::bench]
    fn core(bencher: Bencher<'_, '_>) {
        let frame = masked(&text().0);
        let mut decoder = ws::Decoder::new(64 * 1024);
        bencher.with_inputs(|| frame.clone()).bench_local_refs(|bytes| {
            let found = matches!(decoder.poll(bytes), Some(Ok(ws::Event::Text(_))));
            assert!(decoder.poll(bytes).is_none() && found);
            decoder.compact(bytes)
        });
    }
}

#[divan::bench_group]
mod b_text_to_codes {
    use super::*;

    #[divan::bench]
    fn core(bencher: Bencher<'_, '_>) {
        let text = text().0.into_bytes();
        bencher
            .with_inputs(|| text.clone())
            .bench_local_refs(|text| frame::parse(Provider::Twilio, text).is_ok());
    }

    #[divan::bench]
    fn serde_json_owned_base64(bencher: Bencher<'_, '_>) {
        let text = text().0;
        bencher.bench_local(|| match serde_json::from_str(divan::black_box(&text)) {
            Ok(Event::Media { media }) => peers::decode_base64(&media.payload),
            _ => unreachable!("it is a media message"),
        });
    }

    #[divan::bench]
    fn serde_json_borrowed_base64(bencher: Bencher<'_, '_>) {
        let text = text().0;
        bencher.bench_local(|| {
            let found: Borrowed<'_> = serde_json::from_str(divan::black_box(&text)).unwrap();
            peers::decode_base64(found.media.unwrap().payload)
        });
    }

    #[divan::bench]
    fn sonic_rs_base64_simd(bencher: Bencher<'_, '_>) {
        let text = text().0;
        let mut codes = [0; 512];
        bencher.bench_local(|| {
            let found: Borrowed<'_> = sonic_rs::from_str(divan::black_box(&text)).unwrap();
            peers::decode_base64_fast(found.media.unwrap().payload, &mut codes).len()
        });
    }
}

#[divan::bench_group]
mod c_base64 {
    use super::*;

    #[divan::bench]
    fn base64(bencher: Bencher<'_, '_>) {
        let payload = text().1;
        bencher.bench_local(|| peers::decode_base64(divan::black_box(&payload)));
    }

    #[divan::bench]
    fn base64_simd(bencher: Bencher<'_, '_>) {
        let payload = text().1;
        let mut codes = [0; 512];
        bencher.bench_local(|| {
            peers::decode_base64_fast(divan::black_box(&payload), &mut codes).len()
        });
    }

    #[divan::bench]
    fn base64ct(bencher: Bencher<'_, '_>) {
        use base64ct::Encoding as _;
        let payload = text().1;
        let mut codes = [0; 512];
        bencher.bench_local(|| {
            base64ct::Base64::decode(divan::black_box(&payload), &mut codes).map(<[u8]>::len)
        });
    }
}

#[divan::bench_group]
mod d_text_to_samples {
    use super::*;

    #[divan::bench]
    fn core(bencher: Bencher<'_, '_>) {
        let mut session = Session::new(Provider::Twilio, [0; RING_ONE_TRACK_MIN]);
        drop(session.handle_message(&mut START.as_bytes().to_vec()).unwrap());
        let mut samples = [0; 512];
        let mut texts = (0..).map(|index| media(index).into_bytes());
        bencher.with_inputs(|| texts.next().unwrap()).bench_local_refs(|text| {
            let mut turn = session.handle_message(text).unwrap();
            assert_eq!(turn.poll_pcm(&mut samples), CODES);
        });
    }

    #[divan::bench]
    fn obvious(bencher: Bencher<'_, '_>) {
        let text = text().0;
        let mut samples = [0; 512];
        bencher.bench_local(|| peers::obvious(divan::black_box(&text), &mut samples));
    }

    #[divan::bench]
    fn fastest_crates(bencher: Bencher<'_, '_>) {
        let text = text().0;
        let mut samples = [0; 512];
        bencher.bench_local(|| peers::fastest(divan::black_box(&text), &mut samples));
    }
}
