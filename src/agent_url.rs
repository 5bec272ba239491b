//! The agent's address in one canonical form.

use core::fmt;
use core::str::FromStr;
use std::net::{Ipv4Addr, Ipv6Addr};

use crate::error::{Error, UrlProblem};
use crate::limits::{MAX_HOST_LEN, MAX_PATH_LEN};
use crate::text::text_forms;

/// The path on which agents listen when an address names none.
pub(crate) const DEFAULT_PATH: &str = "/noise/ws";

/// The address of an agent: scheme, host, port and path of its WebSocket.
///
/// Addresses that differ only in the case of scheme and host, in a default port, in `http` for `ws` (`https`
/// for `wss`), or in a missing path are equal. Nothing else is normalised: user names, queries, fragments and
/// percent-encoding are refused, and a path has only unreserved characters, without empty or dot segments. No
/// two unequal addresses therefore become equal through another program's normalisation.
///
/// `Display` writes the canonical form, for example `wss://agent.example/noise/ws`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AgentUrl {
    scheme: Scheme,
    host: Host,
    port: u16,
    path: String,
}

/// Whether the WebSocket runs over TLS. The Noise channel inside is the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scheme {
    /// `ws`, for loopback and for networks that encrypt themselves.
    Ws,
    /// `wss`.
    Wss,
}

impl Scheme {
    pub(crate) fn default_port(self) -> u16 {
        match self {
            Self::Ws => 80,
            Self::Wss => 443,
        }
    }

    fn as_str(self) -> &'static str {
        match self {
            Self::Ws => "ws",
            Self::Wss => "wss",
        }
    }
}

/// A host: an ASCII name in lower case, or an IP address.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Host {
    Name(String),
    V4(Ipv4Addr),
    V6(Ipv6Addr),
}

impl Host {
    /// Reads a host as in a URL, with IPv6 in brackets.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        if let Some(inner) = text.strip_prefix('[') {
            let address: Ipv6Addr = inner.strip_suffix(']')?.parse().ok()?;
            // `::ffff:127.0.0.1` is another form of 127.0.0.1
            return address.to_ipv4_mapped().is_none().then_some(Self::V6(address));
        }
        if text.is_empty() || text.len() > MAX_HOST_LEN {
            return None;
        }
        let label = |label: &str| {
            (1..=63).contains(&label.len())
                && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
                && !label.starts_with('-')
                && !label.ends_with('-')
        };
        if !text.split('.').all(label) {
            return None;
        }
        // If the last label is only digits, the host must be an IPv4 address in its plain form.
        let last = text.rsplit('.').next().unwrap_or(text);
        if last.bytes().all(|byte| byte.is_ascii_digit()) || looks_hexadecimal(last) {
            return text.parse().ok().map(Self::V4);
        }
        Some(Self::Name(text.to_ascii_lowercase()))
    }
}

/// Whether the label begins with `0x`; some resolvers read it as a number.
fn looks_hexadecimal(label: &str) -> bool {
    label
        .strip_prefix("0x")
        .or_else(|| label.strip_prefix("0X"))
        .is_some_and(|digits| digits.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => f.write_str(name),
            Self::V4(address) => address.fmt(f),
            Self::V6(address) => write!(f, "[{address}]"),
        }
    }
}

/// Reads a port in plain decimal: no sign, no leading zero, not 0.
fn parse_port(text: &str) -> Option<u16> {
    if text.starts_with('0') || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    text.parse().ok()
}

/// Whether `path` is canonical: `/` and segments of unreserved characters, none empty or only dots.
fn is_canonical_path(path: &str) -> bool {
    let segment = |segment: &str| {
        !segment.is_empty()
            && segment != "."
            && segment != ".."
            && segment.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._~-".contains(&byte))
    };
    path.len() <= MAX_PATH_LEN && path.strip_prefix('/').is_some_and(|rest| rest.split('/').all(segment))
}

/// Splits `host`, `host:port`, `[v6]` or `[v6]:port`.
fn split_authority(authority: &str) -> (&str, Option<&str>) {
    let host_end = match authority.starts_with('[') {
        true => authority.find(']').map_or(authority.len(), |at| at + 1),
        false => authority.find(':').unwrap_or(authority.len()),
    };
    let (host, rest) = authority.split_at_checked(host_end).unwrap_or((authority, ""));
    match rest {
        "" => (host, None),
        rest => (host, Some(rest.strip_prefix(':').unwrap_or("?"))),
    }
}

impl AgentUrl {
    /// Reads an address in any accepted form.
    ///
    /// # Errors
    /// [`Error::AgentUrl`] with the problem.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let problem = |problem| Error::AgentUrl(problem);
        let (scheme, rest) = text.split_once("://").ok_or(problem(UrlProblem::Scheme))?;
        let scheme = match scheme.to_ascii_lowercase().as_str() {
            "ws" | "http" => Scheme::Ws,
            "wss" | "https" => Scheme::Wss,
            _ => return Err(problem(UrlProblem::Scheme)),
        };
        if rest.contains(['?', '#', '@', '\\']) {
            return Err(problem(UrlProblem::Extra));
        }
        let authority_end = rest.find('/').unwrap_or(rest.len());
        let (authority, path) = rest.split_at_checked(authority_end).unwrap_or((rest, ""));
        let path = match path {
            // RFC 3986 section 6.2.3: with an authority, an empty path is `/`
            "" | "/" => DEFAULT_PATH,
            path => path,
        };
        Self::from_authority(scheme, authority, path)
    }

    /// Reads `HOST[:PORT]` with a given scheme and canonical path. Every address is made here.
    pub(crate) fn from_authority(scheme: Scheme, authority: &str, path: &str) -> Result<Self, Error> {
        let problem = |problem| Error::AgentUrl(problem);
        let (host, port) = split_authority(authority);
        let host = Host::parse(host).ok_or(problem(UrlProblem::Host))?;
        let port = match port {
            None => scheme.default_port(),
            Some(port) => parse_port(port).ok_or(problem(UrlProblem::Port))?,
        };
        if !is_canonical_path(path) {
            return Err(problem(UrlProblem::Path));
        }
        Ok(Self { scheme, host, port, path: path.to_owned() })
    }

    /// Returns whether it is `ws` or `wss`.
    #[must_use]
    pub fn scheme(&self) -> Scheme {
        self.scheme
    }

    /// Returns the host, an IPv6 address in brackets.
    #[must_use]
    pub fn host(&self) -> String {
        self.host.to_string()
    }

    pub(crate) fn host_ref(&self) -> &Host {
        &self.host
    }

    /// Returns the port, also if the canonical form omits it.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Returns the path, beginning with `/`.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.path
    }
}

impl FromStr for AgentUrl {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        Self::parse(text)
    }
}

impl fmt::Display for AgentUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", self.scheme.as_str(), self.host)?;
        if self.port != self.scheme.default_port() {
            write!(f, ":{}", self.port)?;
        }
        f.write_str(&self.path)
    }
}

impl fmt::Debug for AgentUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AgentUrl({self})")
    }
}

text_forms!(AgentUrl, "an agent address");

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn canonical(text: &str) -> String {
        AgentUrl::parse(text).unwrap().to_string()
    }

    #[test]
    fn spellings_of_one_address_are_equal() {
        for text in [
            "wss://agent.example/noise/ws",
            "WSS://Agent.Example/noise/ws",
            "https://agent.example",
            "https://AGENT.EXAMPLE/",
            "wss://agent.example:443/noise/ws",
        ] {
            assert_eq!(canonical(text), "wss://agent.example/noise/ws");
        }
        assert_eq!(canonical("http://[::1]:9099"), "ws://[::1]:9099/noise/ws");
        assert_eq!(canonical("ws://[0:0:0:0:0:0:0:1]"), "ws://[::1]/noise/ws");
        assert_eq!(canonical("ws://127.0.0.1:80"), "ws://127.0.0.1/noise/ws");
    }

    #[test]
    fn different_places_are_different() {
        let all = [
            "wss://agent.example",
            "ws://agent.example",
            "wss://agent.example:8443",
            "wss://agent.example/noise/WS",
            "wss://agent.example/noise",
            "wss://agent2.example",
            "ws://agent.example:443",
        ];
        for (index, left) in all.iter().enumerate() {
            for right in all.iter().skip(index + 1) {
                assert_ne!(AgentUrl::parse(left), AgentUrl::parse(right));
            }
        }
    }

    #[test]
    fn refuses_with_what_is_wrong() {
        use UrlProblem::*;
        for (text, problem) in [
            ("agent.example", Scheme),
            ("ftp://agent.example", Scheme),
            (" wss://agent.example", Scheme),
            ("wss://", Host),
            ("wss://agent..example", Host),
            ("wss://agent.example.", Host),
            ("wss://-agent.example", Host),
            ("wss://agént.example", Host),
            ("wss://agent_1.example", Host),
            ("wss://127.1", Host),
            ("wss://0x7f000001", Host),
            ("wss://2130706433", Host),
            ("wss://127.0.0.01", Host),
            ("wss://::1", Host),
            ("wss://[::1", Host),
            ("wss://[fe80::1%eth0]", Host),
            ("wss://[127.0.0.1]", Host),
            ("wss://[::ffff:127.0.0.1]", Host),
            ("wss://agent.example:", Port),
            ("wss://agent.example:0", Port),
            ("wss://agent.example:080", Port),
            ("wss://agent.example:65536", Port),
            ("wss://agent.example:+80", Port),
            ("wss://[::1]443", Port),
            ("wss://agent.example//", Path),
            ("wss://agent.example/noise/ws/", Path),
            ("wss://agent.example/../ws", Path),
            ("wss://agent.example/a%2fb", Path),
            ("wss://agent.example/a b", Path),
            ("wss://user@agent.example", Extra),
            ("wss://agent.example/ws?x=1", Extra),
            ("wss://agent.example/ws#x", Extra),
            ("wss://agent.example\\@evil.example", Extra),
        ] {
            assert_eq!(AgentUrl::parse(text), Err(Error::AgentUrl(problem)), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn the_canonical_form_is_a_fixed_point(
            scheme in "(ws|wss|http|https|WSS)", host in "([a-zA-Z0-9]{1,12}(\\.[a-z]{2,5})?|\\[::[0-9a-f]{1,4}\\]|10\\.[1-9]\\.0\\.7)",
            port in proptest::option::of(1_u16..), path in "(/[a-zA-Z0-9_~-]{1,8}){0,3}"
        ) {
            let port = port.map_or(String::new(), |port| format!(":{port}"));
            if let Ok(url) = AgentUrl::parse(&format!("{scheme}://{host}{port}{path}")) {
                let text = url.to_string();
                prop_assert_eq!(AgentUrl::parse(&text).unwrap().to_string(), text);
            }
        }

        #[test]
        fn no_text_panics(text in "\\PC{0,40}") {
            let _ = AgentUrl::parse(&text);
            let _ = AgentUrl::parse(&format!("wss://{text}"));
        }
    }
}
