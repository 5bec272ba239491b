//! A gate over a real PostgreSQL, behind a proxy of its own, at a time that the test passes in.
#![allow(dead_code, reason = "each test uses a part")]

use sessioncap::agent::{Denial, Guard};
use sessioncap::*;
use sessioncap_postgres::{Feed, Options, PostgresLedger, Problem};

use crate::common::*;
use crate::scene::proxy::Proxy;

pub struct Node {
    pub world: World,
    pub ledger: PostgresLedger,
    pub feed: Feed,
    pub proxy: Proxy,
}

impl Node {
    pub fn open(number: u32, proxy: Proxy, options: Options) -> Self {
        let agent = AgentSecretKey::from_bytes([1; 32]).public();
        let ledger = PostgresLedger::open(options, &agent, NodeId::new(number), at(START, 1_000)).unwrap();
        let world = World::with(ledger.clone(), |config| ledger.configure(config));
        world.desktop(9);
        let feed = ledger.feed();
        let node = Self { world, ledger, feed, proxy };
        node.poll().unwrap();
        node
    }

    pub fn poll(&self) -> Result<(), Problem> {
        self.feed.poll(&self.world.gate, self.world.now)
    }
}

pub fn permit(guard: &mut Guard, now: Now) -> Result<(), Denial> {
    guard.ask(Op::SendInput, now, || ())
}
