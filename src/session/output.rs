//! What a phone has shown of the output, and from where it goes on.

use super::message::{Following, FromPhone, ResumePoint, end_of};
use crate::error::Error;

/// What a phone does with output or a screen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use = "show the bytes, and say what is missing before them"]
pub struct Shown<'a> {
    /// How many bytes of output are missing before these; say so on the screen. `None` if the output before was of
    /// another incarnation.
    pub missing: Option<u64>,
    /// What to show. It does not include what was shown before.
    pub bytes: &'a [u8],
}

/// Keeps track of what a phone has shown of a session's output, so that it shows nothing twice and nothing is left
/// out unnoticed (`docs/PROTOCOL.md` section 16.3).
///
/// Pass it every `following`, `screen` and `output`. After a lost connection send [`OutputTracker::follow`] on the
/// next one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OutputTracker {
    /// Up to where the output was shown.
    shown: Option<ResumePoint>,
    /// Set between a `following` that announces a screen and that screen.
    screen_due: Option<Following>,
    /// Whether a `following` has come on this connection.
    follows: bool,
}

impl OutputTracker {
    /// Makes a tracker for a phone that has shown the output up to this point, or nothing.
    #[must_use]
    pub const fn new(shown: Option<ResumePoint>) -> Self {
        Self { shown, screen_due: None, follows: false }
    }

    /// Returns the point up to which the output was shown, to be stored or asked with.
    #[must_use]
    pub const fn shown(&self) -> Option<ResumePoint> {
        self.shown
    }

    /// Returns the message that asks for what comes after. A screen that was announced and has not come on an earlier
    /// connection is asked for again.
    #[must_use]
    pub const fn follow(&self) -> FromPhone<'static> {
        FromPhone::Follow(self.shown)
    }

    /// Forgets what belongs to a connection. Call it when the connection is lost.
    pub const fn disconnected(&mut self) {
        self.screen_due = None;
        self.follows = false;
    }

    /// Takes the answer to a follow.
    ///
    /// # Errors
    /// [`Error::MessageMalformed`] if it goes on before what was shown, or elsewhere without a screen. End the
    /// connection with [`EndCode::PROTOCOL`](crate::EndCode::PROTOCOL).
    pub fn following(&mut self, following: &Following) -> Result<(), Error> {
        let from = following.from;
        let joins = match self.shown.filter(|shown| shown.incarnation == from.incarnation) {
            Some(shown) if following.screen => shown.position <= from.position,
            Some(shown) => shown.position == from.position,
            None => following.screen,
        };
        if !joins {
            return Err(Error::MessageMalformed);
        }
        self.follows = true;
        self.screen_due = following.screen.then_some(*following);
        Ok(())
    }

    /// Takes the screen that a `following` has announced. It takes the place of everything on the phone's screen.
    ///
    /// # Errors
    /// [`Error::MessageMalformed`] if none is due, or it is of another position.
    pub fn screen<'a>(&mut self, position: u64, bytes: &'a [u8]) -> Result<Shown<'a>, Error> {
        match self.screen_due.take() {
            Some(Following { from, missed, .. }) if from.position == position => {
                self.shown = Some(from);
                Ok(Shown { missing: missed, bytes })
            }
            _ => Err(Error::MessageMalformed),
        }
    }

    /// Takes output.
    ///
    /// # Errors
    /// [`Error::MessageMalformed`] if no `following` came before it, or a screen is due first.
    pub fn output<'a>(&mut self, position: u64, bytes: &'a [u8]) -> Result<Shown<'a>, Error> {
        let end = end_of(position, bytes)?;
        let (true, None, Some(shown)) = (self.follows, self.screen_due, &mut self.shown) else {
            return Err(Error::MessageMalformed);
        };
        let missing = position.saturating_sub(shown.position);
        let repeated = shown.position.saturating_sub(position);
        let new = usize::try_from(repeated).ok().and_then(|repeated| bytes.get(repeated..));
        shown.position = shown.position.max(end);
        Ok(Shown { missing: Some(missing), bytes: new.unwrap_or_default() })
    }
}
