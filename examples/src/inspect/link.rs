//! `inspect link`.

use std::str;

use serde_json::json;
use sessioncap::{Link, LinkError, LinkHost};
use zeroize::Zeroizing;

use super::{Failure, Report, read_stdin};

/// The version that this library reads, the only one that there is.
const VERSION: u8 = 1;

pub(super) fn explain(argument: &str) -> Result<Report, Failure> {
    let text = match argument {
        "-" => {
            let bytes = read_stdin()?;
            let text = str::from_utf8(&bytes).map_err(|_| failed(LinkError::Foreign))?;
            Zeroizing::new(text.to_owned())
        }
        text => Zeroizing::new(text.to_owned()),
    };
    let text = text.trim();
    let scheme = text.split_once("://").map_or("", |(scheme, _)| scheme).to_ascii_lowercase();
    let link = match scheme.as_str() {
        "" | "http" | "https" => Link::parse(text),
        own => Link::parse_custom_scheme(text, own),
    }
    .map_err(failed)?;
    let origin = text.split_once('#').map_or("", |(origin, _)| origin).to_ascii_lowercase();
    let host = origin.strip_prefix("https://").and_then(|rest| rest.strip_suffix("/p")).unwrap_or_default();
    let own = link.to_https(&LinkHost::Agent).map(Zeroizing::new);
    let form = match scheme.as_str() {
        "https" if own.is_ok_and(|own| own.eq_ignore_ascii_case(text)) => "agent",
        "https" => "link_host",
        _ => "own_scheme",
    };
    let carried = match form {
        "agent" => format!("the agent's own origin, {host}; a browser that opens it asks the agent for /P"),
        "link_host" => format!("the link host {host}; a browser that opens it asks that host for /P"),
        _ => format!("the app that has registered `{scheme}:`; another app may have registered it too"),
    };
    let (url, agent, ticket) = (link.url(), link.agent(), link.ticket().id());
    let does = [
        format!("connect to {url}"),
        format!("go on only if that agent proves that it has the key {agent}"),
        "prove that it has the ticket, with a signature over both keys; the ticket's secret is not sent"
            .to_owned(),
        "store the credential that it gets, bound to a key of its own".to_owned(),
    ];
    let steps: String = does.iter().map(|step| format!("    {step}\n")).collect();
    Ok(Report {
        text: format!(
            "pairing link of version {VERSION}\n  agent     {url}\n  key       {agent}\n  ticket    {ticket}\n  \
             carried   by {carried}\n  a phone will\n{steps}  whether the ticket is still open, only the agent \
             knows\n"
        ),
        json: json!({
            "version": VERSION,
            "agent_url": url,
            "agent_key": agent,
            "ticket": ticket,
            "form": form,
            "link_host": (form == "link_host").then_some(host),
            "scheme": scheme,
            "phone": does,
        }),
        good: true,
    })
}

/// The classes of section 7 of the protocol. The text itself may hold a secret and is not repeated.
fn failed(error: LinkError) -> Failure {
    let class = match error {
        LinkError::UnknownVersion { .. } => "unknown_version",
        LinkError::Damaged => "damaged",
        _ => "not_a_link",
    };
    Failure { more: Box::new(json!({ "class": class })), ..Failure::damaged(error.code(), error) }
}
