//! Cards of both kinds: power cuts between any two writes, large cards, full ones, and the line to them.

use std::cell::RefCell;
use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::process::Command;

use callreel_core::names::End;
use callreel_firmware_sim::call::{Ended, Id, Opening, Origin, Summary};
use callreel_firmware_sim::clock::Clock;
use callreel_firmware_sim::fat::{self, Reader, Volume};
use callreel_firmware_sim::qemu;
use callreel_firmware_sim::retention::Retention;
use callreel_firmware_sim::settings;
use callreel_firmware_sim::starts::Starts;
use callreel_firmware_sim::store::{self, Card, Kind, Maker, Recording, Recovery};
use embedded_sdmmc::Block;
use libtest_mimic::Failed;
use rustix::fs::{SeekFrom, seek};

use super::bench::{self, Bench, budget, check_volume, ensure, place};
use super::card::{self, Disk, PowerCut};
use super::conversation::{codes_of, mono_file, voice};
use super::{CALLS_MAX, Outcome, place_calls};

/// A power cut after each write, without QEMU: the store of the image on a card in memory.
pub(crate) fn a_cut_after_each_write() -> Outcome {
    cut_after_each_write("writes", 16)
}

pub(crate) fn a_cut_after_each_write_of_fat32() -> Outcome {
    cut_after_each_write("writes-of-fat32", 32)
}

fn cut_after_each_write(name: &str, fat_bits: u32) -> Outcome {
    let place = place(name)?;
    let image = place.join("card.img");
    qemu::make_card_of(&image, 8, fat_bits)?;
    let blank = fs::read(&image)?;
    let disk = Disk::new(blank.clone());
    record_and_remove(&disk).map_err(|error| format!("{error:?}"))?;
    let (_, writes) = disk.into_parts();
    let mut card = blank;
    let (mut mended, mut removed) = (0, 0);
    for count in 0..=writes.len() {
        // Between two blocks of samples side by side a cut finds nothing new.
        let around = writes[count.saturating_sub(1)..].first_chunk::<2>();
        let is_inside = count > 0 && around.is_some_and(|[a, b]| a.0 + 1 == b.0);
        if !is_inside || count % 16 == 0 {
            let recovery = cut(&card, fat_bits, count % 16 == 0, &place, count)?;
            mended += recovery.mended;
            removed += recovery.removed;
        }
        if let Some(write) = writes.get(count) {
            card::apply(&mut card, write);
        }
    }
    let mut names = names_on(card).map_err(|error| format!("{error:?}"))?;
    for own in [b"BOOTS   TXT", b"STARTS  TXT"] {
        let place = names.iter().position(|name| name == own);
        names.remove(place.ok_or("a file of the appliance's own is lost")?);
    }
    let last = [store::Kind::Audio, store::Kind::EndRecord].map(|kind| store::name(LAST, kind));
    ensure(names == last, || format!("the files at the end: {names:?}"))?;
    println!("{} writes; {mended} recordings mended, {removed} removed", writes.len());
    ensure(mended > 0 && removed > 0, || "no cut met clusters kept in advance or a removal".into())
}

/// Mounts a card on which `count` writes were made, and checks it.
fn cut(
    card: &[u8],
    fat_bits: u32,
    is_cut_again: bool,
    place: &Path,
    count: usize,
) -> Result<Recovery, Failed> {
    let when = format!("after {count} writes");
    let cut = Disk::new(card.to_vec());
    let recovery = mount(&cut).map_err(|error| format!("{when}: {error}"))?;
    let (repaired, repair_writes) = cut.into_parts();
    check_volume(&repaired, place, &when)?;
    check_audio(repaired, &when)?;
    // Earlier builds began a file with sizes of all ones. They took no FAT32.
    let mut earlier = card.to_vec();
    if fat_bits == 16 && begin_as_earlier_builds(&mut earlier) {
        let cut = Disk::new(earlier);
        mount(&cut).map_err(|error| format!("{when} of old: {error}"))?;
        check_volume(&cut.into_parts().0, place, &format!("{when} of old"))?;
    }
    if is_cut_again {
        for again in 0..repair_writes.len() {
            let cut = Disk::new(card.to_vec()).cut_after(again);
            ensure(mount(&cut).is_err(), || "the second cut did not happen".into())?;
            let twice = Disk::new(cut.into_parts().0);
            mount(&twice)?;
            let when = format!("{when} and {again} of the repair");
            check_volume(&twice.into_parts().0, place, &when)?;
        }
    }
    Ok(recovery)
}

/// Sets the sizes of every recording without announced samples to all ones; returns whether there is
/// one.
fn begin_as_earlier_builds(card: &mut [u8]) -> bool {
    let mut is_changed = false;
    for block in card.as_chunks_mut::<512>().0 {
        if block.starts_with(b"RIFF") && block[36..44] == *b"data\0\0\0\0" {
            block[4..8].fill(0xFF);
            block[40..44].fill(0xFF);
            is_changed = true;
        }
    }
    is_changed
}

fn mount(disk: &Disk) -> Result<Recovery, String> {
    let mut volume = Volume::new(disk);
    let recovery = store::mount(&mut volume).map_err(|error| format!("{error:?}"))?;
    while !volume.is_checked() {
        volume.check().map_err(|error| format!("{error:?}"))?;
    }
    Ok(recovery)
}

fn opening(number: u32) -> Opening {
    let id = Id::try_from("0123456789-123456789-123456789-123456789").expect("40 bytes");
    // With all that fits into it an end record takes two blocks, and on a small card two clusters.
    Opening::new(Origin {
        stream_id: stream_id(number),
        call_id: id.clone(),
        account_id: id,
        parameters: "\"a\":\"0123456789\",".repeat(5).as_str().try_into().expect("80 bytes"),
        parameters_dropped: 1,
    })
}

/// The id of the stream of a recording.
fn stream_id(number: u32) -> Id {
    Id::try_from(format!("MZ23456789-123456789-123456789-{number:09}").as_str()).expect("40 bytes")
}

fn ended() -> Ended {
    Ended { end: End::Stop, summary: Summary::default(), ended_ms: 0 }
}

/// Recordings of one frame before the calls of the test of cuts: with those of two calls, and two files of the
/// appliance's own, the first cluster of the folder is full.
const SHORT: u32 = 4;
const LAST: u32 = SHORT + 3;

/// Frames of the last call: more than the clusters that a recording gets at a time.
const LAST_FRAMES: usize = 420;

/// Records short calls, and two by turns, and counts a boot. Then records a last one, while all others are removed.
fn record_and_remove(disk: &Disk) -> Result<(), store::Error<PowerCut>> {
    let card: Card<&Disk> = RefCell::new(Some(Volume::new(disk)));
    let mut starts = store::mount(card.borrow_mut().as_mut().expect("just made"))?.starts;
    settings::begin_count(card.borrow_mut().as_mut().expect("just made"))?;
    starts.begin(card.borrow_mut().as_mut().expect("just made"))?;
    for number in 1..=SHORT {
        let mut short = begin(&card, &starts, number)?;
        short.write(&voice(number as usize, 0))?;
        short.finish(&ended(), Maker::default())?;
    }
    let mut calls = Vec::new();
    for number in SHORT + 1..LAST {
        calls.push(begin(&card, &starts, number)?);
    }
    for frame in 0..60 {
        for call in &mut calls {
            call.write(&voice(call.number() as usize, frame))?;
        }
    }
    calls.into_iter().try_for_each(|call| call.finish(&ended(), Maker::default()))?;
    while !card.borrow().as_ref().is_some_and(Volume::is_checked) {
        card.borrow_mut().as_mut().expect("just made").check()?;
    }
    let mut retention = Retention::new(u64::MAX);
    let mut last = begin(&card, &starts, LAST)?;
    for frame in 0..LAST_FRAMES {
        last.write(&voice(LAST as usize, frame))?;
        let mut card = card.borrow_mut();
        let volume = card.as_mut().expect("just made");
        retention.step(volume, |number, _| number == LAST)?;
    }
    last.finish(&ended(), Maker::default())
}

/// Begins a recording, as the appliance does.
fn begin<'d>(
    card: &'d Card<&'d Disk>,
    starts: &Starts,
    number: u32,
) -> Result<Recording<'d, &'d Disk>, store::Error<PowerCut>> {
    let recording = Recording::begin(card, number, opening(number))?;
    let (mut card, call) = (card.borrow_mut(), number as usize % 3);
    let volume = card.as_mut().expect("just made");
    starts.note(volume, call, number, recording.opening(), Clock::default())?;
    Ok(recording)
}

/// The end record of a recording; `None` if there is none.
fn record_of(
    volume: &mut Volume<&Disk>,
    number: u32,
) -> Result<Option<String>, fat::Error<PowerCut>> {
    let name = store::name(number, Kind::EndRecord);
    let Some(entry) = volume.find(name)? else { return Ok(None) };
    let (mut reader, mut block, mut text) = (Reader::new(&entry), Block::new(), Vec::new());
    while reader.bytes_left() > 0 {
        let bytes = volume.read(&mut reader, &mut block)?;
        text.extend(&block.contents[..bytes]);
    }
    Ok(Some(String::from_utf8_lossy(&text).into_owned()))
}

/// A person removes the files of a card, so that its numbers begin again. The start that was noted for the old
/// recording does not pass for that of the new one, which the power takes before its own is noted.
pub(crate) fn a_noted_start() -> Outcome {
    let image = place("starts")?.join("card.img");
    qemu::make_card(&image, 8)?;
    let disk = Disk::new(fs::read(&image)?);
    let told = |is_noted: bool| -> Result<String, store::Error<PowerCut>> {
        let card: Card<&Disk> = RefCell::new(Some(Volume::new(&disk)));
        let mut starts = store::mount(card.borrow_mut().as_mut().expect("just made"))?.starts;
        starts.begin(card.borrow_mut().as_mut().expect("just made"))?;
        drop(match is_noted {
            true => begin(&card, &starts, 1)?,
            false => Recording::begin(&card, 1, opening(1))?,
        });
        // The power is cut and comes again.
        let mut volume = Volume::new(&disk);
        store::mount(&mut volume)?;
        let record = record_of(&mut volume, 1)?.unwrap_or_default();
        for kind in [Kind::Audio, Kind::EndRecord] {
            let entry = volume.find(store::name(1, kind))?;
            while !entry.is_none_or(|entry| volume.delete(&entry).expect("no cut")) {}
        }
        Ok(record)
    };
    for is_noted in [false, true, false] {
        let record = told(is_noted).map_err(|error| format!("{error:?}"))?;
        let id = format!(r#""stream_id":"{}""#, stream_id(1));
        let is_right = record.contains("recovered") && record.contains(&id) == is_noted;
        ensure(is_right, || format!("noted: {is_noted}, {record}"))?;
    }
    Ok(())
}

/// The names in the recordings' folder, in order.
fn names_on(card: Vec<u8>) -> Result<Vec<[u8; 11]>, fat::Error<PowerCut>> {
    let disk = Disk::new(card);
    let (mut volume, mut names) = (Volume::new(&disk), Vec::new());
    volume.mount(|entry| names.push(entry.name))?;
    names.sort_unstable_by_key(|name| name[8..] != *b"WAV");
    Ok(names)
}

/// Checks that each recording is the beginning of its call, and that its end record names the stream.
fn check_audio(card: Vec<u8>, when: &str) -> Outcome {
    let disk = Disk::new(card);
    let mut volume = Volume::new(&disk);
    store::mount(&mut volume).map_err(|error| format!("{when}: {error:?}"))?;
    let mut cursor = volume.entries();
    while let Some(entry) = volume.next_entry(&mut cursor).map_err(|e| format!("{when}: {e:?}"))? {
        let Some((number, store::Kind::Audio)) = store::parse_name(&entry.name) else { continue };
        let (mut reader, mut block, mut file) =
            (Reader::new(&entry), Block::new(), Vec::<u8>::new());
        while reader.bytes_left() > 0 {
            let bytes = volume.read(&mut reader, &mut block);
            let bytes = bytes.map_err(|error| format!("{when}: {error:?}"))?;
            file.extend(&block.contents[..bytes]);
        }
        let samples = (file.len() - 44) / 2;
        ensure(file == mono_file(&codes_of(number as usize, samples)), || {
            format!("{when}: recording {number} has other audio")
        })?;
        let record = record_of(&mut volume, number).map_err(|error| format!("{error:?}"))?;
        let record = record.ok_or_else(|| format!("{when}: {number} has no end record"))?;
        // The start of a file is on the card one write before its note is.
        let is_told = record.contains(&format!(r#""stream_id":"{}""#, stream_id(number)));
        ensure(is_told || samples == 0, || format!("{when}: {number} is of no stream: {record}"))?;
        serde_json::from_str::<serde_json::Value>(&record)?;
    }
    Ok(())
}

/// Blocks written for a frame, with three calls of eight seconds, from their start to their end record.
pub(crate) fn block_writes_a_frame() -> Outcome {
    const FRAMES: usize = 400;
    let image = place("block-writes")?.join("card.img");
    qemu::make_card(&image, 64)?;
    let disk = Disk::new(fs::read(&image)?);
    let card: Card<&Disk> = RefCell::new(Some(Volume::new(&disk)));
    let mounted = store::mount(card.borrow_mut().as_mut().expect("just made"));
    let mut starts = mounted.map_err(|error| format!("{error:?}"))?.starts;
    let made = starts.begin(card.borrow_mut().as_mut().expect("just made"));
    made.map_err(|error| format!("{error:?}"))?;
    let before = disk.writes();
    let record = || -> Result<(), store::Error<PowerCut>> {
        let mut calls = Vec::new();
        for call in 1..=CALLS_MAX {
            calls.push(begin(&card, &starts, call as u32)?);
        }
        for frame in 0..FRAMES {
            for (call, recording) in (1..).zip(&mut calls) {
                recording.write(&voice(call, frame))?;
            }
        }
        calls.into_iter().try_for_each(|recording| recording.finish(&ended(), Maker::default()))
    };
    record().map_err(|error| format!("{error:?}"))?;
    let writes = (disk.writes() - before) as u64;
    let per_mille = writes * 1000 / (CALLS_MAX * FRAMES) as u64;
    println!("{per_mille} block writes in 1000 frames");
    let max = budget("block_writes_in_1000_frames_max")?;
    ensure(per_mille <= max, || format!("{per_mille} block writes in 1000 frames"))
}

pub(crate) fn a_card_of_32_gb() -> Outcome {
    let place = place("32-gb")?;
    let card = place.join("card.img");
    qemu::make_card(&card, 32 * 1024)?;
    let bench = Bench::with_card(place.clone())?;
    let calls = place_calls(&bench, CALLS_MAX as u32, 2)?;
    let expected: Vec<_> = calls.iter().map(|codes| mono_file(codes)).collect();
    let mut recorded = Vec::new();
    for number in 1..=CALLS_MAX as u32 {
        ensure(bench.end_record(number)?["state"] == "complete", || "no end record".into())?;
        recorded.push(bench.wav(number)?);
    }
    ensure(expected.iter().all(|file| recorded.contains(file)), || "audio is missing".into())?;
    bench.await_health(|health| health["card_checked"] == true)?;
    let free = bench.health()?["card_bytes_free"].as_u64().unwrap_or(0);
    ensure(free > 31 << 30, || format!("{free} bytes free"))?;
    bench.appliance.cut_power();
    let read = Command::new("mcopy")
        .args(["-i", &format!("{}@@1M", card.display()), "::/CALLS/R0000001.WAV", "-"])
        .output()?;
    ensure(read.stdout == recorded[0], || "mcopy reads another recording".into())?;
    let volume = place.join("volume.img");
    copy_partition(&card, &volume)?;
    bench::fsck(&volume, "at the end")?;
    fs::remove_file(&volume)?;
    fs::remove_file(&card).map_err(Into::into)
}

/// Copies the card's partition, without the holes of the file.
fn copy_partition(card: &Path, volume: &Path) -> Outcome {
    let (from, to) = (File::open(card)?, File::create(volume)?);
    let length = from.metadata()?.len();
    to.set_len(length - qemu::PARTITION_OFFSET)?;
    let mut at = qemu::PARTITION_OFFSET;
    while let Ok(start) = seek(&from, SeekFrom::Data(at)) {
        let end = seek(&from, SeekFrom::Hole(start))?;
        let mut bytes = vec![0; usize::try_from(end - start)?];
        from.read_exact_at(&mut bytes, start)?;
        to.write_all_at(&bytes, start - qemu::PARTITION_OFFSET)?;
        at = end;
    }
    Ok(())
}

/// The board's own clock tells the time, at 31 instructions a microsecond.
pub(crate) fn six_thousand_recordings() -> Outcome {
    let place = place("6000")?;
    let image = place.join("card.img");
    qemu::make_card(&image, 64)?;
    let disk = Disk::new(fs::read(&image)?);
    let card: Card<&Disk> = RefCell::new(Some(Volume::new(&disk)));
    let record = || -> Result<(), store::Error<PowerCut>> {
        store::mount(card.borrow_mut().as_mut().expect("just made"))?;
        for number in 1..=6000 {
            let mut recording = Recording::begin(&card, number, opening(number))?;
            recording.write(&voice(0, 0))?;
            // The last one is interrupted.
            if number < 6000 {
                recording.finish(&ended(), Maker::default())?;
            }
        }
        Ok(())
    };
    record().map_err(|error| format!("{error:?}"))?;
    fs::write(&image, disk.into_parts().0)?;
    let bench = Bench::counted_with_card(place)?;
    let ready_ms = bench.health()?["card_ready_ms"].as_u64().unwrap_or(u64::MAX);
    println!("beside 6000 recordings the card is ready after {ready_ms} ms");
    ensure(ready_ms <= budget("card_ready_ms_max")?, || format!("ready after {ready_ms} ms"))?;
    ensure(bench.health()?["recovered"] == 1, || "the last one was not recovered".into())?;
    place_calls(&bench, 1, 1)?;
    ensure(bench.end_record(6001)?["state"] == "complete", || "no end record".into())?;
    bench.await_health(|health| health["card_checked"] == true)?;
    bench.check_card()
}

/// A card that keeps 2 MiB free, and calls for more than it holds.
pub(crate) fn the_oldest_give_way() -> Outcome {
    let place = place("oldest")?;
    let card = place.join("card.img");
    qemu::make_card(&card, 8)?;
    let setting = place.join("KEEPFREE.TXT");
    fs::write(&setting, "2\n")?;
    let volume = format!("{}@@1M", card.display());
    let made = Command::new("mmd").args(["-i", &volume, "::/CALLS"]).status()?;
    ensure(made.success(), || "mmd failed".into())?;
    let copied =
        Command::new("mcopy").args(["-i", &volume]).arg(&setting).arg("::/CALLS/").status()?;
    ensure(copied.success(), || "mcopy failed".into())?;
    let bench = Bench::with_card(place)?;
    bench.await_health(|health| health["card_keep_free_bytes"] == 2 << 20)?;
    const CALLS: u32 = 14;
    let mut sent = Vec::new();
    for _ in 0..CALLS {
        sent.extend(place_calls(&bench, 1, 30)?);
    }
    bench.await_health(|health| health["card_bytes_free"].as_u64() >= Some(2 << 20))?;
    let removed = bench.health()?["removed"].as_u64().unwrap_or(0) as usize;
    println!("{removed} of {CALLS} recordings removed");
    ensure((1..CALLS as usize).contains(&removed), || format!("{removed} removed"))?;
    ensure(bench.recordings()? + removed == CALLS as usize, || "another number is listed".into())?;
    for (number, codes) in (1..=CALLS).zip(&sent) {
        let status = bench.appliance.get(&format!("/recordings/R{number:07}.json"))?.0;
        if number as usize <= removed {
            ensure(status == 404, || format!("recording {number} was not the oldest"))?;
            continue;
        }
        ensure(bench.wav(number)? == mono_file(codes), || format!("recording {number} differs"))?;
    }
    bench.check_card()
}

/// SSI0's divisor of the system clock (SSICPSR), and the data register of the card's select line.
const DIVISOR: u32 = 0x4000_8010;
const SELECT: u32 = 0x4000_7004;
const SYSTEM_CLOCK_HZ: u32 = 12_500_000;

pub(crate) fn the_line_to_the_card() -> Outcome {
    let bench = Bench::without_card("cardless-line")?;
    let slow_hz = SYSTEM_CLOCK_HZ / bench.appliance.word(DIVISOR)?;
    ensure((100_000..=400_000).contains(&slow_hz), || format!("a card is woken at {slow_hz} Hz"))?;
    let bench = Bench::boot("line", 64)?;
    bench.await_health(|health| health["card_checked"] == true)?;
    let fast_hz = SYSTEM_CLOCK_HZ / bench.appliance.word(DIVISOR)?;
    ensure(fast_hz > 5_000_000, || format!("the line runs at {fast_hz} Hz"))?;
    ensure(bench.appliance.word(SELECT)? == 1, || "the card stays selected".into())
}
