//! Who may be connected. Peers that wait, peers that have proven nothing, peers whose first frame has not come,
//! phones and devices have places of their own: none of the first takes a place of a later kind.
//!
//! A connection waits until its first bytes are there, and then until it is its turn among those of its address.
//! So connections that say nothing are in nobody's way, and a crowd that says much has to queue.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::hash::Hash;
use std::net::IpAddr;
use std::pin::pin;
use std::sync::{Arc, Mutex, Weak};
use std::time::{Duration, Instant};

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio::time::sleep;

use crate::lock;

/// Peers that have proven nothing yet.
const STRANGERS: usize = 128;
/// Of these, from one address.
pub(super) const STRANGERS_OF_ADDRESS: usize = 16;
/// Connections that wait for such a place.
const WAITING: usize = 192;
/// Of these, from one address, for each place of an address.
const WAITING_FOR_PLACE: usize = 4;
/// How long a stranger may take for its message 1 while others of its address wait.
const GRACE: Duration = Duration::from_millis(500);
/// How often those who wait look for one that takes longer.
const LOOK: Duration = Duration::from_millis(20);
/// Peers whose message 1 was right, and whose first frame has not come. A recorded message 1 gets this far.
const UNPROVEN: usize = 128;
/// Of these, with one phone's or device's key.
const UNPROVEN_OF_PEER: usize = 16;
/// Phones and devices together.
const MEMBERS: usize = 256;
/// Of these, kept free for devices.
const RESERVED: usize = 32;
/// First messages of one address that are processed at a time: half of all, so that the others get turns.
const TURNS_OF_ADDRESS: usize = super::listener::TURNS / 2;

/// The part of an address that one peer cannot choose freely.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Origin {
    V4([u8; 4]),
    /// The first 64 bits.
    V6([u8; 8]),
}

impl From<IpAddr> for Origin {
    fn from(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(address) => Self::V4(address.octets()),
            IpAddr::V6(address) => {
                let [a, b, c, d, e, f, g, h, ..] = address.octets();
                Self::V6([a, b, c, d, e, f, g, h])
            }
        }
    }
}

/// A peer by the key that its message 1 has proven to be used, now or when it was recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Claimed {
    Phone([u8; 32]),
    Device([u8; 32]),
}

/// All places of an agent.
pub(super) struct Places {
    pub(super) waiting: Arc<Crowd<Origin>>,
    pub(super) strangers: Arc<Crowd<Origin>>,
    seats: Arc<Semaphore>,
    seats_of_address: usize,
    pub(super) unproven: Arc<Crowd<Claimed>>,
    members: Mutex<Members>,
    messages: Mutex<HashSet<[u8; 32]>>,
    addresses: Mutex<HashMap<Origin, Weak<Address>>>,
}

/// What the connections of one address share. Who waits is served in order.
pub(super) struct Address {
    origin: Origin,
    seats: Arc<Semaphore>,
    /// For the processing of a message 1.
    pub(super) turns: Semaphore,
}

/// The place of a stranger.
pub(super) struct Stranger {
    pub(super) seat: Seat<Origin>,
    _of_its_address: OwnedSemaphorePermit,
    _of_all: OwnedSemaphorePermit,
}

/// How many of each kind there are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Members {
    pub(super) phones: usize,
    pub(super) devices: usize,
}

impl Places {
    pub(super) fn new(strangers_of_address: Option<usize>) -> Arc<Self> {
        let of_address = strangers_of_address.unwrap_or(STRANGERS_OF_ADDRESS).clamp(1, STRANGERS);
        Arc::new(Self {
            waiting: Crowd::new(WAITING, of_address.saturating_mul(WAITING_FOR_PLACE).min(WAITING)),
            strangers: Crowd::new(STRANGERS, of_address),
            seats: Arc::new(Semaphore::new(STRANGERS)),
            seats_of_address: of_address,
            unproven: Crowd::new(UNPROVEN, UNPROVEN_OF_PEER),
            members: Mutex::default(),
            messages: Mutex::default(),
            addresses: Mutex::default(),
        })
    }

    pub(super) fn members(&self) -> Members {
        *lock(&self.members)
    }

    /// Notes a message 1 until the result is dropped. `None` if the same one is there already: it is a copy,
    /// and no arithmetic needs to be done for it.
    pub(super) fn begin(self: &Arc<Self>, message: &[u8]) -> Option<Message> {
        // The sender's ephemeral key, which an honest peer draws anew each time.
        let key = message.first_chunk().copied().unwrap_or_default();
        lock(&self.messages).insert(key).then(|| Message { places: Arc::clone(self), key })
    }

    /// What the connections of an address share, as long as there is one.
    pub(super) fn address(&self, origin: Origin) -> Arc<Address> {
        let mut addresses = lock(&self.addresses);
        if let Some(known) = addresses.get(&origin).and_then(Weak::upgrade) {
            return known;
        }
        addresses.retain(|_, address| address.strong_count() > 0);
        let new = Arc::new(Address {
            origin,
            seats: Arc::new(Semaphore::new(self.seats_of_address)),
            turns: Semaphore::new(TURNS_OF_ADDRESS),
        });
        addresses.insert(origin, Arc::downgrade(&new));
        new
    }

    /// Waits for the place of a stranger. Whoever takes too long for its message 1 gives way.
    pub(super) async fn seat(&self, address: &Address) -> Option<Stranger> {
        let of_its_address = self.wait_for(&address.seats, Some(address.origin)).await?;
        let of_all = self.wait_for(&self.seats, None).await?;
        let seat = self.strangers.enter(address.origin)?;
        Some(Stranger { seat, _of_its_address: of_its_address, _of_all: of_all })
    }

    async fn wait_for(&self, seats: &Arc<Semaphore>, of: Option<Origin>) -> Option<OwnedSemaphorePermit> {
        let mut acquiring = pin!(Arc::clone(seats).acquire_owned());
        loop {
            tokio::select! {
                biased;
                acquired = &mut acquiring => return acquired.ok(),
                () = sleep(LOOK) => {
                    self.strangers.displace(of.as_ref(), Instant::now().checked_sub(GRACE));
                }
            }
        }
    }

    fn join(self: &Arc<Self>, device: bool) -> Option<Member> {
        let mut members = lock(&self.members);
        let all = members.phones.saturating_add(members.devices);
        if all >= MEMBERS || (!device && members.phones >= MEMBERS - RESERVED) {
            return None;
        }
        let count = if device { &mut members.devices } else { &mut members.phones };
        *count = count.saturating_add(1);
        Some(Member { places: Arc::clone(self), device })
    }
}

/// A message 1 that is being processed, or whose sender's first frame has not come.
pub(super) struct Message {
    places: Arc<Places>,
    key: [u8; 32],
}

impl Drop for Message {
    fn drop(&mut self) {
        lock(&self.places.messages).remove(&self.key);
    }
}

/// The place of a phone or a device.
struct Member {
    places: Arc<Places>,
    device: bool,
}

impl Drop for Member {
    fn drop(&mut self) {
        let mut members = lock(&self.places.members);
        let count = if self.device { &mut members.devices } else { &mut members.phones };
        *count = count.saturating_sub(1);
    }
}

/// The place of a peer from message 2 on: among the unproven until its first frame has come, and then among the
/// phones or devices.
pub(super) struct Place {
    waiting: Option<(Seat<Claimed>, Message)>,
    member: Option<Member>,
    places: Arc<Places>,
    device: bool,
}

/// No place is free, or the place was given to a newer connection of the same peer.
#[derive(Debug)]
pub(super) struct NoPlace;

impl Place {
    pub(super) fn new(places: &Arc<Places>, claimed: Claimed, message: Message) -> Option<Self> {
        let device = matches!(claimed, Claimed::Device(_));
        let seat = places.unproven.enter(claimed)?;
        Some(Self { waiting: Some((seat, message)), member: None, places: Arc::clone(places), device })
    }

    /// Whoever waits for it learns that the place is gone.
    pub(super) fn displacement(&self) -> Arc<Notify> {
        self.waiting.as_ref().map(|(seat, _)| Arc::clone(&seat.out)).unwrap_or_default()
    }

    /// The first frame has come: from now on the peer has a place of its kind.
    pub(super) fn prove(&mut self) -> Result<(), NoPlace> {
        if let Some((seat, _message)) = self.waiting.take() {
            if seat.is_lost() {
                return Err(NoPlace);
            }
            self.member = self.places.join(self.device);
        }
        self.member.as_ref().map(|_| ()).ok_or(NoPlace)
    }
}

/// A bounded number of peers, in which a newcomer takes the place of an older one of whoever has most.
pub(super) struct Crowd<K> {
    most: usize,
    most_of_one: usize,
    inner: Mutex<Inner<K>>,
}

struct Inner<K> {
    next: u64,
    /// By age.
    present: BTreeMap<u64, Present<K>>,
    counts: HashMap<K, usize>,
    displaced: u64,
}

struct Present<K> {
    key: K,
    since: Instant,
    /// Whether a newcomer may take its place.
    idle: bool,
    out: Arc<Notify>,
}

/// A place in a crowd, until it is dropped.
pub(super) struct Seat<K: Eq + Hash + Clone> {
    crowd: Arc<Crowd<K>>,
    id: u64,
    out: Arc<Notify>,
}

impl<K: Eq + Hash + Clone> Crowd<K> {
    fn new(most: usize, most_of_one: usize) -> Arc<Self> {
        let inner = Inner { next: 0, present: BTreeMap::new(), counts: HashMap::new(), displaced: 0 };
        Arc::new(Self { most, most_of_one, inner: Mutex::new(inner) })
    }

    /// A place, or `None` if all are taken by peers that nobody may displace.
    pub(super) fn enter(self: &Arc<Self>, key: K) -> Option<Seat<K>> {
        let mut inner = lock(&self.inner);
        let own = inner.counts.get(&key).copied().unwrap_or(0);
        if own >= self.most_of_one {
            let oldest = inner.present.iter().find(|(_, present)| present.idle && present.key == key);
            let oldest = oldest.map(|(id, _)| *id)?;
            inner.displace(oldest);
        } else if inner.present.len() >= self.most {
            // The newcomer counts too: who has most displaces its own.
            let holds =
                |of: &K| inner.counts.get(of).copied().unwrap_or(0).saturating_add(usize::from(*of == key));
            let idle = inner.present.iter().filter(|(_, present)| present.idle);
            let chosen = idle.max_by_key(|(id, present)| (holds(&present.key), Reverse(**id)));
            let chosen = chosen.map(|(id, _)| *id)?;
            inner.displace(chosen);
        }
        let (id, out) = (inner.next, Arc::new(Notify::new()));
        inner.next = id.saturating_add(1);
        let count = inner.counts.entry(key.clone()).or_insert(0);
        *count = count.saturating_add(1);
        inner.present.insert(id, Present { key, since: Instant::now(), idle: true, out: Arc::clone(&out) });
        Some(Seat { crowd: Arc::clone(self), id, out })
    }

    /// Sends away the oldest idle one, of this peer or of whoever has most, if it came before that moment. False
    /// if there is none.
    pub(super) fn displace(&self, of: Option<&K>, before: Option<Instant>) -> bool {
        let Some(before) = before else { return false };
        let mut inner = lock(&self.inner);
        let holds = |of: &K| inner.counts.get(of).copied().unwrap_or(0);
        let old = inner.present.iter().filter(|(_, present)| present.idle && present.since <= before);
        let asked = old.filter(|(_, present)| of.is_none_or(|of| present.key == *of));
        let chosen = asked.max_by_key(|(id, present)| (holds(&present.key), Reverse(**id)));
        let chosen = chosen.map(|(id, _)| *id);
        if let Some(chosen) = chosen {
            inner.displace(chosen);
        }
        chosen.is_some()
    }

    pub(super) fn len(&self) -> usize {
        lock(&self.inner).present.len()
    }

    /// How many have lost their place to another.
    pub(super) fn displaced(&self) -> u64 {
        lock(&self.inner).displaced
    }
}

impl<K: Eq + Hash> Inner<K> {
    fn displace(&mut self, id: u64) {
        if let Some(present) = self.remove(id) {
            self.displaced = self.displaced.saturating_add(1);
            present.out.notify_one();
        }
    }

    fn remove(&mut self, id: u64) -> Option<Present<K>> {
        let present = self.present.remove(&id)?;
        if let Some(count) = self.counts.get_mut(&present.key) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                self.counts.remove(&present.key);
            }
        }
        Some(present)
    }
}

impl<K: Eq + Hash + Clone> Seat<K> {
    /// Waits until another has taken the place.
    pub(super) async fn lost(&self) {
        self.out.notified().await;
    }

    fn is_lost(&self) -> bool {
        !lock(&self.crowd.inner).present.contains_key(&self.id)
    }

    /// From now on nobody takes this place. False if it is taken already.
    pub(super) fn keep(&self) -> bool {
        let mut inner = lock(&self.crowd.inner);
        let present = inner.present.get_mut(&self.id);
        present.map(|present| present.idle = false).is_some()
    }
}

impl<K: Eq + Hash + Clone> Drop for Seat<K> {
    fn drop(&mut self) {
        lock(&self.crowd.inner).remove(self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn crowd() -> Arc<Crowd<char>> {
        Crowd::new(6, 3)
    }

    #[test]
    fn a_newcomer_takes_the_oldest_place_of_its_own_address_and_no_other() {
        let crowd = crowd();
        let other = crowd.enter('b').unwrap();
        let first = crowd.enter('a').unwrap();
        let later: Vec<_> = (0..3).map(|_| crowd.enter('a').unwrap()).collect();
        assert!(first.is_lost() && !other.is_lost());
        assert!(later.iter().all(|seat| !seat.is_lost()));
        assert_eq!((crowd.len(), crowd.displaced()), (4, 1));
    }

    #[test]
    fn in_a_full_crowd_whoever_has_most_gives_way() {
        let crowd = crowd();
        let one = crowd.enter('a').unwrap();
        let two: Vec<_> = (0..2).map(|_| crowd.enter('b').unwrap()).collect();
        let three: Vec<_> = (0..3).map(|_| crowd.enter('c').unwrap()).collect();
        let newcomer = crowd.enter('d').unwrap();
        assert!(three[0].is_lost() && !three[1].is_lost());
        assert!(!one.is_lost() && two.iter().all(|seat| !seat.is_lost()) && !newcomer.is_lost());
        // Now b and c have two each, and another of b would be its third: its own oldest goes.
        let own = crowd.enter('b').unwrap();
        assert!(two[0].is_lost() && !three[1].is_lost() && !own.is_lost());
    }

    #[test]
    fn only_one_that_came_before_a_moment_is_sent_away() {
        let crowd = crowd();
        let before = Instant::now();
        let seats = ['a', 'a', 'b'].map(|key| crowd.enter(key).unwrap());
        assert!(!crowd.displace(None, before.checked_sub(GRACE)) && !crowd.displace(None, None));
        let later = Some(Instant::now() + GRACE);
        assert!(seats[0].keep());
        assert!(crowd.displace(Some(&'a'), later) && seats[1].is_lost());
        assert!(!crowd.displace(Some(&'a'), later), "the other one's message is being processed");
        assert!(crowd.displace(None, later) && seats[2].is_lost() && !seats[0].is_lost());
    }

    #[tokio::test]
    async fn strangers_of_one_address_wait_in_order_and_others_do_not_wait_for_them() {
        let places = Places::new(Some(2));
        let (own, other) = (places.address(Origin::V4([1; 4])), places.address(Origin::V4([2; 4])));
        let first = places.seat(&own).await.unwrap();
        let second = places.seat(&own).await.unwrap();
        assert!(first.seat.keep() && second.seat.keep());
        let mut waits = pin!(places.seat(&own));
        tokio::select! {
            biased;
            _ = waits.as_mut() => panic!("there is no place"),
            () = std::future::ready(()) => {}
        }
        assert!(places.seat(&other).await.is_some());
        drop(first);
        assert!(waits.await.is_some());
    }

    #[test]
    fn nobody_takes_the_place_of_one_whose_message_is_being_processed() {
        let crowd = crowd();
        let kept: Vec<_> = (0..3).map(|_| crowd.enter('a').unwrap()).collect();
        assert!(kept.iter().all(Seat::keep));
        assert!(crowd.enter('a').is_none());
        drop(kept);
        assert!(crowd.enter('a').is_some());
        assert_eq!(crowd.displaced(), 0);
    }

    #[test]
    fn one_address_is_one_v4_address_or_one_v6_network_of_64_bits() {
        let origin = |text: &str| Origin::from(text.parse::<IpAddr>().unwrap());
        assert_eq!(origin("2001:db8::1"), origin("2001:db8::ffff:0:0:1"));
        assert_ne!(origin("2001:db8::1"), origin("2001:db8:0:1::1"));
        assert_eq!(origin("::ffff:192.0.2.1"), origin("192.0.2.1"));
        assert_ne!(origin("192.0.2.1"), origin("192.0.2.2"));
    }

    #[test]
    fn phones_leave_places_for_devices() {
        let places = Places::new(None);
        let phones: Vec<_> = std::iter::from_fn(|| places.join(false)).collect();
        assert_eq!(phones.len(), MEMBERS - RESERVED);
        let devices: Vec<_> = std::iter::from_fn(|| places.join(true)).collect();
        assert_eq!(devices.len(), RESERVED);
        drop(phones);
        drop(devices);
        assert_eq!(places.members(), Members::default());
    }

    #[test]
    fn a_copy_of_a_message_waits_for_nothing_and_holds_no_place() {
        let places = Places::new(None);
        let message = [7; 96];
        let first = places.begin(&message).unwrap();
        assert!(places.begin(&message).is_none());
        let device = Claimed::Device([1; 32]);
        let mut place = Place::new(&places, device, first).unwrap();
        assert!(places.begin(&message).is_none());
        assert_eq!(places.unproven.len(), 1);
        place.prove().unwrap();
        assert_eq!((places.unproven.len(), places.members().devices), (0, 1));
        assert!(places.begin(&message).is_some());
    }

    #[test]
    fn copies_cost_places_of_their_own_key_only() {
        let places = Places::new(None);
        let enter = |number: u8, of: u8| {
            let claimed = Claimed::Phone([of; 32]);
            Place::new(&places, claimed, places.begin(&[number; 32]).unwrap()).unwrap()
        };
        let mut other = enter(0, 1);
        let mut many: Vec<_> = (1..=200).map(|number| enter(number, 2)).collect();
        assert_eq!(places.unproven.len(), UNPROVEN_OF_PEER + 1);
        assert!(many[0].prove().is_err() && many[199].prove().is_ok() && other.prove().is_ok());
    }
}
