//! Every bound of the multiplexer, with its reason.

use std::time::Duration;

use super::{Mux, Settings};

impl Mux {
    /// Sessions that live in one agent process. A desktop that wants more closes one.
    pub const MAX_SESSIONS: usize = 64;
    /// Requests of one viewer that are not answered yet.
    pub const MAX_OPEN: usize = 64;
    /// Requests that the agent has not answered, of viewers that have left as well: an agent that answers nothing
    /// must not let them grow.
    pub const MAX_UPSTREAM: usize = 1024;
    /// Prompts of one viewer that wait in one session.
    pub const MAX_WAITING_OF_ONE: usize = 4;
    /// Prompts that wait in one session.
    pub const MAX_WAITING: usize = 16;
    /// Requests of the agent in one session that are not answered yet.
    pub const MAX_QUESTIONS: usize = 32;
    /// Bytes in memory, about, of all requests of the agent that are not answered yet.
    pub const MAX_QUESTION_BYTES: usize = 32 << 20;
    /// Bytes in memory, about, of the updates that a session keeps for whoever comes later. The oldest go first.
    pub const MAX_TRANSCRIPT: usize = 4 << 20;
    /// Bytes in memory, about, of one piece of a session's state (its modes, its plan). A larger one is passed on
    /// and not kept.
    pub const MAX_STATE: usize = 256 << 10;
    /// Bytes in memory, about, of updates that came before the result that names their session. Later ones are
    /// dropped.
    pub const MAX_EARLY: usize = 1 << 20;
    /// Tool calls of one session that are remembered as changing the mode.
    pub const MAX_MODE_SWITCHES: usize = 64;
    /// Terminals of one session whose desktop is remembered.
    pub const MAX_TERMINALS: usize = 64;
    /// Longest name of a terminal or a tool call that is remembered, in bytes.
    pub const MAX_NAME: usize = 256;
    /// How long the agent may take to answer `initialize`: the first start of some downloads the agent.
    pub const START: Duration = Duration::from_secs(120);
    /// How long a viewer must have had another's turn before its `session/cancel` can mean that one. One that comes
    /// earlier was meant for the turn before.
    pub const SEEN: Duration = Duration::from_secs(1);
}

impl Settings {
    /// How long a question waits by default while nobody may answer it.
    pub const UNATTENDED: Duration = Duration::from_secs(120);
}

impl Default for Settings {
    /// No calls of the agent to the desktop; 30 seconds to settle; two minutes for a question that nobody sees.
    fn default() -> Self {
        Self {
            read_files: false,
            write_files: false,
            terminals: false,
            elicitation: false,
            settle: Duration::from_secs(30),
            unattended: Self::UNATTENDED,
        }
    }
}
