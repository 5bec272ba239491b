//! Every method that the official schema has a name for is in the adapter's table: a new one breaks this test, and not
//! the policy.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use agent_client_protocol_schema::{v1, v2};
use serde::Serialize;
use sessioncap::acp::{Kind, Rule, Sender};

fn names(list: impl Serialize) -> Vec<String> {
    let list = serde_json::to_value(list).unwrap();
    list.as_object().unwrap().values().map(|name| name.as_str().unwrap().to_owned()).collect()
}

fn is_in_the_table(sender: Sender, method: &str) -> bool {
    [Kind::Request, Kind::Notification].iter().any(|kind| Rule::of(sender, *kind, method) != Rule::Unknown)
}

#[test]
fn every_method_of_the_official_schema_is_in_the_table() {
    let to_agents = [names(v1::AGENT_METHOD_NAMES), names(v2::AGENT_METHOD_NAMES)].concat();
    let to_clients = [names(v1::CLIENT_METHOD_NAMES), names(v2::CLIENT_METHOD_NAMES)].concat();
    let to_either = [
        names(v1::PROTOCOL_LEVEL_METHOD_NAMES),
        names(v2::PROTOCOL_LEVEL_METHOD_NAMES),
        names(v1::PROXY_METHOD_NAMES),
        names(v2::PROXY_METHOD_NAMES),
    ]
    .concat();
    assert!(to_agents.len() > 40 && to_clients.len() > 15 && to_either.len() >= 6);
    let missing = |sender: Sender, names: &[String]| -> Vec<String> {
        names.iter().filter(|name| !is_in_the_table(sender, name)).cloned().collect()
    };
    let from_phone = missing(Sender::Phone, &[to_agents, to_either.clone()].concat());
    let from_agent = missing(Sender::Agent, &[to_clients, to_either].concat());
    assert!(from_phone.is_empty() && from_agent.is_empty(), "{from_phone:?} {from_agent:?}");
}

/// Whatever a client serves is refused when a phone asks for it, except what both sides may send.
#[test]
fn what_a_client_serves_is_no_request_of_a_phone() {
    for method in [names(v1::CLIENT_METHOD_NAMES), names(v2::CLIENT_METHOD_NAMES)].concat() {
        for kind in [Kind::Request, Kind::Notification] {
            let rule = Rule::of(Sender::Phone, kind, &method);
            assert!(matches!(rule, Rule::Privileged(_) | Rule::Unknown), "{method}: {rule:?}");
        }
    }
}

#[test]
fn what_the_schema_does_not_name_is_not_in_the_table() {
    for method in ["session/later", "Session/prompt", "session/prompt/", "", "_private"] {
        assert!(
            !is_in_the_table(Sender::Phone, method) && !is_in_the_table(Sender::Agent, method),
            "{method}"
        );
    }
}
