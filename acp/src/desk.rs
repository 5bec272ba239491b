//! One connection of an enrolled device: JSON-RPC messages of a client that has the whole agent.

use std::sync::Arc;

use sessioncap::acp::Message;
use sessioncap::{Assembler, EndCode, Frame};
use sessioncap_programs::agent::DeviceStream;
use sessioncap_programs::problem::{Outcome, Problem};

use crate::bridge::Bridge;
use crate::outbox::Next;

/// Serves a device that has asked for `acp.connect`, to its end.
pub(crate) async fn serve(bridge: Arc<Bridge>, mut stream: DeviceStream) {
    stream.log(format!("desktop {} is connected", stream.device()));
    let ended = carry(&bridge, &mut stream).await;
    if ended.is_ok() {
        // A device that is gone does not hear it.
        let _ = stream.send(&Frame::<Vec<u8>>::End(EndCode::LEFT).to_bytes()).await;
    }
    let why = ended.map_or_else(|problem| problem.to_string(), |()| "it has left".to_owned());
    stream.log(format!("desktop {} is off: {why}", stream.device()));
    stream.close().await;
}

enum Event {
    Frame(Option<Vec<u8>>),
    Out(Next<String>),
}

async fn carry(bridge: &Arc<Bridge>, stream: &mut DeviceStream) -> Outcome<()> {
    let joined = bridge.join_desktop();
    let (joined, mut inbox) = joined.ok_or_else(|| Problem::said("the agent cannot be started now"))?;
    let mut assembler = Assembler::new();
    loop {
        let event = tokio::select! {
            frame = stream.receive() => Event::Frame(frame?),
            next = inbox.next() => Event::Out(next),
        };
        match event {
            Event::Frame(None) | Event::Out(Next::End) => return Ok(()),
            Event::Frame(Some(bytes)) => match assembler.take(Frame::from_bytes(&bytes)?)? {
                Some(Frame::Data(bytes)) => match Message::from_bytes(&bytes) {
                    Ok(message) => joined.desktop_sent(message),
                    Err(problem) => {
                        stream.log(format!("a message of desktop {} is left out: {problem}", stream.device()))
                    }
                },
                Some(Frame::End(_)) => return Ok(()),
                _ => {}
            },
            Event::Out(Next::Item(text)) => {
                for frame in Frame::split(text.as_bytes()) {
                    stream.send(&frame.to_bytes()).await?;
                }
            }
            Event::Out(Next::Overflow) => return Err(Problem::said("it reads too slowly")),
        }
    }
}
