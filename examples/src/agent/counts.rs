//! Counters of the agent, beside those of its gate. They hold no id, name or address.

use std::sync::atomic::{AtomicU64, Ordering};

/// A number that only grows.
#[derive(Default)]
pub(super) struct Counter(AtomicU64);

impl Counter {
    pub(super) fn add_one(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Why a connection ended before its peer was served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Away {
    /// It broke, or its peer left.
    Gone,
    /// It sent no first message in time.
    TooSlow,
    /// It was no WebSocket request for the agent's path.
    NoWebsocket,
    /// It came from a web page that is not listed.
    Origin,
    /// It sent a text message.
    Text,
    /// It sent a message that is too long.
    TooLong,
    /// It repeated a first message that is still waiting.
    Repeated,
    /// A stranger, or a phone that is told nothing.
    Unproven,
    /// A phone that was told why.
    Refused,
    /// A newer connection has taken its place.
    Displaced,
    /// There was no place.
    NoPlace,
    /// The answer to its first message took too long.
    Undecided,
    /// The ledger has failed.
    LedgerFailed,
    /// The agent stops.
    Stopping,
}

impl Away {
    const ALL: [Self; 14] = [
        Self::Gone,
        Self::TooSlow,
        Self::NoWebsocket,
        Self::Origin,
        Self::Text,
        Self::TooLong,
        Self::Repeated,
        Self::Unproven,
        Self::Refused,
        Self::Displaced,
        Self::NoPlace,
        Self::Undecided,
        Self::LedgerFailed,
        Self::Stopping,
    ];

    const fn code(self) -> &'static str {
        match self {
            Self::Gone => "gone",
            Self::TooSlow => "too_slow",
            Self::NoWebsocket => "no_websocket",
            Self::Origin => "origin",
            Self::Text => "text",
            Self::TooLong => "too_long",
            Self::Repeated => "repeated",
            Self::Unproven => "unproven",
            Self::Refused => "refused",
            Self::Displaced => "displaced",
            Self::NoPlace => "no_place",
            Self::Undecided => "undecided",
            Self::LedgerFailed => "ledger_failed",
            Self::Stopping => "stopping",
        }
    }
}

#[derive(Default)]
pub(super) struct Counts {
    pub(super) accepted: Counter,
    pub(super) accept_errors: Counter,
    sent_away: [Counter; Away::ALL.len()],
}

impl Counts {
    pub(super) fn sent_away(&self, why: Away) {
        let counter = Away::ALL.iter().zip(&self.sent_away).find(|(away, _)| **away == why);
        if let Some((_, counter)) = counter {
            counter.add_one();
        }
    }

    pub(super) fn all_sent_away(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        Away::ALL.iter().zip(&self.sent_away).map(|(away, counter)| (away.code(), counter.get()))
    }
}
