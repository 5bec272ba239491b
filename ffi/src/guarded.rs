//! An object's state behind a lock, which is taken away when the object is wiped.

use std::sync::Mutex;

use crate::failure::Failed;

pub(crate) struct Guarded<T>(Mutex<Option<T>>);

impl<T> Guarded<T> {
    pub(crate) fn new(state: T) -> Self {
        Self(Mutex::new(Some(state)))
    }

    /// Uses the state.
    pub(crate) fn with<R>(&self, use_it: impl FnOnce(&mut T) -> R) -> Result<R, Failed> {
        let mut state = match self.0.lock() {
            Ok(state) => state,
            // A call has panicked: what it left behind may be half done.
            Err(poisoned) => {
                let mut state = poisoned.into_inner();
                *state = None;
                self.0.clear_poison();
                state
            }
        };
        state.as_mut().map(use_it).ok_or_else(Failed::wiped)
    }

    /// Replaces the state by what is made of it. A panic leaves none.
    pub(crate) fn replace(&self, make: impl FnOnce(T) -> T) -> Result<(), Failed> {
        let mut state = self.0.lock().map_err(|_| Failed::wiped())?;
        *state = Some(make(state.take().ok_or_else(Failed::wiped)?));
        Ok(())
    }

    /// Takes the state away. Every later call fails as wiped.
    pub(crate) fn take(&self) -> Option<T> {
        match self.0.lock() {
            Ok(mut state) => state.take(),
            Err(poisoned) => {
                *poisoned.into_inner() = None;
                self.0.clear_poison();
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use super::*;

    #[test]
    fn after_a_panic_or_a_wipe_every_call_fails_as_wiped() {
        let guarded = Guarded::new(1);
        let panicked = catch_unwind(AssertUnwindSafe(|| guarded.with(|_| panic!("in a call"))));
        assert!(panicked.is_err());
        for _ in 0..2 {
            let Err(Failed::Failed { failure }) = guarded.with(|state| *state) else { panic!("it is there") };
            assert_eq!(failure.code, "wiped");
        }
        let guarded = Guarded::new(1);
        assert_eq!((guarded.take(), guarded.take()), (Some(1), None));
        assert!(guarded.with(|state| *state).is_err());
    }
}
