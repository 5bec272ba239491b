//! The action behind a phone's request. The only place that maps a method's name to an operation.

use sessioncap::{Action, Op, Privilege};

use super::request::Request;

/// The action behind a request; `None` for a method that there is not.
pub fn classify(request: &Request) -> Option<Action> {
    let action = match request.method() {
        // Session operations. The session is the credential's, never the request's.
        "shell.attach_session" => Action::Session(Op::StreamOutput),
        "shell.replay_session" => Action::Session(Op::ReadHistory),
        "shell.resize_session" => Action::Session(Op::Resize),
        // Answered with the phone's own session only.
        "shell.list_sessions" => Action::Session(Op::ReadMetadata),

        "shell.list_recipes" | "list" | "logs" | "health" | "attest" | "pair.log" => {
            Action::Privileged(Privilege::DiscoverFleet)
        }
        "shell.create_session" => Action::Privileged(Privilege::CreateSession),
        // `attach` runs a command of the caller's, despite its name.
        "exec" | "attach" => Action::Privileged(Privilege::ExecuteOutsideSession),
        "pair.register_issuer"
        | "pair.offer"
        | "pair.confirm"
        | "pair.renew"
        | "pair.list"
        | "pair.revoke" => Action::Privileged(Privilege::Enroll),
        "session/set_mode" | "session/set_config_option" | "session/set_title" => {
            Action::Privileged(Privilege::Configure)
        }
        "fs/read_text_file" | "fs/write_text_file" => Action::Privileged(Privilege::AccessFiles),
        "shell.close_session" | "deploy" | "agent.reset_clock" => Action::Privileged(Privilege::Administer),
        _ => return None,
    };
    Some(action)
}
