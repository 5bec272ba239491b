//! Spans and events for the crate `tracing`, with the feature of the same name; without it, nothing.
//!
//! A field is a public id, a device's public key, or a fixed word. Nothing here can be given a secret, a
//! credential, a link, a label or a payload. A subscriber is foreign code: it is called without any lock of the
//! gate, and a panic of it is caught, so that it changes no decision.

use crate::id::{CredentialId, SessionId, TicketId};
use crate::key::DevicePublicKey;

/// The public names that a call concerns.
#[cfg_attr(not(feature = "tracing"), allow(dead_code, reason = "only a subscriber reads them"))]
#[derive(Clone, Copy, Default)]
pub(crate) struct Ids<'a> {
    pub(crate) ticket: Option<&'a TicketId>,
    pub(crate) credential: Option<&'a CredentialId>,
    pub(crate) session: Option<&'a SessionId>,
    pub(crate) device: Option<&'a DevicePublicKey>,
}

impl<'a> Ids<'a> {
    pub(crate) const NONE: Self = Self { ticket: None, credential: None, session: None, device: None };

    pub(crate) fn of_device(device: &'a DevicePublicKey) -> Self {
        Self { device: Some(device), ..Self::NONE }
    }
}

macro_rules! calls {
    ($($name:ident $text:literal $level:ident),* $(,)?) => {
        /// The calls that are traced, each with a span.
        #[derive(Clone, Copy, PartialEq, Eq)]
        pub(crate) enum Call {
            $(
                #[doc = $text]
                $name,
            )*
        }

        #[cfg(feature = "tracing")]
        impl Call {
            fn name(self) -> &'static str {
                match self {
                    $(Self::$name => $text,)*
                }
            }

            fn open(self, ids: &Ids<'_>) -> tracing::Span {
                match self {
                    $(
                        Self::$name => tracing::span!(
                            target: TARGET,
                            tracing::Level::$level,
                            $text,
                            ticket = ids.ticket.map(tracing::field::display),
                            credential = ids.credential.map(tracing::field::display),
                            session = ids.session.map(tracing::field::display),
                            device = ids.device.map(tracing::field::display),
                            outcome = tracing::field::Empty,
                            denial = tracing::field::Empty,
                        ),
                    )*
                }
            }
        }
    };
}

calls! {
    Admit "admit" INFO,
    Redeem "redeem" INFO,
    Attach "attach" INFO,
    Activate "activate" INFO,
    RegisterIssuer "register_issuer" INFO,
    Offer "offer" INFO,
    Confirm "confirm" INFO,
    Renew "renew" INFO,
    RevokeTicket "revoke_ticket" INFO,
    RevokeCredential "revoke_credential" INFO,
    RevokeSession "revoke_session" INFO,
    RevokeIssuer "revoke_issuer" INFO,
    RevokeDevice "revoke_device" INFO,
    RevokePhone "revoke_phone" INFO,
    EndSession "end_session" INFO,
    SyncDevices "sync_devices" INFO,
    ResetClock "reset_clock" INFO,
    Settle "settle" DEBUG,
    Reopen "reopen" INFO,
}

#[cfg(feature = "tracing")]
const TARGET: &str = "sessioncap";

/// The span of one call.
pub(crate) struct Trace {
    #[cfg(feature = "tracing")]
    call: Call,
    #[cfg(feature = "tracing")]
    span: tracing::Span,
}

#[cfg(feature = "tracing")]
impl Trace {
    pub(crate) fn begin(call: Call, ids: &Ids<'_>) -> Self {
        Self { call, span: quietly(|| call.open(ids)).unwrap_or_else(tracing::Span::none) }
    }

    /// Adds names that became known during the call.
    pub(crate) fn add(&self, ids: &Ids<'_>) {
        use tracing::field::display;
        quietly(|| {
            if let Some(ticket) = ids.ticket {
                self.span.record("ticket", display(ticket));
            }
            if let Some(credential) = ids.credential {
                self.span.record("credential", display(credential));
            }
            if let Some(session) = ids.session {
                self.span.record("session", display(session));
            }
            if let Some(device) = ids.device {
                self.span.record("device", display(device));
            }
        });
    }

    /// Runs the call inside its span.
    pub(crate) fn run<T>(&self, call: impl FnOnce() -> T) -> T {
        let entered = quietly(|| self.span.enter());
        let result = call();
        quietly(|| drop(entered));
        result
    }

    /// Ends the call with an event.
    pub(crate) fn end(&self, outcome: &'static str, denial: Option<&'static str>) {
        let call = self.call.name();
        quietly(|| {
            self.span.record("outcome", outcome);
            if let Some(denial) = denial {
                self.span.record("denial", denial);
            }
            match denial {
                Some(code) if code.starts_with("ledger_") || code == "internal" => {
                    tracing::warn!(target: TARGET, parent: &self.span, call, outcome, denial);
                }
                None if self.call == Call::Settle => {
                    tracing::debug!(target: TARGET, parent: &self.span, call, outcome);
                }
                _ => tracing::info!(target: TARGET, parent: &self.span, call, outcome, denial),
            }
        });
    }
}

#[cfg(not(feature = "tracing"))]
impl Trace {
    #[inline]
    pub(crate) fn begin(_: Call, _: &Ids<'_>) -> Self {
        Self {}
    }

    #[inline]
    pub(crate) fn add(&self, _: &Ids<'_>) {}

    #[inline]
    pub(crate) fn run<T>(&self, call: impl FnOnce() -> T) -> T {
        call()
    }

    #[inline]
    pub(crate) fn end(&self, _: &'static str, _: Option<&'static str>) {}
}

/// Reports that the connections of a credential were cut. Call it without holding a lock.
#[cfg(feature = "tracing")]
pub(crate) fn cut(credential: &CredentialId, why: &'static str) {
    quietly(|| tracing::info!(target: TARGET, call = "cut", credential = %credential, denial = why));
}

#[cfg(not(feature = "tracing"))]
#[inline]
pub(crate) fn cut(_: &CredentialId, _: &'static str) {}

/// Calls the subscriber, whose panic must neither stop a call nor hold up another stream.
#[cfg(feature = "tracing")]
fn quietly<T>(report: impl FnOnce() -> T) -> Option<T> {
    std::panic::catch_unwind(core::panic::AssertUnwindSafe(report)).ok()
}
