//! The header of the appliance's image, for boot loaders and for updates.
//!
//! It lies [`HEADER_OFFSET`] bytes behind the start of the image, which are the processor's vectors, and has
//! [`HEADER_BYTES`] bytes. Numbers are little-endian.
//!
//! | offset | bytes | content |
//! |---|---|---|
//! | 0 | 8 | [`MAGIC`] |
//! | 8 | 2 | version of this header, 1 |
//! | 10 | 2 | bytes of the header |
//! | 12 | 4 | the board that the image is for: [`BOARD`] |
//! | 16 | 4 | address in flash that the image is linked for; all ones until it is sealed |
//! | 20 | 4 | bytes of the image, the header among them; all ones until it is sealed |
//! | 24 | 12 | version of the firmware: three numbers |
//! | 36 | 12 | all ones |
//! | 48 | 4 | CRC-32 of the image (that of Ethernet and zip), the last 16 bytes of the header read as all ones |
//! | 52 | 4 | tries: a boot loader clears one more bit before each start on trial |
//! | 56 | 4 | confirmed: zero once the firmware has proven itself |
//! | 60 | 4 | all ones |
//!
//! A linker knows no checksum: `seal`, which [`qemu::Program`](crate::qemu::Program) calls for each image, fills it
//! in. The last 16 bytes change while the image stays: flash clears bits without being erased.

/// Offset of the header in an image: behind the vectors of every interrupt that a Cortex-M3 may have.
pub const HEADER_OFFSET: usize = 0x400;

/// Bytes of the header.
pub const HEADER_BYTES: usize = 64;

/// First bytes of a header.
pub const MAGIC: [u8; 8] = *b"callreel";

/// The board of this image: lm3s6965evb.
pub const BOARD: [u8; 4] = *b"LM3S";

/// The header, in words as they lie in flash.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct Header {
    magic: [u8; 8],
    header_version: u16,
    header_bytes: u16,
    board: [u8; 4],
    address: u32,
    image_bytes: u32,
    version: [u32; 3],
    reserved: [u32; 3],
    crc32: u32,
    tries: u32,
    confirmed: u32,
    spare: u32,
}

const _: () = assert!(size_of::<Header>() == HEADER_BYTES);

impl Header {
    /// The header of this program, not sealed.
    pub const UNSEALED: Self = Self {
        magic: MAGIC,
        header_version: 1,
        header_bytes: HEADER_BYTES as u16,
        board: BOARD,
        address: u32::MAX,
        image_bytes: u32::MAX,
        version: [
            number(env!("CARGO_PKG_VERSION_MAJOR")),
            number(env!("CARGO_PKG_VERSION_MINOR")),
            number(env!("CARGO_PKG_VERSION_PATCH")),
        ],
        reserved: [u32::MAX; 3],
        crc32: u32::MAX,
        tries: u32::MAX,
        confirmed: u32::MAX,
        spare: u32::MAX,
    };

    /// The checksum of a sealed image; `None` of an image that is not sealed.
    #[must_use]
    pub const fn crc32(&self) -> Option<u32> {
        if self.image_bytes == u32::MAX { None } else { Some(self.crc32) }
    }
}

const fn number(text: &str) -> u32 {
    match u32::from_str_radix(text, 10) {
        Ok(number) => number,
        Err(_) => panic!("cargo's version is three numbers"),
    }
}

#[cfg(not(target_os = "none"))]
pub use sealing::{flat, seal};

#[cfg(not(target_os = "none"))]
mod sealing {
    use std::io;

    use object::LittleEndian;
    use object::elf::FileHeader32;
    use object::read::elf::{FileHeader as _, ProgramHeader as _};

    use super::{HEADER_OFFSET, MAGIC};

    const ADDRESS_AT: usize = HEADER_OFFSET + 16;
    const IMAGE_BYTES_AT: usize = HEADER_OFFSET + 20;
    const CRC32_AT: usize = HEADER_OFFSET + 48;

    /// A part of the image: its place in flash, its place in the ELF file, and its bytes.
    type Part = (usize, usize, usize);

    fn wrong(text: impl ToString) -> io::Error {
        io::Error::new(io::ErrorKind::InvalidData, text.to_string())
    }

    /// The parts of an ELF that lie in flash.
    fn parts(elf: &[u8]) -> io::Result<Vec<Part>> {
        let head = FileHeader32::<LittleEndian>::parse(elf).map_err(wrong)?;
        let endian = head.endian().map_err(wrong)?;
        let parts = head.program_headers(endian, elf).map_err(wrong)?.iter();
        let parts = parts.filter(|part| part.p_type(endian) == object::elf::PT_LOAD);
        let place = |part: &object::elf::ProgramHeader32<LittleEndian>| {
            let [at, from, bytes] =
                [part.p_paddr(endian), part.p_offset(endian), part.p_filesz(endian)];
            (at as usize, from as usize, bytes as usize)
        };
        Ok(parts.map(place).filter(|(.., bytes)| *bytes > 0).collect())
    }

    /// The address of an image's first byte.
    fn base(parts: &[Part]) -> usize {
        parts.iter().map(|(at, ..)| *at).min().unwrap_or(0)
    }

    /// The image of an ELF as it lies in flash, from its first address to its last; gaps are all ones.
    ///
    /// # Errors
    /// The bytes are not an ELF of 32 bits, or none with a header of the appliance.
    pub fn flat(elf: &[u8]) -> io::Result<Vec<u8>> {
        let (mut image, parts) = (Vec::new(), parts(elf)?);
        let base = base(&parts);
        for (at, from, bytes) in parts {
            let at = at - base;
            let part = elf.get(from..from + bytes).ok_or_else(|| wrong("the ELF is cut short"))?;
            image.resize(image.len().max(at + bytes), 0xFF);
            image[at..at + bytes].copy_from_slice(part);
        }
        let is_ours = image.get(HEADER_OFFSET..).is_some_and(|rest| rest.starts_with(&MAGIC));
        if is_ours { Ok(image) } else { Err(wrong("the image has no header")) }
    }

    /// Fills in the address, the length and the checksum, in the ELF itself.
    ///
    /// # Errors
    /// As for [`flat`].
    pub fn seal(elf: &mut [u8]) -> io::Result<()> {
        let length = u32::try_from(flat(elf)?.len()).map_err(wrong)?;
        let address = u32::try_from(base(&parts(elf)?)).map_err(wrong)?;
        put(elf, ADDRESS_AT, address)?;
        put(elf, IMAGE_BYTES_AT, length)?;
        put(elf, CRC32_AT, u32::MAX)?;
        let sum = crc32fast::hash(&flat(elf)?);
        put(elf, CRC32_AT, sum)
    }

    /// Puts a number into the ELF, at this place of the image.
    fn put(elf: &mut [u8], at: usize, number: u32) -> io::Result<()> {
        let parts = parts(elf)?;
        let at = at + base(&parts);
        let is_there = |(start, _, bytes): &Part| (*start..start + bytes).contains(&at);
        let (start, from, _) =
            parts.into_iter().find(is_there).ok_or_else(|| wrong("no such part"))?;
        let place = from + at - start;
        elf[place..place + 4].copy_from_slice(&number.to_le_bytes());
        Ok(())
    }
}
