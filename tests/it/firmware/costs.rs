//! Costs of the image and of a media frame, held to `firmware-sim/budgets.toml`.

use std::fs;
use std::thread;
use std::time::Duration;

use callreel_firmware_sim::qemu::{self, Program};
use libtest_mimic::Failed;

use super::bench::{Bench, IMAGE, PROVIDERS, STEREO, budget, ensure, image, sections};
use super::conversation::INBOUND;
use super::{CALLS_MAX, Outcome, TALK_FRAMES, connect, hang_up, stalled_calls, talk};

pub(crate) fn the_image_keeps_its_budgets() -> Outcome {
    for (name, image, budgets) in [
        ("one track", &IMAGE, ""),
        ("both tracks", &STEREO, ""),
        ("other providers", &PROVIDERS, "_providers"),
    ] {
        let budget = |name: &str| budget(&format!("{name}{budgets}"));
        let sections = sections(&fs::read(image.as_ref().map_err(Clone::clone)?)?)?;
        let flash = sections.code + sections.data;
        let ram = sections.data + sections.zeroed;
        println!("{name}: flash {flash} bytes, static RAM {ram} bytes");
        ensure(flash <= budget("flash_bytes_max")?, || format!("flash: {flash} bytes"))?;
        ensure(ram <= budget("static_ram_bytes_max")?, || format!("static RAM: {ram} bytes"))?;
    }
    let mut bench = Bench::with_faults("budgets")?;
    stalled_calls(&mut bench, b"2")?;
    let stack = bench.health()?["stack_bytes_peak"].as_u64().unwrap_or(u64::MAX);
    println!("stack {stack} bytes at most");
    ensure(stack <= budget("stack_bytes_peak_max")?, || format!("stack: {stack} bytes"))
}

pub(crate) fn instructions_a_frame() -> Outcome {
    let m3 = probe(qemu::TARGET, "lm3s6965evb", "core_instructions_a_frame_max")?;
    let m0 = probe("thumbv6m-none-eabi", "microbit", "core_instructions_a_frame_max_m0")?;
    ensure(m3 == m0, || "two processors make different recordings".into())
}

pub(crate) fn instructions_on_riscv() -> Outcome {
    let m3 = probe(qemu::TARGET, "lm3s6965evb", "core_instructions_a_frame_max")?;
    let target = "riscv32imac-unknown-none-elf";
    let riscv = probe(target, "virt", "core_instructions_a_frame_max_riscv")?;
    ensure(m3 == riscv, || "two processors make different recordings".into())
}

/// Runs core alone on a board and holds it to its budget; returns the checksum of its recording.
fn probe(target: &str, board: &str, limit: &str) -> Result<u64, Failed> {
    let probe = Program { name: "probe", target, ..Program::APPLIANCE };
    let image = image(&format!("probe-{board}.elf"), probe)?;
    let said = qemu::run_counted(&image, board)?;
    ensure(said == qemu::run_counted(&image, board)?, || "two runs differ".into())?;
    let figure = |name: &str| -> Result<u64, Failed> {
        let mut lines = said.lines().filter_map(|line| line.split_once(" = "));
        let value = lines.find(|(key, _)| *key == name).map(|(_, value)| value.parse());
        Ok(value.ok_or_else(|| format!("no {name} in {said:?}"))??)
    };
    let stages = ["ws", "message", "wav"].map(figure);
    let total = stages.into_iter().sum::<Result<u64, Failed>>()?;
    println!("{board}: {total} instructions a frame\n{said}");
    ensure(figure("samples")? == 80_000, || said.clone())?;
    ensure(total <= budget(limit)?, || format!("{board}: {total} instructions"))?;
    figure("checksum")
}

pub(crate) fn instructions_in_all() -> Outcome {
    in_all(64, "appliance_instructions_a_frame_max")?;
    // mkfs.vfat gives this card clusters of 32 KB.
    in_all(2048, "appliance_instructions_a_frame_max_2_gb")
}

/// Instructions of three calls at real pace, less those of the same calls while they are silent, so
/// that the figure is the cost of the frames alone.
fn in_all(card_mebibytes: u32, limit: &str) -> Outcome {
    let bench = Bench::counted(&format!("counted-{card_mebibytes}"), card_mebibytes)?;
    let reading = || -> Result<(u64, u64), Failed> {
        let uptime_ms = bench.health()?["uptime_ms"].as_u64().unwrap_or(0);
        Ok((bench.appliance.instructions()?, uptime_ms))
    };
    bench.await_health(|health| health["card_checked"] == true)?;
    let peers = connect(&bench, CALLS_MAX, INBOUND)?;
    bench.await_bytes(CALLS_MAX, 44)?;
    let open = reading()?;
    thread::sleep(Duration::from_secs(2));
    let silent = reading()?;
    hang_up(talk(peers, INBOUND))?;
    let done = reading()?;
    let silent_a_ms = (silent.0 - open.0) / (silent.1 - open.1);
    let all = done.0 - silent.0 - silent_a_ms * (done.1 - silent.1);
    let each = all / (CALLS_MAX * TALK_FRAMES) as u64;
    println!(
        "network to a card of {card_mebibytes} MiB: {each} instructions a frame; {silent_a_ms} a ms \
         of three silent calls"
    );
    let max = budget(limit)?;
    ensure(each <= max, || format!("{each} instructions"))
}

pub(crate) fn a_media_frame_cannot_panic() -> Outcome {
    let probe = Program {
        name: "probe",
        features: "prove-panic-free",
        rustflags: "--cfg callreel_frequent_only",
        ..Program::APPLIANCE
    };
    image("probe-panic-free.elf", probe)?;
    Ok(())
}
