//! Whether the ledger stays fast and small.

use sessioncap::agent::Guard;
use time::Duration;

use crate::counting;
use crate::frame;
use crate::report::{Budget, Report};
use crate::revocation;
use crate::sample::{Side, compare, consume, while_another_thread_reads};
use crate::world::{Phone, World};

/// Records in the ledger to compare with.
const FEW: usize = 1_000;

/// A whole redemption and a whole admission, from message 1 to a live guard, among many records and
/// among few.
pub fn growth(report: &mut Report, rounds: usize, live: usize) {
    let few = World::new();
    few.populate(FEW);
    let alone = World::new();
    let mut guard = frame::guard(&alone);
    let many = World::new();
    let mut guards = Vec::new();
    for count in sizes(live) {
        eprintln!("pairing {count} phones");
        guards.extend(many.populate_connected(count - guards.len()));
        while_another_thread_reads(|| {
            report.section("growth with records, memory ledger");
            let compared = compare(rounds, redemptions(&many), redemptions(&few));
            report.point("a whole redemption", count, "records", compared, Budget::AtMost(1.1));
            let compared = compare(rounds, admissions(&many), admissions(&few));
            report.point("a whole admission", count, "records", compared, Budget::AtMost(1.1));
            report.section("growth with connections");
            frame::flatness(report, rounds, &mut guard, &mut guards, alone.now);
            revocation::of_one(report, rounds, &many, count);
        });
    }
}

/// Powers of ten, from ten thousand to as many as were asked for.
fn sizes(live: usize) -> impl Iterator<Item = usize> {
    let tens = std::iter::successors(Some(10 * FEW), |size| Some(size * 10));
    tens.take_while(move |size| *size < live).chain([live])
}

fn redemptions(world: &World) -> Side<'_> {
    consume(|| world.fresh_redemption(), |message| to_guard(world, &message))
}

fn admissions(world: &World) -> Side<'_> {
    let phones: Vec<Phone> = (0..64).map(|_| world.phone()).collect();
    let mut turn = 0;
    let message = move || {
        turn += 1;
        world.fresh_attach(&phones[turn % phones.len()])
    };
    consume(message, |message| to_guard(world, &message))
}

fn to_guard(world: &World, message: &[u8]) -> Guard {
    world.respond(message).1.activate_after_first_frame(world.now).unwrap()
}

/// Heap bytes for each credential, as requested from the allocator, beside the credential's own
/// bytes.
pub fn memory(report: &mut Report) {
    const COUNT: usize = 4_000;
    report.section("memory for each live credential beside its token, bytes");
    // the first ones fill what is allocated once
    let world = World::new();
    let token = world.phone().credential.as_bytes().len() as f64;
    let each = |bytes: isize| bytes as f64 / COUNT as f64;
    let redeemed = counting::net(|| world.populate_here(COUNT));
    // tickets are removed when they can be retried no more; the credentials stay
    let later = world.now.plus(Duration::minutes(20));
    let settled = counting::net(|| (0..COUNT).for_each(|_| world.gate.settle(later).unwrap()));
    let lasting = each(redeemed.requested + settled.requested) - token;
    report.figure("requested, once its ticket has gone", lasting, Budget::AtMost(400.0));
    let with_overhead = each(redeemed.usable + settled.usable) - token;
    report.figure("the same with the allocator's own overhead", with_overhead, Budget::Information);
    let fresh = each(redeemed.requested) - token;
    report.figure("requested, with its ticket, for the first 15 minutes", fresh, Budget::Information);
    report.figure("the token", token, Budget::Information);
    let world = World::new();
    let pending: Vec<_> = (0..COUNT).map(|_| world.redeem_one()).collect();
    let mut guards = Vec::with_capacity(COUNT);
    let connected = counting::net(|| {
        guards.extend(pending.into_iter().map(|guard| guard.activate_after_first_frame(world.now).unwrap()))
    });
    let inline = size_of::<Guard>() as f64;
    report.figure("a guard: its own size", inline, Budget::Information);
    report.figure("what becoming live frees (-) or takes", each(connected.requested), Budget::Information);
}

/// Measures the resident memory of the process for each credential, once the tickets have gone. A tenth is paired at
/// a time, and its tickets end before the next, as over some hours: an agent does not have all tickets at once.
pub fn resident(report: &mut Report, count: usize) {
    const PARTS: usize = 10;
    const TICKETS_GONE: Duration = Duration::minutes(20);
    report.section(&format!("resident memory, {count} credentials on record"));
    let mut world = World::new();
    let token = world.phone().credential.as_bytes().len() as f64;
    let Some(before) = resident_bytes() else {
        eprintln!("  no /proc/self/status here: resident memory is not measured");
        return;
    };
    for _ in 0..PARTS {
        let part = count / PARTS;
        world.populate(part);
        world.now = world.now.plus(TICKETS_GONE);
        // each call removes eight
        (0..part.div_ceil(4)).for_each(|_| world.gate.settle(world.now).unwrap());
    }
    let all = resident_bytes().unwrap_or_default().saturating_sub(before) as f64 / count as f64;
    report.figure("resident, beside its token", all - token, Budget::AtMost(420.0));
    report.figure("resident, its token included", all, Budget::Information);
}

/// Returns the resident bytes of this process, where the system says.
fn resident_bytes() -> Option<usize> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kibibytes: usize = resident.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(kibibytes * 1_024)
}
