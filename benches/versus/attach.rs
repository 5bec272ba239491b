//! An attach from the payload of message 1 to a live guard, and the five caveats that a token of another kind would
//! carry for the same.

use rand::rngs::OsRng;
use sessioncap::agent::Guard;
use sessioncap::noise::{Received, Responder};
use sessioncap::{Credential, OpSet};

use crate::sample::{Side, consume};
use crate::world::{Phone, URL, World};

/// From the payload of message 1 to a live guard.
pub fn attaches<'a>(world: &'a World, phone: &'a Phone) -> Side<'a> {
    consume(|| read(world, phone), |received| live(world, &received))
}

pub fn read(world: &World, phone: &Phone) -> Received {
    Responder::read(&world.agent, &world.fresh_attach(phone), &mut OsRng).unwrap()
}

pub fn live(world: &World, received: &Received) -> (Vec<u8>, Guard) {
    let (reply, guard) = world.admit(received);
    (reply, guard.activate_after_first_frame(world.now).unwrap())
}

/// The caveats agent, session, ticket, operations and end.
pub struct Caveats {
    pub id: Vec<u8>,
    pub all: [String; 5],
    /// Those that have to be the same as what the agent knows.
    pub exact: [String; 3],
}

const OPERATIONS: &str = "ops = read_metadata,stream_output,send_input,detach,receive_notifications";

impl Caveats {
    pub fn of(world: &World, phone: &Phone) -> Self {
        let credential = Credential::parse(&phone.credential).unwrap();
        let exact = [
            format!("agent = {} {URL}", world.agent.public()),
            format!("session = {}", phone.session),
            format!("ticket = {}", credential.ticket()),
        ];
        let [agent, session, ticket] = exact.clone();
        let all = [agent, session, ticket, OPERATIONS.to_owned(), "time < 1780043200".to_owned()];
        Self { id: credential.id().as_bytes().to_vec(), all, exact }
    }
}

pub fn operations_allow(caveat: &str) -> bool {
    let Some(names) = caveat.strip_prefix("ops = ") else { return false };
    names.parse().is_ok_and(|ops: OpSet| OpSet::COMPANION.is_subset_of(ops))
}

pub fn not_ended(caveat: &str) -> bool {
    let Some(end) = caveat.strip_prefix("time < ") else { return false };
    end.parse().is_ok_and(|end: u64| 1_780_000_100 < end)
}
