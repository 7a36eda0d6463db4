//! The image's header, as a boot loader reads it.

use std::fs;
use std::process::Command;

use callreel_firmware_sim::image::{HEADER_BYTES, HEADER_OFFSET};
use serde_json::{Value, json};

use super::Outcome;
use super::bench::{Bench, IMAGE, PROVIDERS, ensure, place};

/// What a boot loader does, from the table in `image.rs` and with another CRC-32: reads the header of an image and
/// tells whether the image is whole.
const LOADER: &str = r#"
import json, struct, sys, zlib
image = bytearray(open(sys.argv[1], "rb").read())
at = 0x400
magic, header, size, board, address, length, a, b, c = struct.unpack_from("<8sHH4sII3I", image, at)
crc, tries, confirmed, spare = struct.unpack_from("<4I", image, at + 48)
image[at + 48:at + 64] = b"\xff" * 16
print(json.dumps({
    "magic": magic.decode(), "header": header, "size": size, "board": board.decode(), "address": address,
    "version": f"{a}.{b}.{c}", "state": [tries, confirmed, spare], "crc32": crc,
    "is_whole": length == len(image) and zlib.crc32(image[:length]) == crc,
}))
"#;

pub(crate) fn the_header() -> Outcome {
    let place = place("header")?;
    let load = |image: &[u8]| -> Result<Value, libtest_mimic::Failed> {
        let path = place.join("image.bin");
        fs::write(&path, image)?;
        let python = std::env::var("CALLREEL_PYTHON").unwrap_or_else(|_| "python3".into());
        let output = Command::new(python).args(["-c", LOADER]).arg(&path).output()?;
        let complaint = || String::from_utf8_lossy(&output.stderr).into_owned();
        ensure(output.status.success(), complaint)?;
        Ok(serde_json::from_slice(&output.stdout)?)
    };
    let mut sums = Vec::new();
    for image in [&IMAGE, &PROVIDERS] {
        let elf = image.as_ref().map_err(Clone::clone)?;
        let bytes = fs::read(elf.with_extension("bin"))?;
        let copied = place.join("copied.bin");
        // An empty section, aligned behind the image, would become a gap at its end.
        let mut objcopy = Command::new("arm-none-eabi-objcopy");
        objcopy.args(["-O", "binary", "--gap-fill", "0xff", "-R", ".gnu.sgstubs"]);
        let status = objcopy.arg(elf).arg(&copied).status()?;
        ensure(status.success() && fs::read(&copied)? == bytes, || {
            "the bytes for the flash are not those of the ELF".into()
        })?;
        let header = load(&bytes)?;
        let expected = json!({
            "magic": "callreel", "header": 1, "size": 64, "board": "LM3S", "address": 0,
            "version": env!("CARGO_PKG_VERSION"), "state": [u32::MAX, u32::MAX, u32::MAX],
            "crc32": header["crc32"], "is_whole": true,
        });
        ensure(header == expected, || format!("{header}"))?;
        // A loader and the firmware clear bits of the state. All else is known by the checksum.
        for (at, is_whole) in [
            (HEADER_OFFSET + 52, true),
            (HEADER_OFFSET + 56, true),
            (0, false),
            (HEADER_OFFSET + 24, false),
            (HEADER_OFFSET + HEADER_BYTES, false),
            (bytes.len() - 1, false),
        ] {
            let mut changed = bytes.clone();
            changed[at] ^= 1;
            ensure(load(&changed)?["is_whole"] == is_whole, || format!("byte {at} is changed"))?;
        }
        ensure(load(&bytes[..bytes.len() - 4])?["is_whole"] == false, || "cut short".into())?;
        sums.push(header["crc32"].clone());
    }
    ensure(sums[0] != sums[1], || "two images of one checksum".into())?;
    let bench = Bench::boot("header-boot", 8)?;
    let health = bench.health()?;
    let is_told =
        health["version"] == env!("CARGO_PKG_VERSION") && health["image_crc32"] == sums[0];
    ensure(is_told, || format!("{health}, not {}", sums[0]))?;
    let word = bench.appliance.word(HEADER_OFFSET as u32)?;
    ensure(word.to_le_bytes() == *b"call", || format!("{word:#x} in the board's flash"))
}
