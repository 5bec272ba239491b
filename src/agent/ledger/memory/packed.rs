//! Values that resemble a sample, compressed with it.
//!
//! A packed value is its length, then an LZ4 block whose dictionary is the sample.

use lz4_flex::block::{compress_with_dict, decompress_into_with_dict};

/// The lengths of a value that is packed or is a sample. Shorter ones gain too little, and a dictionary has at most
/// 64 KiB.
pub(super) const LENGTHS: core::ops::RangeInclusive<usize> = 64..=0xffff;

/// The longest length is four bytes with seven bits each.
const LONGEST: usize = 4;

/// Packs a value of one of these lengths. Returns `None` for others, and if it does not become shorter.
pub(super) fn pack(value: &[u8], sample: &[u8]) -> Option<Vec<u8>> {
    if !LENGTHS.contains(&value.len()) {
        return None;
    }
    let mut packed = Vec::new();
    put_length(&mut packed, value.len());
    packed.extend_from_slice(&compress_with_dict(value, sample));
    (packed.len() < value.len()).then_some(packed)
}

/// Returns the value that was packed with this sample.
pub(super) fn unpack(mut packed: &[u8], sample: &[u8]) -> Option<Vec<u8>> {
    let whole = Some(length(&mut packed)?).filter(|len| LENGTHS.contains(len))?;
    let mut value = vec![0; whole];
    let len = decompress_into_with_dict(packed, &mut value, sample).ok()?;
    (len == whole).then_some(value)
}

/// Takes so many bytes from the front.
pub(super) fn take<'a>(rest: &mut &'a [u8], len: usize) -> Option<&'a [u8]> {
    let (taken, after) = rest.split_at_checked(len)?;
    *rest = after;
    Some(taken)
}

/// Writes seven bits of a length to a byte, the lowest first. The highest bit says that more follow.
pub(super) fn put_length(bytes: &mut Vec<u8>, mut length: usize) {
    while let Some(more) = (length >> 7 > 0).then_some(length >> 7) {
        bytes.push(low_bits(length) | 0x80);
        length = more;
    }
    bytes.push(low_bits(length));
}

fn low_bits(length: usize) -> u8 {
    u8::try_from(length & 0x7f).unwrap_or_default()
}

/// Reads a length from the front.
pub(super) fn length(rest: &mut &[u8]) -> Option<usize> {
    let mut length = 0;
    for place in 0..LONGEST {
        let (byte, after) = rest.split_first()?;
        *rest = after;
        length |= usize::from(byte & 0x7f) << (7 * place);
        if byte & 0x80 == 0 {
            return Some(length);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Pieces that come again, in the same value and in others, and bytes that do not.
    fn any_bytes() -> impl Strategy<Value = Vec<u8>> {
        let piece = prop_oneof![
            3 => (0..6_u8, 0..90_usize).prop_map(|(seed, len)| {
                (0..90_u8).map(|byte| byte.wrapping_mul(37) ^ seed.wrapping_mul(101)).take(len).collect()
            }),
            1 => (any::<u8>(), 0..300_usize).prop_map(|(byte, len)| vec![byte; len]),
            2 => proptest::collection::vec(any::<u8>(), 0..70),
        ];
        proptest::collection::vec(piece, 0..8).prop_map(|pieces: Vec<Vec<u8>>| pieces.concat())
    }

    proptest! {
        #[test]
        fn a_packed_value_is_shorter_and_reads_back(value in any_bytes(), sample in any_bytes()) {
            if let Some(packed) = pack(&value, &sample) {
                prop_assert!(packed.len() < value.len());
                prop_assert_eq!(unpack(&packed, &sample), Some(value));
            }
        }

        #[test]
        fn anything_is_unpacked_or_refused(packed in any_bytes(), sample in any_bytes()) {
            // A copy from what does not exist is refused, and nothing panics.
            let _ = unpack(packed.get(..packed.len().min(64)).unwrap_or_default(), &sample);
        }

        #[test]
        fn lengths_read_back(len in 0..1_usize << 28) {
            let mut bytes = Vec::new();
            put_length(&mut bytes, len);
            let rest = &mut bytes.as_slice();
            prop_assert_eq!((length(rest), rest.len()), (Some(len), 0));
        }
    }

    #[test]
    fn what_a_value_has_in_common_with_the_sample_takes_little() {
        let sample: Vec<u8> = (0..=255).chain(0..=255).collect();
        let mut value = sample.clone();
        value.splice(100..132, [7; 32]);
        assert!(pack(&value, &sample).unwrap().len() < 50);
        let noise: Vec<u8> =
            (0..200_u32).map(|number| number.wrapping_mul(2_654_435_761).to_le_bytes()[3]).collect();
        assert_eq!(pack(&noise, &[]), None);
    }
}
