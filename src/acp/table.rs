//! The table of the methods: who may send which, and what that needs (`docs/PROTOCOL.md` section 17.3). The only
//! place that maps the name of a method to an operation.

use crate::op::{Action, Op, Privilege};

/// Who sends a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Sender {
    /// A phone.
    Phone,
    /// The agent, behind the bridge.
    Agent,
}

/// The kind of a JSON-RPC message with a method.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// It is answered.
    Request,
    /// It is not.
    Notification,
}

/// What happens to a method.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Rule {
    /// From a phone: read and served where the operation is granted. From an agent: shown to phones under it.
    Session(Op),
    /// From a phone: about its own connection, which needs any one operation of its credential.
    Connection,
    /// From a phone: refused to every credential.
    Privileged(Privilege),
    /// From a phone: it would need this operation, and this version of the profile does not serve it.
    Unserved(Op),
    /// From an agent: answered by the bridge or at the desktop, and never shown to a phone.
    Withheld,
    /// There is no such method, or not of this kind.
    Unknown,
}

impl Rule {
    /// Returns the rule for a method.
    #[must_use]
    pub fn of(sender: Sender, kind: Kind, method: &str) -> Self {
        match sender {
            Sender::Phone => from_phone(kind, method),
            Sender::Agent => from_agent(kind, method),
        }
    }

    /// Returns what a credential would need, if that is one thing.
    #[must_use]
    pub fn action(self) -> Option<Action> {
        match self {
            Self::Session(op) | Self::Unserved(op) => Some(Action::Session(op)),
            Self::Privileged(privilege) => Some(Action::Privileged(privilege)),
            Self::Connection | Self::Withheld | Self::Unknown => None,
        }
    }
}

/// A request of a phone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Asked {
    /// `initialize`. What the phone says that it can do goes nowhere.
    Initialize,
    /// `authenticate`, in version 2 `auth/login`. The credential is the proof; the answer is always yes.
    Authenticate,
    /// `logout`, in version 2 `auth/logout`. It changes nothing: a phone leaves by closing its connection.
    Logout,
    /// `auth/status`, of this connection.
    AuthStatus,
    /// `session/list`. The answer has the one session.
    ListSessions,
    /// `session/status`.
    Status,
    /// `session/prompt`. See [`FromPhone::Prompt`](crate::acp::FromPhone::Prompt).
    Prompt,
    /// `session/resume`: follow the session from now on.
    Resume,
    /// `session/load`: follow it, after its past.
    Load,
}

fn from_phone(kind: Kind, method: &str) -> Rule {
    // Refused in either kind.
    if let Some(privilege) = privilege(method) {
        return Rule::Privileged(privilege);
    }
    match kind {
        Kind::Request => match (asked(method), method) {
            (Some(asked), _) => asked.op().map_or(Rule::Connection, Rule::Session),
            // Of version 2, which no agent behind a bridge of this profile speaks.
            (None, "tool_call/cancel" | "terminal/cancel") => Rule::Unserved(Op::Interrupt),
            // Of drafts, and of bridges that were deployed.
            (None, "session/attach") => Rule::Unserved(Op::StreamOutput),
            (None, "session/detach") => Rule::Unserved(Op::Detach),
            (None, "tinyvex/history.sessionTimeline") => Rule::Unserved(Op::ReadHistory),
            (None, "tinyvex/history.getSessionTitle") => Rule::Unserved(Op::ReadMetadata),
            _ => Rule::Unknown,
        },
        Kind::Notification => match method {
            "session/cancel" => Rule::Session(Op::Interrupt),
            "$/cancel_request" => Rule::Connection,
            _ => Rule::Unknown,
        },
    }
}

/// The request of a phone that a method is.
pub(super) fn asked(method: &str) -> Option<Asked> {
    Some(match method {
        "initialize" => Asked::Initialize,
        "authenticate" | "auth/login" => Asked::Authenticate,
        "logout" | "auth/logout" => Asked::Logout,
        "auth/status" => Asked::AuthStatus,
        "session/list" => Asked::ListSessions,
        "session/status" => Asked::Status,
        "session/prompt" => Asked::Prompt,
        "session/resume" => Asked::Resume,
        "session/load" => Asked::Load,
        _ => return None,
    })
}

fn privilege(method: &str) -> Option<Privilege> {
    Some(match method {
        "session/new" | "session/fork" => Privilege::CreateSession,
        "session/close" | "session/delete" | "session/archive" | "session/unarchive" => Privilege::Administer,
        // A mode may switch the approvals off.
        "session/set_mode"
        | "session/set_config_option"
        | "session/set_title"
        | "session/options"
        | "providers/list"
        | "providers/set"
        | "providers/disable" => Privilege::Configure,
        "mcp/message" | "mcp/connect" | "mcp/disconnect" => Privilege::ExecuteOutsideSession,
        "proxy/initialize" | "proxy/successor" => Privilege::Administer,
        // An agent asks its client for these. From a phone they are nothing but an attempt.
        "fs/read_text_file" | "fs/write_text_file" => Privilege::AccessFiles,
        "terminal/create"
        | "terminal/output"
        | "terminal/release"
        | "terminal/wait_for_exit"
        | "terminal/kill" => Privilege::ExecuteOutsideSession,
        // Of bridges that were deployed.
        "tinyvex/history.recentSessions" | "threads/list" | "thread/load_latest_typed" | "index.status" => {
            Privilege::DiscoverFleet
        }
        "tinyvex/history.deleteSession" => Privilege::Administer,
        "tinyvex/history.setSessionTitle" | "tinyvex/history.clearSessionTitle" => Privilege::Configure,
        "terminal/run" => Privilege::ExecuteOutsideSession,
        method if method.starts_with("orchestrate.explore.") => Privilege::CreateSession,
        method if method.starts_with("orchestrate/config.") || method.starts_with("setup.") => {
            Privilege::Configure
        }
        method if method.starts_with("scheduler.") => Privilege::Administer,
        _ => return None,
    })
}

fn from_agent(kind: Kind, method: &str) -> Rule {
    match (kind, method) {
        (Kind::Notification, "session/update") => Rule::Session(Op::StreamOutput),
        // Shown to whoever may answer; a phone that may not would only see what it cannot do.
        (Kind::Request, "session/request_permission" | "elicitation/create") => Rule::Session(Op::SendInput),
        // The bridge takes the question back from the phones that have it.
        (Kind::Notification, "$/cancel_request") => Rule::Session(Op::SendInput),
        // Ends a question of a kind that no phone is shown.
        (Kind::Notification, "elicitation/complete" | "auth/status_update") => Rule::Withheld,
        (
            Kind::Request,
            "fs/read_text_file"
            | "fs/write_text_file"
            | "terminal/create"
            | "terminal/output"
            | "terminal/release"
            | "terminal/wait_for_exit"
            | "terminal/kill",
        ) => Rule::Withheld,
        (_, "mcp/message" | "proxy/initialize" | "proxy/successor") => Rule::Withheld,
        _ => Rule::Unknown,
    }
}

impl Asked {
    /// Returns the operation that the request needs. Returns `None` if any one of the credential's will do.
    pub(super) fn op(self) -> Option<Op> {
        match self {
            Self::Initialize | Self::Authenticate | Self::Logout | Self::AuthStatus => None,
            Self::ListSessions | Self::Status => Some(Op::ReadMetadata),
            Self::Prompt => Some(Op::SendInput),
            Self::Resume => Some(Op::StreamOutput),
            Self::Load => Some(Op::ReadHistory),
        }
    }
}
