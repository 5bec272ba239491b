//! An agent that shares sessions and a ledger with others of the same key.

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;
use sessioncap::{CredentialId, SessionId};

use super::floors::Floors;
use super::host::{Ends, Sessions};
use crate::problem::Outcome;
use crate::sessions::{Link, Shared, is_of};

/// Which sessions and which ledger an agent shares.
#[derive(Args, Default)]
pub struct FleetOptions {
    /// The socket of the program `sessions`, which then has the terminals: they outlive this agent, and other
    /// agents of this machine serve them too.
    #[arg(long, value_name = "PATH")]
    sessions: Option<PathBuf>,
    /// The number of this agent among those that share sessions. No two have the same.
    #[arg(long, value_name = "NUMBER", default_value_t = 0)]
    node: u32,
    #[cfg(feature = "postgres")]
    #[command(flatten)]
    ledger: super::database::LedgerOptions,
}

impl FleetOptions {
    pub(super) fn link(&self) -> Option<Link> {
        self.sessions.clone().map(|path| Link::new(path, self.node))
    }

    #[cfg(feature = "postgres")]
    pub(super) fn database(&self) -> Outcome<Option<super::database::Database>> {
        self.ledger.open(self.node)
    }
}

/// The server of the sessions.
#[derive(Clone)]
pub(super) struct Fleet(Shared);

/// The sessions of a server.
pub(super) fn mirror(link: Link, ends: Ends, floors: &Arc<Floors>) -> (Sessions, Option<Fleet>) {
    let heard = Arc::clone(floors);
    let on_floor = move |credential: &str, session: &str, position| {
        if let (Ok(credential), Ok(session)) = (credential.parse::<CredentialId>(), SessionId::new(session)) {
            heard.hear(credential, session, position);
        }
    };
    let Ends(ends) = ends;
    let on_end = move |id: &str| drop(ends.send(id.to_owned()));
    let (hub, shared) = link.mirror(on_end, Arc::new(on_floor));
    let telling = shared.clone();
    floors.tell_others(Box::new(move |credential, session, position| {
        telling.tell_floor(credential.to_string(), session.to_string(), position);
    }));
    (Sessions::Terminals(hub), Some(Fleet(shared)))
}

impl Fleet {
    pub(super) async fn wait(&self) -> Outcome<()> {
        self.0.wait().await
    }

    /// Keeps the sessions of this node that the server does not have.
    pub(super) async fn keep_gone(&self, sessions: &mut HashSet<SessionId>) -> Outcome<()> {
        let present = self.0.sessions().await?;
        let is_gone = |id: &str| is_of(self.0.node(), id) && !present.iter().any(|there| there == id);
        sessions.retain(|session| is_gone(session.as_str()));
        Ok(())
    }

    /// Waits until the server is lost. Returns `false` when that will not happen any more.
    pub(super) async fn lost(&mut self, floors: &Floors) -> bool {
        let lost = self.0.lost().await;
        // The other agents' floors are not heard meanwhile, so none of them is known any more.
        floors.forget_all();
        lost
    }

    /// Waits until the server is joined. Returns `false` when that will not happen any more.
    pub(super) async fn joined(&mut self) -> bool {
        self.0.joined().await
    }
}
