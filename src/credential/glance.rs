//! The parts of a credential's bytes that an agent needs before it has compared them with its records, or once they are equal to
//! some: read without building the token (`docs/PROTOCOL.md` section 5.4).

use prost::encoding::{WireType, decode_key, decode_varint};
use sha2::{Digest, Sha256};

use crate::id::CredentialId;

/// Returns the id in a token whose shape was not checked. It can name any credential: it is good for looking up
/// a record to compare the bytes with, and for nothing else.
pub(super) fn stated_id(bytes: &[u8]) -> Option<CredentialId> {
    let authority = field(&mut &*bytes, AUTHORITY)?;
    let block = &mut field(&mut &*authority, BLOCK)?;
    let (_version, fact) = (field(block, FACTS)?, field(block, FACTS)?);
    let predicate = field(&mut &*fact, PREDICATE)?;
    let term = field(&mut &*predicate, TERMS)?;
    Some(CredentialId::from_bytes(field(&mut &*term, BYTES)?.try_into().ok()?))
}

/// Returns the SHA-256 of blocks 0 and 1 in their encoding, signatures included, in a token whose shape was checked.
pub(super) fn stem(bytes: &[u8]) -> Option<[u8; 32]> {
    let rest = &mut &*bytes;
    let authority = field(rest, AUTHORITY)?;
    let hash = hashed(Sha256::new(), authority)?;
    let binding = field(rest, BLOCKS);
    Some(binding.map_or(Some(hash.clone()), |block| hashed(hash, block))?.finalize().into())
}

fn hashed(hash: Sha256, block: &[u8]) -> Option<Sha256> {
    let mut length = Vec::with_capacity(LONGEST_VARINT);
    prost::encode_length_delimiter(block.len(), &mut length).ok()?;
    Some(hash.chain_update(length).chain_update(block))
}

const LONGEST_VARINT: usize = 10;

// Numbers of fields in the schema of Biscuit: of the token, a signed block, a block, a fact, a predicate and a term.
const AUTHORITY: u32 = 2;
const BLOCKS: u32 = 3;
const BLOCK: u32 = 1;
const FACTS: u32 = 4;
const PREDICATE: u32 = 1;
const TERMS: u32 = 2;
const BYTES: u32 = 5;

/// Returns the next field with this number and a length, and goes on after it.
fn field<'a>(message: &mut &'a [u8], wanted: u32) -> Option<&'a [u8]> {
    while !message.is_empty() {
        let (number, kind) = decode_key(message).ok()?;
        let length = decode_varint(message).ok()?;
        match kind {
            WireType::Varint => {}
            WireType::LengthDelimited => {
                let (content, rest) = message.split_at_checked(usize::try_from(length).ok()?)?;
                *message = rest;
                if number == wanted {
                    return Some(content);
                }
            }
            _ => return None,
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn fields_that_are_cut_short_or_of_another_kind_are_none() {
        for bytes in [[].as_slice(), &[0x12], &[0x12, 5, 1], &[0x12, 0xff], &[0x15, 0, 0, 0, 0], &[0x10, 1]] {
            assert_eq!(field(&mut &*bytes, AUTHORITY), None, "{bytes:?}");
        }
        let two = &mut [0x08, 1, 0x12, 1, 7, 0x1a, 0, 0x12, 1, 8].as_slice();
        assert_eq!(field(two, AUTHORITY), Some([7].as_slice()));
        assert_eq!(field(two, AUTHORITY), Some([8].as_slice()));
        assert_eq!(field(two, AUTHORITY), None);
    }

    proptest! {
        #[test]
        fn any_bytes_can_be_looked_at(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = (stated_id(&bytes), stem(&bytes));
        }
    }
}
