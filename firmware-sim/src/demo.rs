//! `cargo run -p callreel-firmware-sim`: boots the appliance in QEMU, calls it, checks the
//! recording, and leaves the card for inspection.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use callreel::caller::{self, Plan};
use callreel_core::g711::{SAMPLE_RATE_HZ, decode_mulaw};
use callreel_core::wav::{self, Encoding, Length, Spec};
use callreel_firmware_sim::qemu::{self, Appliance, Program};

const CARD_MEBIBYTES: u32 = 64;
const CALL: Duration = Duration::from_secs(5);

pub(crate) fn run() -> anyhow::Result<()> {
    if let Some(missing) = qemu::missing() {
        bail!("{missing}");
    }
    let place = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/appliance");
    let sent = place.join("sent");
    fs::create_dir_all(&sent).with_context(|| format!("cannot make {}", sent.display()))?;
    let place = place.canonicalize()?;
    let (card, log) = (place.join("card.img"), place.join("log.defmt"));

    println!("building the image for {} ...", qemu::TARGET);
    let image = place.join("callreel-appliance.elf");
    Program::APPLIANCE.build(&image)?;
    qemu::make_card(&card, CARD_MEBIBYTES).context("cannot make a card")?;
    let appliance = Appliance::boot(&image, Some(&card), &log).context("cannot boot")?;
    println!("a Cortex-M3 with 64 KB of RAM answers on http://{}/", appliance.address());

    println!("calling it for {} s ...", CALL.as_secs());
    let plan = Plan {
        duration: Some(CALL),
        save_sent: Some(place.join("sent")),
        ..Plan::new(appliance.stream_url())
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let report = runtime.block_on(caller::place(&plan))?;
    ensure!(report.is_good(), "the call did not end well: {:?}", report.calls);

    let stream_sid = &report.calls[0].stream_sid;
    let codes = fs::read(place.join("sent").join(format!("{stream_sid}.ulaw")))?;
    let (status, recording) = appliance.get("/recordings/R0000001.wav")?;
    ensure!(status == 200, "cannot fetch the recording: HTTP {status}");
    let (_, end_record) = appliance.get("/recordings/R0000001.json")?;
    let (_, health) = appliance.get("/")?;
    appliance.cut_power();

    print!("its end record: {}", String::from_utf8_lossy(&end_record));
    print!("its health:     {}", String::from_utf8_lossy(&health));
    println!("the card:       mdir -i {}@@1M ::/CALLS", card.display());
    println!("                mcopy -i {}@@1M ::/CALLS/R0000001.WAV .", card.display());
    print_log(&image, &log);
    ensure!(
        recording == expected(&codes),
        "VERDICT: the recording differs from a host's WAV of the same frames"
    );
    println!("VERDICT: {} samples, equal to a host's WAV of the same frames", codes.len());
    Ok(())
}

/// The WAV file of these mu-law codes.
fn expected(codes: &[u8]) -> Vec<u8> {
    let spec = Spec { channels: 1, sample_rate_hz: SAMPLE_RATE_HZ, encoding: Encoding::Pcm16 };
    let samples = codes.iter().flat_map(|&code| decode_mulaw(code).to_le_bytes());
    let length = Length::Bytes(codes.len() as u32 * 2);
    wav::header(spec, length).into_iter().chain(samples).collect()
}

fn print_log(image: &Path, log: &Path) {
    let Ok(file) = fs::File::open(log) else { return };
    let decoder = Command::new("defmt-print").arg("-e").arg(image).stdin(file).status();
    if decoder.is_err() {
        println!("its log:        cargo install defmt-print, then");
        println!("                defmt-print -e {} < {}", image.display(), log.display());
    }
}
