//! Random operations on the multiplexer: every request gets exactly one answer, and ids never cross.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

#[allow(dead_code, reason = "another test program uses the rest")]
mod bench;

use std::collections::BTreeSet;
use std::collections::btree_map::{BTreeMap, Entry};
use std::time::Duration;

use bench::{Bench, json, notice, request};
use proptest::prelude::*;
use sessioncap::acp::{Asked, FromPhone, Json, Message, RequestId, RpcError};
use sessioncap_acp::mux::{Effect, Kind, Mux, Settings, Turns, ViewerId};

const SESSIONS: [&str; 2] = ["s", "r"];

#[derive(Debug, Clone)]
enum Step {
    JoinDesktop,
    JoinPhone(usize),
    Leave(usize),
    /// A request of a viewer, under one of a few ids.
    Request {
        viewer: usize,
        id: usize,
        what: usize,
        session: usize,
    },
    /// A viewer answers a question that it has, or has had.
    Answer {
        viewer: usize,
        question: usize,
        option: usize,
    },
    Cancel {
        viewer: usize,
        session: usize,
    },
    CancelRequest {
        viewer: usize,
        id: usize,
    },
    /// The agent answers one of the requests that it has.
    AgentAnswers {
        which: usize,
        fails: bool,
    },
    AgentUpdates {
        session: usize,
    },
    AgentAsks {
        id: usize,
        what: usize,
        session: usize,
    },
    AgentTakesBack {
        id: usize,
    },
    Wait(u64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let n = 0..64_usize;
    let step = prop_oneof![
        1 => Just(Step::JoinDesktop),
        2 => (0..2_usize).prop_map(Step::JoinPhone),
        1 => n.clone().prop_map(Step::Leave),
        12 => (n.clone(), n.clone(), n.clone(), 0..2_usize)
            .prop_map(|(viewer, id, what, session)| Step::Request { viewer, id, what, session }),
        8 => (n.clone(), n.clone(), 0..4_usize)
            .prop_map(|(viewer, question, option)| Step::Answer { viewer, question, option }),
        2 => (n.clone(), 0..2_usize).prop_map(|(viewer, session)| Step::Cancel { viewer, session }),
        2 => (n.clone(), n.clone()).prop_map(|(viewer, id)| Step::CancelRequest { viewer, id }),
        12 => (n.clone(), prop::bool::weighted(0.2)).prop_map(|(which, fails)| Step::AgentAnswers { which, fails }),
        3 => (0..3_usize).prop_map(|session| Step::AgentUpdates { session }),
        6 => (n.clone(), n.clone(), 0..3_usize).prop_map(|(id, what, session)| Step::AgentAsks { id, what, session }),
        1 => n.prop_map(|id| Step::AgentTakesBack { id }),
        2 => (0..40_u64).prop_map(Step::Wait),
    ];
    prop::collection::vec(step, 1..120)
}

/// What each side is owed, by an account of its own.
struct World {
    bench: Bench,
    phones: BTreeMap<ViewerId, usize>,
    desktops: BTreeSet<ViewerId>,
    /// Requests of viewers without an answer, and the tag by which their own answer is known.
    owed: BTreeMap<(ViewerId, RequestId), Option<i64>>,
    /// Requests that the agent has, and the tag that came with each.
    at_agent: BTreeMap<RequestId, (String, Option<i64>)>,
    /// Requests of the agent without an answer.
    agent_owed: BTreeSet<RequestId>,
    /// Questions that each viewer has been given, and whether they are open there.
    given: BTreeMap<ViewerId, Vec<(i64, bool)>>,
    next_tag: i64,
    gone: bool,
}

fn id(which: usize) -> RequestId {
    match which % 4 {
        0 => RequestId::Number(0),
        1 => RequestId::Number(1),
        2 => RequestId::Text("1".to_owned()),
        _ => RequestId::Null,
    }
}

impl World {
    fn new() -> Self {
        let settings = Settings { read_files: true, terminals: true, ..Settings::default() };
        Self {
            bench: Bench::new(settings),
            phones: BTreeMap::new(),
            desktops: BTreeSet::new(),
            owed: BTreeMap::new(),
            at_agent: BTreeMap::new(),
            agent_owed: BTreeSet::new(),
            given: BTreeMap::new(),
            next_tag: 0,
            gone: false,
        }
    }

    fn viewer(&self, which: usize) -> Option<ViewerId> {
        let all: Vec<ViewerId> = self.desktops.iter().chain(self.phones.keys()).copied().collect();
        (!all.is_empty()).then(|| all[which % all.len()])
    }

    fn session_of(&self, viewer: ViewerId, session: usize) -> &'static str {
        SESSIONS[self.phones.get(&viewer).copied().unwrap_or(session)]
    }

    fn step(&mut self, step: &Step) {
        match *step {
            Step::JoinDesktop if self.desktops.len() < 3 => {
                let viewer = self.bench.join(Kind::Desktop);
                self.desktops.insert(viewer);
                let params = r#"{"protocolVersion":1,"clientCapabilities":{"fs":{"readTextFile":true},"terminal":true}}"#;
                self.send(viewer, request("init", "initialize", params), None);
            }
            Step::JoinPhone(session) if self.phones.len() < 4 => {
                let viewer = self.bench.phone_in(SESSIONS[session]);
                self.phones.insert(viewer, session);
            }
            Step::Leave(which) => {
                let Some(viewer) = self.viewer(which) else { return };
                self.desktops.remove(&viewer);
                self.phones.remove(&viewer);
                self.owed.retain(|(owner, _), _| *owner != viewer);
                self.given.remove(&viewer);
                self.bench.leave(viewer);
            }
            Step::Request { viewer, id: which, what, session } => self.request(viewer, which, what, session),
            Step::Answer { viewer, question, option } => self.answer(viewer, question, option),
            Step::Cancel { viewer, session } => {
                let Some(viewer) = self.viewer(viewer) else { return };
                if self.phones.contains_key(&viewer) {
                    self.phone(viewer, FromPhone::Cancel);
                } else {
                    let params = format!(r#"{{"sessionId":"{}"}}"#, SESSIONS[session]);
                    self.bench.desktop(viewer, notice("session/cancel", &params));
                }
            }
            Step::CancelRequest { viewer, id: which } => {
                let Some(viewer) = self.viewer(viewer) else { return };
                if self.phones.contains_key(&viewer) {
                    self.phone(viewer, FromPhone::CancelRequest { id: id(which) });
                } else {
                    let params = format!(r#"{{"requestId":{}}}"#, id(which).to_json());
                    self.bench.desktop(viewer, notice("$/cancel_request", &params));
                }
            }
            Step::AgentAnswers { which, fails } => {
                let Some((id, (method, tag))) = self.at_agent.iter().nth(which % self.at_agent.len().max(1))
                else {
                    return;
                };
                let (id, method, tag) = (id.clone(), method.clone(), *tag);
                self.at_agent.remove(&id);
                self.agent_answers(id, &method, tag, fails);
            }
            Step::AgentUpdates { session } => {
                let session = ["s", "r", "nobody"][session];
                let update =
                    r#"{"sessionUpdate":"agent_message_chunk","content":{"type":"text","text":"a"}}"#;
                let params = format!(r#"{{"sessionId":"{session}","update":{update}}}"#);
                self.bench.agent(notice("session/update", &params));
            }
            Step::AgentAsks { id: which, what, session } => {
                if self.gone || !self.agent_owed.insert(id(which)) {
                    return;
                }
                let session = ["s", "r", "nobody"][session];
                let method =
                    ["session/request_permission", "fs/read_text_file", "terminal/create", "x"][what % 4];
                let options = r#"[{"optionId":"yes","name":"Yes","kind":"allow_once"},{"optionId":"no","name":"No","kind":"reject_once"}]"#;
                let params = format!(r#"{{"sessionId":"{session}","options":{options}}}"#);
                self.bench.agent(request(&id(which), method, &params));
            }
            Step::AgentTakesBack { id: which } => {
                let params = format!(r#"{{"requestId":{}}}"#, id(which).to_json());
                self.bench.agent(notice("$/cancel_request", &params));
            }
            Step::Wait(seconds) => {
                self.bench.now += Duration::from_secs(seconds);
                self.bench.look();
            }
            Step::JoinDesktop | Step::JoinPhone(_) => {}
        }
    }

    fn phone(&mut self, viewer: ViewerId, message: FromPhone) {
        let effects = self.bench.mux.from_phone(viewer, message, self.bench.now);
        self.bench.add(effects);
    }

    /// Sends a desktop's request. An id in use is not used again: nobody could tell the answers apart.
    fn send(&mut self, viewer: ViewerId, message: Message, tag: Option<i64>) {
        let Message::Request { id, .. } = &message else { panic!() };
        if let Entry::Vacant(free) = self.owed.entry((viewer, id.clone())) {
            free.insert(tag);
            self.bench.desktop(viewer, message);
        }
    }

    fn request(&mut self, which_viewer: usize, which: usize, what: usize, session: usize) {
        let Some(viewer) = self.viewer(which_viewer) else { return };
        let session = self.session_of(viewer, session);
        self.next_tag += 1;
        let tag = self.next_tag;
        if self.phones.contains_key(&viewer) {
            if self.owed.contains_key(&(viewer, id(which))) {
                return;
            }
            let asked = [Asked::Status, Asked::Load, Asked::Initialize];
            let prompt = json(&format!(r#"[{{"type":"text","text":"{tag}"}}]"#));
            let (message, tag) = match asked.get(what % 8) {
                Some(asked) => (FromPhone::Request { id: id(which), asked: *asked }, None),
                None => (FromPhone::Prompt { id: id(which), prompt }, Some(tag)),
            };
            self.owed.insert((viewer, id(which)), tag);
            return self.phone(viewer, message);
        }
        let methods = [
            "session/prompt",
            "session/prompt",
            "session/prompt",
            "session/list",
            "session/set_mode",
            "session/load",
            "session/resume",
            "session/close",
            "session/new",
        ];
        let method = methods[what % methods.len()];
        let prompt = format!(r#"[{{"type":"text","text":"{tag}"}}]"#);
        let params = format!(r#"{{"sessionId":"{session}","modeId":"m","tag":{tag},"prompt":{prompt}}}"#);
        self.send(viewer, request(&id(which), method, &params), Some(tag));
    }

    fn answer(&mut self, viewer: usize, question: usize, option: usize) {
        let Some(viewer) = self.viewer(viewer) else { return };
        let Some(given) = self.given.get_mut(&viewer).filter(|given| !given.is_empty()) else { return };
        let at = question % given.len();
        let (question, open) = given[at];
        if self.phones.contains_key(&viewer) && !open {
            // Its guest would refuse that.
            return;
        }
        given[at].1 = false;
        let outcome = ["yes", "no", "never"]
            .get(option)
            .map(|option| json(&format!(r#"{{"outcome":{{"outcome":"selected","optionId":"{option}"}}}}"#)));
        if self.phones.contains_key(&viewer) {
            self.phone(
                viewer,
                match outcome {
                    Some(outcome) => FromPhone::Answer { question, outcome },
                    None => FromPhone::AnswerError { question },
                },
            );
        } else {
            let error = RpcError { code: -32603, message: "no".to_owned(), data: None };
            let message =
                Message::Response { id: RequestId::Number(question), outcome: outcome.ok_or(error) };
            self.bench.desktop(viewer, message);
        }
    }

    fn agent_answers(&mut self, id: RequestId, method: &str, tag: Option<i64>, fails: bool) {
        let tag = tag.map(|tag| format!(r#","tag":{tag}"#)).unwrap_or_default();
        let outcome = match method {
            _ if fails => Err(RpcError {
                code: -32603,
                message: "no".to_owned(),
                data: Some(json(&format!("{{\"x\":1{tag}}}"))),
            }),
            "session/prompt" => Ok(json(&format!(r#"{{"stopReason":"end_turn"{tag}}}"#))),
            "session/new" => Ok(json(&format!(r#"{{"sessionId":"new"{tag}}}"#))),
            _ => Ok(json(&format!(r#"{{"x":1{tag}}}"#))),
        };
        self.bench.agent(Message::Response { id, outcome });
    }

    /// Looks at every effect.
    fn settle(&mut self) {
        for effect in self.bench.all() {
            match effect {
                Effect::ToAgent(Message::Request { id, method, params }) => {
                    let params = params.unwrap();
                    let tag = tag_of(&params);
                    assert!(
                        self.at_agent.insert(id, (method, tag)).is_none(),
                        "an id is used twice upstream"
                    );
                }
                Effect::ToAgent(Message::Response { id, .. }) => {
                    assert!(
                        self.agent_owed.remove(&id),
                        "the agent got an answer that it was not owed: {id:?}"
                    );
                }
                Effect::ToAgent(Message::Notification { .. }) => {}
                Effect::ToDesktop(viewer, Message::Response { id, outcome }) => {
                    assert!(self.desktops.contains(&viewer));
                    self.answered(viewer, id, outcome);
                }
                Effect::Answer(viewer, id, outcome) => {
                    assert!(self.phones.contains_key(&viewer));
                    self.answered(viewer, id, outcome);
                }
                Effect::ToDesktop(viewer, Message::Request { id: RequestId::Number(question), .. }) => {
                    assert!(self.desktops.contains(&viewer));
                    self.asked(viewer, question);
                }
                Effect::Ask { viewer, question, params, method } => {
                    assert_eq!(method, "session/request_permission");
                    assert_eq!(
                        params.get("sessionId").unwrap().as_text(),
                        Some(SESSIONS[self.phones[&viewer]])
                    );
                    self.asked(viewer, question);
                }
                Effect::Update(viewer, params) | Effect::Replay(viewer, params) => {
                    assert_eq!(
                        params.get("sessionId").unwrap().as_text(),
                        Some(SESSIONS[self.phones[&viewer]])
                    );
                }
                Effect::Retire(viewer, question) => self.retired(viewer, question),
                Effect::ToDesktop(viewer, Message::Notification { method, params }) => {
                    if method == "$/cancel_request" {
                        self.retired(viewer, params.unwrap().get("requestId").unwrap().as_integer().unwrap());
                    }
                }
                Effect::AlreadyResolved(viewer, question) | Effect::NotOffered(viewer, question) => {
                    assert!(self.given[&viewer].contains(&(question, false)));
                }
                other => panic!("{other:?}"),
            }
        }
    }

    fn asked(&mut self, viewer: ViewerId, question: i64) {
        let given = self.given.entry(viewer).or_default();
        assert!(!given.contains(&(question, true)), "asked twice");
        given.push((question, true));
    }

    fn retired(&mut self, viewer: ViewerId, question: i64) {
        let given = self.given.get_mut(&viewer).unwrap();
        let one = given.iter_mut().find(|(number, open)| *number == question && *open);
        one.expect("what is retired was open").1 = false;
    }

    fn answered(&mut self, viewer: ViewerId, id: RequestId, outcome: Result<Json, RpcError>) {
        let tag = self.owed.remove(&(viewer, id.clone()));
        let tag = tag.unwrap_or_else(|| panic!("{viewer} got an answer that it was not owed: {id:?}"));
        // What the agent says of one request comes to the viewer that made it.
        let said = match &outcome {
            Ok(result) => tag_of(result),
            Err(error) => error.data.as_ref().and_then(tag_of),
        };
        assert!(said.is_none() || said == tag, "answers crossed");
    }
}

/// The number that the request was made with.
fn tag_of(params: &Json) -> Option<i64> {
    let Some(Json::List(blocks)) = params.get("prompt") else { return params.get("tag")?.as_integer() };
    blocks.first()?.get("text")?.as_text()?.parse().ok()
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(400) })]

    #[test]
    fn every_request_gets_exactly_one_answer_and_ids_never_cross(steps in steps(), agent_ends in any::<bool>()) {
        let mut world = World::new();
        world.settle();
        for step in &steps {
            world.step(step);
            world.settle();
            // A turn that runs is the only one of its session at the agent.
            for session in SESSIONS {
                let live = world.bench.mux.sessions().find(|info| info.id.as_str() == session);
                let busy = live.is_some_and(|info| info.turns != Turns::Idle);
                let waiting = world.bench.mux.sessions().filter(|info| info.id.as_str() == session).map(|info| info.waiting).sum::<usize>();
                prop_assert!(busy || waiting == 0, "a prompt waits while no turn runs");
            }
        }
        if agent_ends {
            let effects = world.bench.mux.agent_gone();
            world.bench.add(effects);
            world.gone = true;
            // Nobody answers the dead.
            world.agent_owed.clear();
            world.settle();
        }
        // The agent answers what it has, and what follows from that; whoever was asked answers as well.
        for round in 0..1000 {
            let Some((id, (method, tag))) = world.at_agent.pop_first() else { break };
            prop_assert!(round < 999, "the agent is asked without end");
            world.agent_answers(id, &method, tag, false);
            world.settle();
        }
        prop_assert!(world.owed.is_empty(), "without an answer: {:?}", world.owed);
        for viewer in world.desktops.clone().into_iter().chain(world.phones.clone().into_keys()) {
            for (question, _) in world.given.get(&viewer).cloned().unwrap_or_default().into_iter().filter(|(_, open)| *open) {
                let given = world.given.get_mut(&viewer).unwrap();
                let one = given.iter_mut().find(|(number, open)| *number == question && *open);
                if let Some(one) = one {
                    one.1 = false;
                    let effects = world.bench.mux.cannot_answer(viewer, question, world.bench.now);
                    world.bench.add(effects);
                    world.settle();
                }
            }
        }
        world.bench.now += Mux::START + Duration::from_secs(600);
        world.bench.look();
        world.settle();
        prop_assert!(world.agent_owed.is_empty(), "the agent waits for {:?}", world.agent_owed);
        prop_assert_eq!(world.bench.mux.next_look(), None);
    }
}
