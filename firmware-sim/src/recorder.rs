//! The card's side: moves each call's samples from its queue to its file, and files to downloads.

use core::cell::RefCell;
use core::fmt::Write as _;

use callreel_core::names::End;
use callreel_firmware_sim::call::{Ended, Opening, Summary};
use callreel_firmware_sim::fat::{self, Entry, Reader, Volume};
use callreel_firmware_sim::http::Refusal;
use callreel_firmware_sim::retention::{Retention, Step};
use callreel_firmware_sim::store::{self, Card, Error, Kind, Recording};
use embedded_sdmmc::Block;
use embedded_sdmmc::sdcard::spi::Error as SdError;
use heapless::String;

use crate::board;
use crate::card::PatientCard;
use crate::net::{CALLS_MAX, CardStatus, Front, Job, response_head};

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
    next_number: u32,
    mount_at_ms: u64,
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
            next_number: 1,
            mount_at_ms: 0,
            status: CardStatus::default(),
        }
    }

    /// Does a bounded piece of each pending task. Returns whether there was any.
    pub(crate) fn step(&mut self) -> bool {
        if self.card.borrow().is_none() {
            self.look_for_card();
        }
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
        match store::mount(volume) {
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
        self.tell();
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
        match recording.finish(end) {
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
        if let Some(Err(error)) = recording.map(|recording| recording.abandon(error, &end)) {
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
        let nothing = Ended { end: End::Internal, summary: Summary::default() };
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
        let (bytes, next) = match self.answer(job, &mut block) {
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
        job: Job,
        block: &mut Block,
    ) -> Result<(usize, Option<Job>), Error<SdError>> {
        let mut card = self.card.borrow_mut();
        let Some(volume) = card.as_mut() else {
            let head = response_head(Refusal::BUSY.0, "text/plain", Some(0));
            return Ok((put(block, &head), None));
        };
        match job {
            Job::Open(name) => {
                // A void file is being removed, or has not begun.
                let entry = volume.find(name)?.filter(|entry| entry.size > 0);
                let Some(entry) = entry else {
                    let head = response_head(Refusal::NOT_FOUND.0, "text/plain", Some(0));
                    return Ok((put(block, &head), None));
                };
                let is_audio = name.ends_with(b"WAV");
                let kind = if is_audio { "audio/wav" } else { "application/json" };
                let head = response_head("200 OK", kind, Some(entry.size));
                Ok((put(block, &head), Some(Job::Send(Reader::new(&entry)))))
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
                while let Some(entry) = volume.next_entry(&mut cursor)? {
                    let Some((number, Kind::Audio)) = store::parse_name(&entry.name) else {
                        continue;
                    };
                    if entry.size == 0 {
                        continue;
                    }
                    let comma = if has_sent { "," } else { "" };
                    let numbers = self.recordings.iter().flatten().map(Recording::number);
                    let is_recording = numbers.into_iter().any(|open| open == number);
                    let mut text = String::<100>::new();
                    // Fits: two numbers of at most ten digits.
                    let _ = write!(
                        text.as_mut_view(),
                        r#"{comma}{{"name":"R{number:07}.wav","bytes":{},"recording":{is_recording}}}"#,
                        entry.size
                    );
                    return Ok((put(block, &text), Some(Job::Entries(cursor, true))));
                }
                Ok((put(block, "]\n"), None))
            }
        }
    }
}

fn put(block: &mut Block, text: &str) -> usize {
    let room = block.contents.get_mut(..text.len());
    room.map_or(0, |room| {
        room.copy_from_slice(text.as_bytes());
        text.len()
    })
}
