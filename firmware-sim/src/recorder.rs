//! The card's side: moves each call's samples from its queue to its file, and files to downloads.

use core::cell::RefCell;
use core::fmt::Write as _;

use callreel_core::names::End;
use callreel_firmware_sim::call::{Ended, Opening, Summary};
use callreel_firmware_sim::config::Config;
use callreel_firmware_sim::fat::{self, Entry, Reader, Volume};
use callreel_firmware_sim::http::Refusal;
use callreel_firmware_sim::retention::{Retention, Step};
use callreel_firmware_sim::settings::{self, Settings};
use callreel_firmware_sim::starts::Starts;
use callreel_firmware_sim::store::{self, Card, Error, Kind, Maker, Recording, Recovery};
use embedded_sdmmc::Block;
use embedded_sdmmc::sdcard::spi::Error as SdError;
use heapless::String;
use sha1::{Digest, Sha1};

use crate::board;
use crate::card::PatientCard;
use crate::net::{CALLS_MAX, CardStatus, Front, Job, file_head, response_head};

type Device = &'static PatientCard;

/// Interval of attempts to mount a card while there is none.
const MOUNT_INTERVAL_MS: u64 = 2000;

/// Bytes moved in one step: of mu-law, the samples of a block of the card.
const STEP_BYTES: usize = 256;

/// Room that a download needs in its socket: a block, or a response's head.
const SEND_BYTES: usize = fat::BLOCK_BYTES;

/// The recordings under way. While this side waits for the card, the network's side goes on.
pub(crate) struct Recorder {
    front: &'static RefCell<Front>,
    device: Device,
    card: &'static Card<Device>,
    recordings: [Option<Recording<'static, Device>>; CALLS_MAX],
    retention: Retention,
    starts: Starts,
    next_number: u32,
    mount_at_ms: u64,
    /// The second of the uptime for which the card has been told the time.
    stamped_s: u64,
    status: CardStatus,
}

impl Recorder {
    /// A recorder that looks for its card at the first step.
    pub(crate) fn new(
        front: &'static RefCell<Front>,
        device: Device,
        card: &'static Card<Device>,
    ) -> Self {
        Self {
            front,
            device,
            card,
            recordings: [const { None }; CALLS_MAX],
            retention: Retention::new(0),
            starts: Starts::default(),
            next_number: 1,
            mount_at_ms: 0,
            stamped_s: 0,
            status: CardStatus::default(),
        }
    }

    /// Does a bounded piece of each pending task. Returns whether there was any.
    pub(crate) fn step(&mut self) -> bool {
        if self.card.borrow().is_none() {
            self.look_for_card();
        }
        self.tell_time();
        let mut is_busy = false;
        for slot in 0..CALLS_MAX {
            is_busy |= match self.recordings[slot] {
                None => self.begin(slot),
                Some(_) => self.advance(slot),
            };
        }
        for connection in 0..=CALLS_MAX {
            is_busy |= self.serve(connection);
        }
        is_busy | self.tend()
    }

    /// Checks a piece of the card's FAT, or keeps room free on it. Calls go on meanwhile.
    #[inline(never)]
    fn tend(&mut self) -> bool {
        let mut card = self.card.borrow_mut();
        let Some(volume) = card.as_mut() else { return false };
        if !volume.is_checked() {
            let checked = volume.check();
            let is_all = volume.is_checked();
            drop(card);
            match checked {
                Ok(is_changed) => self.status.mended += u32::from(is_changed),
                Err(error) => self.lose_card(error.into()),
            }
            if is_all {
                defmt::info!("card checked: {=u32} blocks mended", self.status.mended);
                self.tell();
            }
            return true;
        }
        let (front, recordings) = (self.front, &self.recordings);
        // Borrows the network's side for a moment only, so that it goes on.
        let is_in_use = |number, entry: &Entry| {
            front.borrow().is_read(entry)
                || recordings.iter().flatten().any(|open| open.number() == number)
        };
        let step = self.retention.step(volume, is_in_use);
        drop(card);
        match step {
            Ok(Step::Rest) => return false,
            Ok(Step::Busy) => {}
            Ok(Step::Removed) => {
                self.status.removed += 1;
                self.tell();
            }
            Err(error) => self.lose_card(error.into()),
        }
        true
    }

    /// Mounts the card, if an attempt is due. Not inlined, like the other steps: so the stack is as
    /// deep as one of them, not as all.
    #[inline(never)]
    fn look_for_card(&mut self) {
        let now_ms = board::uptime_ms();
        if now_ms < self.mount_at_ms || self.recordings.iter().any(Option::is_some) {
            return;
        }
        self.mount_at_ms = now_ms + MOUNT_INTERVAL_MS;
        self.device.forget();
        let mut card = self.card.borrow_mut();
        let volume = card.insert(Volume::new(self.device));
        match prepare(self.front, volume) {
            Ok(recovery) => {
                defmt::info!(
                    "card ready: next is {=u32}; recovered {=u32}, mended {=u32}, removed {=u32}; keeps \
                     {=u64} bytes free",
                    recovery.next_number,
                    recovery.recovered,
                    recovery.mended,
                    recovery.removed,
                    recovery.keep_free_bytes
                );
                self.retention = Retention::new(recovery.keep_free_bytes);
                self.starts = recovery.starts;
                self.next_number = recovery.next_number;
                self.status.ready_ms = board::uptime_ms() as u32;
                self.status.recovered += recovery.recovered;
            }
            Err(error) => {
                *card = None;
                defmt::warn!("cannot mount a card: {=str}", Error::from(error).reason());
            }
        }
        drop(card);
        if !self.front.borrow().is_configured() {
            self.front.borrow_mut().configure(Config::default(), random(Sha1::new()));
        }
        self.tell();
    }

    /// Tells the card the time, once a second: it goes into the entries of files.
    fn tell_time(&mut self) {
        let now_ms = board::uptime_ms();
        if now_ms / 1000 == self.stamped_s {
            return;
        }
        self.stamped_s = now_ms / 1000;
        let date = self.front.borrow().clock.at(now_ms);
        if let (Some(date), Some(volume)) = (date, self.card.borrow_mut().as_mut()) {
            volume.set_stamp(date.fat());
        }
    }

    #[inline(never)]
    fn begin(&mut self, slot: usize) -> bool {
        let opening = self.front.borrow_mut().take_opening(slot);
        let Some(opening) = opening else { return false };
        let Opening { spec, .. } = opening;
        let number = self.next_number;
        match Recording::begin(self.card, number, opening) {
            Ok(recording) => {
                defmt::info!("call {=usize}: recording {=u32}, {}", slot, number, spec);
                self.next_number += 1;
                self.note_start(slot, &recording);
                self.recordings[slot] = Some(recording);
            }
            Err(error) => {
                defmt::error!("call {=usize}: cannot record: {=str}", slot, error.reason());
                self.fail(slot, error);
                self.front.borrow_mut().finished(slot);
            }
        }
        true
    }

    /// Notes the start of a recording. An error that lasts ends the call at the next write.
    #[inline(never)]
    fn note_start(&self, slot: usize, recording: &Recording<'_, Device>) {
        let clock = self.front.borrow().clock;
        let mut card = self.card.borrow_mut();
        let Some(volume) = card.as_mut() else { return };
        let (number, opening) = (recording.number(), recording.opening());
        if let Err(error) = self.starts.note(volume, slot, number, opening, clock) {
            let reason = Error::from(error).reason();
            defmt::warn!("recording {=u32}: its start is not noted: {=str}", number, reason);
        }
    }

    #[inline(never)]
    fn advance(&mut self, slot: usize) -> bool {
        let mut front = self.front.borrow_mut();
        let call = front.call(slot);
        if !call.has(STEP_BYTES) {
            let end = call.take_end();
            drop(front);
            return end.is_some_and(|end| self.finish(slot, &end));
        }
        let mut bytes = [0; STEP_BYTES];
        let count = call.pop(&mut bytes);
        if call.is_behind() {
            front.wake();
        }
        drop(front);
        let recording = self.recordings[slot].as_mut();
        if let Some(Err(error)) = recording.map(|recording| recording.write(&bytes[..count])) {
            self.abandon(slot, error);
        }
        true
    }

    #[inline(never)]
    fn finish(&mut self, slot: usize, end: &Ended) -> bool {
        let Some(recording) = self.recordings[slot].take() else { return false };
        let number = recording.number();
        let result = with_maker(self.front, |maker| recording.finish(end, maker));
        match result {
            Ok(()) => {
                defmt::info!(
                    "call {=usize}: recording {=u32} is whole: {=str}, {=u32} media frames, \
                     {=u32} gaps, {=u32} samples lost",
                    slot,
                    number,
                    end.end.name(),
                    end.summary.received,
                    end.summary.gaps,
                    end.summary.lost
                );
                self.status.recorded += 1;
            }
            Err(error) => {
                defmt::error!("call {=usize}: cannot finish: {=str}", slot, error.reason());
                self.fail(slot, error);
            }
        }
        self.front.borrow_mut().finished(slot);
        self.retention.recording_ended();
        self.tell();
        true
    }

    /// Ends a call after the card refused its audio. Notes the error in the end record, if possible.
    #[inline(never)]
    fn abandon(&mut self, slot: usize, error: Error<SdError>) {
        defmt::error!("call {=usize}: cannot write the audio: {=str}", slot, error.reason());
        let end = self.fail(slot, error);
        let recording = self.recordings[slot].take();
        if let Some(Err(error)) = recording
            .map(|recording| with_maker(self.front, |maker| recording.abandon(error, &end, maker)))
        {
            defmt::error!("call {=usize}: no end record: {=str}", slot, error.reason());
        }
        self.front.borrow_mut().finished(slot);
        self.retention.recording_ended();
        self.tell();
    }

    /// Ends the call. Releases a card that failed, so that it is mounted again later.
    fn fail(&mut self, slot: usize, error: Error<SdError>) -> Ended {
        if matches!(error, Error::Fat(fat::Error::Card(_))) {
            self.lose_card(error);
        }
        let mut front = self.front.borrow_mut();
        front.call(slot).fail();
        let (summary, ended_ms) = (Summary::default(), board::uptime_ms());
        let nothing = Ended { end: End::Internal, summary, ended_ms };
        front.call(slot).take_end().unwrap_or(nothing)
    }

    /// Releases a card that failed.
    fn lose_card(&mut self, error: Error<SdError>) {
        defmt::error!("the card is mounted again: {=str}", error.reason());
        *self.card.borrow_mut() = None;
        self.mount_at_ms = board::uptime_ms() + MOUNT_INTERVAL_MS;
        self.tell();
    }

    fn tell(&mut self) {
        let card = self.card.borrow();
        self.status.is_ready = card.is_some();
        self.status.is_checked = card.as_ref().is_some_and(Volume::is_checked);
        self.status.keep_free_bytes = self.retention.keep_free_bytes();
        self.status.bytes_free = card.as_ref().map_or(0, Volume::bytes_free);
        self.front.borrow_mut().card = self.status;
    }

    /// Sends the next piece of a connection's job.
    #[inline(never)]
    fn serve(&mut self, connection: usize) -> bool {
        let job = self.front.borrow_mut().job(connection, SEND_BYTES);
        let Some(job) = job else { return false };
        let mut block = Block::new();
        let (bytes, next) = match self.answer(connection, job, &mut block) {
            Ok((bytes, next)) => (bytes, next),
            Err(error) => {
                defmt::warn!("a download ended early: {=str}", error.reason());
                (0, None)
            }
        };
        self.front.borrow_mut().send(connection, &block.contents[..bytes], next);
        true
    }

    /// Puts the next piece of the answer into `block`. Returns its length and the next job.
    fn answer(
        &mut self,
        connection: usize,
        job: Job,
        block: &mut Block,
    ) -> Result<(usize, Option<Job>), Error<SdError>> {
        let mut card = self.card.borrow_mut();
        let Some(volume) = card.as_mut() else {
            return Ok((refuse(block, Refusal::BUSY.0), None));
        };
        match job {
            Job::Open(name) => {
                // A void file is being removed, or has not begun.
                let entry = volume.find(name)?.filter(|entry| entry.size > 0);
                let Some(entry) = entry else {
                    return Ok((refuse(block, Refusal::NOT_FOUND.0), None));
                };
                let part = self.front.borrow().part(connection, entry.size);
                let Ok(part) = part else {
                    let mut status = String::<80>::new();
                    // Fits: a number of ten digits.
                    let _ = write!(
                        status.as_mut_view(),
                        "416 Range Not Satisfiable\r\nContent-Range: bytes */{}",
                        entry.size
                    );
                    return Ok((refuse(block, &status), None));
                };
                let is_audio = name.ends_with(b"WAV");
                let kind = if is_audio { "audio/wav" } else { "application/json" };
                let head = file_head(kind, entry.size, part);
                let reader = match part {
                    Some(part) => volume.reader_at(&entry, part.start, part.bytes)?,
                    None => Reader::new(&entry),
                };
                Ok((put(block, &head), Some(Job::Send(reader))))
            }
            Job::Send(mut reader) => {
                let bytes = volume.read(&mut reader, block)?;
                Ok((bytes, (reader.bytes_left() > 0).then_some(Job::Send(reader))))
            }
            Job::List => {
                let mut head = response_head("200 OK", "application/json", None);
                // Fits: the head without a length leaves room.
                let _ = head.push('[');
                Ok((put(block, &head), Some(Job::Entries(volume.entries(), false))))
            }
            Job::Entries(mut cursor, has_sent) => {
                let wanted = self.front.borrow().wanted(connection);
                while let Some(mut entry) = volume.next_entry(&mut cursor)? {
                    let Some((number, kind)) = store::parse_name(&entry.name) else { continue };
                    if entry.size == 0 {
                        continue;
                    }
                    let mut recordings = self.recordings.iter().flatten();
                    let open = recordings.find(|recording| recording.number() == number);
                    match (&wanted, kind) {
                        (None, Kind::Audio) => {}
                        (None, Kind::EndRecord) => continue,
                        (Some(id), Kind::Audio) if open.is_some_and(|open| open.is_of(id)) => {}
                        (Some(_), Kind::Audio) => continue,
                        (Some(id), Kind::EndRecord) => {
                            let bytes = volume.read(&mut Reader::new(&entry), block)?;
                            let audio = store::name(number, Kind::Audio);
                            let audio = match store::is_record_of(&block.contents[..bytes], id) {
                                true => volume.find(audio)?.filter(|audio| audio.size > 0),
                                false => None,
                            };
                            let next = Some(Job::Entries(cursor, has_sent));
                            // Another step goes on, so that calls need not wait for the search.
                            let Some(audio) = audio else { return Ok((0, next)) };
                            entry = audio;
                        }
                    }
                    let comma = if has_sent { "," } else { "" };
                    let mut text = String::<100>::new();
                    // Fits: two numbers of at most ten digits.
                    let _ = write!(
                        text.as_mut_view(),
                        r#"{comma}{{"name":"R{number:07}.wav","bytes":{},"recording":{}}}"#,
                        entry.size,
                        open.is_some(),
                    );
                    return Ok((put(block, &text), Some(Job::Entries(cursor, true))));
                }
                Ok((put(block, "]\n"), None))
            }
        }
    }
}

/// Reads the settings of a card, puts them into force, and mounts the card: so the network is there while
/// the card is mended.
fn prepare(
    front: &RefCell<Front>,
    volume: &mut Volume<Device>,
) -> Result<Recovery, fat::Error<SdError>> {
    volume.open()?;
    let is_new = read_settings(front, volume)?;
    let mut recovery = store::mount(volume)?;
    recovery.starts.begin(volume)?;
    // A full card is of use without a count.
    match is_new.then(|| settings::begin_count(volume)) {
        None | Some(Ok(()) | Err(fat::Error::Full)) => Ok(recovery),
        Some(Err(error)) => Err(error),
    }
}

/// Not inlined: the block and the lines that it reads are not on the stack while the card is mended.
#[inline(never)]
fn read_settings(
    front: &RefCell<Front>,
    volume: &mut Volume<Device>,
) -> Result<bool, fat::Error<SdError>> {
    let mut hash = Sha1::new();
    let Settings { config, boots, is_new } = settings::read(volume, &mut hash)?;
    let mut front = front.borrow_mut();
    front.boots = boots;
    front.configure(config, random(hash));
    Ok(is_new)
}

/// Random numbers of this boot: of the board's own address, the settings with their secrets, the count of the
/// boots, and the moments at which the card has answered.
#[inline(never)]
fn random(mut hash: Sha1) -> [u8; 20] {
    settings::stir(&mut hash, &board::hardware_address());
    settings::stir(&mut hash, &board::uptime_ms().to_le_bytes());
    settings::stir(&mut hash, &board::jitter().to_le_bytes());
    hash.finalize().into()
}

/// Lends the name and the clock for an end record. The name is copied: the network goes on meanwhile.
fn with_maker<T>(front: &RefCell<Front>, write: impl FnOnce(Maker<'_>) -> T) -> T {
    let (name, clock) = {
        let front = front.borrow();
        (front.config.name.clone(), front.clock)
    };
    write(Maker { instance: &name, clock })
}

fn refuse(block: &mut Block, status: &str) -> usize {
    put(block, &response_head(status, "text/plain", Some(0)))
}

fn put(block: &mut Block, text: &str) -> usize {
    let room = block.contents.get_mut(..text.len());
    room.map_or(0, |room| {
        room.copy_from_slice(text.as_bytes());
        text.len()
    })
}
