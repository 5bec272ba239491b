//! Vectors of what a link host serves: the page and the files of apps, for names that are valid and that are refused.

use serde_json::{Value, json};
use sessioncap::web::{
    APPLE_PATH, ASSET_LINKS_PATH, LandingPage, WebError, apple_app_site_association, asset_links,
};

use super::{hex, invalid, valid};
use crate::{Fields, Files};

const IDS: [&str; 2] = ["ABCDE12345.com.example.app", "0123456789.org.example.other-app"];

fn names(value: &Value) -> Vec<String> {
    value.as_array().unwrap().iter().map(|name| name.as_str().unwrap().to_owned()).collect()
}

fn apple(ids: &[String]) -> Result<String, WebError> {
    apple_app_site_association(&ids.iter().map(String::as_str).collect::<Vec<_>>())
}

/// So many fingerprints, of which each has its number in every byte.
fn fingerprints(number: u64) -> Vec<[u8; 32]> {
    (1..=number).map(|one| [u8::try_from(one).unwrap(); 32]).collect()
}

pub fn web(files: &mut Files) {
    for (file, ids) in [("one", &IDS[..1]), ("two", &IDS[..])] {
        let listed = ids.iter().map(|id| format!("\"{id}\"")).collect::<Vec<_>>().join(",");
        let text =
            format!(r#"{{"applinks":{{"details":[{{"appIDs":[{listed}],"components":[{{"/":"/P"}}]}}]}}}}"#);
        let value = json!({ "kind": "apple_file", "path": APPLE_PATH, "apps": ids, "text": text });
        valid(files, &format!("web-apple-{file}"), value);
    }
    for (file, package, number) in [("one", "com.example.app", 1), ("two", "com.example.app_1", 2)] {
        let digits = |byte: u8| vec![format!("{byte:02X}"); 32].join(":");
        let listed: Vec<String> =
            fingerprints(number).iter().map(|hash| format!("\"{}\"", digits(hash[0]))).collect();
        let text = format!(
            r#"[{{"relation":["delegate_permission/common.handle_all_urls"],"target":{{"namespace":"android_app","package_name":"{package}","sha256_cert_fingerprints":[{}]}}}}]"#,
            listed.join(",")
        );
        let value = json!({
            "kind": "android_file", "path": ASSET_LINKS_PATH, "package": package, "fingerprints": number, "text": text,
        });
        valid(files, &format!("web-android-{file}"), value);
    }
    for (file, scheme) in [("plain", None), ("scheme", Some("example-app"))] {
        let page = scheme.map_or_else(LandingPage::new, |scheme| LandingPage::with_scheme(scheme).unwrap());
        let headers: Vec<_> = LandingPage::HEADERS.iter().map(|(name, value)| json!([name, value])).collect();
        let value = json!({
            "kind": "landing_page", "path": LandingPage::PATH, "scheme": scheme, "sha256": hex(&page.sha256()),
            "headers": headers,
        });
        valid(files, &format!("web-page-{file}"), value);
    }
    for (file, id) in [
        ("nothing", ""),
        ("no-team", "com.example.app"),
        ("team-alone", "ABCDE12345"),
        ("empty-bundle", "ABCDE12345."),
        ("small-team", "abcde12345.app"),
        ("quote", "ABCDE12345.a\"b"),
        ("empty-word", "ABCDE12345.a..b"),
        ("not-ascii", "ABCDE12345.\u{e4}"),
        ("slash", "ABCDE12345.a/b"),
    ] {
        let value = json!({ "kind": "apple_file", "input": [id], "error": "app_id" });
        invalid(files, &format!("web-apple-{file}"), value);
    }
    for (file, ids) in [("none", vec![]), ("33", vec![IDS[0]; 33])] {
        let value = json!({ "kind": "apple_file", "input": ids, "error": "number" });
        invalid(files, &format!("web-apple-{file}"), value);
    }
    for (file, package, number, error) in [
        ("nothing", "", 1, "package"),
        ("one-word", "app", 1, "package"),
        ("empty-word", "com..app", 1, "package"),
        ("digit-first", "com.1app", 1, "package"),
        ("hyphen", "com.ex-ample.app", 1, "package"),
        ("quote", "com.example.app\"", 1, "package"),
        ("no-fingerprint", "com.example.app", 0, "number"),
        ("33-fingerprints", "com.example.app", 33, "number"),
    ] {
        let value =
            json!({ "kind": "android_file", "input": package, "fingerprints": number, "error": error });
        invalid(files, &format!("web-android-{file}"), value);
    }
    for (file, scheme) in [
        ("nothing", ""),
        ("https", "https"),
        ("script", "javascript"),
        ("data", "data"),
        ("capital", "Example"),
        ("quote", "a\""),
    ] {
        let value = json!({ "kind": "landing_page", "input": scheme, "error": "scheme" });
        invalid(files, &format!("web-page-{file}"), value);
    }
}

pub fn check_apple(fields: &mut Fields) {
    assert_eq!(fields.text("path"), APPLE_PATH);
    assert_eq!(apple(&names(&fields.take("apps"))).unwrap(), fields.text("text"));
}

pub fn check_android(fields: &mut Fields) {
    assert_eq!(fields.text("path"), ASSET_LINKS_PATH);
    let number = fields.take("fingerprints").as_u64().unwrap();
    assert_eq!(asset_links(&fields.text("package"), &fingerprints(number)).unwrap(), fields.text("text"));
}

pub fn check_page(fields: &mut Fields) {
    assert_eq!(fields.text("path"), LandingPage::PATH);
    let page = match fields.take("scheme") {
        Value::Null => LandingPage::new(),
        scheme => LandingPage::with_scheme(scheme.as_str().unwrap()).unwrap(),
    };
    assert_eq!(hex(&page.sha256()), fields.text("sha256"));
    let headers: Vec<_> = LandingPage::HEADERS.iter().map(|(name, value)| json!([name, value])).collect();
    assert_eq!(fields.take("headers"), json!(headers));
}

pub fn refusal(kind: &str, fields: &mut Fields) -> String {
    let refused = match kind {
        "apple_file" => apple(&names(&fields.take("input"))).map(drop),
        "android_file" => {
            let number = fields.take("fingerprints").as_u64().unwrap();
            asset_links(&fields.text("input"), &fingerprints(number)).map(drop)
        }
        _ => LandingPage::with_scheme(&fields.text("input")).map(drop),
    };
    refused.unwrap_err().code().to_owned()
}
