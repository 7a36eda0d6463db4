//! The appliance, from outside: QEMU runs the image; the tests act as its provider and its browser, and
//! cut its power.
//!
//! Without QEMU these tests show as ignored; with `CALLREEL_REQUIRE_SIM=1` they fail.
//! `CALLREEL_LONG=1` cuts the power 50 times instead of 5. `CALLREEL_PYTHON` names a Python that has
//! `websockets`.

#[path = "harness/bench.rs"]
mod bench;
#[path = "harness/card.rs"]
mod card;
#[path = "firmware/cards.rs"]
mod cards;
#[path = "harness/client.rs"]
#[expect(dead_code, reason = "these tests send what is lawful, or raw bytes")]
mod client;
#[path = "harness/conversation.rs"]
mod conversation;
#[path = "firmware/costs.rs"]
mod costs;
#[path = "harness/device_peer.rs"]
mod device_peer;
#[path = "harness/fixtures.rs"]
mod fixtures;
#[path = "firmware/images.rs"]
mod images;
#[path = "firmware/providers.rs"]
mod providers;
#[path = "harness/recorder.rs"]
#[expect(dead_code, reason = "these tests ask core for files alone")]
mod recorder;
#[path = "harness/seeds.rs"]
mod seeds;
#[path = "firmware/settings.rs"]
mod settings;
#[path = "firmware/strangers.rs"]
mod strangers;
#[path = "harness/wire.rs"]
mod wire;

use std::collections::BTreeSet;
use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use callreel::caller::{self, Plan};
use callreel_firmware_sim::call::MESSAGE_BYTES_MAX;
use callreel_firmware_sim::qemu;
use libtest_mimic::{Arguments, Failed, Trial};
use serde_json::{Value, json};

use bench::{Bench, budget, ensure};
use conversation::{
    BOTH, INBOUND, STOP, codes_of, media, media_of, mono_file, start, start_of, stereo_file, voice,
};
use device_peer::Peer;

type Outcome = Result<(), Failed>;

const CALLS_MAX: usize = 3;
/// Calls at once of the image that records both tracks.
const STEREO_CALLS_MAX: usize = 2;

fn main() {
    let arguments = Arguments::from_args();
    let missing = qemu::missing();
    let is_required = std::env::var_os("CALLREEL_REQUIRE_SIM").is_some();
    if let (Some(missing), true) = (&missing, is_required) {
        eprintln!("CALLREEL_REQUIRE_SIM is set, but {missing}");
        std::process::exit(1);
    }
    let no_riscv = !is_required && !qemu::has_riscv();
    let trials = [
        Trial::test("every_fixture_gives_the_same_file_as_on_a_host", fixtures_of_one_track),
        Trial::test("so_does_every_fixture_of_two_tracks", fixtures_of_two_tracks),
        Trial::test(
            "and_those_of_other_providers_on_an_image_that_has_them",
            providers::fixtures_of_other_providers,
        ),
        Trial::test("two_calls_of_two_tracks_lose_nothing_to_a_stall", two_calls_of_two_tracks),
        Trial::test("a_gap_longer_than_the_queue_becomes_silence", a_long_gap),
        Trial::test("two_streams_in_one_segment_become_two_recordings", two_streams_at_once),
        Trial::test("a_python_client_is_recorded_at_real_pace", a_python_client),
        Trial::test("three_calls_and_a_download_at_once_lose_nothing", calls_and_a_download),
        Trial::test("a_call_too_many_is_refused_and_costs_nobody_anything", a_call_too_many),
        Trial::test(
            "no_poller_and_no_idler_keeps_a_call_out",
            strangers::no_poller_keeps_a_call_out,
        ),
        Trial::test("nonsense_does_not_stop_it", strangers::nonsense_does_not_stop_it),
        Trial::test("what_fuzzers_say_costs_nothing_but_itself", strangers::what_fuzzers_say),
        Trial::test("each_boot_and_connection_begins_at_another_number", settings::numbers_differ),
        Trial::test(
            "a_bad_line_of_the_configuration_is_told_and_the_others_count",
            settings::a_bad_line,
        ),
        Trial::test("the_time_is_asked_by_name_and_dates_what_is_kept", settings::the_time),
        Trial::test("only_those_who_show_the_proofs_call_and_read", settings::the_proofs),
        Trial::test("without_settings_only_neighbours_read", settings::without_settings),
        Trial::test("a_part_of_a_file_and_a_recording_by_its_id", settings::parts_and_ids),
        Trial::test("a_power_cut_costs_two_seconds_at_most", a_power_cut),
        Trial::test("a_panic_restarts_it_and_is_logged", a_panic),
        Trial::test("a_main_loop_that_stands_still_is_restarted", a_standstill),
        Trial::test("power_may_go_between_any_two_writes", cards::a_cut_after_each_write),
        Trial::test("so_it_may_on_a_fat32", cards::a_cut_after_each_write_of_fat32),
        Trial::test("a_noted_start_is_of_one_recording_alone", cards::a_noted_start),
        Trial::test("a_card_of_32_gb_is_recorded_to", cards::a_card_of_32_gb),
        Trial::test("calls_come_at_once_beside_6000_recordings", cards::six_thousand_recordings),
        Trial::test("the_oldest_recordings_give_way", cards::the_oldest_give_way),
        Trial::test("a_card_is_woken_slowly_and_let_go", cards::the_line_to_the_card),
        Trial::test("a_frame_keeps_its_budget_of_block_writes", cards::block_writes_a_frame),
        Trial::test("a_full_card_ends_the_call_with_a_reason", a_full_card),
        Trial::test("without_a_card_calls_are_refused", without_a_card),
        Trial::test("a_card_stalled_for_250_ms_loses_nothing", a_short_stall),
        Trial::test("a_card_stalled_for_long_loses_what_it_counts", a_long_stall),
        Trial::test("a_card_that_refuses_writes_ends_the_call_and_recovers", a_broken_card),
        Trial::test("a_recording_that_cannot_be_finished_ends_with_1011", a_failed_finish),
        Trial::test("the_image_has_a_header_for_boot_loaders", images::the_header),
        Trial::test("the_image_keeps_its_budgets", costs::the_image_keeps_its_budgets),
        Trial::test("a_media_frame_keeps_its_budget_of_instructions", costs::instructions_a_frame),
        Trial::test("a_media_frame_keeps_its_budget_on_a_riscv", costs::instructions_on_riscv)
            .with_ignored_flag(no_riscv),
        Trial::test(
            "a_media_frame_keeps_its_budget_from_network_to_card",
            costs::instructions_in_all,
        ),
        Trial::test("the_path_of_a_media_frame_cannot_panic", costs::a_media_frame_cannot_panic),
    ];
    let may_run = |trial: Trial| {
        let is_ignored = trial.has_ignored_flag() || missing.is_some();
        trial.with_ignored_flag(is_ignored)
    };
    let trials = trials.map(may_run).into();
    libtest_mimic::run(&arguments, trials).exit();
}

// Promises to users.

fn fixtures_of_one_track() -> Outcome {
    let bench = Bench::boot("mono", 64)?;
    play_fixtures(&bench, |channels| channels < 2)?;
    bench.check_card()
}

fn fixtures_of_two_tracks() -> Outcome {
    let bench = Bench::with_both_tracks("stereo")?;
    play_fixtures(&bench, |channels| channels == 2)
}

/// Sends each fixture with a recording of a meant number of channels, unless one of its messages is
/// too long for a device.
fn play_fixtures(bench: &Bench, is_meant: impl Fn(u8) -> bool) -> Outcome {
    let mut played = 0;
    for fixture in fixtures::twilio() {
        let messages = fixture.messages();
        let mut expected: Vec<Vec<u8>> =
            (0..).map_while(|index| fs::read(fixture.wav(index)).ok()).collect();
        if expected.len() > 1 {
            // A host records streams beside each other; here a start ends the stream before it.
            let bytes: Vec<u8> = messages.iter().flat_map(client::text).collect();
            let recordings = recorder::device_connection(&[&bytes], MESSAGE_BYTES_MAX);
            expected = recordings.iter().map(|recording| recording.wav()).collect();
        }
        let channels = expected.first().map_or(0, |file| file[22]);
        let fits = messages.iter().all(|message| message.len() <= MESSAGE_BYTES_MAX);
        if !fits || !is_meant(channels) {
            continue;
        }
        let name = &fixture.name;
        let before = bench.recordings()?;
        let mut peer = Peer::connect(bench.appliance.address())?;
        for message in &messages {
            // The device closes a refused connection before all messages are sent.
            let _ = peer.send(&String::from_utf8_lossy(message));
        }
        peer.hang_up().map_err(|error| format!("{name}: {error}"))?;
        bench.await_health(|health| health["calls"] == 0)?;
        ensure(bench.recordings()? == before + expected.len(), || format!("{name}: wrong count"))?;
        for (number, file) in (before as u32 + 1..).zip(&expected) {
            let is_same = bench.wav(number)? == *file;
            ensure(is_same, || format!("{name}: another file than on a host"))?;
        }
        played += 1;
    }
    ensure(played > 0, || "no fixture was played".into())
}

/// With both tracks there is room for two calls, which need no more stack than three calls of one track.
fn two_calls_of_two_tracks() -> Outcome {
    let mut bench = Bench::with_both_tracks_and_faults("stereo-calls")?;
    let calls = talk_to(&bench, STEREO_CALLS_MAX, BOTH)?;
    bench.await_bytes(STEREO_CALLS_MAX, 40_000)?;
    bench.appliance.send_serial(b"1")?;
    hang_up(calls)?;
    let expected = [0, 1].map(|call| {
        let [inbound, outbound] =
            [0, 1].map(|channel| codes_of(voice_of(call, channel), TALK_FRAMES * 160));
        stereo_file(&inbound, &outbound)
    });
    let recorded = [bench.wav(1)?, bench.wav(2)?];
    ensure(expected.iter().all(|file| recorded.contains(file)), || "audio is missing".into())?;
    let stack = bench.health()?["stack_bytes_peak"].as_u64().unwrap_or(u64::MAX);
    println!("both tracks: stack {stack} bytes at most");
    ensure(stack <= budget("stack_bytes_peak_max")?, || format!("stack: {stack} bytes"))
}

fn a_long_gap() -> Outcome {
    let bench = Bench::boot("gap", 64)?;
    let mut peer = Peer::connect(bench.appliance.address())?;
    peer.send(&start(1))?;
    for frame in (0..20).chain(420..440) {
        peer.send(&media(frame, &voice(1, frame)))?;
    }
    peer.send(STOP)?;
    ensure(peer.close_code()? == 1000, || "another close code".into())?;
    let silence = [0xFF; 160];
    let heard = |frame| if (20..420).contains(&frame) { silence } else { voice(1, frame) };
    let codes: Vec<u8> = (0..440).flat_map(heard).collect();
    ensure(bench.wav(1)? == mono_file(&codes), || "the gap is not filled with silence".into())?;
    let record = bench.end_record(1)?;
    let is_told = record["gaps_dropped"] == 1 && record["filled_ms"] == 8000;
    ensure(is_told && record["frames"]["received"] == 40, || record.to_string())?;
    let strange = strange_fields(&record);
    ensure(strange.is_empty(), || format!("fields that no server writes: {strange:?}"))
}

/// The fields of a device's end record that a server's record has nowhere.
fn strange_fields(record: &Value) -> Vec<String> {
    fn properties(schema: &Value, into: &mut BTreeSet<String>) {
        for (key, value) in schema.as_object().into_iter().flatten() {
            if key == "properties" {
                into.extend(value.as_object().into_iter().flatten().map(|(name, _)| name.clone()));
            }
            properties(value, into);
        }
    }
    fn fields(record: &Value, into: &mut Vec<String>) {
        for (name, value) in record.as_object().into_iter().flatten() {
            into.push(name.clone());
            fields(value, into);
        }
    }
    let api: Value =
        serde_json::from_str(include_str!("../../host/src/admin/openapi.json")).expect("JSON");
    let (mut known, mut found) = (BTreeSet::new(), Vec::new());
    properties(&api["components"]["schemas"]["Record"], &mut known);
    fields(record, &mut found);
    found.retain(|name| !known.contains(name));
    found
}

fn two_streams_at_once() -> Outcome {
    let bench = Bench::boot("restart", 64)?;
    let streams = [1, 2].map(|call| [start(call), media(0, &voice(call, 0))]).concat();
    let said = streams.into_iter().chain([STOP.to_owned()]);
    let mut peer = Peer::connect(bench.appliance.address())?;
    peer.send_bytes(&said.flat_map(client::text).collect::<Vec<u8>>())?;
    ensure(peer.close_code()? == 1000, || "another close code".into())?;
    for (number, end) in [(1, "restart"), (2, "stop")] {
        let record = bench.end_record(number)?;
        let stream_id = format!("MZ{number}");
        let is_its = record["stream_id"] == stream_id && record["end"] == end;
        ensure(is_its, || record.to_string())?;
        let is_same = bench.wav(number)? == mono_file(&voice(number as usize, 0));
        ensure(is_same, || format!("recording {number} differs from the audio sent"))?;
    }
    bench.await_health(|health| health["calls"] == 0)
}

fn a_python_client() -> Outcome {
    let bench = Bench::boot("python", 64)?;
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("it/harness/websockets_call.py");
    let python = std::env::var("CALLREEL_PYTHON").unwrap_or_else(|_| "python3".into());
    let sent = bench.place.join("python.ulaw");
    let status = Command::new(python)
        .args([script.as_os_str(), bench.appliance.stream_url().as_ref(), "3".as_ref()])
        .arg(&sent)
        .status()?;
    ensure(status.success(), || "the Python client failed; has it `websockets`?".into())?;
    ensure(bench.wav(1)? == mono_file(&fs::read(sent)?), || "another recording".into())
}

fn calls_and_a_download() -> Outcome {
    let bench = Bench::boot("three", 64)?;
    place_calls(&bench, 1, 20)?;
    let mut expected: Vec<_> =
        place_calls(&bench, CALLS_MAX as u32, 4)?.iter().map(|codes| mono_file(codes)).collect();
    let calls = talk_to(&bench, CALLS_MAX, INBOUND)?;
    let mut downloads = 0;
    while !calls.iter().all(thread::JoinHandle::is_finished) {
        let first = bench.wav(1)?;
        ensure(first.len() == 44 + 20 * 16_000, || "half a download".into())?;
        downloads += 1;
    }
    ensure(downloads > 1, || format!("{downloads} downloads beside the calls"))?;
    hang_up(calls)?;
    expected.extend((0..CALLS_MAX).map(|call| mono_file(&codes_of(call, TALK_FRAMES * 160))));
    let mut recorded = Vec::new();
    for number in 2..2 + expected.len() as u32 {
        let record = bench.end_record(number)?;
        ensure(record["state"] == "complete" && record["lost_ms"] == 0, || record.to_string())?;
        recorded.push(bench.wav(number)?);
    }
    ensure(expected.iter().all(|file| recorded.contains(file)), || "audio is missing".into())?;
    bench.check_card()
}

fn a_call_too_many() -> Outcome {
    let bench = Bench::boot("refused", 64)?;
    let mut peers = Vec::new();
    for index in 0..CALLS_MAX {
        let mut peer = Peer::connect(bench.appliance.address())?;
        peer.send(&start(index))?;
        peers.push(peer);
    }
    let refusal = Peer::connect(bench.appliance.address()).err().map(|error| error.to_string());
    ensure(refusal.as_deref() == Some("HTTP/1.1 503 Service Unavailable"), || {
        format!("the call too many got {refusal:?}")
    })?;
    for (index, mut peer) in peers.into_iter().enumerate() {
        for frame in 0..50 {
            peer.send(&media(frame, &voice(index, frame)))?;
        }
        peer.send(STOP)?;
        ensure(peer.close_code()? == 1000, || "another close code".into())?;
    }
    for number in 1..=CALLS_MAX as u32 {
        ensure(bench.end_record(number)?["samples"] == 8000, || "audio is missing".into())?;
    }
    let mut peer = Peer::connect(bench.appliance.address())?;
    peer.send(&start(9))?;
    Ok(())
}

fn a_panic() -> Outcome {
    let mut bench = Bench::with_faults("panic")?;
    restarts_within(&mut bench, b"#", Duration::from_secs(2))?;
    let log = fs::read(bench.place.join("log.defmt"))?;
    let place = b"src/fault.rs";
    ensure(log.windows(place.len()).any(|bytes| bytes == place), || "no place in the log".into())?;
    is_told(&bench, "panic")
}

fn a_standstill() -> Outcome {
    let mut bench = Bench::with_faults("standstill")?;
    restarts_within(&mut bench, b"@", Duration::from_secs(10))?;
    is_told(&bench, "watchdog")
}

/// The state tells the cause of the one restart, and that the device ran for less than a minute before.
fn is_told(bench: &Bench, cause: &str) -> Outcome {
    let health = bench.health()?;
    let is_so = health["reset"] == cause
        && health["restarts"] == 1
        && health["quick_restarts"] == 1
        && health["boots"] == 2;
    ensure(is_so, || health.to_string())
}

/// Makes the firmware fail in the middle of a call. It must restart by itself within `time_max`, with
/// all audio of the call that was older than two seconds.
fn restarts_within(bench: &mut Bench, command: &[u8], time_max: Duration) -> Outcome {
    let address = bench.appliance.address();
    let talker = thread::spawn(move || talk_until_cut(address, 0));
    bench.await_bytes(1, 60_000)?;
    let log = bench.place.join("log.defmt");
    let logged_bytes = fs::metadata(&log)?.len();
    bench.appliance.send_serial(command)?;
    let failed = Instant::now();
    // The log shows the restart: the device would notice a request only when its peer tries again.
    bench::poll(|| Ok(fs::metadata(&log)?.len() > logged_bytes))?;
    let time = failed.elapsed();
    println!("the device logs again after {time:?}");
    bench.await_health(|health| health["recovered"] == 1 && health["calls"] == 0)?;
    ensure(time < time_max, || format!("it took {time:?}"))?;
    let begun = talker.join().expect("no panic")?;
    let stack = bench.health()?["stack_bytes_peak"].as_u64().unwrap_or(u64::MAX);
    println!("recovering takes {stack} bytes of stack at most");
    ensure(stack <= budget("stack_bytes_peak_max")?, || format!("stack: {stack} bytes"))?;
    ensure(bench.end_record(1)?["state"] == "recovered", || "no record".into())?;
    let file = bench.wav(1)?;
    let samples = (file.len() - 44) / 2;
    let promised = ((failed - begun).as_millis() as usize - 2000) * 8;
    ensure(samples >= promised, || format!("{samples} samples, not {promised}"))?;
    ensure(file == mono_file(&codes_of(0, samples)), || "other audio than sent".into())?;
    let mut peer = Peer::connect(address)?;
    peer.send(&start(1))?;
    peer.send(STOP)?;
    ensure(peer.close_code()? == 1000, || "the device takes no more calls".into())
}

fn a_power_cut() -> Outcome {
    let cuts = if std::env::var_os("CALLREEL_LONG").is_some() { 50 } else { 5 };
    let mut bench = Bench::boot("power", 64)?;
    let mut kept: Vec<Vec<u8>> = Vec::new();
    let mut random = 0x2545_F491_u32;
    for cut in 0..cuts {
        random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let life = Duration::from_millis(2200 + u64::from(random >> 16) % 2500);
        let begun = Instant::now();
        let address = bench.appliance.address();
        let talkers: Vec<_> = (0..CALLS_MAX)
            .map(|index| thread::spawn(move || talk_until_cut(address, cut * 10 + index)))
            .collect();
        thread::sleep(life.saturating_sub(begun.elapsed()));
        bench = bench.cut_power_and_boot()?;
        let firsts: Vec<Instant> = talkers
            .into_iter()
            .map(|talker| talker.join().expect("no panic"))
            .collect::<std::io::Result<_>>()?;
        ensure(firsts.len() == CALLS_MAX, || "a call did not begin".into())?;
        for (number, file) in (1..).zip(&kept) {
            ensure(bench.wav(number)? == *file, || format!("recording {number} has changed"))?;
        }
        let mut indices = Vec::new();
        for number in kept.len() as u32 + 1..=(kept.len() + CALLS_MAX) as u32 {
            let file = bench.wav(number)?;
            let samples = (file.len() - 44) / 2;
            let promised = (life.as_millis() as usize).saturating_sub(2000 + 300) * 8;
            ensure(samples >= promised, || {
                format!("recording {number} has {samples} samples after {life:?}")
            })?;
            let index = (0..CALLS_MAX)
                .find(|index| mono_file(&codes_of(cut * 10 + index, samples)) == file);
            let index = index.ok_or_else(|| format!("recording {number} has other audio"))?;
            indices.push(index);
            let (record, call) = (bench.end_record(number)?, cut * 10 + index);
            let is_told = record["state"] == "recovered"
                && record["stream_id"] == format!("MZ{call}")
                && record["call_id"] == format!("CA{call}")
                && (&record["provider"], &record["tracks"])
                    == (&json!("twilio"), &json!(["inbound"]));
            let strange = strange_fields(&record);
            ensure(is_told && strange.is_empty(), || format!("{record}; {strange:?}"))?;
            for id in [format!("MZ{call}"), format!("CA{call}")] {
                let (names, name) = (bench.names_of(&id)?, format!("R{number:07}.wav"));
                ensure(names == [name.as_str()], || format!("{id}: {names:?}, not {name}"))?;
            }
            kept.push(file);
        }
        indices.sort_unstable();
        ensure(indices == [0, 1, 2], || "two recordings of one call".into())?;
    }
    bench.check_card()
}

fn a_full_card() -> Outcome {
    let bench = Bench::boot("full", 8)?;
    let mut peer = Peer::connect(bench.appliance.address())?;
    peer.send(&start(0))?;
    let free = bench.health()?["card_bytes_free"].as_u64().unwrap_or(0);
    let frames = free as usize / 320 + 100;
    let mut sent = Vec::new();
    for frame in 0..frames {
        let chunk = voice(0, frame);
        // The device may close before the last frame.
        if peer.send(&media(frame, &chunk)).is_err() {
            break;
        }
        sent.extend(chunk);
    }
    bench.finished(1)?;
    let record = bench.end_record(1)?;
    ensure(
        (&record["end"], &record["reason"]) == (&json!("internal"), &json!("card-full")),
        || record.to_string(),
    )?;
    let file = bench.wav(1)?;
    let samples = (file.len() - 44) / 2;
    ensure(file.len() as u64 + 4096 > free, || format!("{samples} samples in {free} bytes"))?;
    ensure(file == mono_file(&sent[..samples]), || "the file differs from the audio sent".into())?;
    ensure(bench.appliance.get("/recordings")?.0 == 200, || "no list of recordings".into())?;
    bench.check_card()
}

fn without_a_card() -> Outcome {
    let bench = Bench::without_card("cardless")?;
    let refusal = Peer::connect(bench.appliance.address()).err().map(|error| error.to_string());
    ensure(refusal.is_some_and(|text| text.contains("503")), || "a call was taken".into())?;
    ensure(bench.appliance.get("/recordings")?.0 == 503, || "a list without a card".into())?;
    ensure(bench.health()?["card_ready"] == false, || "the device reports a card".into())
}

fn a_short_stall() -> Outcome {
    let mut bench = Bench::with_faults("stall")?;
    stalled_calls(&mut bench, b"1")?;
    check_stalled(&bench, |record, file, expected| {
        record["state"] == "complete" && record["lost_ms"] == 0 && file == expected
    })
}

fn a_long_stall() -> Outcome {
    let mut bench = Bench::with_faults("stalled")?;
    stalled_calls(&mut bench, b"e")?;
    check_stalled(&bench, |record, file, expected| {
        let lost = record["lost_ms"].as_u64().unwrap_or(0) as usize * 8;
        let pairs = file.chunks_exact(2).zip(expected.chunks_exact(2));
        let changed: Vec<&[u8]> = pairs.filter(|(a, b)| a != b).map(|(a, _)| a).collect();
        // About one lost sample in a hundred was zero anyway, and a part of a millisecond counts whole.
        file.len() == expected.len()
            && (lost > 0) == (record["state"] == "partial")
            && changed.iter().all(|sample| *sample == [0, 0])
            && (changed.len()..=changed.len() + lost / 50 + 8).contains(&lost)
    })
}

fn a_broken_card() -> Outcome {
    let mut bench = Bench::with_faults("broken")?;
    let mut peer = Peer::connect(bench.appliance.address())?;
    peer.send(&start(0))?;
    for frame in 0..100 {
        peer.send(&media(frame, &voice(0, frame)))?;
    }
    bench.await_bytes(1, 16_000)?;
    bench.appliance.send_serial(b"!")?;
    for frame in 100..200 {
        // The device may close at any frame.
        let _ = peer.send(&media(frame, &voice(0, frame)));
    }
    ensure(peer.close_code()? == 1011, || "the call did not end with 1011".into())?;
    ensure(bench.health()?["card_ready"] == false, || "the device reports a card".into())?;
    bench.appliance.send_serial(b".")?;
    bench.await_health(|health| health["card_ready"] == true)?;
    ensure(bench.end_record(1)?["state"] == "recovered", || "no record".into())?;
    let file = bench.wav(1)?;
    let samples = (file.len() - 44) / 2;
    ensure(samples >= 8000, || format!("only {samples} samples"))?;
    ensure(file == mono_file(&codes_of(0, samples)), || "other audio than sent".into())
}

fn a_failed_finish() -> Outcome {
    let mut bench = Bench::with_faults("unfinished")?;
    let mut peer = Peer::connect(bench.appliance.address())?;
    peer.send(&start(0))?;
    peer.send(&media(0, &voice(0, 0)))?;
    bench.await_bytes(1, 44)?;
    // The card is busy before it refuses, so that the network side runs meanwhile.
    bench.appliance.send_serial(b"1!")?;
    // The card does not refuse reads, and takes note of the fault with this one.
    bench.wav(1)?;
    peer.send(STOP)?;
    ensure(peer.close_code()? == 1011, || "the call did not end with 1011".into())?;
    bench.appliance.send_serial(b".")?;
    bench.await_health(|health| health["card_ready"] == true && health["recovered"] == 1)?;
    ensure(bench.end_record(1)?["state"] == "recovered", || "no record".into())
}

// Calls.

/// Sends audio at real pace until the device is gone; returns the time of the first frame.
fn talk_until_cut(address: SocketAddr, call: usize) -> std::io::Result<Instant> {
    let mut peer = Peer::connect(address)?;
    let begun = Instant::now();
    peer.send(&start(call))?;
    for frame in 0.. {
        if peer.send(&media(frame, &voice(call, frame))).is_err() {
            break;
        }
        let due = begun + Duration::from_millis(20) * (frame as u32 + 1);
        thread::sleep(due.saturating_duration_since(Instant::now()));
    }
    Ok(begun)
}

/// Places calls as `callreel call` does, at real pace, or unpaced if it is one call; returns the mu-law
/// of each.
fn place_calls(bench: &Bench, calls: u32, seconds: u64) -> Result<Vec<Vec<u8>>, Failed> {
    let sent = bench.place.join(format!("sent-{calls}"));
    fs::create_dir_all(&sent)?;
    let plan = Plan {
        calls,
        duration: Some(Duration::from_secs(seconds)),
        flood: calls == 1,
        patience: Duration::from_secs(60),
        save_sent: Some(sent.clone()),
        ..Plan::new(bench.appliance.stream_url())
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let report = runtime.block_on(caller::place(&plan))?;
    ensure(report.is_good(), || format!("{report:?}"))?;
    let path = |sid: &str| sent.join(format!("{sid}.ulaw"));
    report.calls.iter().map(|call| Ok(fs::read(path(&call.stream_sid))?)).collect()
}

/// Frames of one of [`talk_to`]'s calls: eight seconds.
const TALK_FRAMES: usize = 400;

type Talk = thread::JoinHandle<std::io::Result<u16>>;

/// Places calls at real pace. All are connected when it returns.
fn talk_to(bench: &Bench, calls: usize, tracks: &'static [&str]) -> Result<Vec<Talk>, Failed> {
    Ok(talk(connect(bench, calls, tracks)?, tracks))
}

/// Connects calls, and begins a stream on each.
fn connect(bench: &Bench, calls: usize, tracks: &[&str]) -> Result<Vec<Peer>, Failed> {
    let mut peers: Vec<Peer> = (0..calls)
        .map(|_| Peer::connect(bench.appliance.address()))
        .collect::<std::io::Result<_>>()?;
    for (call, peer) in peers.iter_mut().enumerate() {
        peer.send(&start_of(call, tracks))?;
    }
    Ok(peers)
}

/// Sends the calls' audio at real pace, and a stop.
fn talk(peers: Vec<Peer>, tracks: &'static [&str]) -> Vec<Talk> {
    let calls = peers.into_iter().enumerate().map(|(call, mut peer)| {
        thread::spawn(move || {
            let begun = Instant::now();
            for frame in 0..TALK_FRAMES {
                for channel in 0..tracks.len() {
                    let codes = voice(voice_of(call, channel), frame);
                    peer.send(&media_of(tracks, channel, frame, &codes))?;
                }
                let due = begun + Duration::from_millis(20) * (frame as u32 + 1);
                thread::sleep(due.saturating_duration_since(Instant::now()));
            }
            peer.send(STOP)?;
            peer.close_code()
        })
    });
    calls.collect()
}

/// The voice on a channel of one of [`talk_to`]'s calls.
fn voice_of(call: usize, channel: usize) -> usize {
    call + 100 * channel
}

/// Waits for the end of the calls, each with close code 1000.
fn hang_up(calls: Vec<Talk>) -> Outcome {
    for call in calls {
        ensure(call.join().expect("no panic")? == 1000, || "another close code".into())?;
    }
    Ok(())
}

/// Places three calls at real pace. The card stalls in the middle.
fn stalled_calls(bench: &mut Bench, stall: &[u8]) -> Outcome {
    let calls = talk_to(bench, CALLS_MAX, INBOUND)?;
    bench.await_bytes(CALLS_MAX, 20_000)?;
    bench.appliance.send_serial(stall)?;
    hang_up(calls)
}

/// Checks each recording against its call, the one with the same first half second.
fn check_stalled(bench: &Bench, is_right: impl Fn(&Value, &[u8], &[u8]) -> bool) -> Outcome {
    let calls = [0, 1, 2].map(|call| mono_file(&codes_of(call, TALK_FRAMES * 160)));
    for number in 1..=CALLS_MAX as u32 {
        let (record, file) = (bench.end_record(number)?, bench.wav(number)?);
        let expected = calls.iter().find(|expected| expected[44..8044] == file[44..8044]);
        let expected = expected.ok_or("a recording of no call")?;
        ensure(is_right(&record, &file, expected), || format!("{number}: {record}"))?;
    }
    Ok(())
}
