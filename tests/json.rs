//! The adapters' reader of JSON: what it refuses, and that it reads numbers and keys as any other reader does. These
//! tests are also run with every feature of `serde_json` that changes what that reads (`acp/json_features`).
#![cfg(feature = "acp")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use serde_json::Value;
use sessioncap::acp::{Json, JsonError, Number};

fn read(text: &str) -> Option<Json> {
    Json::from_bytes(text.as_bytes(), 1_000_000, 8).ok()
}

#[test]
fn numbers_read_the_same_in_every_build() {
    for (text, number) in [
        ("0", Number::Integer(0)),
        ("-1", Number::Integer(-1)),
        ("9223372036854775807", Number::Integer(i64::MAX)),
        ("-9223372036854775808", Number::Integer(i64::MIN)),
        ("9223372036854775808", Number::Large(1 << 63)),
        ("18446744073709551615", Number::Large(u64::MAX)),
        ("18446744073709551616", Number::Float(18_446_744_073_709_551_616.0)),
        ("-9223372036854775809", Number::Float(-9_223_372_036_854_775_808.0)),
        ("1.0", Number::Float(1.0)),
        ("1e2", Number::Float(100.0)),
        ("0.1", Number::Float(0.1)),
        ("5e-324", Number::Float(5e-324)),
        ("1.7976931348623157e308", Number::Float(f64::MAX)),
        // Read without care it is the neighbouring number.
        ("1.7976931348623155e308", Number::Float(1.797_693_134_862_315_5e308)),
        ("122.416294033786585", Number::Float(122.416_294_033_786_58)),
    ] {
        assert_eq!(read(text), Some(Json::Number(number)), "{text}");
    }
    let Some(Json::Number(Number::Float(zero))) = read("-0") else { panic!("-0 is a float") };
    assert!(zero == 0.0 && zero.is_sign_negative());
    for text in ["1e400", "-1e400", "01", "1.", ".1", "+1", "0x1", "NaN", "Infinity", "1e", "--1"] {
        assert_eq!(read(text), None, "{text}");
    }
}

#[test]
fn the_key_of_another_readers_numbers_is_no_key_in_any_build() {
    for text in [
        r#"{"$serde_json::private::Number":"12"}"#,
        r#"{"\u0024serde_json::private::Number":"12"}"#,
        r#"{"a":1,"$serde_json::private::Number":"12"}"#,
        r#"{"a":{"\u0024serde_json::private::Number":"12"}}"#,
    ] {
        assert_eq!(read(text), None, "{text}");
    }
    // In a text it is a text, as long as it is not the whole of it.
    assert!(read(r#"["see $serde_json::private::Number"]"#).is_some());
    assert!(read(r#"{"$serde_json::private::RawValue":"12"}"#).is_some());
}

#[test]
fn depth_length_and_values_are_bounded_in_every_build() {
    let deep = |levels: usize| format!("{}{}", "[".repeat(levels), "]".repeat(levels));
    assert!(read(&deep(8)).is_some());
    assert_eq!(read(&deep(9)), None);
    assert_eq!(read(&format!("{}1{}", r#"{"a":"#.repeat(9), "}".repeat(9))), None);
    assert_eq!(read(&"[".repeat(100_000)), None);
    assert!(read(&format!("[{}]", vec!["0"; 65_535].join(","))).is_some());
    assert_eq!(read(&format!("[{}]", vec!["0"; 65_536].join(","))), None);
    let read = Json::from_bytes(b"[1,2]", 4, 8);
    assert_eq!(read, Err(JsonError::TooLong { max: 4 }));
    assert_eq!(read.unwrap_err().code(), "json_too_long");
    assert_eq!(Json::from_bytes(b"[1,2", 4, 8).unwrap_err().code(), "json_malformed");
}

#[test]
fn repeated_keys_are_refused_however_they_are_spelled_and_wherever() {
    for text in [
        r#"{"a":1,"a":2}"#,
        r#"{"a":1,"b":2,"c":3,"a":1}"#,
        r#"{"a":1,"\u0061":2}"#,
        r#"{"":1,"":1}"#,
        r#"[[{"x":{"é":1,"\u00e9":2}}]]"#,
        r#"{"😀":1,"\ud83d\ude00":2}"#,
    ] {
        assert_eq!(read(text), None, "{text}");
    }
    assert!(read(r#"{"a":{"a":1},"A":{"a":1}}"#).is_some());
}

#[test]
fn whatever_reads_is_what_another_reader_finds_and_reads_back_from_what_is_written() {
    for text in [
        r#"{"z":1,"a":[true,false,null,"",{}],"m":{"x":-1.5e-7}}"#,
        r#""\u0000\u001f\"\\\/\b\f\n\r\t\u2028😀\ud83d\ude00""#,
        " [ 1 , 2 ]\n",
        "1e16",
        "123456789012345680.0",
    ] {
        let ours = read(text).unwrap_or_else(|| panic!("{text}"));
        let written = ours.to_text();
        assert_eq!(read(&written), Some(ours.clone()), "{text}");
        assert_eq!(ours.to_string(), written);
        // As numbers with the same value: another reader may keep how they were spelled.
        let plain = |text: &str| -> String {
            let value: Value = serde_json::from_str(text).unwrap();
            read(&value.to_string()).unwrap().to_text().replace(char::is_whitespace, "")
        };
        let mut theirs: Vec<char> = plain(text).chars().collect();
        let mut our_own: Vec<char> = plain(&written).chars().collect();
        // Objects may come in another order.
        theirs.sort_unstable();
        our_own.sort_unstable();
        assert_eq!(our_own, theirs, "{text}");
    }
    assert_eq!(Json::Number(Number::Float(f64::NAN)).to_text(), "null");
}

#[test]
fn what_is_not_json_in_utf_8_is_refused() {
    for text in [
        "",
        " ",
        "nul",
        "tru",
        "'a'",
        "{a:1}",
        "[1,]",
        "{\"a\":1,}",
        "[1 2]",
        "\"\n\"",
        "\"\\x\"",
        "\"\\ud800\"",
        "\"\\udc00\\ud800\"",
        "1 1",
        "{} []",
        "// a\n1",
        "\u{feff}1",
    ] {
        assert_eq!(read(text), None, "{text:?}");
    }
    for bytes in [&b"\"\xff\""[..], b"\"\xc3\"", b"\"\xed\xa0\x80\"", b"\xef\xbb\xbf1"] {
        assert_eq!(Json::from_bytes(bytes, 100, 8), Err(JsonError::Malformed { depth: 8 }));
    }
}
