//! Throughput of several threads beside that of one, by the wall clock. Runs of one thread and of several follow each
//! other, and the median of their ratios is shown.

use std::path::Path;
use std::sync::Barrier;
use std::time::{Duration, Instant};

use rand::rngs::OsRng;
use sessioncap::Op;
use sessioncap::agent::ledger::RedbLedger;
use sessioncap::noise::Responder;

use crate::frame;
use crate::report::{Budget, Report};
use crate::sample::{Compared, quartiles};
use crate::world::{Folder, World};

const THREADS: [usize; 3] = [2, 4, 8];
const ROUNDS: usize = 15;

/// The work of one thread after the barrier.
type Work<'a> = Box<dyn FnOnce() + 'a>;

pub fn rows(report: &mut Report) {
    let place = Folder::new();
    report.section("threads");
    let memory = World::new();
    let file = on_disk(&place, "attaches.redb");
    for threads in THREADS {
        several(report, "the match of a method name", threads, || {
            let mut side = frame::one_method();
            Box::new(move || _ = side(3_000_000))
        });
        several(report, "permits", threads, || permits(&memory));
        several(report, "attaches, memory", threads, || attaches(&memory));
        several(report, "attaches, redb", threads, || attaches(&file));
        several(report, "attaches without Noise, memory", threads, || attaches_without_noise(&memory));
        let file = on_disk(&place, &format!("redemptions-{threads}.redb"));
        several(report, "redemptions, redb", threads, || redemptions(&file));
    }
}

fn on_disk(place: &Path, name: &str) -> World {
    World::on(RedbLedger::open(place.join(name)).unwrap(), 8)
}

fn permits(world: &World) -> Work<'_> {
    let mut guard = frame::guard(world);
    Box::new(move || frame::permit_times(&mut guard, Op::StreamOutput, world.now, 3_000_000))
}

/// One phone for each thread.
fn attaches(world: &World) -> Work<'_> {
    let phone = world.phone();
    let messages: Vec<_> = (0..100).map(|_| world.fresh_attach(&phone)).collect();
    Box::new(move || messages.iter().for_each(|message| drop(world.respond_and_activate(message))))
}

/// The part that threads share: message 1 is read beforehand, message 2 is not written.
fn attaches_without_noise(world: &World) -> Work<'_> {
    let phone = world.phone();
    let read = |_| Responder::read(&world.agent, &world.fresh_attach(&phone), &mut OsRng).unwrap();
    let received: Vec<_> = (0..2_000).map(read).collect();
    Box::new(move || {
        for received in &received {
            drop(world.admit(received).1.activate_after_first_frame(world.now).unwrap());
        }
    })
}

fn redemptions(world: &World) -> Work<'_> {
    let messages: Vec<_> = (0..20).map(|_| world.fresh_redemption()).collect();
    Box::new(move || messages.iter().for_each(|message| drop(world.respond_and_activate(message))))
}

/// The throughput of several threads over that of one.
fn several<'a>(report: &mut Report, series: &str, threads: usize, work: impl Fn() -> Work<'a> + Sync) {
    let pairs = (0..ROUNDS).map(|_| (wall(1, &work), wall(threads, &work)));
    let (one, many): (Vec<_>, Vec<_>) =
        pairs.map(|(one, many)| (one.as_nanos() as f64, many.as_nanos() as f64 / threads as f64)).unzip();
    let ratio = quartiles(one.iter().zip(&many).map(|(one, many)| one / many).collect());
    let [[_, one, _], [_, many, _]] = [one, many].map(quartiles);
    let compared = Compared { ratio, ours: many, peer: one };
    report.point(series, threads, "threads", compared, Budget::Information);
}

/// Returns the time from the first thread's start to the last one's end; each prepares itself before.
fn wall<'a>(threads: usize, work: &(impl Fn() -> Work<'a> + Sync)) -> Duration {
    let barrier = Barrier::new(threads);
    let run = || {
        let work = work();
        barrier.wait();
        let start = Instant::now();
        work();
        (start, Instant::now())
    };
    let times: Vec<_> = std::thread::scope(|scope| {
        let running: Vec<_> = (0..threads).map(|_| scope.spawn(run)).collect();
        running.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    let start = times.iter().map(|(start, _)| *start).min().unwrap();
    times.iter().map(|(_, end)| *end).max().unwrap() - start
}
