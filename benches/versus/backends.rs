//! The ledger in a file beside the one in memory, by the thread's CPU time. `versus/load.rs` has the time of the disk.

use sessioncap::agent::ledger::RedbLedger;

use crate::admission::attaches_with_noise;
use crate::handshake::{offers, redemptions};
use crate::report::{Budget, Report};
use crate::sample::compare;
use crate::world::{Folder, World};

pub fn beside_memory(report: &mut Report, rounds: usize) {
    report.section("redb beside memory, CPU time");
    let place = Folder::new();
    let file = World::on(RedbLedger::open(place.join("ledger.redb")).unwrap(), 8);
    let memory = World::new();
    let [in_file, in_memory] = [&file, &memory].map(World::phone);
    let compared =
        compare(rounds, attaches_with_noise(&file, &in_file), attaches_with_noise(&memory, &in_memory));
    report.compared("an attach with a whole credential", compared, Budget::Information);
    let compared = compare(rounds, redemptions(&file), redemptions(&memory));
    report.compared("a redemption, a commit of its own", compared, Budget::Information);
    let compared = compare(rounds, offers(&file), offers(&memory));
    report.compared("an offer, a commit of its own", compared, Budget::Information);
}
