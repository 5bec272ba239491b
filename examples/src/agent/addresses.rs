//! Under which addresses phones may reach the agent, where the operator names none.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

use sessioncap::AgentUrl;

use crate::problem::{Outcome, Problem};

/// The agent's addresses, as codes contain them.
pub(super) struct Addresses {
    /// Where a desktop on this machine reaches it.
    pub(super) own: AgentUrl,
    pub(super) urls: Vec<AgentUrl>,
    /// The path on which it listens.
    pub(super) path: String,
    /// A warning for the operator.
    pub(super) warning: Option<String>,
}

/// From where the agent listens and what the operator has named.
pub(super) fn of(listening: SocketAddr, named: Vec<AgentUrl>) -> Outcome<Addresses> {
    let own = AgentUrl::parse(&format!("ws://{listening}"))?;
    let path = own.path().to_owned();
    if let Some(url) = named.iter().find(|url| is_unspecified(url)) {
        return Err(Problem::Said(format!("no phone can reach {url}; name an address of this machine")));
    }
    let listens_everywhere = listening.ip().to_canonical().is_unspecified();
    let (urls, warning) = match (named.is_empty(), listens_everywhere) {
        (false, _) => (named, None),
        (true, true) => {
            let found = of_this_machine(listening);
            let urls: Result<Vec<_>, _> = found
                .into_iter()
                .map(|address| {
                    AgentUrl::parse(&format!("ws://{}", SocketAddr::new(address, listening.port())))
                })
                .collect();
            (urls?, None)
        }
        (true, false) => {
            let alone = listening.ip().to_canonical().is_loopback().then(|| {
                format!(
                    "only this machine reaches {listening}. for phones, listen on an address of the network \
                     with `--listen`, or name with `--url` the address of the tunnel that leads here"
                )
            });
            (vec![own.clone()], alone)
        }
    };
    if urls.is_empty() {
        return Err(Problem::Said(format!(
            "{listening} is every address, and this machine has none that a phone could reach; name one with \
             `--url`"
        )));
    }
    let own = if listens_everywhere { urls.first().cloned().unwrap_or(own) } else { own };
    Ok(Addresses { own, urls, path, warning })
}

fn is_unspecified(url: &AgentUrl) -> bool {
    let host = url.host();
    let host = host.trim_start_matches('[').trim_end_matches(']');
    host.parse::<IpAddr>().is_ok_and(|address| address.to_canonical().is_unspecified())
}

/// The addresses of this machine's interfaces, the one of the default route first.
fn of_this_machine(listening: SocketAddr) -> Vec<IpAddr> {
    let mut found = Vec::new();
    if listening.is_ipv6() {
        // Nothing is sent: the system only chooses a route, here to addresses kept for documentation.
        found.extend(route(SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), 0), "[2001:db8::1]:9"));
    }
    found.extend(route(SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), 0), "192.0.2.1:9"));
    let text = |path| std::fs::read_to_string(path).unwrap_or_default();
    found.extend(local_v4(&text("/proc/net/fib_trie")));
    if listening.is_ipv6() {
        found.extend(local_v6(&text("/proc/net/if_inet6")));
    }
    let mut seen = BTreeSet::new();
    found.retain(|address| may_be_reached(address) && seen.insert(*address));
    found
}

fn route(from: SocketAddr, to: &str) -> Option<IpAddr> {
    let socket = UdpSocket::bind(from).ok()?;
    socket.connect(to).ok()?;
    Some(socket.local_addr().ok()?.ip())
}

fn may_be_reached(address: &IpAddr) -> bool {
    let own_link = match address {
        IpAddr::V4(address) => address.is_link_local(),
        IpAddr::V6(address) => address.is_unicast_link_local(),
    };
    !(own_link || address.is_loopback() || address.is_unspecified() || address.is_multicast())
}

/// Linux lists the machine's own addresses as hosts of its routing table.
fn local_v4(table: &str) -> BTreeSet<IpAddr> {
    let mut last = None;
    let mut found = BTreeSet::new();
    for line in table.lines() {
        let line = line.trim_start();
        if let Some(address) = line.strip_prefix("|-- ") {
            last = address.trim().parse::<Ipv4Addr>().ok();
        } else if line.starts_with("/32 host LOCAL") {
            found.extend(last.map(IpAddr::V4));
        }
    }
    found
}

fn local_v6(table: &str) -> BTreeSet<IpAddr> {
    let addresses = table.lines().filter_map(|line| u128::from_str_radix(line.split(' ').next()?, 16).ok());
    addresses.map(|address| IpAddr::V6(address.into())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(urls: &[&str]) -> Vec<AgentUrl> {
        urls.iter().map(|url| AgentUrl::parse(url).unwrap()).collect()
    }

    #[test]
    fn an_address_of_the_network_is_the_agents_own_and_loopback_comes_with_a_warning() {
        let network = of("192.0.2.7:9480".parse().unwrap(), Vec::new()).unwrap();
        assert_eq!((network.urls, network.warning), (parsed(&["ws://192.0.2.7:9480"]), None));
        for loopback in ["127.0.0.1:9480", "[::1]:9480"] {
            let loopback = of(loopback.parse().unwrap(), Vec::new()).unwrap();
            assert!(loopback.warning.unwrap().contains("`--url`"));
        }
        let named = of("127.0.0.1:9480".parse().unwrap(), parsed(&["wss://agent.example"])).unwrap();
        assert_eq!((named.urls, named.warning), (parsed(&["wss://agent.example"]), None));
    }

    #[test]
    fn no_code_is_made_for_every_address() {
        for everywhere in ["0.0.0.0:9480", "[::]:9480"] {
            let everywhere: SocketAddr = everywhere.parse().unwrap();
            match of(everywhere, Vec::new()) {
                Ok(found) => assert!(found.urls.iter().all(|url| !is_unspecified(url) && url.port() == 9480)),
                Err(problem) => assert!(problem.to_string().contains("`--url`"), "{problem}"),
            }
            let named = of(everywhere, parsed(&["ws://agent.example:1"])).unwrap();
            assert_eq!(named.urls, parsed(&["ws://agent.example:1"]));
        }
        assert!(of("127.0.0.1:1".parse().unwrap(), parsed(&["ws://0.0.0.0:1"])).is_err());
    }

    #[test]
    fn the_systems_tables_are_read_and_what_no_phone_reaches_is_left_out() {
        let table = "Main:\n  +-- 0.0.0.0/0 3 0 5\n     |-- 10.1.2.0\n        /24 link UNICAST\n     |-- 10.1.2.3\n        \
            /32 host LOCAL\n     |-- 127.0.0.1\n        /32 host LOCAL\n";
        let found: Vec<_> = local_v4(table).into_iter().filter(may_be_reached).collect();
        assert_eq!(found, ["10.1.2.3".parse::<IpAddr>().unwrap()]);
        let table = "20010db8000000000000000000000001 02 40 00 80     eth0\n\
            fe800000000000000000000000000001 02 40 20 80     eth0\n\
            00000000000000000000000000000001 01 80 10 80       lo\n";
        let found: Vec<_> = local_v6(table).into_iter().filter(may_be_reached).collect();
        assert_eq!(found, ["2001:db8::1".parse::<IpAddr>().unwrap()]);
    }
}
