//! A running appliance to test: its image, its card, its log.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{LazyLock, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use callreel_core::wav::{self, Length};
use callreel_firmware_sim::fat::{Reader, Volume};
use callreel_firmware_sim::qemu::{self, Appliance, Network, Program};
use callreel_firmware_sim::store;
use embedded_sdmmc::Block;
use libtest_mimic::Failed;
use serde_json::Value;

use crate::Outcome;
use crate::card::Disk;
use crate::conversation::MONO;

/// The appliance as it is delivered.
pub(crate) static IMAGE: LazyLock<Result<PathBuf, String>> =
    LazyLock::new(|| image("appliance.elf", Program::APPLIANCE));
/// The appliance for calls of two tracks.
pub(crate) static STEREO: LazyLock<Result<PathBuf, String>> = LazyLock::new(|| {
    image("both-tracks.elf", Program { features: "both-tracks", ..Program::APPLIANCE })
});
/// The appliance for calls of other providers beside Twilio's.
pub(crate) static PROVIDERS: LazyLock<Result<PathBuf, String>> = LazyLock::new(|| {
    image("providers.elf", Program { features: "jambonz,telnyx", ..Program::APPLIANCE })
});
static FAULTY: LazyLock<Result<PathBuf, String>> = LazyLock::new(|| {
    image("faulty.elf", Program { features: "fault-injection", ..Program::APPLIANCE })
});
static FAULTY_STEREO: LazyLock<Result<PathBuf, String>> = LazyLock::new(|| {
    let features = "both-tracks,fault-injection";
    image("faulty-both-tracks.elf", Program { features, ..Program::APPLIANCE })
});
/// Held while an image is built and copied, so that the copy is of the right one. Cargo builds one image
/// at a time anyway.
static BUILDING: Mutex<()> = Mutex::new(());

/// Builds a program once for all trials, or finds it built.
pub(crate) fn image(name: &str, program: Program<'_>) -> Result<PathBuf, String> {
    let _guard = BUILDING.lock();
    let image = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    program.build(&image).map_err(|error| error.to_string())?;
    Ok(image)
}

/// An empty folder for a trial.
pub(crate) fn place(name: &str) -> std::io::Result<PathBuf> {
    let place = Path::new(env!("CARGO_TARGET_TMPDIR")).join("firmware").join(name);
    if place.exists() {
        fs::remove_dir_all(&place)?;
    }
    fs::create_dir_all(&place)?;
    Ok(place)
}

/// A running appliance, its card and its log.
pub(crate) struct Bench {
    pub appliance: Appliance,
    image: PathBuf,
    pub place: PathBuf,
}

impl Bench {
    pub(crate) fn boot(name: &str, card_mebibytes: u32) -> Result<Self, Failed> {
        Self::start(Appliance::boot, &IMAGE, name, Some(card_mebibytes))
    }

    /// A bench that counts instructions.
    pub(crate) fn counted(name: &str, card_mebibytes: u32) -> Result<Self, Failed> {
        Self::start(Appliance::boot_counted, &IMAGE, name, Some(card_mebibytes))
    }

    pub(crate) fn with_faults(name: &str) -> Result<Self, Failed> {
        Self::start(Appliance::boot, &FAULTY, name, Some(64))
    }

    pub(crate) fn with_both_tracks(name: &str) -> Result<Self, Failed> {
        Self::start(Appliance::boot, &STEREO, name, Some(64))
    }

    pub(crate) fn with_providers(name: &str) -> Result<Self, Failed> {
        Self::start(Appliance::boot, &PROVIDERS, name, Some(64))
    }

    pub(crate) fn with_both_tracks_and_faults(name: &str) -> Result<Self, Failed> {
        Self::start(Appliance::boot, &FAULTY_STEREO, name, Some(64))
    }

    pub(crate) fn without_card(name: &str) -> Result<Self, Failed> {
        Self::start(Appliance::boot, &IMAGE, name, None)
    }

    /// A bench with a card that was made before, in the trial's [`place`].
    pub(crate) fn with_card(place: PathBuf) -> Result<Self, Failed> {
        let image = IMAGE.clone()?;
        let (card, log) = (place.join("card.img"), place.join("log.defmt"));
        Ok(Self { appliance: Appliance::boot(&image, Some(&card), &log)?, image, place })
    }

    /// A bench that counts instructions, with a card that was made before.
    pub(crate) fn counted_with_card(place: PathBuf) -> Result<Self, Failed> {
        let image = IMAGE.clone()?;
        let (card, log) = (place.join("card.img"), place.join("log.defmt"));
        Ok(Self { appliance: Appliance::boot_counted(&image, Some(&card), &log)?, image, place })
    }

    /// A bench in this network, with this text as its configuration block on a card with a FAT of 16 or 32 bits.
    pub(crate) fn configured(
        name: &str,
        fat_bits: u32,
        configuration: &str,
        network: Network<'_>,
    ) -> Result<Self, Failed> {
        let (image, place) = (IMAGE.clone()?, place(name)?);
        let card = place.join("card.img");
        qemu::make_card_of(&card, 64, fat_bits)?;
        let file = place.join("CONFIG.TXT");
        fs::write(&file, configuration)?;
        let volume = format!("{}@@{}", card.display(), qemu::PARTITION_OFFSET);
        let status = Command::new("mcopy").args(["-i", &volume]).arg(&file).arg("::/").status()?;
        ensure(status.success(), || "mcopy (mtools) failed".into())?;
        let log = place.join("log.defmt");
        let appliance = Appliance::boot_in(network, &image, Some(&card), &log)?;
        Ok(Self { appliance, image, place })
    }

    fn start(
        boot: fn(&Path, Option<&Path>, &Path) -> std::io::Result<Appliance>,
        image: &Result<PathBuf, String>,
        name: &str,
        card_mebibytes: Option<u32>,
    ) -> Result<Self, Failed> {
        let image = image.clone()?;
        let place = place(name)?;
        let card = place.join("card.img");
        if let Some(mebibytes) = card_mebibytes {
            qemu::make_card(&card, mebibytes)?;
        }
        let card = card_mebibytes.map(|_| card.as_path());
        let appliance = boot(&image, card, &place.join("log.defmt"))?;
        Ok(Self { appliance, image, place })
    }

    pub(crate) fn cut_power_and_boot(self) -> Result<Self, Failed> {
        self.cut_power_and_boot_in(Network::default())
    }

    pub(crate) fn cut_power_and_boot_in(self, network: Network<'_>) -> Result<Self, Failed> {
        let Self { appliance, image, place } = self;
        appliance.cut_power();
        let card = place.join("card.img");
        let log = place.join("log.defmt");
        let appliance = Appliance::boot_in(network, &image, Some(&card), &log)?;
        Ok(Self { appliance, image, place })
    }

    /// Cuts the power and checks the card's volume.
    pub(crate) fn check_card(self) -> Outcome {
        self.appliance.cut_power();
        let card = fs::read(self.place.join("card.img"))?;
        check_volume(&card, &self.place, "at the end")
    }

    pub(crate) fn health(&self) -> Result<Value, Failed> {
        Ok(serde_json::from_slice(&self.appliance.get("/")?.1)?)
    }

    pub(crate) fn wav(&self, number: u32) -> Result<Vec<u8>, Failed> {
        let (status, body) = self.appliance.get(&format!("/recordings/R{number:07}.wav"))?;
        ensure(status == 200, || format!("recording {number}: HTTP {status}"))?;
        Ok(body)
    }

    pub(crate) fn end_record(&self, number: u32) -> Result<Value, Failed> {
        let (status, body) = self.appliance.get(&format!("/recordings/R{number:07}.json"))?;
        ensure(status == 200, || format!("end record {number}: HTTP {status}"))?;
        Ok(serde_json::from_slice(&body)?)
    }

    /// Number of recordings on the card.
    pub(crate) fn recordings(&self) -> Result<usize, Failed> {
        let list: Value = serde_json::from_slice(&self.appliance.get("/recordings")?.1)?;
        Ok(list.as_array().map_or(0, Vec::len))
    }

    /// Names of the recordings of a stream or call.
    pub(crate) fn names_of(&self, id: &str) -> Result<Vec<String>, Failed> {
        let (status, body) = self.appliance.get(&format!("/recordings?id={id}"))?;
        let list: Vec<Value> = serde_json::from_slice(&body)?;
        ensure(status == 200, || format!("recordings of {id}: HTTP {status}"))?;
        let name = |item: &Value| item["name"].as_str().unwrap_or_default().to_owned();
        Ok(list.iter().map(name).collect())
    }

    /// Waits for a recording's end record.
    pub(crate) fn finished(&self, number: u32) -> Outcome {
        let path = format!("/recordings/R{number:07}.json");
        poll(|| Ok(self.appliance.get(&path)?.0 == 200))
    }

    pub(crate) fn await_health(&self, is_met: impl Fn(&Value) -> bool) -> Outcome {
        poll(|| Ok(is_met(&self.health()?)))
    }

    /// Waits until recording `number` of the list has at least `bytes` bytes.
    pub(crate) fn await_bytes(&self, number: usize, bytes: u64) -> Outcome {
        poll(|| {
            let list: Value = serde_json::from_slice(&self.appliance.get("/recordings")?.1)?;
            Ok(list[number - 1]["bytes"].as_u64() >= Some(bytes))
        })
    }
}

/// Polls until `is_met` returns true, for a minute at most.
pub(crate) fn poll(mut is_met: impl FnMut() -> Result<bool, Failed>) -> Outcome {
    let until = Instant::now() + Duration::from_secs(60);
    while Instant::now() < until {
        if is_met()? {
            return Ok(());
        }
        thread::sleep(Duration::from_millis(50));
    }
    Err("it did not happen in time".into())
}

/// Fails with the complaint unless `is_so`.
pub(crate) fn ensure(is_so: bool, complaint: impl FnOnce() -> String) -> Outcome {
    if is_so { Ok(()) } else { Err(complaint().into()) }
}

/// A figure of `firmware-sim/budgets.toml`.
pub(crate) fn budget(name: &str) -> Result<u64, Failed> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../firmware-sim/budgets.toml");
    let text = fs::read_to_string(path)?;
    let lines = text.lines().filter_map(|line| line.split_once(" = "));
    let value = lines.into_iter().find(|(key, _)| *key == name).map(|(_, value)| value.parse());
    Ok(value.ok_or_else(|| format!("no budget {name}"))??)
}

/// Sizes of an image, in bytes.
pub(crate) struct Sections {
    /// Code and constants.
    pub code: u64,
    /// Statics with initial values, in flash and in RAM.
    pub data: u64,
    /// Statics that begin as zeros.
    pub zeroed: u64,
}

/// Adds up an image's sections.
pub(crate) fn sections(elf: &[u8]) -> Result<Sections, Failed> {
    use object::{Object, ObjectSection, SectionFlags, SectionKind};

    let file = object::File::parse(elf)?;
    let mut sizes = Sections { code: 0, data: 0, zeroed: 0 };
    for section in file.sections() {
        let SectionFlags::Elf { sh_flags } = section.flags() else { continue };
        if sh_flags & u64::from(object::elf::SHF_ALLOC) == 0 {
            continue;
        }
        match section.kind() {
            SectionKind::UninitializedData => sizes.zeroed += section.size(),
            _ if section.address() >= 0x2000_0000 => sizes.data += section.size(),
            _ => sizes.code += section.size(),
        }
    }
    Ok(sizes)
}

/// Runs `fsck.vfat` on the card, and plays every recording on it.
pub(crate) fn check_volume(card: &[u8], place: &Path, when: &str) -> Outcome {
    let volume = place.join("volume.img");
    fs::write(&volume, &card[qemu::PARTITION_OFFSET as usize..])?;
    fsck(&volume, when)?;
    let disk = Disk::new(card.to_vec());
    let mut volume = Volume::new(&disk);
    let recovery = store::mount(&mut volume).map_err(|error| format!("{when}: {error:?}"))?;
    let store::Recovery { next_number, keep_free_bytes, starts, .. } = recovery;
    let nothing = store::Recovery { next_number, keep_free_bytes, starts, ..Default::default() };
    ensure(recovery == nothing, || format!("{when}: {recovery:?} after a repair"))?;
    while !volume.is_checked() {
        let is_changed = volume.check().map_err(|error| format!("{when}: {error:?}"))?;
        ensure(!is_changed, || format!("{when}: two FATs differ after a repair"))?;
    }
    let mut cursor = volume.entries();
    while let Some(entry) = volume.next_entry(&mut cursor).map_err(|e| format!("{when}: {e:?}"))? {
        if !entry.name.ends_with(b"WAV") {
            continue;
        }
        let mut reader = Reader::new(&entry);
        let mut block = Block::new();
        volume.read(&mut reader, &mut block).map_err(|e| format!("{when}: {e:?}"))?;
        let header = wav::header(MONO, Length::Bytes(entry.size.saturating_sub(44)));
        ensure(entry.size >= 44 && block.contents[..44] == header[..], || {
            format!("{when}: a recording of {} bytes does not say so", entry.size)
        })?;
    }
    Ok(())
}

/// Runs `fsck.vfat` on an image of the card's partition.
pub(crate) fn fsck(volume: &Path, when: &str) -> Outcome {
    let fsck = qemu::dosfstool("fsck.vfat").ok_or("fsck.vfat is not installed (dosfstools)")?;
    let output = Command::new(fsck).arg("-n").arg(volume).output()?;
    ensure(output.status.success(), || {
        let mut text = String::new();
        let _ = write!(text, "{when}: {}", String::from_utf8_lossy(&output.stdout));
        text
    })
}
