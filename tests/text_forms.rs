//! Every name, key and time can be read back from what was written, as text and
//! through serde. No other text is accepted, and no secret is written.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::fmt::{Debug, Display};
use std::str::FromStr;

use proptest::prelude::*;
use proptest::test_runner::TestCaseResult;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use sessioncap::agent::{AuditEvent, AuditRecord};
use sessioncap::pair::RevocationReason;
use sessioncap::*;

/// A type with a text form: text, `TryFrom` and serde agree.
fn reads_back<T>(value: &T) -> TestCaseResult
where
    T: Display + FromStr + Serialize + DeserializeOwned + PartialEq + Debug,
    T: for<'a> TryFrom<&'a str> + TryFrom<String>,
    <T as FromStr>::Err: Debug,
{
    let text = value.to_string();
    prop_assert_eq!(&text.parse::<T>().unwrap(), value);
    prop_assert!(T::try_from(text.as_str()).is_ok_and(|read| read == *value), "{value:?}");
    prop_assert!(T::try_from(text.clone()).is_ok_and(|read| read == *value), "{value:?}");
    prop_assert_eq!(serde_json::to_value(value).unwrap(), Value::from(text));
    through_serde(value)
}

/// From JSON text, in which a string may be escaped, and from a value, which hands over an owned one.
fn through_serde<T: Serialize + DeserializeOwned + PartialEq + Debug>(value: &T) -> TestCaseResult {
    let json = serde_json::to_string(value).unwrap();
    prop_assert_eq!(&serde_json::from_str::<T>(&json).unwrap(), value);
    prop_assert_eq!(&serde_json::from_value::<T>(serde_json::to_value(value).unwrap()).unwrap(), value);
    Ok(())
}

/// Refused as text and, with the same words, through serde.
fn refuses<T: FromStr<Err: Display> + DeserializeOwned + Debug>(texts: &[&str]) {
    for text in texts {
        let error = text.parse::<T>().err().unwrap_or_else(|| panic!("{text:?} is read"));
        let through_serde = serde_json::from_value::<T>(Value::from(*text)).unwrap_err();
        assert_eq!(through_serde.to_string(), error.to_string(), "{text:?}");
    }
    for other in [json!(1), json!(null), json!([]), json!({}), json!(true)] {
        assert!(serde_json::from_value::<T>(other.clone()).is_err(), "{other}");
    }
}

fn timestamp() -> impl Strategy<Value = Timestamp> {
    (0..=Timestamp::MAX.seconds()).prop_map(|seconds| Timestamp::try_from(seconds).unwrap())
}

fn ops() -> impl Strategy<Value = OpSet> {
    (0..=OpSet::ALL.bits()).prop_map(|bits| OpSet::from_bits(bits.into()).unwrap())
}

proptest! {
    #[test]
    fn names_read_back(id: [u8; 16], session in "[A-Za-z0-9_~-][A-Za-z0-9._~-]{0,127}", node: u32) {
        reads_back(&TicketId::from(id))?;
        reads_back(&CredentialId::from(id))?;
        reads_back(&SessionId::new(session).unwrap())?;
        let node = NodeId::from(node);
        prop_assert_eq!(node.to_string().parse(), Ok(node));
        through_serde(&node)?;
    }

    #[test]
    fn public_keys_read_back(secret: [u8; 32], ticket: [u8; 16]) {
        let agent = AgentSecretKey::from_bytes(secret).public();
        let device = DeviceSecretKey::from_bytes(secret).public();
        let holder = HolderSecretKey::from_bytes(secret).public();
        let issuer = IssuerSecretKey::from_bytes(secret).public();
        let ticket = TicketSecret::from_bytes(ticket).public_key();
        reads_back(&agent)?;
        reads_back(&device)?;
        reads_back(&holder)?;
        reads_back(&issuer)?;
        reads_back(&ticket)?;
        prop_assert_eq!(AgentPublicKey::try_from(*agent.as_bytes()), Ok(agent));
        prop_assert_eq!(DevicePublicKey::try_from(*device.as_bytes()), Ok(device));
        prop_assert_eq!(HolderPublicKey::try_from(*holder.as_bytes()), Ok(holder));
        prop_assert_eq!(IssuerPublicKey::try_from(*issuer.as_bytes()), Ok(issuer));
        prop_assert_eq!(TicketPublicKey::try_from(*ticket.as_bytes()), Ok(ticket));
    }

    #[test]
    fn labels_and_addresses_read_back(
        label in "([a-zA-Zéß\"\\\\ ]{0,12}[a-z])?", host in "[a-z]{1,9}(\\.[a-z]{1,9}){0,3}", port in 1_u16..,
    ) {
        reads_back(&Label::new(label).unwrap())?;
        reads_back(&AgentUrl::parse(&format!("wss://{host}:{port}")).unwrap())?;
        reads_back(&AgentUrl::parse(&format!("ws://{host}/{host}")).unwrap())?;
    }

    #[test]
    fn times_read_back(time in timestamp()) {
        reads_back(&time)?;
    }

    #[test]
    fn operations_read_back(ops in ops(), op in 0..Op::ALL.len()) {
        reads_back(&Op::ALL[op])?;
        reads_back(&Privilege::ALL[op % Privilege::ALL.len()])?;
        prop_assert_eq!(ops.to_string().parse(), Ok(ops));
        through_serde(&ops)?;
        prop_assert_eq!(serde_json::to_value(ops).unwrap().as_array().unwrap().len(), ops.iter().count());
    }

    #[test]
    fn pair_codes_read_back(digits in 0..1_000_000_u32) {
        let text = format!("{:03} {:03}", digits / 1_000, digits % 1_000);
        let code: PairCode = text.parse().unwrap();
        prop_assert_eq!(code.to_string(), text);
        reads_back(&code)?;
    }

    #[test]
    fn credentials_read_back(bytes in proptest::collection::vec(any::<u8>(), 1..400)) {
        let credential = CredentialBytes::try_from(bytes).unwrap();
        prop_assert_eq!(credential.to_text().parse(), Ok(credential.clone()));
        prop_assert_eq!(serde_json::to_value(&credential).unwrap(), Value::from(credential.to_text()));
        through_serde(&credential)?;
    }

    /// A few of the events: each holds the types above and nothing else.
    #[test]
    fn audit_records_read_back(
        key: [u8; 32], id: [u8; 16], at in timestamp(), ops in ops(), opening: u64, discarded: bool,
    ) {
        let events = [
            json!({ "event": "gate_opened", "discarded": discarded }),
            json!({ "event": "clock_reset", "from": at }),
            json!({
                "event": "ticket_offered",
                "ticket": TicketId::from(id),
                "credential": CredentialId::from(id),
                "session": "a",
                "device": DeviceSecretKey::from_bytes(key).public(),
                "ops": ops,
                "label": "Anna's \"phone\"",
                "expires_at": at,
            }),
            json!({ "event": "session_closed", "session": "a", "why": RevocationReason::SessionEnd }),
        ];
        for event in events {
            let mut written = json!({
                "agent": AgentSecretKey::from_bytes(key).public(),
                "node": 7,
                "opening": opening,
                "sequence": 3,
                "at": at,
            });
            written.as_object_mut().unwrap().append(&mut event.as_object().unwrap().clone());
            let record: AuditRecord = serde_json::from_str(&written.to_string()).unwrap();
            prop_assert_eq!((record.node, record.opening, record.at), (NodeId::new(7), opening, at));
            prop_assert_eq!(serde_json::to_value(&record).unwrap(), written);
            prop_assert_eq!(serde_json::from_value::<AuditEvent>(event).unwrap(), record.event);
        }
    }
}

#[test]
fn statuses_read_back_from_their_codes() {
    for status in Status::ALL {
        assert_eq!(Status::from_code(status.code()), Some(*status));
        assert_eq!(serde_json::to_value(status).unwrap(), Value::from(status.code()));
        assert_eq!(serde_json::from_value::<Status>(Value::from(status.code())).unwrap(), *status);
    }
    for other in [json!("Ok"), json!("admitted"), json!(""), json!(0)] {
        assert!(serde_json::from_value::<Status>(other.clone()).is_err(), "{other}");
    }
}

#[test]
fn the_whole_range_of_times_reads_back() {
    for time in [Timestamp::EPOCH, Timestamp::MAX] {
        reads_back(&time).unwrap();
    }
    // a leap day, and the days around it
    for text in ["2024-02-28T23:59:59Z", "2024-02-29T00:00:00Z", "2024-03-01T00:00:00Z"] {
        assert_eq!(text.parse::<Timestamp>().unwrap().to_string(), text);
    }
}

#[test]
fn other_texts_are_refused_with_what_is_wrong() {
    let hex = "0123456789abcdef0123456789abcdef";
    let two = format!("{hex}{hex}");
    refuses::<TicketId>(&["", "0", &hex.to_uppercase(), &two, &format!(" {hex}"), &hex[1..]]);
    refuses::<CredentialId>(&["", &hex.replace('a', "g"), &format!("0x{}", &hex[2..])]);
    refuses::<SessionId>(&["", ".", "..", "a/b", "a b", "é", &"x".repeat(129)]);
    refuses::<HolderPublicKey>(&["", hex, &two.to_uppercase(), &"0".repeat(64), &"f".repeat(64)]);
    refuses::<AgentPublicKey>(&["", hex, &"0".repeat(64)]);
    refuses::<DevicePublicKey>(&["", hex, &"0".repeat(64)]);
    let identity = format!("01{}", "0".repeat(62));
    refuses::<IssuerPublicKey>(&["", hex, &identity]);
    refuses::<TicketPublicKey>(&["", hex, &identity]);
    refuses::<Label>(&[" ", "a\nb", "\u{202e}abc", &"x".repeat(41)]);
    refuses::<AgentUrl>(&["", "agent.example", "wss://", "wss://a:0", "wss://a?b", "ftp://a"]);
    refuses::<Op>(&["", "Resize", "resize ", "create_session", "companion"]);
    refuses::<Privilege>(&["", "Enroll", "enroll ", "resize", "companion"]);
    refuses::<CredentialBytes>(&["", "=", "a+/=", "ab==", "A B", "AB"]);
    refuses::<PairCode>(&[
        "", "123456", "123-456", "12 3456", "123 45", "123  456", "+12 345", "123 456 ", "12a 456",
    ]);
    for text in ["", "-1", "a", "4294967296"] {
        assert!(text.parse::<NodeId>().is_err(), "{text:?}");
    }
    for other in [json!("1"), json!(-1), json!(4_294_967_296_u64), json!(1.5)] {
        assert!(serde_json::from_value::<NodeId>(other.clone()).is_err(), "{other}");
    }
}

#[test]
fn a_time_has_one_text_form() {
    refuses::<Timestamp>(&[
        "",
        "1970-01-01",
        "1970-01-01T00:00:00",
        "1970-01-01t00:00:00Z",
        "1970-01-01T00:00:00z",
        "1970-01-01 00:00:00Z",
        "1970-01-01T00:00:00+00:00",
        "1970-01-01T01:00:00+01:00",
        "1970-01-01T00:00:00.0Z",
        "1970-01-01T00:00:00.5Z",
        "1970-1-1T00:00:00Z",
        "1969-12-31T23:59:59Z",
        "10000-01-01T00:00:00Z",
        "2023-02-29T00:00:00Z",
        "2016-12-31T23:59:60Z",
        "1970-01-01T24:00:00Z",
        " 1970-01-01T00:00:00Z",
        "0",
    ]);
    assert_eq!(Timestamp::try_from(u64::MAX), Err(Error::Time));
}

#[test]
fn a_set_of_operations_names_each_once_and_no_unknown_one() {
    for bad in [
        json!(["resize", "resize"]),
        json!(["companion"]),
        json!(["nothing"]),
        json!(["create_session"]),
        json!([0]),
        json!("resize"),
        json!(255),
    ] {
        assert!(serde_json::from_value::<OpSet>(bad.clone()).is_err(), "{bad}");
    }
    assert_eq!(serde_json::from_value::<OpSet>(json!([])).unwrap(), OpSet::EMPTY);
    assert_eq!("nothing".parse(), Ok(OpSet::EMPTY));
    for bad in ["", ",", "nothing,resize", "resize,nothing", "Nothing", "resize,,detach"] {
        assert_eq!(bad.parse::<OpSet>(), Err(Error::OpUnknown), "{bad:?}");
    }
}

/// Compiles only as long as there is one way to read `some`: by the first implementation.
macro_rules! is_not_serialised {
    ($($secret:ty),+) => {$(
        const _: () = {
            trait Ambiguous<A> {
                fn some() {}
            }
            struct Serialised;
            impl<T> Ambiguous<()> for T {}
            impl<T: Serialize> Ambiguous<Serialised> for T {}
            let _ = <$secret as Ambiguous<_>>::some;
        };
    )+};
}
is_not_serialised!(
    AgentSecretKey,
    DeviceSecretKey,
    HolderSecretKey,
    IssuerSecretKey,
    TicketSecret,
    Link,
    desktop::Issuer
);
