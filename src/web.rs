//! Files that the host of a link serves over HTTPS: the page behind the link, and the files by which a phone's system
//! gives links to an app (`docs/PROTOCOL.md` section 7.1). Text only: nothing here opens a connection.
//!
//! The page is for browsers: those of people without the app, of apps that show links in a browser of their own,
//! and of systems that ask first. Its bytes are constant, so that anybody can check what a host serves.

use core::fmt::Write as _;

use sha2::{Digest, Sha256};
use thiserror::Error;

use crate::limits::{MAX_APP_NAME_LEN, MAX_APPS};
use crate::protocol::link::check_custom_scheme;

const PAGE: &str = include_str!("web/landing.html");
/// Schemes that browsers open themselves: a link with one would run or show what its writer wants.
const OF_BROWSERS: [&str; 11] = [
    "about",
    "blob",
    "data",
    "file",
    "filesystem",
    "ftp",
    "javascript",
    "vbscript",
    "view-source",
    "ws",
    "wss",
];
const NO_SCHEME: &str = "<meta name=\"app-scheme\" content=\"\">";

/// The reason why an app's name cannot be written into a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum WebError {
    /// The id of an app of Apple's is not a team's ten capitals and digits, a dot, and the bundle's name.
    #[error("not an app id like `ABCDE12345.com.example.app`; use the team id and the bundle id")]
    AppId,
    /// The name of an Android package is not words of letters, digits and `_`, joined by dots.
    #[error("not a package like `com.example.app`; use the application id")]
    Package,
    /// There are none, or more than fit.
    #[error("give 1 to {max}")]
    Number {
        /// The most.
        max: usize,
    },
    /// The scheme cannot be an app's own.
    #[error("not a scheme of an app's own; use lower-case letters, digits, `+`, `-` and `.`, a letter first")]
    Scheme,
}

impl WebError {
    /// Returns a stable name for programs and logs.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::AppId => "app_id",
            Self::Package => "package",
            Self::Number { .. } => "number",
            Self::Scheme => "scheme",
        }
    }
}

/// The page at [`LandingPage::PATH`]. It says what the link is, offers it to copy, and opens an app by its own
/// scheme on a tap.
///
/// The link's secret is in the fragment, which browsers do not send. The page takes it out of the address bar, and
/// [`LandingPage::HEADERS`] keep the page from sending anything anywhere: serve it with all of them, and never
/// within another page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LandingPage(String);

impl LandingPage {
    /// The path of every link. Servers get nothing more of one.
    pub const PATH: &'static str = "/P";

    /// The headers to serve it with, `Content-Type` included. The policy allows the page's own script and style by
    /// their hashes and nothing else: no connection, form, frame, image or base address.
    pub const HEADERS: [(&'static str, &'static str); 8] = [
        ("Content-Type", "text/html; charset=utf-8"),
        (
            "Content-Security-Policy",
            "default-src 'none'; script-src 'sha256-hmgthTlTyS2qXTF20Hl3Gq1gSstPmPXVbffdEZMkj6g='; style-src 'sha256-yElsmWUFsuSSXDJmHyhZaU9rGIenh0i5OM4RixfcBAs='; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
        ),
        ("Cache-Control", "no-store"),
        ("Referrer-Policy", "no-referrer"),
        ("X-Content-Type-Options", "nosniff"),
        ("X-Frame-Options", "DENY"),
        ("Cross-Origin-Opener-Policy", "same-origin"),
        ("X-Robots-Tag", "noindex"),
    ];

    /// Makes the page of a host whose links open no app by an own scheme.
    #[must_use]
    pub fn new() -> Self {
        Self(PAGE.to_owned())
    }

    /// Makes the page of a host whose links also open in an app with this scheme of its own
    /// ([`Link::to_custom_scheme`](crate::Link::to_custom_scheme)), when the user taps.
    ///
    /// # Errors
    /// [`WebError::Scheme`] for a scheme that is none of an app's own, such as `https` or `javascript`.
    pub fn with_scheme(scheme: &str) -> Result<Self, WebError> {
        check_custom_scheme(scheme).map_err(|_| WebError::Scheme)?;
        if OF_BROWSERS.contains(&scheme) {
            return Err(WebError::Scheme);
        }
        let named = format!("<meta name=\"app-scheme\" content=\"{scheme}\">");
        Ok(Self(PAGE.replacen(NO_SCHEME, &named, 1)))
    }

    /// Returns the page, in UTF-8.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns the SHA-256 of the page, to compare with what a host serves. `docs/PROTOCOL.md` section 7.1 has that
    /// of [`LandingPage::new`].
    #[must_use]
    pub fn sha256(&self) -> [u8; 32] {
        Sha256::digest(self.0.as_bytes()).into()
    }
}

impl Default for LandingPage {
    fn default() -> Self {
        Self::new()
    }
}

/// The path of the file that [`apple_app_site_association`] writes.
pub const APPLE_PATH: &str = "/.well-known/apple-app-site-association";

/// The path of the file that [`asset_links`] writes.
pub const ASSET_LINKS_PATH: &str = "/.well-known/assetlinks.json";

/// Writes the file that gives links of this host to apps on Apple's systems, for [`APPLE_PATH`], as
/// `application/json`. Each id is the team's and the bundle's, 1 to 32 of them.
///
/// Apple's servers fetch it from the public internet, so it works for a public host only, and only for apps whose
/// entitlement names the host. Only the path `/P` is given to them.
///
/// # Errors
/// [`WebError::AppId`] or [`WebError::Number`].
pub fn apple_app_site_association(app_ids: &[&str]) -> Result<String, WebError> {
    check_number(app_ids.len())?;
    let mut ids = String::new();
    for id in app_ids {
        let (team, bundle) = id.split_once('.').ok_or(WebError::AppId)?;
        let is_team = team.len() == 10 && team.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit());
        let is_bundle = bundle.split('.').all(|word| {
            !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
        });
        if !is_team || !is_bundle || id.len() > MAX_APP_NAME_LEN {
            return Err(WebError::AppId);
        }
        let comma = if ids.is_empty() { "" } else { "," };
        // Writing to a text does not fail.
        let _ = write!(ids, "{comma}\"{id}\"");
    }
    Ok(format!(r#"{{"applinks":{{"details":[{{"appIDs":[{ids}],"components":[{{"/":"/P"}}]}}]}}}}"#))
}

/// Writes the file that gives links of this host to an app on Android, for [`ASSET_LINKS_PATH`], as
/// `application/json`. Each fingerprint is the SHA-256 of a certificate that signs the app, 1 to 32 of them.
///
/// # Errors
/// [`WebError::Package`] or [`WebError::Number`].
pub fn asset_links(package: &str, fingerprints: &[[u8; 32]]) -> Result<String, WebError> {
    check_number(fingerprints.len())?;
    let is_word = |word: &str| {
        word.starts_with(|first: char| first.is_ascii_alphabetic())
            && word.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
    };
    if package.len() > MAX_APP_NAME_LEN || !package.contains('.') || !package.split('.').all(is_word) {
        return Err(WebError::Package);
    }
    let text = |fingerprint: &[u8; 32]| {
        let bytes: Vec<String> = fingerprint.iter().map(|byte| format!("{byte:02X}")).collect();
        format!("\"{}\"", bytes.join(":"))
    };
    let fingerprints: Vec<String> = fingerprints.iter().map(text).collect();
    Ok(format!(
        r#"[{{"relation":["delegate_permission/common.handle_all_urls"],"target":{{"namespace":"android_app","package_name":"{package}","sha256_cert_fingerprints":[{}]}}}}]"#,
        fingerprints.join(",")
    ))
}

fn check_number(number: usize) -> Result<(), WebError> {
    if (1..=MAX_APPS).contains(&number) { Ok(()) } else { Err(WebError::Number { max: MAX_APPS }) }
}
