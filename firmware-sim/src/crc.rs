//! Checksums of the line to an SD card (SD Physical Layer, 4.5).
//!
//! The library's take eleven instructions a byte, bit by bit; these tables take four.

/// Checksums of 16 bits (polynomial 0x1021) of each byte, and of each byte with a zero behind it.
const ONE: [u16; 256] = sixteen_bits(false);
const TWO: [u16; 256] = sixteen_bits(true);
/// Checksums of 7 bits (polynomial 0x09) of each byte, shifted left by one.
const SEVEN: [u8; 256] = seven_bits();

const fn sixteen_bits(is_followed: bool) -> [u16; 256] {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        let mut crc = (byte as u16) << 8;
        let mut shift = if is_followed { 16 } else { 8 };
        while shift > 0 {
            crc = if crc & 0x8000 == 0 { crc << 1 } else { crc << 1 ^ 0x1021 };
            shift -= 1;
        }
        table[byte] = crc;
        byte += 1;
    }
    table
}

const fn seven_bits() -> [u8; 256] {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        let mut crc = byte as u8;
        let mut shift = 8;
        while shift > 0 {
            crc = if crc & 0x80 == 0 { crc << 1 } else { crc << 1 ^ 0x12 };
            shift -= 1;
        }
        table[byte] = crc;
        byte += 1;
    }
    table
}

/// Returns the checksum of the bytes behind `crc`, and of eight bytes more. A block begins with 0.
#[inline(always)]
#[must_use]
pub fn crc16(crc: u16, bytes: [u8; 8]) -> u16 {
    let pair = |crc: u16, first: u8, second: u8| {
        let [high, low] = crc.to_be_bytes();
        TWO[usize::from(high ^ first)] ^ ONE[usize::from(low ^ second)]
    };
    let [a, b, c, d, e, f, g, h] = bytes;
    pair(pair(pair(pair(crc, a, b), c, d), e, f), g, h)
}

/// Returns the last byte of a command: the checksum of its first five, and the end bit.
#[must_use]
pub fn command_end(command: [u8; 5]) -> u8 {
    command.iter().fold(0, |crc, byte| SEVEN[usize::from(crc ^ byte)]) | 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_specification_s_examples_give_its_checksums() {
        let block = (0..64).fold(0, |crc, _| crc16(crc, [0xFF; 8]));
        assert_eq!(block, 0x7FA1);
        assert_eq!(command_end([0x40, 0, 0, 0, 0]), 0x95);
        assert_eq!(command_end([0x51, 0, 0, 0, 0]), 0x55);
        assert_eq!(command_end([0x48, 0, 0, 1, 0xAA]), 0x87);
    }
}
