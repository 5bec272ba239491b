//! An attach with the bytes on record beside the `macaroon` crate: one token with the same five caveats, read and
//! verified as its documentation shows. Their time is this thread's CPU time, in slices that alternate.
//!
//! ```text
//! cargo run --release --manifest-path benches/macaroon/Cargo.toml
//! ```
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a benchmark")]
#![allow(clippy::cast_precision_loss, reason = "counts and times far below 2^52")]
#![allow(dead_code, reason = "the modules are those of the other benchmark")]

#[path = "../../versus/sample.rs"]
mod sample;
#[path = "../../versus/world.rs"]
mod world;

use std::hint::black_box;

use macaroon::{Format, Macaroon, MacaroonKey, Verifier};
use rand::rngs::OsRng;
use sample::{Side, compare, consume, repeat};
use sessioncap::noise::Responder;
use sessioncap::{Credential, OpSet};
use world::{Phone, URL, World};

fn main() {
    macaroon::initialize().unwrap();
    let world = World::new();
    let phone = world.phone();
    let compared = compare(201, attaches(&world, &phone), macaroons(&world, &phone));
    let [low, median, high] = compared.ratio;
    println!("attach to a live guard / macaroon of five caveats, read and verified: {median:.3} ({low:.3} to {high:.3})");
    println!("{:.1} us / {:.1} us", compared.ours / 1e3, compared.peer / 1e3);
}

fn attaches<'a>(world: &'a World, phone: &'a Phone) -> Side<'a> {
    let read = || Responder::read(&world.agent, &world.fresh_attach(phone), &mut OsRng).unwrap();
    consume(read, |received| {
        let (reply, guard) = world.admit(&received);
        (reply, guard.activate_after_first_frame(world.now).unwrap())
    })
}

fn macaroons(world: &World, phone: &Phone) -> Side<'static> {
    let credential = Credential::parse(&phone.credential).unwrap();
    let asked = [
        format!("agent = {} {URL}", world.agent.public()),
        format!("session = {}", phone.session),
        format!("ticket = {}", credential.ticket()),
    ];
    let key = MacaroonKey::generate(&[7; 32]);
    let mut token = Macaroon::create(None, &key, credential.id().as_bytes().to_vec().into()).unwrap();
    let ops = "ops = read_metadata,stream_output,send_input,detach,receive_notifications";
    for caveat in asked.iter().map(String::as_str).chain([ops, "time < 1780043200"]) {
        token.add_first_party_caveat(caveat.into());
    }
    let sent = token.serialize(Format::V2).unwrap();
    let verify = move || {
        let mut verifier = Verifier::default();
        asked.iter().for_each(|caveat| verifier.satisfy_exact(caveat.as_str().into()));
        verifier.satisfy_general(|caveat| operations_allow(&caveat.0));
        verifier.satisfy_general(|caveat| not_ended(&caveat.0));
        let token = Macaroon::deserialize(black_box(&sent)).unwrap();
        verifier.verify(&token, &key, Vec::new()).unwrap();
    };
    verify();
    repeat(verify)
}

fn operations_allow(caveat: &[u8]) -> bool {
    let Some(names) = after(caveat, "ops = ") else { return false };
    names.parse().is_ok_and(|ops: OpSet| OpSet::COMPANION.is_subset_of(ops))
}

fn not_ended(caveat: &[u8]) -> bool {
    let Some(end) = after(caveat, "time < ") else { return false };
    end.parse().is_ok_and(|end: u64| 1_780_000_100 < end)
}

fn after<'a>(caveat: &'a [u8], name: &str) -> Option<&'a str> {
    std::str::from_utf8(caveat).ok()?.strip_prefix(name)
}
