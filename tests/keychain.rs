//! A keychain with the rules of a phone's, and the order in which an app has to use it so that no key is lost.
#![cfg(all(feature = "agent", feature = "holder", feature = "issuer"))]
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]
mod app_scene;
mod common;

use std::collections::BTreeMap;

use app_scene::{Keychain, Scene};
use proptest::prelude::*;
use sessioncap::app::*;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Refusal {
    NotFound,
    Duplicate,
    /// Locked. Some systems answer a query with *not found* then.
    NotNow,
    /// The app was ended.
    Ended,
}

/// Entries by their names. Every call is one step of the system; the app can be ended, and the keychain locked, between
/// any two.
#[derive(Default)]
struct Items {
    entries: BTreeMap<String, Vec<u8>>,
    locked: bool,
    /// How many steps the app still lives.
    steps: Option<u8>,
}

impl Items {
    fn step(&mut self) -> Result<(), Refusal> {
        match &mut self.steps {
            Some(0) => Err(Refusal::Ended),
            steps => {
                *steps = steps.map(|left| left - 1);
                if self.locked { Err(Refusal::NotNow) } else { Ok(()) }
            }
        }
    }

    fn update(&mut self, name: &str, value: &[u8]) -> Result<(), Refusal> {
        self.step()?;
        let entry = self.entries.get_mut(name).ok_or(Refusal::NotFound)?;
        *entry = value.to_vec();
        Ok(())
    }

    fn add(&mut self, name: &str, value: &[u8]) -> Result<(), Refusal> {
        self.step()?;
        if self.entries.contains_key(name) {
            return Err(Refusal::Duplicate);
        }
        self.entries.insert(name.to_owned(), value.to_vec());
        Ok(())
    }

    fn delete(&mut self, name: &str) -> Result<(), Refusal> {
        self.step()?;
        self.entries.remove(name).map(drop).ok_or(Refusal::NotFound)
    }

    fn read(&mut self, name: &str) -> Result<Vec<u8>, Refusal> {
        self.step()?;
        self.entries.get(name).cloned().ok_or(Refusal::NotFound)
    }

    /// As the packages of `bindings/` put: an update first, then an add, and a read.
    fn put(&mut self, name: &str, value: &[u8]) -> Result<(), Refusal> {
        match self.update(name, value) {
            Err(Refusal::NotFound) => self.add(name, value)?,
            updated => updated?,
        }
        if self.read(name)? == value { Ok(()) } else { Err(Refusal::NotNow) }
    }

    /// As an app may not: there is a moment without an entry.
    fn put_anew(&mut self, name: &str, value: &[u8]) -> Result<(), Refusal> {
        match self.delete(name) {
            Ok(()) | Err(Refusal::NotFound) => self.add(name, value),
            refused => refused,
        }
    }
}

#[test]
fn an_entry_that_is_updated_first_is_there_at_every_moment() {
    let lost = |put: fn(&mut Items, &str, &[u8]) -> Result<(), Refusal>| {
        (0..6).any(|steps| {
            let mut items = Items::default();
            items.put("ticket", b"before").unwrap();
            items.steps = Some(steps);
            let done = put(&mut items, "ticket", b"after");
            let is_new = items.entries.get("ticket").is_some_and(|kept| kept == b"after");
            assert!(done.is_err() || is_new);
            items.entries.is_empty()
        })
    };
    assert!(!lost(Items::put));
    assert!(lost(Items::put_anew), "the other order loses one");
}

#[derive(Debug, Clone)]
enum Happens {
    Locks(bool),
    /// The app is ended after so many steps of the keychain, and started again.
    Ends(u8),
    Breaks,
    Renews,
    Waits,
    Adds(u8),
}

fn happens() -> impl Strategy<Value = Happens> {
    use Happens::*;
    prop_oneof![
        2 => any::<bool>().prop_map(Locks),
        2 => (0..4_u8).prop_map(Ends),
        2 => Just(Breaks),
        2 => Just(Renews),
        4 => Just(Waits),
        1 => (0..10_u8).prop_map(Adds),
    ]
}

/// Carries out what waits to be stored.
fn serve(scene: &mut Scene, items: &mut Items) {
    while let Some((_, bytes)) = scene.asked_to_store.clone() {
        let name = scene.phone.stored().ticket().to_string();
        match items.put(&name, &bytes) {
            Ok(()) => scene.answer_store(Keychain::Stores),
            Err(Refusal::Ended) => return,
            Err(_) => scene.answer_store(Keychain::Refuses),
        }
        scene.work();
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn whatever_the_keychain_does_the_key_is_never_lost_and_no_second_one_is_made(
        all in proptest::collection::vec(happens(), 1..40),
    ) {
        let (mut scene, mut items) = (Scene::new(), Items::default());
        scene.keychain = Keychain::Waits;
        let key = scene.phone.stored().holder().public();
        let name = scene.phone.stored().ticket().to_string();
        scene.tell(Input::Start);
        serve(&mut scene, &mut items);
        for one in &all {
            match one {
                Happens::Locks(locked) => items.locked = *locked,
                Happens::Ends(steps) => items.steps = Some(*steps),
                Happens::Breaks => scene.break_off(None),
                Happens::Renews => {
                    let _ = scene.desktop.renew(&scene.world, &scene.pairing, sessioncap::OpSet::COMPANION, 3_600);
                }
                Happens::Waits if scene.phone.wait_until().is_some() => _ = scene.wait(),
                Happens::Waits => {}
                Happens::Adds(number) => {
                    let url = sessioncap::AgentUrl::parse(&format!("wss://host{number}.example")).unwrap();
                    scene.phone.add_address(url);
                    scene.work();
                }
            }
            serve(&mut scene, &mut items);
            if items.steps == Some(0) {
                // Started again, with what the keychain has once it is open.
                (items.steps, items.locked) = (None, false);
                let kept = items.read(&name).unwrap();
                scene.kept = Some(kept);
                scene.break_off(None);
                scene.restart();
                serve(&mut scene, &mut items);
            }
            let kept = Stored::from_bytes(&items.entries[&name]).unwrap();
            prop_assert_eq!(kept.holder().public(), key);
            prop_assert_eq!(items.entries.len(), 1);
            if scene.phone.state().code() == "live" {
                prop_assert_eq!(kept.credential(), scene.phone.stored().credential());
            }
        }
    }
}
