//! What a link host serves: the page's headers and hashes, and the files that give links to apps.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use proptest::prelude::*;
use serde_json::{Value, json};
use sessioncap::web::*;
use sha2::{Digest, Sha256};

fn header(name: &str) -> &'static str {
    let mut found = LandingPage::HEADERS.iter().filter(|(named, _)| *named == name).map(|(_, value)| *value);
    found.next().unwrap_or_else(|| panic!("{name}"))
}

/// What is between a tag and its end. The page has it once.
fn inline(page: &str, tag: &str) -> String {
    assert_eq!(page.matches(&format!("<{tag}")).count(), 1, "{tag}");
    let (_, rest) = page.split_once(&format!("<{tag}>")).unwrap();
    rest.split_once(&format!("</{tag}>")).unwrap().0.to_owned()
}

fn hash(text: &str) -> String {
    format!("'sha256-{}'", STANDARD.encode(Sha256::digest(text.as_bytes())))
}

#[test]
fn the_policy_allows_the_pages_own_script_and_style_and_nothing_else() {
    for page in [LandingPage::new(), LandingPage::with_scheme("example-app").unwrap()] {
        let script = hash(&inline(page.as_str(), "script"));
        let style = hash(&inline(page.as_str(), "style"));
        let expected = format!(
            "default-src 'none'; script-src {script}; style-src {style}; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
        );
        assert_eq!(header("Content-Security-Policy"), expected);
    }
}

#[test]
fn the_page_is_stored_nowhere_and_names_no_referrer() {
    assert_eq!(header("Cache-Control"), "no-store");
    assert_eq!(header("Referrer-Policy"), "no-referrer");
    assert_eq!(header("X-Content-Type-Options"), "nosniff");
    assert_eq!(header("X-Frame-Options"), "DENY");
    let lines = LandingPage::HEADERS.iter().flat_map(|(name, value)| [*name, *value]);
    assert!(lines.into_iter().all(|text| !text.contains(['\r', '\n'])));
}

#[test]
fn the_page_loads_nothing_and_names_no_other_place() {
    let page = LandingPage::new();
    for word in [
        "src=",
        "href=\"",
        "http:",
        "https:",
        "url(",
        "@import",
        "fetch(",
        "XMLHttp",
        "sendBeacon",
        "WebSocket",
    ] {
        assert!(!page.as_str().contains(word), "{word}");
    }
    // Neither an attribute nor an element that runs or loads something.
    for word in
        [" onclick", " onload", " style=\"", "<img", "<iframe", "<form", "<base", "<link", "http-equiv"]
    {
        assert!(!page.as_str().contains(word), "{word}");
    }
}

#[test]
fn the_script_takes_the_fragment_away_and_goes_nowhere_by_itself() {
    let page = LandingPage::new();
    let script = inline(page.as_str(), "script");
    // At once after it was read, and before anything is shown.
    let read = "link = location.href;\n    history.replaceState(null, '', location.pathname);\n";
    assert_eq!(script.matches(read).count(), 1);
    assert_eq!(script.matches("location.href").count(), 1);
    // The tap on a link is the only way out.
    for word in
        ["location =", "location.assign", "location.replace", ".click()", "open(", "submit", "setTimeout"]
    {
        assert!(!script.contains(word), "{word}");
    }
    // What is in a link is shown as text.
    for word in ["innerHTML", "outerHTML", "insertAdjacent", "document.write", "eval(", "Function("] {
        assert!(!script.contains(word), "{word}");
    }
}

#[test]
fn the_published_hash_is_that_of_the_page() {
    let page = LandingPage::new();
    let hash: String = page.sha256().iter().map(|byte| format!("{byte:02x}")).collect();
    let document = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/PROTOCOL.md")).unwrap();
    assert!(document.contains(&format!("The SHA-256 of the page without a scheme is `{hash}`")), "{hash}");
}

#[test]
fn a_page_with_a_scheme_differs_in_that_alone() {
    let page = LandingPage::with_scheme("example-app").unwrap();
    let named = "<meta name=\"app-scheme\" content=\"example-app\">";
    assert_eq!(page.as_str().matches(named).count(), 1);
    let without = page.as_str().replace(named, "<meta name=\"app-scheme\" content=\"\">");
    assert_eq!(without, LandingPage::new().as_str());
    for scheme in
        ["", "https", "javascript", "javascript:", "view-source", "\"><script>", "Example", "1app", "a b"]
    {
        assert_eq!(LandingPage::with_scheme(scheme), Err(WebError::Scheme), "{scheme}");
    }
}

#[test]
fn apples_file_gives_the_links_path_to_the_apps() {
    let ids = ["ABCDE12345.com.example.app", "0123456789.org.example.other-app"];
    let written: Value = serde_json::from_str(&apple_app_site_association(&ids).unwrap()).unwrap();
    let expected = json!({ "applinks": { "details": [{ "appIDs": ids, "components": [{ "/": "/P" }] }] } });
    assert_eq!(written, expected);
    for id in [
        "",
        "com.example.app",
        "ABCDE12345",
        "ABCDE12345.",
        "abcde12345.app",
        "ABCDE12345.a\"b",
        "ABCDE12345.a..b",
    ] {
        assert_eq!(apple_app_site_association(&[id]), Err(WebError::AppId), "{id}");
    }
    assert_eq!(apple_app_site_association(&[]), Err(WebError::Number { max: 32 }));
    assert_eq!(apple_app_site_association(&[ids[0]; 33]), Err(WebError::Number { max: 32 }));
}

#[test]
fn androids_file_gives_links_to_the_package_with_its_certificates() {
    let written = asset_links("com.example.app_1", &[[0xab; 32], [1; 32]]).unwrap();
    let written: Value = serde_json::from_str(&written).unwrap();
    let fingerprint = |byte: &str| vec![byte; 32].join(":");
    let target = json!({
        "namespace": "android_app",
        "package_name": "com.example.app_1",
        "sha256_cert_fingerprints": [fingerprint("AB"), fingerprint("01")],
    });
    assert_eq!(
        written,
        json!([{ "relation": ["delegate_permission/common.handle_all_urls"], "target": target }])
    );
    for package in ["", "app", "com..app", ".com.app", "com.1app", "com.example.app\"", "com.ex-ample.app"] {
        assert_eq!(asset_links(package, &[[1; 32]]), Err(WebError::Package), "{package}");
    }
    assert_eq!(asset_links("com.example.app", &[]), Err(WebError::Number { max: 32 }));
}

proptest! {
    /// Whatever the names are, a file is refused or is JSON with exactly these names.
    #[test]
    fn a_name_is_refused_or_stands_in_the_file_as_it_is(
        id in "([A-Z0-9]{9,11}[.])?[-A-Za-z0-9._\"\\\\{}\u{e4}\n]{0,20}", package in "[A-Za-z0-9._\"\\\\,-]{0,20}"
    ) {
        if let Ok(file) = apple_app_site_association(&[&id]) {
            let read: Value = serde_json::from_str(&file).unwrap();
            prop_assert_eq!(&read["applinks"]["details"][0]["appIDs"], &json!([id]));
        }
        if let Ok(file) = asset_links(&package, &[[7; 32]]) {
            let read: Value = serde_json::from_str(&file).unwrap();
            prop_assert_eq!(&read[0]["target"]["package_name"], &json!(package));
        }
    }
}
