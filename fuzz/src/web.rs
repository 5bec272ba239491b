//! The page and the files of a link host, for any names.

use sessioncap::web::*;

/// A byte for what is made, and the names in the rest: 0 Apple's file, an id on each line; 1 Android's, after the number of
/// its fingerprints; 2 the page with a scheme.
pub fn web(data: &[u8]) {
    let Some((what, rest)) = data.split_first() else { return };
    match what % 3 {
        0 => {
            let Ok(text) = core::str::from_utf8(rest) else { return };
            apple(&text.split('\n').collect::<Vec<_>>());
        }
        1 => {
            let Some((number, rest)) = rest.split_first() else { return };
            let Ok(package) = core::str::from_utf8(rest) else { return };
            android(package, *number);
        }
        _ => {
            let Ok(scheme) = core::str::from_utf8(rest) else { return };
            page(scheme);
        }
    }
}

fn is_in(text: &str, allowed: &str) -> bool {
    text.chars().all(|character| character.is_ascii_alphanumeric() || allowed.contains(character))
}

/// A file says exactly the names, and gives nothing but the links' path.
fn apple(ids: &[&str]) {
    match apple_app_site_association(ids) {
        Ok(file) => {
            assert!(ids.len() <= 32 && ids.iter().all(|id| is_in(id, ".-")));
            let read: serde_json::Value = serde_json::from_str(&file).unwrap();
            let expected = serde_json::json!({
                "applinks": { "details": [{ "appIDs": ids, "components": [{ "/": LandingPage::PATH }] }] }
            });
            assert_eq!(read, expected);
            assert!(ids.iter().all(|id| id.as_bytes()[10] == b'.'), "a team has ten characters");
        }
        Err(error) => assert_eq!(matches!(error, WebError::Number { .. }), ids.len() > 32, "{error}"),
    }
}

fn android(package: &str, number: u8) {
    let prints: Vec<[u8; 32]> = (0..number).map(|one| [one; 32]).collect();
    match asset_links(package, &prints) {
        Ok(file) => {
            assert!((1..=32).contains(&number) && is_in(package, "._") && package.contains('.'));
            let read: serde_json::Value = serde_json::from_str(&file).unwrap();
            let target = &read[0]["target"];
            assert_eq!((read.as_array().unwrap().len(), &target["package_name"]), (1, &package.into()));
            let listed = target["sha256_cert_fingerprints"].as_array().unwrap();
            assert_eq!(listed.len(), prints.len());
            for (print, text) in prints.iter().zip(listed) {
                assert_eq!(text, &vec![format!("{:02X}", print[0]); 32].join(":"));
            }
        }
        Err(error) => {
            assert_eq!(matches!(error, WebError::Number { .. }), !(1..=32).contains(&number), "{error}");
        }
    }
}

/// A page is the constant one with the scheme in its one place.
fn page(scheme: &str) {
    match LandingPage::with_scheme(scheme) {
        Ok(page) => {
            assert!(is_in(scheme, "+-.") && !scheme.is_empty());
            assert!(!["javascript", "data", "http", "https", "file"].contains(&scheme));
            let named = format!("<meta name=\"app-scheme\" content=\"{scheme}\">");
            let (before, after) = page.as_str().split_once(&named).unwrap();
            let plain = [before, "<meta name=\"app-scheme\" content=\"\">", after].concat();
            assert_eq!(plain, LandingPage::new().as_str());
        }
        Err(error) => assert_eq!(error, WebError::Scheme),
    }
}
