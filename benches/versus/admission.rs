//! An attach, whole and narrowed, beside snow, one multiplication on the curve, and biscuit-auth on the same bytes.

use rand::rngs::OsRng;
use sessioncap::Credential;
use sessioncap::limits;

use crate::attach::{attaches, live, read};
use crate::handshake::{self, ladder};
use crate::plain::Presented;
use crate::report::{Budget, Report};
use crate::sample::{Side, compare, consume, repeat};
use crate::world::{self, Phone, World};

/// Admission of a narrowed copy that the agent has not seen: from the payload of message 1 to a pending guard
/// and the payload of message 2. The shape check, the ledger and the native check of the scope are ours alone.
/// The policy runs with the first frame, and is in the row after it.
pub fn first_sight(report: &mut Report, rounds: usize) {
    report.section("attach with a narrowed copy, memory ledger, without Noise");
    let world = World::new();
    let phone = world.phone();
    let first = narrowed(&phone);
    let presented = Presented::new(&world, &first);
    let plain = repeat(|| presented.authorize_with_text());
    let compared = compare(rounds, first_sights(&world, &phone), plain);
    report.compared(
        "to a live guard / biscuit-auth: parse, verify, authorize with the policy's text",
        compared,
        Budget::Information,
    );
    let compared = compare(rounds, first_sights(&world, &phone), repeat(ladder()));
    report.compared("first sight, to a live guard / one X25519 ladder", compared, Budget::AtMost(6.8));
    let later = seen_before(&first, world);
    let compared = compare(rounds, attaches(&later, &first), repeat(ladder()));
    report.compared("again with the same bytes / one X25519 ladder", compared, Budget::AtMost(0.5));
    let shape = repeat(|| Credential::parse(&first.credential).unwrap());
    let compared = compare(rounds, shape, repeat(|| presented.parse_and_verify()));
    report.compared("(shape check alone / parse, verify)", compared, Budget::Information);
    let compared = compare(rounds, repeat(|| presented.signatures()), repeat(|| presented.one_run()));
    report.compared("(peers) bare signatures / one run", compared, Budget::Information);
}

/// The same with more blocks, each appended by the holder.
pub fn blocks(report: &mut Report, rounds: usize) {
    report.section("attach with a narrowed copy, by blocks");
    let world = World::new();
    let phone = world.phone();
    for blocks in 3..=limits::MAX_BLOCKS {
        let copy = with_blocks(&phone, blocks);
        let fresh =
            consume(|| read(&world, &with_blocks(&phone, blocks)), |received| live(&world, &received));
        let compared = compare(rounds, fresh, repeat(ladder()));
        report.point("first sight", blocks, "blocks", compared, Budget::Information);
        let presented = Presented::new(&world, &copy);
        let compared = compare(rounds, repeat(|| presented.authorize()), repeat(ladder()));
        let series = "biscuit-auth: parse, verify, authorize";
        report.point(series, blocks, "blocks", compared, Budget::Information);
        let other = World::new();
        let seen = with_blocks(&other.phone(), blocks);
        let later = seen_before(&seen, other);
        let compared = compare(rounds, attaches(&later, &seen), repeat(ladder()));
        report.point("again with the same bytes", blocks, "blocks", compared, Budget::AtMost(0.5));
    }
}

/// A copy of so many blocks: the issuer's, the agent's, and the holder's.
fn with_blocks(phone: &Phone, blocks: usize) -> Phone {
    (2..blocks).fold(phone.clone(), |copy, _| narrowed(&copy))
}

/// A copy that ends in an hour, made by its holder.
pub fn narrowed(phone: &Phone) -> Phone {
    let credential = Credential::parse(&phone.credential).unwrap();
    let end = world::now().timestamp().plus(3_600);
    let bytes = credential.attenuate(None, Some(end), &mut OsRng).unwrap().bytes().clone();
    Phone { key: phone.key.clone(), session: phone.session.clone(), credential: bytes }
}

/// Another copy each time.
pub fn first_sights<'a>(world: &'a World, phone: &'a Phone) -> Side<'a> {
    consume(|| read(world, &narrowed(phone)), |received| live(world, &received))
}

/// The decision on a copy is recorded with a visit, at most once a minute.
pub fn seen_before(copy: &Phone, mut world: World) -> World {
    world.now = world.now.plus(time::Duration::seconds(61));
    drop(live(&world, &read(&world, copy)));
    world
}

/// The same with message 1 itself, and message 2.
pub fn attaches_with_noise<'a>(world: &'a World, phone: &'a Phone) -> Side<'a> {
    consume(|| world.fresh_attach(phone), |message| world.respond_and_activate(&message))
}

pub fn reply_size(world: &World, phone: &Phone) -> usize {
    world.admit(&read(world, phone)).0.len()
}

/// An attach with the bytes that are on record.
pub fn attach(report: &mut Report, rounds: usize) {
    report.section("attach with a whole credential, memory ledger");
    let world = World::new();
    let phone = world.phone();
    let payload = vec![0; reply_size(&world, &phone)];
    let bare = handshake::bare(&world, || world.fresh_attach(&phone), &payload);
    let compared = compare(rounds, attaches_with_noise(&world, &phone), bare);
    report.compared("read, admit, reply, activate / snow IK responder", compared, Budget::AtMost(1.15));
    let compared = compare(rounds, attaches(&world, &phone), repeat(ladder()));
    report.compared("admit, activate / one X25519 ladder", compared, Budget::Information);
}
