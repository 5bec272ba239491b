//! `acp`: carries the JSON-RPC messages of a client on standard input and output, one on each line, to a bridge of the Agent
//! Client Protocol and back. The client has the whole agent, as an enrolled device has.

use std::process::ExitCode;

use sessioncap::{Assembler, EndCode, Frame};

use super::{Desktop, Identity};
use crate::problem::{Outcome, Problem, While};
use crate::terminal::{Lines, print_raw};
use crate::transport::Secure;

/// Longest line of the client.
const LONGEST_LINE: usize = Assembler::MAX_MESSAGE_LEN;

/// An enrolled device's stream of JSON-RPC messages.
pub struct Messages {
    stream: Secure,
    assembler: Assembler,
}

impl Messages {
    /// Over a connection that is handed over to the bridge's agent.
    pub async fn open(mut desktop: Desktop<'_>) -> Outcome<Self> {
        desktop.call(&serde_json::json!({ "method": "acp.connect" })).await?;
        Ok(Self { stream: desktop.stream, assembler: Assembler::new() })
    }

    /// Sends one message.
    pub async fn send(&mut self, text: &str) -> Outcome<()> {
        for frame in Frame::split(text.as_bytes()) {
            self.stream.send(&frame.to_bytes()).await?;
        }
        Ok(())
    }

    /// The next message; `None` at the end. Cancel-safe.
    pub async fn next(&mut self) -> Outcome<Option<String>> {
        loop {
            let Some(bytes) = self.stream.receive().await? else { return Ok(None) };
            match self.assembler.take(Frame::from_bytes(&bytes)?)? {
                Some(Frame::Data(bytes)) => {
                    return String::from_utf8(bytes).map(Some).during("the bridge sent what is not utf-8");
                }
                Some(Frame::End(_)) => return Ok(None),
                _ => {}
            }
        }
    }

    /// Leaves. The agent and its sessions continue.
    pub async fn leave(self) {
        self.stream.end_with(&Frame::<Vec<u8>>::End(EndCode::LEFT).to_bytes()).await;
    }
}

/// Carries until a side ends.
pub(super) async fn run(identity: &Identity) -> Outcome<ExitCode> {
    let mut messages = Messages::open(Desktop::connect(identity).await?).await?;
    let mut lines = Lines::of_stdin(LONGEST_LINE);
    loop {
        tokio::select! {
            message = messages.next() => match message? {
                Some(text) => print_raw(format!("{text}\n").as_bytes())?,
                None => return Err(Problem::said("the bridge has ended the connection")),
            },
            line = lines.next() => match line {
                Some(line) => {
                    let text = String::from_utf8(line).during("standard input is not utf-8")?;
                    if !text.trim().is_empty() {
                        messages.send(text.trim()).await?;
                    }
                }
                None => {
                    messages.leave().await;
                    return Ok(ExitCode::SUCCESS);
                }
            },
        }
    }
}
