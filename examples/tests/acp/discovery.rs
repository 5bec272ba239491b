//! Agents and those who look for them, each process in a network of its own, joined by cables that can be pulled.

use rustix::process::Signal;
use sessioncap::AgentPublicKey;
use sessioncap_programs::discovery::KeyHash;

use super::net::Net;

fn key(seed: u8) -> AgentPublicKey {
    sessioncap::AgentSecretKey::from_bytes([seed; 32]).public()
}

fn hash(seed: u8) -> String {
    KeyHash::of(&key(seed)).to_string()
}

#[tokio::test]
async fn an_agent_is_found_and_says_goodbye() {
    let Some(net) = Net::new(2) else { return };
    let mut browsing = net.hosts[1].browse(&[]);
    let mut agent = net.hosts[0].advertise("desk", &key(1), &["--listen"]);
    let found = browsing.stdout.until_holds("the agent's record", |text| text.contains("found")).await;
    let line = found.lines().find(|line| line.starts_with("found")).unwrap();
    assert!(line.starts_with(&format!("found \"desk\" {} /noise/ws ", hash(1))), "{line}");
    assert!(
        line.contains("10.9.0.1:7000") && !line.contains("127.0.0.1") && !line.contains("[::1]"),
        "{line}"
    );
    agent.signal(Signal::TERM);
    assert_eq!(agent.exit_code().await, 0);
    browsing.stdout.until("gone \"desk\"").await;
    browsing.signal(Signal::INT);
    assert_eq!(browsing.exit_code().await, 0);
}

#[tokio::test]
async fn an_address_of_the_link_alone_is_found_with_its_interface_and_can_be_dialled() {
    let Some(net) = Net::new(2) else { return };
    for host in &net.hosts {
        assert!(host.ip(&format!("address del {}/24 dev lan0", host.address)));
    }
    let key = key(1);
    let browsing = net.hosts[1].browse(&["--connect", "--key", &key.to_string()]);
    let _agent = net.hosts[0].advertise("desk", &key, &["--listen"]);
    browsing.stdout.until("connected to \"desk\" at [fe80::").await;
    let text = browsing.stdout.get();
    assert!(text.contains('%') && !text.contains("10.9.0"), "{text}");
}

#[tokio::test]
async fn of_two_agents_with_one_name_the_one_that_was_paired_is_found() {
    let Some(net) = Net::new(3) else { return };
    let browsing = net.hosts[2].browse(&["--connect", "--key", &key(2).to_string()]);
    let all = net.hosts[2].browse(&[]);
    let first = net.hosts[0].advertise("desk", &key(1), &["--listen"]);
    first.stdout.until("announced \"desk\"").await;
    all.stdout.until(&format!("found \"desk\" {}", hash(1))).await;
    let mut second = net.hosts[1].advertise("desk", &key(2), &["--listen"]);
    // The second takes another name, if the first says in time that it has this one.
    let announced = second.stdout.until_holds("its name", |text| text.ends_with('\n')).await;
    let name = announced.trim().strip_prefix("announced ").unwrap().to_owned();
    all.stdout.until(&format!("found {name} {}", hash(2))).await;
    browsing.stdout.until(&format!("connected to {name} at 10.9.0.2:7000")).await;
    assert!(!browsing.stdout.get().contains(&hash(1)), "{}", browsing.stdout.get());
    // Its goodbye is for the name that it has now, and not for the first's.
    second.signal(Signal::TERM);
    assert_eq!(second.exit_code().await, 0);
    all.stdout.until(&format!("gone {name}\n")).await;
    let gone = all.stdout.get().matches("gone \"desk\"\n").count();
    assert_eq!(gone, usize::from(name == "\"desk\""), "{}", all.stdout.get());
}

#[tokio::test]
async fn a_killed_agents_record_leads_nowhere_and_the_next_is_tried() {
    let Some(net) = Net::new(3) else { return };
    let key = key(1);
    let mut browsing = net.hosts[2].browse(&["--connect", "--key", &key.to_string()]);
    let _agent = net.hosts[0].advertise("desk", &key, &["--listen"]);
    browsing.stdout.until("connected to \"desk\" at 10.9.0.1:7000").await;
    // The agent's key was brought to another machine too.
    let mut other = net.hosts[1].advertise("moved", &key, &["--listen"]);
    browsing.stdout.until("connected to \"moved\" at 10.9.0.2:7000").await;
    other.child.kill().await.unwrap();
    browsing.type_in("\n").await;
    let text = browsing.stdout.until("no answer from \"moved\" at 10.9.0.2:7000").await;
    assert!(!text.contains("gone"), "nobody said goodbye: {text}");
    let after = |text: &str| {
        text.split("no answer from \"moved\"").skip(1).any(|rest| rest.contains("connected to \"desk\""))
    };
    browsing.stdout.until_holds("a connection to the other record", after).await;
}

#[tokio::test]
async fn a_cable_that_is_pulled_and_put_back_changes_nothing_for_good() {
    let Some(net) = Net::new(2) else { return };
    let agent = net.hosts[0].advertise("desk", &key(1), &["--listen"]);
    agent.stdout.until("announced").await;
    let key = key(1).to_string();
    assert!(net.hosts[0].ip("link set lan0 down"));
    let browsing = net.hosts[1].browse(&["--connect", "--key", &key]);
    assert!(net.hosts[0].ip("link set lan0 up"));
    browsing.stdout.until("connected to \"desk\"").await;
    // Another address: the laptop is in another room.
    assert!(net.hosts[0].ip("address del 10.9.0.1/24 dev lan0"));
    assert!(net.hosts[0].ip("address add 10.9.0.77/24 dev lan0"));
    browsing.stdout.until("10.9.0.77:7000").await;
}

#[tokio::test]
async fn over_loopback_and_the_networks_of_containers_nothing_is_advertised() {
    let Some(net) = Net::new(1) else { return };
    let host = &net.hosts[0];
    assert!(host.ip("link add name docker0 type bridge") && host.ip("address add 172.17.0.1/16 dev docker0"));
    assert!(host.ip("link set docker0 up"));
    // A browser in the same network hears what comes over each.
    let everywhere = host.browse(&[]);
    let _agent = host.advertise("desk", &key(1), &[]);
    let text = everywhere.stdout.until("found \"desk\"").await;
    assert!(text.contains("10.9.0.1:7000"), "{text}");
    let _open = host.advertise("open", &key(2), &["--all-interfaces"]);
    let all = host.browse(&["--all-interfaces"]);
    let text = all
        .stdout
        .until_holds("both agents", |text| {
            text.contains("found \"open\"") && text.contains("found \"desk\"") && text.contains("172.17.0.1")
        })
        .await;
    let of_desk: Vec<&str> = text.lines().filter(|line| line.contains(&hash(1))).collect();
    assert!(of_desk.iter().all(|line| !line.contains("172.17.0.1") && !line.contains("127.0.0.1")), "{text}");
}
