//! Looks into a ledger without changing it: what is on record, without anything that redeems or attaches, and
//! whether the rows agree with each other.

mod check;
mod contents;
mod dump;
mod finding;

pub use check::Check;
pub use dump::{Dump, DumpedRow};
pub use finding::{Damage, Finding};
