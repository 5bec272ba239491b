//! The state of one session.

use std::collections::{BTreeMap, VecDeque};
use std::mem;
use std::sync::Arc;
use std::time::Duration;

use sessioncap::acp::{Json, RequestId};

use super::json::{set, text_at, weight};
use super::{Mux, Turns, ViewerId};

/// Kinds of update of which the last one says all. They are kept beside the transcript.
const STATE: [&str; 6] = [
    "available_commands_update",
    "config_option_update",
    "current_mode_update",
    "plan",
    "session_info_update",
    "usage_update",
];

/// The kind of a tool call that changes the mode.
const MODE_SWITCH: &str = "switch_mode";

/// A session that lives in the agent, or is on its way there.
#[derive(Debug, Default)]
pub struct Session {
    pub opening: Option<Opening>,
    pub cwd: Option<String>,
    pub modes: Option<Json>,
    pub config: Option<Json>,
    pub turn: Option<Turn>,
    pub waiting: VecDeque<Waiting>,
    /// The next of them, while it is asked whether its phone still may.
    pub asked: Option<Waiting>,
    /// The desktop that serves the agent's calls, until it leaves.
    pub helper: Option<ViewerId>,
    /// The last tool calls of which an update said that they change the mode.
    mode_switches: VecDeque<String>,
    /// Terminals at that desktop.
    pub terminals: BTreeMap<String, ViewerId>,
    /// Notifications' `params` by their kind, see [`STATE`].
    state: BTreeMap<&'static str, Arc<Json>>,
    transcript: VecDeque<(Arc<Json>, usize)>,
    transcript_weight: usize,
}

/// A session whose `session/load` or `session/resume` is not answered yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Opening {
    /// A replay goes to this desktop.
    Load(ViewerId),
    /// A replay, which the protocol forbids here, goes to nobody.
    Resume,
}

/// A turn that the agent has not answered yet.
#[derive(Debug)]
pub struct Turn {
    pub upstream: i64,
    pub began: Duration,
    pub cancelled: Option<Duration>,
    /// It was cancelled and did not settle in time. Its owner has an answer.
    pub given_up: bool,
}

/// A prompt that waits for its turn.
#[derive(Debug)]
pub struct Waiting {
    pub viewer: ViewerId,
    pub id: RequestId,
    pub params: Json,
}

impl Session {
    pub fn new(cwd: Option<String>, opening: Option<Opening>) -> Self {
        Self { cwd, opening, ..Self::default() }
    }

    /// Keeps an update. Returns whether it is part of the state.
    pub fn keep(&mut self, params: &Arc<Json>) -> bool {
        let update = params.get("update");
        let kind = text_at(update, "sessionUpdate");
        let size = weight(params);
        if text_at(update, "kind") == Some(MODE_SWITCH)
            && let Some(call) = text_at(update, "toolCallId").filter(|call| call.len() <= Mux::MAX_NAME)
            && !self.mode_switches.iter().any(|known| known == call)
        {
            self.mode_switches.truncate(Mux::MAX_MODE_SWITCHES.saturating_sub(1));
            self.mode_switches.push_front(call.to_owned());
        }
        if let Some(kind) = STATE.into_iter().find(|state| Some(*state) == kind) {
            if size <= Mux::MAX_STATE {
                self.keep_state(kind, params);
            }
            return true;
        }
        self.transcript_weight = self.transcript_weight.saturating_add(size);
        self.transcript.push_back((Arc::clone(params), size));
        while self.transcript_weight > Mux::MAX_TRANSCRIPT {
            let Some((_, size)) = self.transcript.pop_front() else { break };
            self.transcript_weight = self.transcript_weight.saturating_sub(size);
        }
        false
    }

    fn keep_state(&mut self, kind: &'static str, params: &Arc<Json>) {
        let update = params.get("update");
        match kind {
            "current_mode_update" => {
                if let (Some(modes), Some(mode)) = (&mut self.modes, text_at(update, "currentModeId")) {
                    set(modes, "currentModeId", Json::text(mode));
                }
            }
            "config_option_update" => {
                self.config = update.and_then(|update| update.get("configOptions")).cloned();
            }
            _ => {}
        }
        let mut kept = Arc::clone(params);
        if kind == "session_info_update" {
            // A key that is not there is unchanged.
            if let (Some(Json::Object(old)), Some(new)) =
                (self.state.get(kind).and_then(|old| old.get("update")), update)
            {
                let mut all = new.clone();
                for (key, value) in old.iter().filter(|(key, _)| new.get(key).is_none()) {
                    set(&mut all, key, value.clone());
                }
                let mut merged = Json::clone(params);
                set(&mut merged, "update", all);
                if weight(&merged) <= Mux::MAX_STATE {
                    kept = Arc::new(merged);
                }
            }
        }
        self.state.insert(kind, kept);
    }

    /// Adds to a request for permission that its tool call changes the mode, if an update has said so: agents do not
    /// repeat it there.
    pub fn complete_permission(&self, params: &mut Json) {
        let Some(mut call) = params.get("toolCall").cloned() else { return };
        let id = text_at(Some(&call), "toolCallId");
        if self.mode_switches.iter().any(|known| Some(known.as_str()) == id) {
            set(&mut call, "kind", Json::text(MODE_SWITCH));
            set(params, "toolCall", call);
        }
    }

    /// Keeps what a result says of the session.
    pub fn keep_result(&mut self, result: &Json) {
        for (key, place) in [("modes", &mut self.modes), ("configOptions", &mut self.config)] {
            if let Some(value) = result.get(key).filter(|value| weight(value) <= Mux::MAX_STATE) {
                *place = Some(value.clone());
            }
        }
    }

    /// The result of `session/load` or `session/resume`, as the agent would give it now.
    pub fn result(&self) -> Json {
        let parts = [("modes", &self.modes), ("configOptions", &self.config)];
        let parts = parts.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value.clone()?)));
        Json::Object(parts.collect())
    }

    /// What happened, oldest first, as far as it is kept.
    pub fn transcript(&self) -> Vec<Arc<Json>> {
        self.transcript.iter().map(|(params, _)| Arc::clone(params)).collect()
    }

    /// The last update of each kind that has a state.
    pub fn state(&self) -> Vec<Arc<Json>> {
        self.state.values().map(Arc::clone).collect()
    }

    pub fn title(&self) -> Option<&str> {
        text_at(self.state.get("session_info_update")?.get("update"), "title")
    }

    pub fn turns(&self) -> Turns {
        match &self.turn {
            None => Turns::Idle,
            Some(turn) if turn.given_up => Turns::Stuck,
            Some(turn) if turn.cancelled.is_some() => Turns::Settling,
            Some(_) => Turns::Running,
        }
    }

    /// Takes the waiting prompts of a viewer, or all.
    pub fn take_waiting(&mut self, viewer: Option<ViewerId>) -> Vec<Waiting> {
        let mut all = mem::take(&mut self.waiting);
        if let Some(asked) = self.asked.take_if(|one| viewer.is_none_or(|viewer| one.viewer == viewer)) {
            all.push_front(asked);
        }
        let (taken, left): (VecDeque<_>, _) =
            all.into_iter().partition(|one| viewer.is_none_or(|viewer| one.viewer == viewer));
        self.waiting = left;
        taken.into()
    }
}
