//! Values that resemble a sample, written as what they differ in.
//!
//! A packed value is its length, then pieces in turn: so many bytes as they are, then so many copied from a place. A
//! place is one in the sample or in what precedes the copy, and mostly the one that follows the last copy as far as
//! this one does.

/// The lengths of a value that is packed or is a sample. Shorter ones gain too little, and longer ones take too long.
pub(super) const LENGTHS: core::ops::RangeInclusive<usize> = 64..=0xffff;

/// The shortest copies, from the expected place and from another.
const SHORTEST_EXPECTED: usize = 4;
const SHORTEST: usize = 6;

/// So many places are remembered, by a hash of the bytes that are there.
const PLACES: usize = 1 << 11;

/// Of the sample, every fourth place is remembered: a copy of seven bytes has one of them.
const STEP: usize = 4;

/// The longest length is four bytes with seven bits each.
const LONGEST: usize = 4;

/// Packs a value of one of these lengths. Returns `None` for others, and if it does not become shorter.
pub(super) fn pack(value: &[u8], sample: &[u8]) -> Option<Vec<u8>> {
    if !LENGTHS.contains(&value.len()) {
        return None;
    }
    let window = [sample, value].concat();
    let mut places = vec![0_u32; PLACES];
    for at in (0..sample.len()).step_by(STEP) {
        remember(&mut places, &window, at);
    }
    let mut packed = Vec::with_capacity(value.len());
    put_length(&mut packed, value.len());
    let (mut at, mut plain, mut expected) = (sample.len(), sample.len(), 0_usize);
    while at < window.len() && packed.len() < value.len() {
        let alike = |place: usize| {
            let end = if place < sample.len() { sample.len() } else { at };
            let copied = window.get(place..end).unwrap_or_default();
            let ahead = window.get(at..).unwrap_or_default();
            copied.iter().zip(ahead).take_while(|(one, other)| one == other).count()
        };
        let next = expected.saturating_add(at.saturating_sub(plain));
        let place = remember(&mut places, &window, at);
        let (place, len) = match (alike(next), place.map_or(0, alike)) {
            (len, other) if len >= SHORTEST_EXPECTED && len >= other => (next, len),
            (_, len) if len >= SHORTEST => (place.unwrap_or_default(), len),
            _ => {
                at = at.saturating_add(1);
                continue;
            }
        };
        // A copy from the sample may begin before the place that was remembered.
        let before = sample.get(..place).filter(|before| before.len() < sample.len());
        let before = before.unwrap_or_default().iter().rev();
        let back = window.get(plain..at).unwrap_or_default().iter().rev().zip(before);
        let back = back.take_while(|(one, other)| one == other).count();
        let (start, place) = (at.saturating_sub(back), place.saturating_sub(back));
        put_plain(&mut packed, window.get(plain..start).unwrap_or_default());
        put_length(&mut packed, len.saturating_add(back));
        put_length(&mut packed, if place.saturating_add(back) == next { 0 } else { place.saturating_add(1) });
        at = at.saturating_add(len);
        plain = at;
        expected = place.saturating_add(len).saturating_add(back);
    }
    if plain < window.len() {
        put_plain(&mut packed, window.get(plain..).unwrap_or_default());
    }
    (packed.len() < value.len()).then_some(packed)
}

/// Returns the value that was packed with this sample.
pub(super) fn unpack(mut packed: &[u8], sample: &[u8]) -> Option<Vec<u8>> {
    let whole = Some(length(&mut packed)?).filter(|len| LENGTHS.contains(len))?;
    let (mut value, mut expected) = (Vec::with_capacity(whole), 0_usize);
    while !packed.is_empty() {
        let plain = length(&mut packed)?;
        value.extend_from_slice(take(&mut packed, plain)?);
        if packed.is_empty() {
            break;
        }
        let (len, place) = (length(&mut packed)?, length(&mut packed)?);
        let place = place.checked_sub(1).unwrap_or(expected.saturating_add(plain));
        let end = place.checked_add(len)?;
        match place.checked_sub(sample.len()) {
            None => value.extend_from_slice(sample.get(place..end)?),
            Some(at) => {
                let end = Some(end.saturating_sub(sample.len())).filter(|end| *end <= value.len())?;
                value.extend_from_within(at..end);
            }
        }
        if value.len() > whole {
            return None;
        }
        expected = end;
    }
    Some(value).filter(|value| value.len() == whole)
}

/// Remembers a place, and returns the one before it with the same hash.
fn remember(places: &mut [u32], window: &[u8], at: usize) -> Option<usize> {
    let bytes = window.get(at..)?.first_chunk::<4>()?;
    let hash = u32::from_le_bytes(*bytes).wrapping_mul(0x9e37_79b1) >> (32 - PLACES.ilog2());
    let slot = places.get_mut(usize::try_from(hash).ok()?)?;
    let before = core::mem::replace(slot, u32::try_from(at.saturating_add(1)).ok()?);
    usize::try_from(before).ok()?.checked_sub(1)
}

fn put_plain(packed: &mut Vec<u8>, bytes: &[u8]) {
    put_length(packed, bytes.len());
    packed.extend_from_slice(bytes);
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
        // The other half of a value that has everything twice.
        let noise: Vec<u8> =
            (0..200_u32).map(|number| number.wrapping_mul(2_654_435_761).to_le_bytes()[3]).collect();
        let twice = noise.repeat(2);
        assert!(pack(&twice, &[]).unwrap().len() < 210);
        assert_eq!(pack(&noise, &[]), None);
    }
}
