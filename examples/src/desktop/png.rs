//! A QR code as a PNG picture (ISO/IEC 15948): one bit a pixel, in stored blocks, so that it takes no crate.

use sessioncap::QrCode;

/// Pixels of a module.
const SCALE: usize = 8;
/// The light margin, modules.
const QUIET_ZONE: usize = 4;
/// Longest stored block of a deflate stream.
const LONGEST_BLOCK: usize = 65_535;

/// The whole file. It holds the secret, as the code does.
pub fn png(code: &QrCode) -> Vec<u8> {
    let side = (code.width() + 2 * QUIET_ZONE) * SCALE;
    let is_light = |x: usize, y: usize| {
        let module = |pixel: usize| (pixel / SCALE).checked_sub(QUIET_ZONE);
        !module(x).zip(module(y)).is_some_and(|(x, y)| code.is_dark(x, y))
    };
    let mut rows = Vec::new();
    for y in 0..side {
        // No filter.
        rows.push(0);
        for byte in 0..side.div_ceil(8) {
            let bits = (0..8).map(|bit| u8::from(is_light(byte * 8 + bit, y)) << (7 - bit));
            rows.push(bits.sum());
        }
    }
    let size = u32::try_from(side).unwrap_or(u32::MAX).to_be_bytes();
    let mut file = b"\x89PNG\r\n\x1a\n".to_vec();
    // One bit, greyscale, the only methods there are, not interlaced.
    chunk(&mut file, b"IHDR", &[&size[..], &size[..], &[1, 0, 0, 0, 0]].concat());
    chunk(&mut file, b"IDAT", &stored(&rows));
    chunk(&mut file, b"IEND", &[]);
    file
}

fn chunk(file: &mut Vec<u8>, kind: &[u8; 4], data: &[u8]) {
    file.extend(u32::try_from(data.len()).unwrap_or(u32::MAX).to_be_bytes());
    let checked = [kind.as_slice(), data].concat();
    file.extend(&checked);
    file.extend(crc(&checked).to_be_bytes());
}

/// A zlib stream (RFC 1950) of blocks that are not compressed (RFC 1951 section 3.2.4).
fn stored(data: &[u8]) -> Vec<u8> {
    let mut stream = vec![0x78, 0x01];
    let blocks = data.len().div_ceil(LONGEST_BLOCK);
    for (number, block) in data.chunks(LONGEST_BLOCK).enumerate() {
        let length = u16::try_from(block.len()).unwrap_or(u16::MAX);
        stream.push(u8::from(number + 1 == blocks));
        stream.extend(length.to_le_bytes());
        stream.extend((!length).to_le_bytes());
        stream.extend(block);
    }
    let (mut a, mut b) = (1_u32, 0_u32);
    for byte in data {
        a = (a + u32::from(*byte)) % 65_521;
        b = (b + a) % 65_521;
    }
    stream.extend((b << 16 | a).to_be_bytes());
    stream
}

/// The cyclic redundancy check of ISO/IEC 15948 annex D. It finds mistakes and protects against nobody.
fn crc(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| match crc & 1 {
            0 => crc >> 1,
            _ => crc >> 1 ^ 0xedb8_8320,
        })
    })
}
