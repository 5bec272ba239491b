//! `session attach`: the session in this terminal.

use serde_json::json;
use sessioncap::SessionId;
use tokio::signal::unix::{SignalKind, signal};

use super::{Desktop, Identity};
use crate::problem::{Outcome, While};
use crate::terminal::{self, RawMode, print_raw};

/// Ctrl-]: leave.
const DETACH: u8 = 0x1d;

pub(super) async fn run(identity: &Identity, session: &SessionId) -> Outcome<()> {
    let mut stream = Desktop::connect(identity).await?.attach(session).await?;
    let raw = RawMode::enter();
    if raw.is_some() {
        resize(identity, session).await;
    }
    let mut resized = signal(SignalKind::window_change()).during("signals cannot be watched")?;
    let mut typed = terminal::read_stdin();
    let mut reading = true;
    loop {
        tokio::select! {
            frame = stream.receive() => match frame? {
                Some(bytes) => print_raw(&bytes)?,
                None => {
                    drop(raw);
                    terminal::note("the session has ended");
                    return Ok(());
                }
            },
            chunk = typed.recv(), if reading => match chunk {
                Some(bytes) => {
                    let end = bytes.iter().position(|byte| raw.is_some() && *byte == DETACH);
                    let bytes = bytes.get(..end.unwrap_or(bytes.len())).unwrap_or_default();
                    // An empty frame would be an end.
                    if !bytes.is_empty() {
                        stream.send(bytes).await?;
                    }
                    if end.is_some() {
                        stream.end().await;
                        drop(raw);
                        terminal::note("detached; the session continues");
                        return Ok(());
                    }
                }
                // The end of a pipe is not the end of the session.
                None => reading = false,
            },
            _ = resized.recv(), if raw.is_some() => resize(identity, session).await,
        }
    }
}

/// On a connection of its own: this one carries nothing but the session's bytes.
async fn resize(identity: &Identity, session: &SessionId) {
    let Ok(size) = rustix::termios::tcgetwinsize(std::io::stdin()) else { return };
    let request =
        json!({ "method": "shell.resize_session", "id": session, "cols": size.ws_col, "rows": size.ws_row });
    // A session of the wrong size is still a session.
    if let Ok(mut desktop) = Desktop::connect(identity).await {
        let _ = desktop.call(&request).await;
        desktop.disconnect().await;
    }
}
