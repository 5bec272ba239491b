//! Vectors of the pairing link (`docs/PROTOCOL.md` section 7), with a writer of their own.

use super::*;

const ADDRESSES: [(&str, &str); 10] = [
    ("plain", "wss://agent.example"),
    ("long-host", "wss://agent-7f3a.dd.example-of-host"),
    ("port", "wss://agent.example:8443"),
    ("path", "wss://agent.example/other/path"),
    ("loopback", "ws://127.0.0.1:9099"),
    ("ws-default-port", "ws://agent.example"),
    ("ws-port-443", "ws://agent.example:443"),
    ("wss-port-80", "wss://agent.example:80"),
    ("ipv6", "ws://[::1]:9099"),
    ("ipv6-port-443-path", "ws://[2001:db8::7]:443/x"),
];

pub fn valid_links(files: &mut Files) {
    for (name, url) in ADDRESSES {
        let agent = AgentSecretKey::from_bytes([1; 32]).public();
        let secret = [0x11; 16];
        let link = Link::new(AgentUrl::parse(url).unwrap(), agent, TicketSecret::from_bytes(secret));
        let common = |text: String| {
            json!({
                "kind": "link", "agent_url": link.url().to_string(), "agent": hex(agent.as_bytes()),
                "secret": hex(&secret), "text": text,
            })
        };
        for (form, host) in [("own", LinkHost::Agent), ("host", LinkHost::Fixed("link.example".to_owned()))] {
            let mut value = common(link.to_https(&host).unwrap());
            value["link_host"] = if host == LinkHost::Agent { Value::Null } else { json!("link.example") };
            value["qr"] = qr_segments(&link.to_qr_segments(&host).unwrap());
            valid(files, &format!("link-{form}-{name}"), value);
        }
        let mut value = common(link.to_custom_scheme("example-app").unwrap());
        value["scheme"] = json!("example-app");
        valid(files, &format!("link-scheme-{name}"), value);
    }
}

/// Section 7, written anew: groups of seven bytes as decimal digits.
fn digits(payload: &[u8]) -> String {
    let widths = [0, 3, 5, 8, 10, 13, 15, 17];
    payload
        .chunks(7)
        .map(|group| {
            let number = group.iter().fold(0_u64, |number, byte| (number << 8) | u64::from(*byte));
            format!("{number:0width$}", width = widths[group.len()])
        })
        .collect()
}

/// A link's payload with its checksum, whatever is in it.
fn link_payload(flags: u8, agent: &[u8], more: &[u8], authority: &str) -> Vec<u8> {
    let body = [&[flags], [0x11; 16].as_slice(), agent, more].concat();
    let sum = Sha256::digest([b"sessioncap/1 link\0", body.as_slice(), authority.as_bytes()].concat());
    [body.as_slice(), &sum[..2]].concat()
}

/// A link with a fitting checksum, whatever is in it. `before` stands before `/P#`, `agent` names the agent
/// there or behind the digits, and is what the checksum covers.
struct LinkDraft<'a> {
    before: &'a str,
    tail: Option<&'a str>,
    flags: u8,
    more: &'a [u8],
}

impl LinkDraft<'_> {
    fn fragment(&self, covered: &str) -> String {
        let key = AgentSecretKey::from_bytes([1; 32]).public();
        let digits = digits(&link_payload(self.flags, key.as_bytes(), self.more, covered));
        match self.tail {
            Some(tail) => format!("{digits}/{tail}"),
            None => digits,
        }
    }

    fn https(&self) -> String {
        let covered = match (self.flags & 8, self.tail) {
            (0, None) => self.before,
            (0, Some(tail)) => tail,
            _ => "",
        };
        format!("https://{}/P#{}", self.before, self.fragment(covered))
    }

    fn custom_scheme(&self) -> String {
        let covered = if self.flags & 8 == 0 { self.tail.unwrap_or_default() } else { "" };
        format!("example-app://{}#{}", self.before, self.fragment(covered))
    }
}

/// `::1` and a port, as they stand behind flags 8 and 4.
fn loopback(port: u16) -> Vec<u8> {
    [[0; 15].as_slice(), &[1], &port.to_be_bytes()].concat()
}

fn with_length(path: &[u8]) -> Vec<u8> {
    [&[path.len() as u8], path].concat()
}

const DAMAGED: &str = "link_damaged";
const FOREIGN: &str = "link_foreign";
const UNKNOWN_VERSION: &str = "link_unknown_version";

pub fn invalid_links(files: &mut Files) {
    invalid_link_texts(files);
    let mut bad = |name: &str, input: String, error: &str| {
        let value = json!({ "kind": "link", "input": input, "error": error });
        invalid(files, &format!("link-{name}"), value);
    };
    let own = |before: &str, flags: u8, more: &[u8]| LinkDraft { before, tail: None, flags, more }.https();
    let hosted = |tail: &str, flags: u8, more: &[u8]| {
        LinkDraft { before: "link.example", tail: Some(tail), flags, more }.https()
    };
    let carried = |flags: u8, more: &[u8]| own("link.example", flags, more);
    assert!(Link::parse(&own("agent.example:8443", 0x10, &[])).is_ok());
    assert!(Link::parse(&hosted("agent.example:8443", 0x10, &[])).is_ok());
    assert!(Link::parse(&carried(0x1c, &loopback(9_099))).is_ok());
    // Where the agent is: each of these is no agent address, or another spelling of one.
    for (name, agent) in [
        ("default-port-covered", "agent.example:443"),
        ("port-0", "agent.example:0"),
        ("port-with-leading-zero", "agent.example:08443"),
        ("port-too-large", "agent.example:65536"),
        ("port-signed", "agent.example:+8443"),
        ("port-empty", "agent.example:"),
        ("port-twice", "agent.example:8443:8443"),
        ("host-empty", ""),
        ("host-with-underscore", "agent_1.example"),
        ("host-empty-label", "agent..example"),
        ("host-final-dot", "agent.example."),
        ("host-not-ascii", "agént.example"),
        ("host-short-ipv4", "127.1"),
        ("host-hexadecimal-ipv4", "0x7f000001"),
        ("host-ipv4-leading-zero", "127.0.0.01"),
        ("user-name", "user@agent.example"),
    ] {
        bad(&format!("damaged-own-{name}"), own(agent, 0x10, &[]), DAMAGED);
        bad(&format!("damaged-behind-digits-{name}"), hosted(agent, 0x10, &[]), DAMAGED);
    }
    for (name, host) in [
        ("ipv6-mapped", "[::ffff:127.0.0.1]"),
        ("ipv6-mapped-hexadecimal", "[::ffff:7f00:1]"),
        ("ipv6-long-spelling", "[0:0:0:0:0:0:0:1]"),
        ("ipv6-leading-zero", "[2001:0db8::7]"),
        ("ipv6-with-zone", "[fe80::1%eth0]"),
        ("ipv6-default-port", "[::1]:443"),
        ("ipv6-unclosed", "[::1"),
    ] {
        bad(&format!("damaged-own-{name}"), own(host, 0x10, &[]), DAMAGED);
    }
    // A checksum that fits the agent's one spelling does not excuse another one in the text.
    let spelled = hosted("agent.example", 0x10, &[]).replace("/agent.example", "/agent.example:443");
    bad("damaged-behind-digits-default-port-spelled", spelled, DAMAGED);
    // Brackets stand in an origin only; elsewhere the address is in the payload.
    bad("damaged-behind-digits-ipv6-without-flag", hosted("[::1]", 0x10, &[]), DAMAGED);
    bad("damaged-behind-digits-ipv6-port-without-flag", hosted("[::1]:9099", 0x10, &[]), DAMAGED);
    bad("damaged-behind-digits-ipv6-port-flag-4", hosted("[::1]", 0x14, &[0x23, 0x8b]), DAMAGED);
    bad("damaged-behind-digits-path-behind-agent", hosted("agent.example/x", 0x10, &[]), DAMAGED);
    bad("damaged-behind-digits-ipv6-and-agent", hosted("agent.example", 0x1c, &loopback(9_099)), DAMAGED);
    // Flag 8 goes with flag 4 and with a link host.
    bad("damaged-ipv6-port-0", carried(0x1c, &loopback(0)), DAMAGED);
    bad("damaged-ipv6-port-0-ws", carried(0x1d, &loopback(0)), DAMAGED);
    bad("damaged-ipv6-without-port", carried(0x18, &loopback(9_099)[..16]), DAMAGED);
    let mapped = [&[0; 10], [0xff, 0xff, 127, 0, 0, 1].as_slice(), &[0x23, 0x8b]].concat();
    bad("damaged-ipv6-mapped", carried(0x1c, &mapped), DAMAGED);
    bad("damaged-ipv6-behind-ipv4", own("127.0.0.1", 0x1c, &loopback(9_099)), DAMAGED);
    bad("damaged-ipv6-behind-ipv6", own("[::1]", 0x1c, &loopback(9_099)), DAMAGED);
    bad("damaged-ipv6-behind-port", own("link.example:8443", 0x1c, &loopback(9_099)), DAMAGED);
    // Flag 4 without flag 8 says 443 for `ws` and nothing else.
    bad("damaged-ws-port-flag-80", own("agent.example", 0x15, &[0, 80]), DAMAGED);
    bad("damaged-ws-port-flag-0", own("agent.example", 0x15, &[0, 0]), DAMAGED);
    bad("damaged-ws-port-flag-8443", own("agent.example", 0x15, &[0x20, 0xfb]), DAMAGED);
    bad("damaged-ws-port-443-spelled", own("agent.example:443", 0x11, &[]), DAMAGED);
    bad("damaged-ws-port-80-spelled", own("agent.example:80", 0x11, &[]), DAMAGED);
    bad("damaged-ws-port-twice", own("agent.example:443", 0x15, &[1, 187]), DAMAGED);
    bad("damaged-port-flag-0", own("agent.example", 0x14, &[0, 0]), DAMAGED);
    // The path.
    for (name, path) in [
        ("empty", b"".as_slice()),
        ("slash", b"/"),
        ("relative", b"other"),
        ("other-host", b".example/x"),
        ("port", b":8443/x"),
        ("empty-segment", b"/a//b"),
        ("final-slash", b"/a/"),
        ("dot", b"/./a"),
        ("query", b"/a?b"),
        ("fragment", b"/a#b"),
        ("percent-encoded", b"/a%2fb"),
        ("backslash", b"/a\\b"),
        ("not-ascii", "/é".as_bytes()),
        ("not-utf-8", b"/\xff"),
        ("too-long", &[b"/".as_slice(), &[b'a'; 128]].concat()),
    ] {
        let input = own("agent.example", 0x12, &with_length(path));
        bad(&format!("damaged-path-{name}"), input, DAMAGED);
    }
    // A link host is judged before the digits, and they before the version, and that before the rest.
    for (name, host) in [
        ("with-port", "link.example:8443"),
        ("ipv4", "127.0.0.1"),
        ("ipv6", "[::1]"),
        ("empty", ""),
        ("user-name", "user@link.example"),
        ("space", "link example"),
    ] {
        let draft = LinkDraft { before: host, tail: Some("agent.example"), flags: 0x10, more: &[] };
        bad(&format!("foreign-link-host-{name}"), draft.https(), FOREIGN);
        let newer = LinkDraft { flags: 0x20, ..draft };
        bad(&format!("foreign-link-host-{name}-newer"), newer.https(), FOREIGN);
    }
    bad("foreign-link-host-no-digits", "https://127.0.0.1/P#x/agent.example".to_owned(), FOREIGN);
    let newer = own("agent.example", 0x20, &[]);
    bad("damaged-newer-cut-short", newer[..newer.len() - 1].to_owned(), DAMAGED);
    bad("unknown-version-other-checksum", newer.replace("agent.", "agemt."), UNKNOWN_VERSION);
    bad("unknown-version-other-length", own("agent.example", 0x28, &[1, 2, 3]), UNKNOWN_VERSION);
    bad("unknown-version-host-empty-label", own("agent..example", 0x20, &[]), UNKNOWN_VERSION);

    let custom = |tail: Option<&str>, flags: u8, more: &[u8]| {
        LinkDraft { before: "p", tail, flags, more }.custom_scheme()
    };
    assert!(Link::parse_custom_scheme(&custom(Some("agent.example"), 0x10, &[]), "example-app").is_ok());
    for (name, input, error) in [
        ("damaged-no-agent", custom(None, 0x10, &[]), DAMAGED),
        ("damaged-default-port-covered", custom(Some("agent.example:443"), 0x10, &[]), DAMAGED),
        (
            "damaged-default-port-spelled",
            custom(Some("agent.example"), 0x10, &[]).replace("/agent.example", "/agent.example:443"),
            DAMAGED,
        ),
        ("damaged-port-0", custom(Some("agent.example:0"), 0x10, &[]), DAMAGED),
        ("damaged-ipv6-without-flag", custom(Some("[::1]:9099"), 0x10, &[]), DAMAGED),
        ("damaged-ipv6-and-agent", custom(Some("agent.example"), 0x1c, &loopback(9_099)), DAMAGED),
        ("damaged-ipv6-port-0", custom(None, 0x1c, &loopback(0)), DAMAGED),
        ("damaged-ipv6-mapped", custom(None, 0x1c, &mapped), DAMAGED),
        ("unknown-version-2", custom(Some("agent.example"), 0x20, &[]), UNKNOWN_VERSION),
    ] {
        invalid_custom_scheme_link(files, name, input, "example-app", error);
    }
}

fn invalid_custom_scheme_link(files: &mut Files, name: &str, input: String, scheme: &str, error: &str) {
    let value = json!({ "kind": "custom_scheme_link", "input": input, "scheme": scheme, "error": error });
    invalid(files, &format!("link-scheme-{name}"), value);
}

/// Links whose text was changed, and payloads that no writer makes.
fn invalid_link_texts(files: &mut Files) {
    let agent = AgentSecretKey::from_bytes([1; 32]).public();
    let key = agent.as_bytes();
    let own = |payload: &[u8]| format!("https://agent.example/P#{}", digits(payload));
    let good = own(&link_payload(0x10, key, &[], "agent.example"));
    assert!(Link::parse(&good).is_ok(), "the writer here and the library agree");
    let mut bad = |name: &str, input: String, error: &str| {
        invalid(files, &format!("link-{name}"), json!({ "kind": "link", "input": input, "error": error }));
    };
    let at = good.find('#').unwrap();
    let with_low_order = link_payload(0x10, &[0; 32], &[], "agent.example");
    let second_spelling: Vec<u8> = key[..31].iter().copied().chain([key[31] | 0x80]).collect();
    let mut flipped = link_payload(0x10, key, &[], "agent.example");
    flipped[50] ^= 1;
    bad("damaged-changed-digit", good.replacen("#04", "#05", 1), DAMAGED);
    bad("damaged-checksum", own(&flipped), DAMAGED);
    bad("damaged-cut-short", good[..good.len() - 1].to_owned(), DAMAGED);
    bad("damaged-one-digit-more", format!("{good}0"), DAMAGED);
    bad("damaged-letter", format!("{}x", &good[..good.len() - 1]), DAMAGED);
    bad("damaged-no-digits", good[..=at].to_owned(), DAMAGED);
    bad("damaged-other-host", good.replace("agent.", "agemt."), DAMAGED);
    bad("damaged-group-too-large", format!("{}99999999999999999{}", &good[..=at], &good[at + 18..]), DAMAGED);
    bad("damaged-default-port-spelled", good.replace("example/", "example:443/"), DAMAGED);
    bad("damaged-empty-tail", format!("{good}/"), DAMAGED);
    bad("damaged-low-order-agent", own(&with_low_order), DAMAGED);
    bad(
        "damaged-agent-key-not-canonical",
        own(&link_payload(0x10, &second_spelling, &[], "agent.example")),
        DAMAGED,
    );
    bad("damaged-needless-path", own(&link_payload(0x12, key, b"\x09/noise/ws", "agent.example")), DAMAGED);
    bad("damaged-needless-port", own(&link_payload(0x14, key, &[1, 187], "agent.example")), DAMAGED);
    bad("damaged-path-climbs", own(&link_payload(0x12, key, b"\x03/..", "agent.example")), DAMAGED);
    bad("damaged-ipv6-in-own-origin", own(&link_payload(0x1c, key, &[0; 18], "agent.example")), DAMAGED);
    bad("damaged-trailing-byte", own(&link_payload(0x10, key, &[0], "agent.example")), DAMAGED);
    bad("damaged-too-short", own(&[0x10; 20]), DAMAGED);
    let version = |version: u8| own(&link_payload(version << 4, key, &[], "agent.example"));
    bad("unknown-version-0", version(0), UNKNOWN_VERSION);
    bad("unknown-version-2", version(2), UNKNOWN_VERSION);
    bad("foreign-empty", String::new(), FOREIGN);
    bad("foreign-text", "hello".to_owned(), FOREIGN);
    bad("foreign-http", good.replace("https", "http"), FOREIGN);
    bad("foreign-small-p", good.replace("/P#", "/p#"), FOREIGN);
    bad("foreign-other-path", good.replace("/P#", "/Q#"), FOREIGN);
    bad("foreign-no-fragment", good.replace('#', "?"), FOREIGN);
    bad("foreign-own-scheme", good.replace("https://agent.example/P", "example-app://p"), FOREIGN);
    bad("foreign-too-long", format!("{good}{}", "0".repeat(limits::MAX_LINK_LEN)), FOREIGN);
    let link = Link::new(AgentUrl::parse(URL).unwrap(), agent, TicketSecret::from_bytes([0x11; 16]));
    let text = link.to_custom_scheme("example-app").unwrap();
    for (name, input, scheme, error) in [
        ("foreign-other-scheme", text.clone(), "other-app", FOREIGN),
        ("foreign-https-link", good, "example-app", FOREIGN),
        ("foreign-other-place", text.replace("p#", "q#"), "example-app", FOREIGN),
        ("https", text, "https", "link_scheme"),
    ] {
        invalid_custom_scheme_link(files, name, input, scheme, error);
    }
}
