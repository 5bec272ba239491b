//! The fuzz target of the multiplexer. Panics when a law is broken; nothing in it is random.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use sessioncap::acp::{AcpSessionId, Asked, FromPhone, Json, Message, RequestId};
use sessioncap_acp::mux::{Effect, Kind, Mux, Settings, ViewerId};
use sessioncap_acp::process::Unreadable;

/// How often each request is owed an answer, by who sent it; no viewer is the agent.
#[derive(Default)]
struct Owed(BTreeMap<(Option<ViewerId>, RequestId), u32>);

impl Owed {
    fn add(&mut self, who: Option<ViewerId>, id: &RequestId) {
        *self.0.entry((who, id.clone())).or_default() += 1;
    }

    fn take(&mut self, who: Option<ViewerId>, id: &RequestId) {
        let owed = self.0.get_mut(&(who, id.clone()));
        let owed = owed.filter(|owed| **owed > 0);
        *owed.unwrap_or_else(|| panic!("{who:?} got an answer to {id:?} that it was not owed")) -= 1;
    }
}

struct World {
    mux: Mux,
    now: Duration,
    owed: Owed,
    /// Ids that the multiplexer has used at the agent.
    upstream: BTreeSet<RequestId>,
    /// Numbers of questions that each viewer has been given, and whether they are open there.
    given: BTreeMap<(ViewerId, i64), bool>,
    desktops: Vec<ViewerId>,
    phones: Vec<ViewerId>,
}

impl World {
    fn settle(&mut self, effects: Vec<Effect>) {
        let mut effects = VecDeque::from(effects);
        while let Some(effect) = effects.pop_front() {
            match effect {
                Effect::ToAgent(Message::Request { id, .. }) => {
                    assert!(self.upstream.insert(id), "an id is used twice upstream");
                }
                Effect::ToAgent(Message::Response { id, .. }) => self.owed.take(None, &id),
                Effect::ToDesktop(viewer, Message::Response { id, .. }) => {
                    assert!(self.desktops.contains(&viewer));
                    self.owed.take(Some(viewer), &id);
                }
                Effect::Answer(viewer, id, _) => {
                    assert!(self.phones.contains(&viewer));
                    self.owed.take(Some(viewer), &id);
                }
                Effect::ToDesktop(viewer, Message::Request { id, .. }) => {
                    assert!(self.desktops.contains(&viewer));
                    let RequestId::Number(question) = id else { panic!("a question without a number") };
                    assert!(self.given.insert((viewer, question), true).is_none(), "a number is used twice");
                }
                Effect::Ask { viewer, question, params, .. } => {
                    assert!(self.phones.contains(&viewer));
                    self.is_of_the_phones_session(&params);
                    assert!(self.given.insert((viewer, question), true).is_none(), "a number is used twice");
                }
                Effect::Update(viewer, params) | Effect::Replay(viewer, params) => {
                    assert!(self.phones.contains(&viewer));
                    self.is_of_the_phones_session(&params);
                }
                Effect::Retire(viewer, question) => {
                    let open = self.given.insert((viewer, question), false);
                    assert_eq!(open, Some(true), "a question is retired that was not open");
                }
                Effect::Permit(viewer, session) => {
                    assert!(self.phones.contains(&viewer));
                    let more = self.mux.permitted(&session, viewer.to_string().len() % 2 == 0, self.now);
                    for effect in more.into_iter().rev() {
                        effects.push_front(effect);
                    }
                }
                Effect::ToAgent(Message::Notification { .. })
                | Effect::ToDesktop(_, Message::Notification { .. })
                | Effect::AlreadyResolved(..)
                | Effect::NotOffered(..)
                | Effect::EndAgent(_) => {}
            }
        }
    }

    /// Every phone here has the session `s`.
    fn is_of_the_phones_session(&self, params: &Json) {
        assert_eq!(params.get("sessionId").and_then(Json::as_text), Some("s"));
    }

    fn join(&mut self, kind: Kind) {
        let phone = kind != Kind::Desktop;
        let (viewer, effects) = self.mux.join(kind, self.now);
        if phone { &mut self.phones } else { &mut self.desktops }.push(viewer);
        self.settle(effects);
    }

    fn agent_writes(&mut self, line: &[u8]) {
        let effects = match Message::from_bytes(line) {
            Ok(message) => {
                if let Message::Request { id, .. } = &message {
                    self.owed.add(None, id);
                }
                self.mux.from_agent(message, self.now)
            }
            Err(_) => {
                let Ok(id) = std::str::from_utf8(line).unwrap_or_default().trim().parse() else { return };
                self.mux.unreadable(Unreadable::Answer(RequestId::Number(id)), self.now)
            }
        };
        self.settle(effects);
    }

    fn desktop_sends(&mut self, which: usize, line: &[u8]) {
        let (Some(viewer), Ok(message)) = (self.desktops.get(which).copied(), Message::from_bytes(line))
        else {
            return;
        };
        match &message {
            Message::Request { id, .. } => self.owed.add(Some(viewer), id),
            Message::Response { id: RequestId::Number(question), .. } => self.answered(viewer, *question),
            _ => {}
        }
        let effects = self.mux.from_desktop(viewer, message, self.now);
        self.settle(effects);
    }

    fn answered(&mut self, viewer: ViewerId, question: i64) {
        if let Some(open) = self.given.get_mut(&(viewer, question)) {
            *open = false;
        }
    }

    fn phone_sends(&mut self, which: usize, line: &[u8]) {
        let (Some(viewer), Ok(message)) = (self.phones.get(which).copied(), Message::from_bytes(line)) else {
            return;
        };
        let message = match message {
            Message::Request { id, method, params } => {
                // The guest refuses an id that is in use.
                if self.owed.0.get(&(Some(viewer), id.clone())).is_some_and(|owed| *owed > 0) {
                    return;
                }
                self.owed.add(Some(viewer), &id);
                match method.as_str() {
                    "session/prompt" => FromPhone::Prompt { id, prompt: params.unwrap_or(Json::Null) },
                    "session/load" => FromPhone::Request { id, asked: Asked::Load },
                    "session/resume" => FromPhone::Request { id, asked: Asked::Resume },
                    "session/list" => FromPhone::Request { id, asked: Asked::ListSessions },
                    _ => FromPhone::Request { id, asked: Asked::Initialize },
                }
            }
            Message::Notification { params, .. } => match params.as_ref().and_then(RequestId::from_json) {
                Some(id) => FromPhone::CancelRequest { id },
                None => FromPhone::Cancel,
            },
            Message::Response { id: RequestId::Number(question), outcome } => {
                // The guest takes one answer to a question that is open.
                if self.given.get(&(viewer, question)) != Some(&true) {
                    return;
                }
                self.answered(viewer, question);
                match outcome {
                    Ok(outcome) => FromPhone::Answer { question, outcome },
                    Err(_) => FromPhone::AnswerError { question },
                }
            }
            Message::Response { .. } => return,
        };
        let effects = self.mux.from_phone(viewer, message, self.now);
        self.settle(effects);
    }

    fn leave(&mut self, which: usize) {
        let all = self.desktops.iter().chain(&self.phones).copied();
        let Some(viewer) = all.clone().nth(which % all.count().max(1)) else { return };
        self.desktops.retain(|other| *other != viewer);
        self.phones.retain(|other| *other != viewer);
        self.owed.0.retain(|(who, _), _| *who != Some(viewer));
        let effects = self.mux.leave(viewer, self.now);
        self.settle(effects);
    }
}

/// Each line is one event; its first byte says of what: `a` a line of the agent (a bare number is an unreadable answer),
/// `0` to `3` of a desktop, `4` to `7` of a phone, `d` and `p` one of these joins, `l` one leaves, `w` time passes.
///
/// Each request gets at most one answer, no number is used twice, and a phone sees messages of its own session only.
/// When the agent is gone, every viewer has its answers and nothing is waited for.
pub fn mux(data: &[u8]) {
    let settings = Settings {
        read_files: true,
        write_files: true,
        terminals: true,
        elicitation: true,
        ..Settings::default()
    };
    let (mux, effects) = Mux::new(settings, Duration::ZERO);
    let mut world = World {
        mux,
        now: Duration::ZERO,
        owed: Owed::default(),
        upstream: BTreeSet::new(),
        given: BTreeMap::new(),
        desktops: Vec::new(),
        phones: Vec::new(),
    };
    world.settle(effects);
    for line in data.split(|byte| *byte == b'\n') {
        let Some((kind, line)) = line.split_first() else { continue };
        match kind {
            b'a' => world.agent_writes(line),
            b'0'..=b'3' => world.desktop_sends(usize::from(kind - b'0'), line),
            b'4'..=b'7' => world.phone_sends(usize::from(kind - b'4'), line),
            b'd' if world.desktops.len() < 4 => world.join(Kind::Desktop),
            b'p' if world.phones.len() < 4 => {
                let Some(session) = AcpSessionId::new("s") else { continue };
                world.join(Kind::Phone { session });
            }
            b'l' => world.leave(line.len()),
            b'w' => {
                world.now += Duration::from_secs(line.len() as u64);
                let effects = world.mux.look(world.now);
                world.settle(effects);
            }
            _ => {}
        }
    }
    let effects = world.mux.agent_gone();
    world.settle(effects);
    for ((who, id), owed) in &world.owed.0 {
        assert!(who.is_none() || *owed == 0, "{who:?} never got its answer to {id:?}");
    }
    assert_eq!(world.mux.next_look(), None);
    assert_eq!(world.mux.sessions().map(|session| session.waiting + session.questions).sum::<usize>(), 0);
}
