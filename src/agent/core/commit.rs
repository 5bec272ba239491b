//! Group commit: the transitions that arrive while a commit is being made durable go into the next one.
//!
//! No thread belongs to the gate. A caller whose transition finds no commit under way runs the next one, for
//! itself and for everyone who waits; when it is done, the first of those who have come meanwhile runs the one
//! after it. So a lone caller waits for one commit, its own, and nobody waits for a timer. Every transition runs
//! over what is durable and over its predecessors in the same commit, never over a commit that is not durable
//! yet: there is no answer to take back when a commit fails.

use std::collections::VecDeque;
use std::sync::{Arc, PoisonError};

use super::lock;
use crate::limits::MAX_MEMBERS;
use crate::sync::{Condvar, Mutex};

/// A transition that waits for its commit.
pub(super) trait Member: Send {
    /// Whether it goes before those that have waited longer: a revocation waits for at most one commit under way.
    fn goes_first(&self) -> bool;

    /// Whether no other may be in its commit.
    fn is_alone(&self) -> bool;

    /// Tells its caller to run the next commit.
    fn lead(&self);
}

/// The transitions that wait, in the order in which they came.
pub(super) struct Queue<M: Member>(Mutex<Waiting<M>>);

struct Waiting<M: Member> {
    first: VecDeque<M>,
    others: VecDeque<M>,
    /// Whether a caller runs a commit, or has been told to.
    busy: bool,
}

impl<M: Member> Waiting<M> {
    fn next(&self) -> Option<&M> {
        self.first.front().or_else(|| self.others.front())
    }

    fn take(&mut self) -> Vec<M> {
        let mut taken: Vec<M> = Vec::new();
        while taken.len() < MAX_MEMBERS {
            // Nothing joins one that goes alone, and it joins nothing.
            if self.next().is_some_and(|next| next.is_alone() && !taken.is_empty())
                || taken.last().is_some_and(Member::is_alone)
            {
                break;
            }
            match self.first.pop_front().or_else(|| self.others.pop_front()) {
                Some(member) => taken.push(member),
                None => break,
            }
        }
        taken
    }
}

impl<M: Member> Default for Queue<M> {
    fn default() -> Self {
        Self(Mutex::new(Waiting { first: VecDeque::new(), others: VecDeque::new(), busy: false }))
    }
}

impl<M: Member> Queue<M> {
    /// Returns how many wait.
    #[cfg(all(test, not(sessioncap_loom)))]
    pub(super) fn len(&self) -> usize {
        let waiting = lock(&self.0);
        waiting.first.len().saturating_add(waiting.others.len())
    }

    /// Adds a member, and waits until its seat has its outcome. Runs commits with `commit` while it is this
    /// caller's turn. A member that `commit` drops has to complete its seat.
    pub(super) fn wait<T>(&self, member: M, seat: &Seat<T>, commit: impl Fn(Vec<M>)) -> Option<T> {
        {
            let mut waiting = lock(&self.0);
            if !waiting.busy {
                waiting.busy = true;
                member.lead();
            }
            match member.goes_first() {
                true => waiting.first.push_back(member),
                false => waiting.others.push_back(member),
            }
        }
        loop {
            match seat.wait() {
                Turn::Done(outcome) => return outcome,
                Turn::Lead => {
                    let members = lock(&self.0).take();
                    // Also if the commit panics: the members then complete their seats as they are dropped.
                    let _hand_over = HandOver(self);
                    commit(members);
                }
            }
        }
    }
}

/// Passes the next commit on to whoever is first.
struct HandOver<'a, M: Member>(&'a Queue<M>);

impl<M: Member> Drop for HandOver<'_, M> {
    fn drop(&mut self) {
        let mut waiting = lock(&self.0.0);
        match waiting.next() {
            Some(next) => next.lead(),
            None => waiting.busy = false,
        }
    }
}

/// Where a caller waits for its turn and its outcome.
pub(super) struct Seat<T> {
    state: Mutex<State<T>>,
    called: Condvar,
}

struct State<T> {
    leads: bool,
    /// `Some(None)` if its member was dropped without an outcome.
    outcome: Option<Option<T>>,
}

enum Turn<T> {
    Lead,
    Done(Option<T>),
}

impl<T> Seat<T> {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self { state: Mutex::new(State { leads: false, outcome: None }), called: Condvar::new() })
    }

    pub(super) fn lead(&self) {
        lock(&self.state).leads = true;
        self.called.notify_one();
    }

    /// Sets the outcome, unless there is one.
    pub(super) fn complete(&self, outcome: Option<T>) {
        let mut state = lock(&self.state);
        if state.outcome.is_none() {
            state.outcome = Some(outcome);
        }
        drop(state);
        self.called.notify_one();
    }

    fn wait(&self) -> Turn<T> {
        let mut state = lock(&self.state);
        loop {
            if core::mem::take(&mut state.leads) {
                return Turn::Lead;
            }
            if let Some(outcome) = state.outcome.take() {
                return Turn::Done(outcome);
            }
            state = self.called.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

#[cfg(all(test, not(sessioncap_loom)))]
mod tests {
    use std::thread;

    use super::*;

    /// A member that gives its caller what its commit says.
    struct One {
        seat: Arc<Seat<usize>>,
        first: bool,
        alone: bool,
        name: usize,
    }

    impl Member for One {
        fn goes_first(&self) -> bool {
            self.first
        }
        fn is_alone(&self) -> bool {
            self.alone
        }
        fn lead(&self) {
            self.seat.lead();
        }
    }

    impl Drop for One {
        fn drop(&mut self) {
            self.seat.complete(None);
        }
    }

    fn usual(name: usize) -> One {
        One { seat: Seat::new(), first: false, alone: false, name }
    }

    fn first(name: usize, alone: bool) -> One {
        One { seat: Seat::new(), first: true, alone, name }
    }

    fn put(queue: &Queue<One>, member: One) {
        let mut waiting = lock(&queue.0);
        match member.first {
            true => waiting.first.push_back(member),
            false => waiting.others.push_back(member),
        }
    }

    fn taken(queue: &Queue<One>) -> Vec<usize> {
        lock(&queue.0).take().iter().map(|one| one.name).collect()
    }

    #[test]
    fn a_commit_is_bounded_in_order_and_a_revocation_goes_first() {
        let queue = Queue::default();
        (0..MAX_MEMBERS + 2).for_each(|name| put(&queue, usual(name)));
        (1_000..1_002).for_each(|name| put(&queue, first(name, false)));
        let expected: Vec<usize> = (1_000..1_002).chain(0..MAX_MEMBERS - 2).collect();
        assert_eq!(taken(&queue), expected);
        assert_eq!(taken(&queue), (MAX_MEMBERS - 2..MAX_MEMBERS + 2).collect::<Vec<_>>());
        assert!(taken(&queue).is_empty());
    }

    #[test]
    fn what_goes_alone_is_in_a_commit_of_its_own() {
        let queue = Queue::default();
        put(&queue, usual(1));
        put(&queue, first(2, false));
        put(&queue, first(3, true));
        put(&queue, first(4, false));
        assert_eq!(taken(&queue), [2]);
        assert_eq!(taken(&queue), [3]);
        assert_eq!(taken(&queue), [4, 1]);
    }

    /// Runs `callers` calls at once. The first commit waits until all have come: those that are not in it wait.
    /// `commit` is told the number of the commit. Returns the outcomes, and how many each commit had.
    fn all_at_once(callers: usize, commit: impl Fn(usize) + Sync) -> (Vec<Option<usize>>, Vec<usize>) {
        let (queue, commits) = (Queue::default(), std::sync::Mutex::new(Vec::new()));
        let (queue, commits, commit) = (&queue, &commits, &commit);
        let outcomes = thread::scope(|scope| {
            let calls: Vec<_> = (0..callers)
                .map(|name| {
                    scope.spawn(move || {
                        let member = usual(name);
                        let seat = Arc::clone(&member.seat);
                        queue.wait(member, &seat, |members: Vec<One>| {
                            let number = {
                                let mut commits = commits.lock().unwrap();
                                commits.push(members.len());
                                commits.len() - 1
                            };
                            while number == 0 && queue.len() + members.len() < callers {
                                thread::yield_now();
                            }
                            commit(number);
                            members.iter().for_each(|member| member.seat.complete(Some(number)));
                        })
                    })
                })
                .collect();
            calls.into_iter().map(|call| call.join().ok().flatten()).collect()
        });
        (outcomes, commits.lock().unwrap().clone())
    }

    #[test]
    fn what_comes_during_a_commit_goes_into_the_next_one() {
        let (outcomes, commits) = all_at_once(64, |_| {});
        assert!(commits.len() <= 2 && commits.iter().sum::<usize>() == 64, "{commits:?}");
        for (number, members) in commits.iter().enumerate() {
            assert_eq!(outcomes.iter().filter(|outcome| **outcome == Some(number)).count(), *members);
        }
    }

    #[test]
    fn everyone_returns_if_a_commit_panics() {
        let (outcomes, commits) = all_at_once(64, |number| {
            if number == 1 {
                std::panic::resume_unwind(Box::new("as the test wants it"));
            }
        });
        assert!(commits.len() <= 2 && commits.iter().sum::<usize>() == 64, "{commits:?}");
        let told = outcomes.iter().filter(|outcome| **outcome == Some(0)).count();
        assert_eq!(told, commits[0], "those of the first commit");
        assert_eq!(outcomes.iter().flatten().count(), told);
    }
}
