//! A second writer of this protocol's messages, made from RFC 8949 and `docs/PROTOCOL.md` and not
//! from the library, so that tests can also write messages that the library would not write.

/// A value of the few kinds that the protocol has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    Uint(u64),
    Bytes(Vec<u8>),
    Text(String),
}

/// A map in the order in which it is written.
pub type Map = Vec<(u64, Value)>;

pub fn bytes(value: &[u8]) -> Value {
    Value::Bytes(value.to_vec())
}

/// The shortest head of a major type (RFC 8949 section 4.2.1).
pub fn head(major: u8, argument: u64) -> Vec<u8> {
    let major = major << 5;
    match argument {
        0..=23 => vec![major | argument as u8],
        24..=0xff => vec![major | 24, argument as u8],
        0x100..=0xffff => [&[major | 25][..], &(argument as u16).to_be_bytes()].concat(),
        0x1_0000..=0xffff_ffff => [&[major | 26][..], &(argument as u32).to_be_bytes()].concat(),
        _ => [&[major | 27][..], &argument.to_be_bytes()].concat(),
    }
}

pub fn encode_value(value: &Value) -> Vec<u8> {
    match value {
        Value::Uint(value) => head(0, *value),
        Value::Bytes(value) => [head(2, value.len() as u64), value.clone()].concat(),
        Value::Text(value) => [head(3, value.len() as u64), value.as_bytes().to_vec()].concat(),
    }
}

pub fn encode(map: &Map) -> Vec<u8> {
    let mut out = head(5, map.len() as u64);
    for (key, value) in map {
        out.extend(head(0, *key));
        out.extend(encode_value(value));
    }
    out
}

/// A handshake payload: the magic, the map, and padding as its last field up to the next of the
/// protocol's sizes.
pub fn payload(map: &Map) -> Vec<u8> {
    for size in [160, 1_024, 1_536, 2_560, 4_608] {
        for padding in 0..size {
            let mut padded = map.clone();
            padded.push((15, Value::Bytes(vec![0; padding])));
            let len = 4 + encode(&padded).len();
            if len == size {
                return [b"SCP1".to_vec(), encode(&padded)].concat();
            }
            if len > size {
                break;
            }
        }
    }
    panic!("no size holds the payload");
}

/// Reads a map that is written as this module writes it.
pub fn decode(bytes: &[u8]) -> Option<Map> {
    let mut rest = bytes;
    let (5, pairs) = read_head(&mut rest)? else { return None };
    let mut map = Map::new();
    for _ in 0..pairs {
        let (0, key) = read_head(&mut rest)? else { return None };
        let value = match read_head(&mut rest)? {
            (0, value) => Value::Uint(value),
            (2, len) => Value::Bytes(take(&mut rest, len)?.to_vec()),
            (3, len) => Value::Text(String::from_utf8(take(&mut rest, len)?.to_vec()).ok()?),
            _ => return None,
        };
        map.push((key, value));
    }
    rest.is_empty().then_some(map)
}

/// The map of a handshake payload, without its padding.
pub fn decode_payload(payload: &[u8]) -> Option<Map> {
    let mut map = decode(payload.strip_prefix(b"SCP1")?)?;
    matches!(map.pop()?, (15, Value::Bytes(_))).then_some(map)
}

pub fn bytes_of(map: &Map, key: u64) -> Vec<u8> {
    match map.iter().find(|(of, _)| *of == key) {
        Some((_, Value::Bytes(value))) => value.clone(),
        other => panic!("no bytes under {key}: {other:?}"),
    }
}

/// The same map with another value under one key.
pub fn with(map: &Map, key: u64, value: Value) -> Map {
    map.iter().map(|(of, old)| (*of, if *of == key { value.clone() } else { old.clone() })).collect()
}

fn take<'a>(rest: &mut &'a [u8], len: u64) -> Option<&'a [u8]> {
    let (head, tail) = rest.split_at_checked(usize::try_from(len).ok()?)?;
    *rest = tail;
    Some(head)
}

fn read_head(rest: &mut &[u8]) -> Option<(u8, u64)> {
    let (first, tail) = rest.split_first()?;
    *rest = tail;
    let argument = match first & 31 {
        small @ 0..=23 => u64::from(small),
        24 => u64::from(take(rest, 1)?[0]),
        25 => u64::from(u16::from_be_bytes(take(rest, 2)?.try_into().ok()?)),
        26 => u64::from(u32::from_be_bytes(take(rest, 4)?.try_into().ok()?)),
        27 => u64::from_be_bytes(take(rest, 8)?.try_into().ok()?),
        _ => return None,
    };
    Some((first >> 5, argument))
}
