//! Two clocks, set back and forth: nothing is revived and nothing lasts longer than it should.
#![cfg(all(feature = "agent", feature = "holder", feature = "issuer"))]
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]
mod common;

use common::ledger::TestLedger;
use common::*;
use proptest::prelude::*;
use sessioncap::agent::*;
use sessioncap::desktop::*;
use sessioncap::*;
use time::Duration;

const HOUR: i64 = 3_600;
const YEAR: i64 = 366 * 24 * HOUR;
/// The monotonic clock when a world begins.
const BOOT: i64 = 1_000;

fn hour_long(world: &World) -> (Pairing, Joined) {
    let pairing = world.desktop(9).share(world, &terms().with_valid_for(HOUR as u64).unwrap());
    let joined = world.join(&pairing.link, &phone(2)).unwrap();
    (pairing, joined)
}

fn streams(guard: &mut Guard, now: Now) -> Result<(), Denial> {
    guard.ask(Op::StreamOutput, now, || ())
}

#[test]
fn a_stream_ends_by_either_clock() {
    for (last_second, end) in [
        (at(START + HOUR - 1, BOOT + HOUR - 1), at(START + HOUR, BOOT + HOUR)),
        // the wall clock runs ahead, or stops
        (at(START + HOUR - 1, BOOT + 1), at(START + HOUR, BOOT + 1)),
        (at(START, BOOT + HOUR - 1), at(START, BOOT + HOUR)),
    ] {
        let world = World::new();
        let (_, mut joined) = hour_long(&world);
        world.gate.settle(last_second).unwrap();
        assert_eq!(streams(&mut joined.guard, last_second), Ok(()));
        assert_eq!(joined.guard.time_left(last_second), Duration::seconds(1));
        assert_eq!(joined.guard.time_left(end), Duration::ZERO);
        assert_eq!(streams(&mut joined.guard, end), Err(Denial::CredentialExpired));
    }
}

#[test]
fn an_attach_ends_by_either_clock() {
    for end in [at(START + HOUR, BOOT + HOUR), at(START + HOUR, BOOT + 1), at(START, BOOT + HOUR)] {
        let mut world = World::new();
        let (_, joined) = hour_long(&world);
        world.now = Now::since_1970(end.wall - Duration::SECOND, end.monotonic - Duration::SECOND);
        assert!(world.attach(&phone(2), &joined.credential, OpSet::EMPTY).is_ok());
        world.now = end;
        let refusal = world.attach(&phone(2), &joined.credential, OpSet::EMPTY).unwrap_err();
        assert_eq!(refusal, Refusal::told(Denial::CredentialExpired, Status::Expired));
    }
}

#[test]
fn a_wall_clock_set_back_revives_nothing_at_the_gate() {
    let mut world = World::new();
    let (_, joined) = hour_long(&world);
    let unused = world.desktop(9).share(&world, &terms());
    world.pass(HOUR);
    world.gate.settle(world.now).unwrap();
    for back in [1, HOUR, 24 * HOUR, YEAR] {
        world.now = Now::since_1970(world.now.wall - Duration::seconds(back), world.now.monotonic);
        assert!(world.attach(&phone(2), &joined.credential, OpSet::EMPTY).is_err());
        assert!(world.join(&unused.link, &phone(3)).is_err());
        assert!(world.list().iter().all(|listing| listing.state == ListingState::Expired));
    }
}

#[test]
fn a_wall_clock_set_back_revives_no_stream() {
    let world = World::new();
    let (_, mut joined) = hour_long(&world);
    assert_eq!(streams(&mut joined.guard, at(START + HOUR, BOOT + HOUR)), Err(Denial::CredentialExpired));
    let back = streams(&mut joined.guard, at(START, BOOT + HOUR + 1));
    assert_eq!(back, Err(Denial::CredentialExpired));
}

#[test]
fn a_stream_that_a_forward_jump_ended_stays_ended() {
    let world = World::new();
    let (_, mut joined) = hour_long(&world);
    assert_eq!(streams(&mut joined.guard, at(START + YEAR, BOOT + 1)), Err(Denial::CredentialExpired));
    // The jump is undone a second later, long before the hour is over.
    let back = at(START + 2, BOOT + 2);
    assert_eq!(streams(&mut joined.guard, back), Err(Denial::CredentialExpired));
    assert_eq!(joined.guard.checked(back), Err(Denial::CredentialExpired));
    assert_eq!(joined.guard.time_left(back), Duration::ZERO);
    assert_eq!(streams(&mut joined.guard.fork(), back), Err(Denial::CredentialExpired));
}

#[test]
fn a_wall_clock_set_back_does_not_stop_time() {
    let mut world = World::new();
    let (_, joined) = hour_long(&world);
    // Set back by ten minutes every minute, for an hour.
    for _ in 0..59 {
        world.now = Now::since_1970(
            world.now.wall - Duration::minutes(10),
            world.now.monotonic + Duration::minutes(1),
        );
        assert!(world.attach(&phone(2), &joined.credential, OpSet::EMPTY).is_ok());
    }
    world.now =
        Now::since_1970(world.now.wall - Duration::minutes(10), world.now.monotonic + Duration::minutes(1));
    let refusal = world.attach(&phone(2), &joined.credential, OpSet::EMPTY).unwrap_err();
    assert_eq!(refusal.denial, Denial::CredentialExpired);
}

#[test]
fn a_jump_of_a_year_forward_ends_everything_and_is_not_undone_by_itself() {
    let mut world = World::new();
    let (_, joined) = hour_long(&world);
    let desktop = world.desktop(9);
    let open = desktop.share(&world, &terms());
    world.now = at(START + YEAR, BOOT + 1);
    assert!(world.attach(&phone(2), &joined.credential, OpSet::EMPTY).is_err());
    assert!(world.join(&open.link, &phone(3)).is_err());
    // Back again: the agent's time continues from where it was.
    world.now = at(START + 2, BOOT + 2);
    assert!(world.attach(&phone(2), &joined.credential, OpSet::EMPTY).is_err());
    assert!(world.join(&open.link, &phone(3)).is_err());
    let refused = desktop.lodge(&world, &desktop.mint(&world, &terms()));
    let Err(Denial::ClockSkew { agent_time }) = refused else { panic!("{refused:?}") };
    assert_eq!(agent_time, seconds((START + YEAR + 1) as u64));
    // With the agent's own time a desktop can share all the same.
    let pairing =
        desktop.issuer.pair(session(SESSION), &terms(), agent_time, &mut rand::rngs::OsRng).unwrap();
    desktop.lodge(&world, &pairing).unwrap();
    let mut joined = world.join(&pairing.link, &phone(4)).unwrap();
    assert_eq!(streams(&mut joined.guard, world.now), Ok(()));
    world.now = at(START + 2, BOOT + 2 + limits::DEFAULT_CREDENTIAL_LIFETIME as i64);
    assert_eq!(streams(&mut joined.guard, world.now), Err(Denial::CredentialExpired));
    assert!(world.attach(&phone(4), &joined.credential, OpSet::EMPTY).is_err());
}

#[test]
fn a_jump_of_a_year_back_lengthens_nothing() {
    let mut world = World::new();
    let (pairing, mut joined) = hour_long(&world);
    world.now = at(START - YEAR, BOOT + 1);
    assert_eq!(streams(&mut joined.guard, world.now), Ok(()));
    assert!(world.attach(&phone(2), &joined.credential, OpSet::EMPTY).is_ok());
    world.now = at(START - YEAR + 300, BOOT + 300);
    let late = world.join(&pairing.link, &phone(3)).unwrap_err();
    assert_eq!(late.denial, Denial::TicketClaimed, "the ticket's lifetime is over: no contest");
    world.now = at(START - YEAR + HOUR, BOOT + HOUR);
    assert_eq!(streams(&mut joined.guard, world.now), Err(Denial::CredentialExpired));
    assert!(world.attach(&phone(2), &joined.credential, OpSet::EMPTY).is_err());
}

#[test]
fn dates_at_the_edges_do_no_harm() {
    for wall in [-62_135_596_800, -1, 0, 253_402_300_799] {
        let mut world = World::new();
        let (_, mut joined) = hour_long(&world);
        world.now = at(wall, BOOT + HOUR);
        assert_eq!(streams(&mut joined.guard, world.now), Err(Denial::CredentialExpired));
        assert!(world.attach(&phone(2), &joined.credential, OpSet::EMPTY).is_err());
    }
    let mut world = World::new();
    world.now = at(253_402_300_799, BOOT);
    let pairing = world.desktop(9).share(&world, &terms());
    assert!(world.join(&pairing.link, &phone(2)).is_err(), "nothing can live past the last date");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Whatever the wall clock does: a credential ends at the latest when its lifetime has passed by
    /// the monotonic clock, and once an attach found it expired it stays expired.
    #[test]
    fn no_walk_of_the_wall_clock_lengthens_a_credential(
        steps in proptest::collection::vec((-2 * HOUR..2 * HOUR, 0..900_i64), 1..16)
    ) {
        let mut world = World::new();
        let (_, mut joined) = hour_long(&world);
        let begin = world.now.monotonic;
        let (mut attach_expired, mut stream_expired) = (false, false);
        for (wall, monotonic) in steps {
            world.now = Now::since_1970(world.now.wall + Duration::seconds(wall),
                world.now.monotonic + Duration::seconds(monotonic),
            );
            let over = world.now.monotonic - begin >= Duration::seconds(HOUR);
            let attached = world.attach(&phone(2), &joined.credential, OpSet::EMPTY).is_ok();
            prop_assert!(!(attached && (over || attach_expired)));
            attach_expired |= !attached;
            let streamed = streams(&mut joined.guard, world.now).is_ok();
            prop_assert!(!(streamed && (over || stream_expired)));
            stream_expired |= !streamed;
        }
    }
}

/// A call settles a few records only, the earliest first.
#[test]
fn an_expired_credential_is_refused_before_its_record_is_expired() {
    let wide = Quotas::default().with_tickets_per_session(99).with_credentials_per_session(99);
    let mut world =
        World::with(sessioncap::agent::ledger::MemoryLedger::new(), |config| config.with_quotas(wide));
    let desktop = world.desktop(9);
    world.start_session("other");
    // Each is due before those that are asked for, and a call takes eight.
    let crowd = |world: &World| {
        (0..40).for_each(|_| {
            drop(desktop.share_session(world, "other", &terms().with_ticket_lifetime(30).unwrap()))
        });
    };
    let retried = desktop.share(&world, &terms().with_ticket_lifetime(31).unwrap());
    let joined = world.join(&retried.link, &phone(2)).unwrap();
    let short = desktop.share(&world, &terms().with_valid_for(700).unwrap());
    let ending = world.join(&short.link, &phone(3)).unwrap();
    let waits = terms().with_ticket_lifetime(631).unwrap().with_confirmation(Confirmation::Required);
    let waiting = desktop.share(&world, &waits);
    assert!(world.join(&waiting.link, &phone(4)).is_err());
    let unredeemed = desktop.share(&world, &terms().with_ticket_lifetime(631).unwrap());
    crowd(&world);
    world.pass(631);
    assert_eq!(world.join(&retried.link, &phone(2)).unwrap_err().denial, Denial::TicketUnknown);
    assert_eq!(world.join(&unredeemed.link, &phone(5)).unwrap_err().denial, Denial::TicketExpired);
    assert_eq!(world.join(&waiting.link, &phone(4)).unwrap_err().denial, Denial::TicketExpired);
    let confirmed = world.gate.confirm(&desktop.device, &waiting.ticket, &phone(4).public(), world.now);
    assert_eq!(confirmed, Err(Denial::TicketExpired));
    (0..20).for_each(|_| world.gate.settle(world.now).unwrap());
    crowd(&world);
    world.pass(69);
    let renewed = desktop.renew(&world, &short, OpSet::COMPANION, 700);
    assert_eq!(renewed.unwrap_err(), Denial::CredentialExpired);
    let refused = world.attach(&phone(3), &ending.credential, OpSet::EMPTY).unwrap_err();
    assert_eq!(refused, Refusal::told(Denial::CredentialExpired, Status::Expired));
    assert!(world.attach(&phone(2), &joined.credential, OpSet::EMPTY).is_ok(), "the others go on");
}

/// After a restart the gate does not know who was connected, so no record is expired before others.
#[test]
fn an_expired_credential_is_not_given_again_before_its_record_is_expired() {
    let ledger = TestLedger::default();
    let wide = Quotas::default().with_tickets_per_session(99).with_credentials_per_session(99);
    let mut world = World::with(ledger.clone(), |config| config.with_quotas(wide));
    let desktop = world.desktop(9);
    world.start_session("other");
    // Each is due before what is asked for, and a call takes eight.
    for _ in 0..80 {
        desktop.share_session(&world, "other", &terms().with_ticket_lifetime(30).unwrap());
    }
    let given = desktop.share(&world, &terms().with_valid_for(60).unwrap());
    assert!(world.join(&given.link, &phone(2)).is_ok());
    world.pass_unsettled(60);
    let again = World::try_with(ledger, world.now, |config| config).unwrap();
    again.enrol(desktop.device);
    let refused = again.join(&given.link, &phone(2)).unwrap_err();
    assert_eq!(refused, Refusal::told(Denial::CredentialExpired, Status::Expired));
}

/// A record that has not been settled counts no longer than one that has.
#[test]
fn an_ended_credential_is_unknown_ten_minutes_after_its_end_to_the_second() {
    let mut world = World::new();
    let desktop = world.desktop(9);
    let minute = terms().with_valid_for(60).unwrap();
    let joined = world.join(&desktop.share(&world, &minute).link, &phone(2)).unwrap();
    drop(joined.guard);
    let denial = |world: &World| {
        let refused = world.attach(&phone(2), &joined.credential, OpSet::EMPTY);
        refused.unwrap_err().denial
    };
    world.pass_unsettled(60 + limits::TOMBSTONE_GRACE as i64 - 1);
    assert_eq!(denial(&world), Denial::CredentialExpired);
    world.pass_unsettled(1);
    assert_eq!(denial(&world), Denial::CredentialUnknown);
}

proptest! {
    /// Whatever the fractions of both clocks are, and wherever the wall clock is set meanwhile.
    #[test]
    fn the_time_left_reaches_zero_at_the_nanosecond_of_expiry(
        wall in 0..1_000_000_000_i64, monotonic in 0..1_000_000_000_i64, later in 0..3_500_000_000_000_i64,
        set_back in prop_oneof![Just(0), 0..10_000_000_000_000_i64],
    ) {
        let mut world = World::new();
        world.now.wall += Duration::nanoseconds(wall);
        world.now.monotonic += Duration::nanoseconds(monotonic);
        let (_, mut joined) = hour_long(&world);
        let mut now = world.now.plus(Duration::nanoseconds(later));
        now.wall -= Duration::nanoseconds(set_back);
        world.gate.settle(now).unwrap();
        let left = joined.guard.time_left(now);
        prop_assert!(left <= Duration::HOUR - Duration::nanoseconds(later));
        let before = now.plus(left - Duration::NANOSECOND);
        world.gate.settle(before).unwrap();
        prop_assert_eq!(streams(&mut joined.guard, before), Ok(()));
        prop_assert_eq!(streams(&mut joined.guard, now.plus(left.try_into().unwrap())), Err(Denial::CredentialExpired));
        prop_assert_eq!(joined.guard.time_left(now.plus(left.try_into().unwrap())), Duration::ZERO);
    }
}
