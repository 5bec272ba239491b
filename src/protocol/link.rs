//! The pairing link, as text and as the content of a QR code (`docs/PROTOCOL.md` section 7).
//!
//! ```text
//! https://AGENT[:PORT]/P#DIGITS                    the agent's own origin carries the link
//! https://LINKHOST/P#DIGITS/AGENT[:PORT]           a fixed link host carries it
//! SCHEME://p#DIGITS/AGENT[:PORT]                   for an app without a claimed domain
//! ```
//!
//! The secret follows `#`, so that browsers do not send it to a server. The digits are the payload in
//! decimal, 17 digits for each 7 bytes: a QR code packs digits almost as densely as raw bytes, and any
//! transport preserves them. A link has one canonical text. The reader ignores only the case of scheme and
//! host, because people and phones change it. It parses the agent's address with [`AgentUrl`], writes
//! the link again and requires the same text.

mod pasted;

use core::fmt;
use std::net::Ipv6Addr;

use sha2::{Digest, Sha256};
use thiserror::Error;
use zeroize::Zeroizing;

use crate::agent_url::{AgentUrl, DEFAULT_PATH, Host, Scheme};
use crate::key::AgentPublicKey;
use crate::limits::{MAX_HOST_LEN, MAX_LINK_LEN};
use crate::protocol::ticket::{TicketSecret, first_bytes};

pub use pasted::Trimmed;

const VERSION: u8 = 1;
const CHECKSUM_LABEL: &[u8] = b"sessioncap/1 link\0";
/// The path of an https link.
const PATH: &str = "/P";
/// The text before `#` in an app's own scheme.
const PLACE: &str = "p";

/// The bits of the first payload byte: the version is in the high half, these flags in the low half.
mod flag {
    pub(super) const WS: u8 = 1;
    pub(super) const PATH: u8 = 2;
    pub(super) const PORT: u8 = 4;
    pub(super) const IPV6: u8 = 8;
    pub(super) const ALL: u8 = 15;
}

/// The reason why a pairing link could not be read or written.
///
/// Texts are lower case and contain no secret. Later versions may add variants.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum LinkError {
    /// A character of the link was changed, lost or added, or the link is not canonical.
    #[error("the link is damaged; scan or copy it again")]
    Damaged,
    /// The text is not a pairing link.
    #[error("the text is not a pairing link")]
    Foreign,
    /// The link host is not an ASCII host name.
    #[error("a link host is an ascii name without a port, not an ip address")]
    Host,
    /// The scheme cannot be an app's own.
    #[error(
        "an app's scheme is lower-case letters, digits, `+`, `-` and `.`, begins with a letter, and is not `http` or `https`"
    )]
    Scheme,
    /// The link does not fit a QR code.
    #[error("the link is too long for a qr code")]
    TooLong,
    /// This build does not know the link's version.
    #[error("the link is of version {version}; update this app")]
    UnknownVersion {
        /// The version that the link names.
        version: u8,
    },
}

impl LinkError {
    /// Returns a stable name, for logs and for matching in other languages.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Damaged => "link_damaged",
            Self::Foreign => "link_foreign",
            Self::Host => "link_host",
            Self::Scheme => "link_scheme",
            Self::TooLong => "link_too_long",
            Self::UnknownVersion { .. } => "link_unknown_version",
        }
    }
}

/// The data that a phone needs to redeem a ticket: the agent's address, its key, and the ticket's secret.
///
/// `Debug` shows the address but no secret. Show [`Link::to_https`] to its owner only: anyone who has it
/// within the ticket's lifetime can redeem the ticket.
#[derive(Clone, PartialEq, Eq)]
pub struct Link {
    url: AgentUrl,
    agent: AgentPublicKey,
    ticket: TicketSecret,
}

/// The host of an https link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LinkHost {
    /// The agent's own host.
    Agent,
    /// A fixed host, for example one whose links the app has claimed. ASCII, without a port.
    Fixed(String),
}

impl Link {
    /// Longest link, characters.
    pub const MAX_LEN: usize = MAX_LINK_LEN;

    /// Makes a link to an agent for one ticket.
    #[must_use]
    pub fn new(url: AgentUrl, agent: AgentPublicKey, ticket: TicketSecret) -> Self {
        Self { url, agent, ticket }
    }

    /// Returns the agent's address.
    #[must_use]
    pub fn url(&self) -> &AgentUrl {
        &self.url
    }

    /// Returns the agent's Noise key, which the phone must require.
    #[must_use]
    pub fn agent(&self) -> &AgentPublicKey {
        &self.agent
    }

    /// Returns the ticket's secret.
    #[must_use]
    pub fn ticket(&self) -> &TicketSecret {
        &self.ticket
    }

    /// Returns the link as text, to be copied or shown as a QR code.
    ///
    /// # Errors
    /// [`LinkError::Host`] if the fixed host is not an ASCII host name.
    pub fn to_https(&self, host: &LinkHost) -> Result<String, LinkError> {
        let parts = self.parts(host)?;
        Ok(format!("https://{}{PATH}#{}{}", parts.authority, parts.digits.as_str(), parts.tail))
    }

    /// Returns the link in an app's own scheme, for example `example://p#…`. Such schemes are not unique on a
    /// phone: another app can claim the same one. Prefer [`Link::to_https`].
    ///
    /// # Errors
    /// [`LinkError::Scheme`] if `scheme` is not lower-case letters, digits, `+`, `-`, `.`, beginning
    /// with a letter, or is `http` or `https`.
    pub fn to_custom_scheme(&self, scheme: &str) -> Result<String, LinkError> {
        check_custom_scheme(scheme)?;
        let parts = self.parts(&place())?;
        Ok(format!("{scheme}://p#{}{}", parts.digits.as_str(), parts.tail))
    }

    /// Reads an https link.
    ///
    /// # Errors
    /// Checked in this order: [`LinkError::Foreign`] if the text is not a pairing link,
    /// [`LinkError::Damaged`] if its digits cannot be decoded, [`LinkError::UnknownVersion`] if it has
    /// another version, and [`LinkError::Damaged`] if [`Link::to_https`] would not have written it.
    pub fn parse(text: &str) -> Result<Self, LinkError> {
        let rest = after_scheme(text, "https")?;
        let (origin, fragment) = rest.split_once('#').ok_or(LinkError::Foreign)?;
        let origin = origin.strip_suffix(PATH).ok_or(LinkError::Foreign)?.to_ascii_lowercase();
        if fragment.contains('/') {
            // An agent follows the digits, so this origin is a link host.
            link_host(&origin).map_err(|_| LinkError::Foreign)?;
        }
        Self::read(Carrier::Origin(origin), fragment)
    }

    /// Reads a link in an app's own scheme.
    ///
    /// # Errors
    /// As [`Link::parse`], and [`LinkError::Scheme`] if `scheme` cannot be an app's own.
    pub fn parse_custom_scheme(text: &str, scheme: &str) -> Result<Self, LinkError> {
        check_custom_scheme(scheme)?;
        let rest = after_scheme(text, scheme)?;
        let (place, fragment) = rest.split_once('#').ok_or(LinkError::Foreign)?;
        if !place.eq_ignore_ascii_case(PLACE) {
            return Err(LinkError::Foreign);
        }
        Self::read(Carrier::CustomScheme, fragment)
    }

    /// Splits the link into the segments of a QR code, each in its most compact mode.
    ///
    /// # Errors
    /// As [`Link::to_https`].
    #[doc(hidden)]
    pub fn to_qr_segments(&self, host: &LinkHost) -> Result<Vec<QrSegment>, LinkError> {
        let parts = self.parts(host)?;
        // Not in the denser capitals: phones compare the scheme, and the hosts that an app has claimed, by case.
        let head = format!("https://{}{PATH}#", parts.authority);
        let mut segments = vec![
            QrSegment::new(QrMode::Bytes, head),
            QrSegment { mode: QrMode::Numeric, text: parts.digits },
        ];
        if !parts.tail.is_empty() {
            segments.push(QrSegment::new(QrMode::Alphanumeric, parts.tail.to_ascii_uppercase()));
        }
        Ok(segments)
    }

    fn parts(&self, host: &LinkHost) -> Result<Parts, LinkError> {
        let (authority, tail, payload) = match host {
            LinkHost::Agent => {
                let port = (!self.port_needs_payload()).then_some(self.url.port());
                let authority = spell_authority(self.url.host_ref(), self.url.scheme(), port);
                (authority.clone(), String::new(), self.payload(&authority, self.port_needs_payload(), false))
            }
            LinkHost::Fixed(name) => {
                let link_host = link_host(name)?;
                match self.url.host_ref() {
                    // brackets have no place in a fragment, so an IPv6 address goes into the payload
                    Host::V6(_) => (link_host, String::new(), self.payload("", true, true)),
                    host => {
                        let port = (!self.port_needs_payload()).then_some(self.url.port());
                        let agent = spell_authority(host, self.url.scheme(), port);
                        let payload = self.payload(&agent, self.port_needs_payload(), false);
                        (link_host, format!("/{agent}"), payload)
                    }
                }
            }
        };
        Ok(Parts { authority, digits: Zeroizing::new(to_digits(&payload)), tail })
    }

    /// Whether the payload must contain the port. Browsers treat `https://host:443` and `https://host` as
    /// equal, so an origin cannot express port 443 of a `ws` agent.
    fn port_needs_payload(&self) -> bool {
        self.url.scheme() == Scheme::Ws && self.url.port() == 443
    }

    fn payload(&self, agent_authority: &str, with_port: bool, with_ipv6: bool) -> Zeroizing<Vec<u8>> {
        let mut flags = VERSION << 4;
        let mut body = Zeroizing::new(Vec::with_capacity(64 + self.url.path().len()));
        body.push(0);
        body.extend_from_slice(self.ticket.expose_bytes());
        body.extend_from_slice(self.agent.as_bytes());
        if self.url.scheme() == Scheme::Ws {
            flags |= flag::WS;
        }
        if let (true, Host::V6(address)) = (with_ipv6, self.url.host_ref()) {
            flags |= flag::IPV6;
            body.extend_from_slice(&address.octets());
        }
        if with_port {
            flags |= flag::PORT;
            body.extend_from_slice(&self.url.port().to_be_bytes());
        }
        if self.url.path() != DEFAULT_PATH {
            flags |= flag::PATH;
            // a path is at most 128 characters
            body.push(u8::try_from(self.url.path().len()).unwrap_or(u8::MAX));
            body.extend_from_slice(self.url.path().as_bytes());
        }
        if let Some(first) = body.first_mut() {
            *first = flags;
        }
        let checksum = checksum(&body, agent_authority);
        body.extend_from_slice(&checksum);
        body
    }

    /// Reads the fragment, the text after `#`.
    fn read(carrier: Carrier, fragment: &str) -> Result<Self, LinkError> {
        let (digits, tail) = match fragment.split_once('/') {
            Some((digits, tail)) => (digits, Some(tail.to_ascii_lowercase())),
            None => (fragment, None),
        };
        let payload = from_digits(digits).ok_or(LinkError::Damaged)?;
        let version = payload.first().copied().ok_or(LinkError::Damaged)? >> 4;
        if version != VERSION {
            return Err(LinkError::UnknownVersion { version });
        }
        let fields = Fields::read(&payload).ok_or(LinkError::Damaged)?;
        // Determine the link's host and the agent's authority.
        let (host, authority) = match (carrier, &tail, fields.ipv6) {
            (Carrier::CustomScheme, _, Some(address)) => (place(), bracketed(address)),
            (Carrier::Origin(name), _, Some(address)) => (LinkHost::Fixed(name), bracketed(address)),
            (Carrier::CustomScheme, Some(tail), None) => (place(), tail.clone()),
            (Carrier::Origin(name), Some(tail), None) => (LinkHost::Fixed(name), tail.clone()),
            (Carrier::Origin(name), None, None) => (LinkHost::Agent, name),
            (Carrier::CustomScheme, None, None) => return Err(LinkError::Damaged),
        };
        let link = fields.link(&authority).ok_or(LinkError::Damaged)?;
        // A link has one canonical text. Comparing it also checks the checksum, the form of the digits and
        // needless ports.
        let spelled = link.parts(&host).map_err(|_| LinkError::Damaged)?;
        let spelled_tail = spelled.tail.strip_prefix('/');
        let own_authority = host != LinkHost::Agent || spelled.authority == authority;
        match *spelled.digits == digits && spelled_tail == tail.as_deref() && own_authority {
            true => Ok(link),
            false => Err(LinkError::Damaged),
        }
    }
}

/// The part of a link before the fragment.
enum Carrier {
    /// The origin of an https link, in lower case: the agent's own or a link host.
    Origin(String),
    CustomScheme,
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Link").field("url", &self.url).field("agent", &self.agent).finish_non_exhaustive()
    }
}

/// One segment of a QR code (ISO/IEC 18004 section 7.4), in order. Wiped when dropped.
#[derive(Clone, PartialEq, Eq)]
pub struct QrSegment {
    mode: QrMode,
    text: Zeroizing<String>,
}

/// The encoding mode of a QR code segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum QrMode {
    /// Capital letters, digits and ` $%*+-./:`, 5.5 bits each.
    Alphanumeric,
    /// Any bytes, 8 bits each.
    Bytes,
    /// Digits, 3.3 bits each. In a link they contain the secret.
    Numeric,
}

impl QrSegment {
    fn new(mode: QrMode, text: String) -> Self {
        Self { mode, text: Zeroizing::new(text) }
    }

    /// Returns the mode.
    #[must_use]
    pub fn mode(&self) -> QrMode {
        self.mode
    }

    /// Returns the characters.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

impl fmt::Debug for QrSegment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.mode {
            QrMode::Numeric => write!(f, "Numeric({} digits, redacted)", self.text.len()),
            mode => write!(f, "{mode:?}({})", self.as_str()),
        }
    }
}

struct Parts {
    authority: String,
    digits: Zeroizing<String>,
    tail: String,
}

/// The fields of the payload, with only their lengths checked.
struct Fields<'a> {
    ws: bool,
    ticket: [u8; 16],
    agent: [u8; 32],
    ipv6: Option<[u8; 16]>,
    port: Option<u16>,
    path: Option<&'a str>,
}

impl<'a> Fields<'a> {
    fn read(payload: &'a [u8]) -> Option<Self> {
        // The whole link, including the checksum, is compared after it is written again.
        let (body, _checksum) = payload.split_last_chunk::<2>()?;
        let (flags, rest) = body.split_first()?;
        let has = |flag: u8| flags & flag::ALL & flag != 0;
        let (ticket, rest) = rest.split_first_chunk::<16>()?;
        let (agent, rest) = rest.split_first_chunk::<32>()?;
        let (ipv6, rest) = match has(flag::IPV6) {
            true => rest.split_first_chunk::<16>().map(|(address, rest)| (Some(*address), rest))?,
            false => (None, rest),
        };
        let (port, rest) = match has(flag::PORT) {
            true => rest.split_first_chunk().map(|(port, rest)| (Some(u16::from_be_bytes(*port)), rest))?,
            false => (None, rest),
        };
        let (path, rest) = match has(flag::PATH) {
            true => {
                let (len, rest) = rest.split_first()?;
                let (path, rest) = rest.split_at_checked(usize::from(*len))?;
                (Some(core::str::from_utf8(path).ok()?), rest)
            }
            false => (None, rest),
        };
        rest.is_empty().then_some(Self {
            ws: has(flag::WS),
            ticket: *ticket,
            agent: *agent,
            ipv6,
            port,
            path,
        })
    }

    /// Returns the link to the agent at `authority`, which is parsed as in any agent address.
    fn link(&self, authority: &str) -> Option<Link> {
        let scheme = if self.ws { Scheme::Ws } else { Scheme::Wss };
        let authority = match self.port {
            Some(port) => format!("{authority}:{port}"),
            None => authority.to_owned(),
        };
        let url = AgentUrl::from_authority(scheme, &authority, self.path.unwrap_or(DEFAULT_PATH)).ok()?;
        let agent = AgentPublicKey::from_bytes(self.agent).ok()?;
        Some(Link { url, agent, ticket: TicketSecret::from_bytes(self.ticket) })
    }
}

fn bracketed(address: [u8; 16]) -> String {
    format!("[{}]", Ipv6Addr::from(address))
}

fn checksum(body: &[u8], agent_authority: &str) -> [u8; 2] {
    first_bytes(
        Sha256::new()
            .chain_update(CHECKSUM_LABEL)
            .chain_update(body)
            .chain_update(agent_authority.as_bytes()),
    )
}

/// Writes `host` or `host:port`, with the port only if it is neither the scheme's default nor 443.
fn spell_authority(host: &Host, scheme: Scheme, port: Option<u16>) -> String {
    match port {
        Some(port) if port != scheme.default_port() => format!("{host}:{port}"),
        _ => host.to_string(),
    }
}

/// Returns the name of a fixed link host in lower case.
fn link_host(name: &str) -> Result<String, LinkError> {
    match Host::parse(name) {
        Some(Host::Name(name)) => Ok(name),
        _ => Err(LinkError::Host),
    }
}

/// Returns the text that replaces a link host in an app's own scheme.
fn place() -> LinkHost {
    LinkHost::Fixed(String::from(PLACE))
}

/// Returns the text after `scheme://`, in any case.
fn after_scheme<'a>(text: &'a str, scheme: &str) -> Result<&'a str, LinkError> {
    if text.len() > MAX_LINK_LEN {
        return Err(LinkError::Foreign);
    }
    let (found, rest) = text.split_once("://").ok_or(LinkError::Foreign)?;
    if found.eq_ignore_ascii_case(scheme) { Ok(rest) } else { Err(LinkError::Foreign) }
}

pub(crate) fn check_custom_scheme(scheme: &str) -> Result<(), LinkError> {
    let well_formed = scheme.len() <= MAX_HOST_LEN
        && scheme.starts_with(|first: char| first.is_ascii_lowercase())
        && scheme
            .bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"+-.".contains(&byte))
        && !matches!(scheme, "http" | "https");
    if well_formed { Ok(()) } else { Err(LinkError::Scheme) }
}

/// The least number of decimal digits that holds a group of n bytes.
const DIGITS_OF: [usize; 8] = [0, 3, 5, 8, 10, 13, 15, 17];

/// Encodes groups of 7 bytes, big-endian, as 17 digits each; the last group can be shorter.
fn to_digits(bytes: &[u8]) -> String {
    let mut digits = String::with_capacity(bytes.len().div_ceil(7) * 17);
    for group in bytes.chunks(7) {
        let number = group.iter().fold(0_u64, |number, byte| (number << 8) | u64::from(*byte));
        let width = DIGITS_OF.get(group.len()).copied().unwrap_or_default();
        digits.push_str(&format!("{number:0width$}"));
    }
    digits
}

fn from_digits(digits: &str) -> Option<Zeroizing<Vec<u8>>> {
    if !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let mut bytes = Zeroizing::new(Vec::with_capacity(digits.len() / 2));
    for group in digits.as_bytes().chunks(17) {
        let len = DIGITS_OF.iter().position(|width| *width == group.len())?;
        let number: u64 = core::str::from_utf8(group).ok()?.parse().ok()?;
        let octets = number.to_be_bytes();
        let (unused, used) = octets.split_at_checked(8_usize.checked_sub(len)?)?;
        if unused.iter().any(|octet| *octet != 0) {
            return None;
        }
        bytes.extend_from_slice(used);
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::key::AgentSecretKey;

    fn link(url: &str) -> Link {
        Link::new(
            AgentUrl::parse(url).unwrap(),
            AgentSecretKey::from_bytes([7; 32]).public(),
            TicketSecret::from_bytes([9; 16]),
        )
    }

    fn hosts() -> [LinkHost; 2] {
        [LinkHost::Agent, LinkHost::Fixed(String::from("link.example"))]
    }

    const URLS: [&str; 9] = [
        "wss://agent.example",
        "wss://agent.example:8443/other/path",
        "ws://127.0.0.1:9099",
        "ws://127.0.0.1",
        "ws://agent.example:443",
        "wss://agent.example:80",
        "ws://[::1]:9099",
        "wss://[2001:db8::7]",
        "ws://[2001:db8::7]:443/x",
    ];

    #[test]
    fn every_form_reads_back() {
        for url in URLS {
            let link = link(url);
            for host in hosts() {
                let text = link.to_https(&host).unwrap();
                assert_eq!(Link::parse(&text), Ok(link.clone()), "{text}");
                let qr: String = link.to_qr_segments(&host).unwrap().iter().map(QrSegment::as_str).collect();
                assert_eq!(Link::parse(&qr), Ok(link.clone()), "{qr}");
            }
            let custom = link.to_custom_scheme("example-app").unwrap();
            if !url.contains('[') {
                assert_eq!(Link::parse_custom_scheme(&custom, "example-app"), Ok(link.clone()), "{custom}");
            }
            assert_eq!(Link::parse(&custom), Err(LinkError::Foreign));
        }
    }

    #[test]
    fn an_ipv6_agent_fits_the_custom_scheme() {
        for url in ["ws://[::1]:9099", "wss://[2001:db8::7]"] {
            let link = link(url);
            let custom = link.to_custom_scheme("example-app").unwrap();
            assert_eq!(Link::parse_custom_scheme(&custom, "example-app"), Ok(link), "{custom}");
        }
    }

    #[test]
    fn the_server_that_carries_the_link_sees_no_secret() {
        for host in hosts() {
            let text = link(URLS[0]).to_https(&host).unwrap();
            let (sent, _) = text.split_once('#').unwrap();
            assert!(sent == "https://agent.example/P" || sent == "https://link.example/P");
        }
    }

    #[test]
    fn foreign_damaged_and_newer_are_three_errors() {
        let good = link(URLS[0]).to_https(&LinkHost::Agent).unwrap();
        for text in [
            "",
            "hello",
            "https://agent.example/",
            "http://agent.example/P#1",
            "https://agent.example/p#123",
            "https://x/P",
        ] {
            assert_eq!(Link::parse(text), Err(LinkError::Foreign), "{text}");
        }
        assert_eq!(Link::parse(&good[..good.len() - 1]), Err(LinkError::Damaged));
        assert_eq!(Link::parse(&format!("{good}0")), Err(LinkError::Damaged));
        assert_eq!(Link::parse(&good.replace("agent", "agemt")), Err(LinkError::Damaged), "another host");
        let newer = to_digits(&[0x2f; 51]);
        assert_eq!(
            Link::parse(&format!("https://agent.example/P#{newer}")),
            Err(LinkError::UnknownVersion { version: 2 })
        );
    }

    #[test]
    fn each_error_has_a_name_of_its_own() {
        let all = [
            LinkError::Damaged,
            LinkError::Foreign,
            LinkError::Host,
            LinkError::Scheme,
            LinkError::TooLong,
            LinkError::UnknownVersion { version: 2 },
        ];
        let names: std::collections::BTreeSet<_> = all.iter().map(LinkError::code).collect();
        assert_eq!(names.len(), all.len());
        assert!(names.iter().all(|name| name.starts_with("link_")));
    }

    #[test]
    fn every_single_changed_digit_is_noticed() {
        let good = link(URLS[0]).to_https(&LinkHost::Agent).unwrap();
        let start = good.find('#').unwrap() + 1;
        for place in start..good.len() {
            for digit in '0'..='9' {
                let mut changed = good.clone();
                changed.replace_range(place..=place, &digit.to_string());
                if changed != good {
                    assert!(matches!(
                        Link::parse(&changed),
                        Err(LinkError::Damaged | LinkError::UnknownVersion { .. })
                    ));
                }
            }
        }
    }

    #[test]
    fn a_moved_default_port_is_not_a_second_spelling() {
        let good = link(URLS[0]).to_https(&LinkHost::Agent).unwrap();
        assert_eq!(Link::parse(&good.replace("agent.example", "agent.example:443")), Err(LinkError::Damaged));
        assert_eq!(Link::parse(&good.replace("agent.example", "agent.example:")), Err(LinkError::Damaged));
        assert_eq!(Link::parse(&format!("{good}/agent.example")), Ok(link(URLS[0])), "the link host form");
        assert_eq!(Link::parse(&format!("{good}/agent.example:443")), Err(LinkError::Damaged));
        let other_host = link(URLS[0]).to_https(&hosts()[1]).unwrap();
        for host in ["link.example:8443", "127.0.0.1", "[::1]", "a b", "user@link.example"] {
            assert_eq!(
                Link::parse(&other_host.replace("link.example", host)),
                Err(LinkError::Foreign),
                "{host}"
            );
        }
    }

    #[test]
    fn hosts_that_are_not_names_cannot_carry_a_link() {
        for host in ["", "a b", "127.0.0.1", "[::1]", "link.example:8080", "link.example/x"] {
            assert!(link(URLS[0]).to_https(&LinkHost::Fixed(host.to_owned())).is_err(), "{host}");
        }
        for scheme in ["", "https", "Http", "1a", "a b", "é"] {
            assert_eq!(link(URLS[0]).to_custom_scheme(scheme), Err(LinkError::Scheme));
        }
    }

    #[test]
    fn debug_output_has_no_secret() {
        let link = link(URLS[0]);
        let digits = link.to_qr_segments(&LinkHost::Agent).unwrap();
        let shown = format!("{link:?} {digits:?}");
        assert!(!shown.contains("9, 9, 9") && !shown.contains(digits[1].as_str()), "{shown}");
    }

    proptest! {
        #[test]
        fn digits_read_back(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            prop_assert_eq!(&*from_digits(&to_digits(&bytes)).unwrap(), &bytes);
        }

        #[test]
        fn whatever_reads_is_in_its_one_spelling(place in 0..150_usize, byte in 0x20..0x7f_u8, host in 0..2_usize, url in 0..URLS.len()) {
            let good = link(URLS[url]);
            let mut changed = good.to_https(&hosts()[host]).unwrap().into_bytes();
            let place = place % changed.len();
            changed[place] = byte;
            let changed = String::from_utf8(changed).unwrap();
            if let Ok(read) = Link::parse(&changed) {
                // a fixed link host's name is not part of the link
                let spelled = read.to_https(&hosts()[host]).unwrap();
                let (_, fragment) = spelled.split_once('#').unwrap();
                prop_assert!(changed.to_ascii_lowercase().ends_with(fragment));
            }
        }

        // The checksum fits, so that nothing but the checks of the fields stands in the way.
        #[test]
        fn a_link_yields_an_agent_address_in_its_canonical_form(
            flags in 0..16_u8,
            address in prop_oneof![
                any::<u128>(),
                any::<u32>().prop_map(|low| 0xffff_0000_0000 | u128::from(low)),
                0..4_u128,
            ],
            port in prop_oneof![Just(0), Just(80), Just(443), any::<u16>()],
            path in prop_oneof![Just(String::from("/noise/ws")), "/[a-z.]{0,3}(/[a-z]{0,3})?", "[a-z:/.?#@]{0,8}"],
            authority in prop_oneof![
                Just(String::from("agent.example")),
                "(agent\\.example|127\\.0\\.0\\.1|127\\.1|\\[::1\\]|\\[::ffff:1\\.2\\.3\\.4\\]|\\[0::1\\]|)(:(0|80|443|08|9099)?)?",
            ],
            form in 0..3_usize,
        ) {
            let (flag_8, flag_4, flag_2) = (flags & flag::IPV6 != 0, flags & flag::PORT != 0, flags & flag::PATH != 0);
            let mut body = vec![VERSION << 4 | flags];
            body.extend_from_slice(&[9; 16]);
            body.extend_from_slice(AgentSecretKey::from_bytes([7; 32]).public().as_bytes());
            body.extend_from_slice(if flag_8 { address.to_be_bytes().to_vec() } else { Vec::new() }.as_slice());
            body.extend_from_slice(if flag_4 { port.to_be_bytes().to_vec() } else { Vec::new() }.as_slice());
            if flag_2 {
                body.push(u8::try_from(path.len()).unwrap());
                body.extend_from_slice(path.as_bytes());
            }
            let sum = checksum(&body, if flag_8 { "" } else { &authority });
            body.extend_from_slice(&sum);
            let digits = to_digits(&body);
            let tail = if flag_8 { String::new() } else { format!("/{authority}") };
            let (text, read) = match form {
                0 if flag_8 => (format!("https://link.example/P#{digits}"), None),
                0 => (format!("https://{authority}/P#{digits}"), None),
                1 => (format!("https://link.example/P#{digits}{tail}"), None),
                _ => (format!("example-app://p#{digits}{tail}"), Some("example-app")),
            };
            let read = match read {
                None => Link::parse(&text),
                Some(scheme) => Link::parse_custom_scheme(&text, scheme),
            };
            if let Ok(link) = read {
                prop_assert_eq!(AgentUrl::parse(&link.url().to_string()), Ok(link.url().clone()));
                let spelled = match form {
                    2 => link.to_custom_scheme("example-app"),
                    0 if !flag_8 => link.to_https(&LinkHost::Agent),
                    _ => link.to_https(&LinkHost::Fixed(String::from("link.example"))),
                };
                prop_assert_eq!(spelled.as_ref(), Ok(&text));
            } else {
                prop_assert_eq!(read, Err(LinkError::Damaged));
            }
        }

        #[test]
        fn no_text_panics(text in "\\PC{0,60}", digits in "[0-9]{0,200}", tail in "(/[a-z.:0-9]{0,20})?") {
            let _ = Link::parse(&text);
            let _ = Link::parse(&format!("https://agent.example/P#{digits}{tail}"));
        }
    }
}
