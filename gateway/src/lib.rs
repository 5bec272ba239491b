//! A gateway with a Noise of its own: [`before`] it knows this crate, and [`after`] it lets phones in. Read the two
//! side by side: what `after` has more is what an integration costs. [`after_responder`] is the same gateway with
//! [`sessioncap::noise::Responder`] in the place of its own snow. [`service`] plays the service that has the sessions.
#![forbid(unsafe_code)]
#![deny(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::string_slice,
    clippy::unwrap_used
)]

pub mod after;
pub mod after_responder;
pub mod backend;
pub mod before;
pub mod service;

/// Why something did not work.
pub type Failure = Box<dyn std::error::Error + Send + Sync>;
/// The result of everything here.
pub type Outcome<T> = Result<T, Failure>;
