//! The kinds of request: a session operation, which a credential may allow, or a privilege, which none can.

use core::fmt;
use core::str::FromStr;

use serde::de::{Error as _, SeqAccess, Visitor};

use crate::error::Error;
use crate::text::text_forms;

/// An operation that a phone can be allowed to do with its session.
///
/// The numbers are bit positions on the wire; the names are used in Datalog and text (`docs/PROTOCOL.md`
/// section 3). Both are fixed permanently.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Op {
    /// Sees the session's name, state, size and times.
    ReadMetadata = 0,
    /// Receives its output, including the recent screen that an attach replays from memory.
    StreamOutput = 1,
    /// Types into it, or answers its prompt.
    SendInput = 2,
    /// Leaves it while the session continues.
    Detach = 3,
    /// Receives notifications of prompts and of the session's end.
    ReceiveNotifications = 4,
    /// Changes the terminal's size, which every viewer sees. Opt-in.
    Resize = 5,
    /// Reads the stored transcript. Opt-in.
    ReadHistory = 6,
    /// Cancels running work. Opt-in.
    Interrupt = 7,
}

impl Op {
    /// All operations, in the order of their bits.
    pub const ALL: &'static [Self] = &[
        Self::ReadMetadata,
        Self::StreamOutput,
        Self::SendInput,
        Self::Detach,
        Self::ReceiveNotifications,
        Self::Resize,
        Self::ReadHistory,
        Self::Interrupt,
    ];

    /// Returns the name in Datalog, on command lines and in logs.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::ReadMetadata => "read_metadata",
            Self::StreamOutput => "stream_output",
            Self::SendInput => "send_input",
            Self::Detach => "detach",
            Self::ReceiveNotifications => "receive_notifications",
            Self::Resize => "resize",
            Self::ReadHistory => "read_history",
            Self::Interrupt => "interrupt",
        }
    }

    /// Returns a description of what it allows, for a person.
    #[must_use]
    pub fn describe(self) -> &'static str {
        match self {
            Self::ReadMetadata => "see the session's name and state",
            Self::StreamOutput => "follow its output",
            Self::SendInput => "type into it",
            Self::Detach => "leave it",
            Self::ReceiveNotifications => "be notified",
            Self::Resize => "resize the terminal",
            Self::ReadHistory => "read the stored transcript",
            Self::Interrupt => "cancel running work",
        }
    }

    const fn bit(self) -> u16 {
        1 << self as u8
    }
}

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Op {
    type Err = Error;

    /// # Errors
    /// [`Error::OpUnknown`] for any text that is not a [`name`](Self::name).
    fn from_str(name: &str) -> Result<Self, Error> {
        Self::ALL.iter().copied().find(|op| op.name() == name).ok_or(Error::OpUnknown)
    }
}

text_forms!(Op, "the name of an operation");

/// The text of the empty set.
const NOTHING: &str = "nothing";

/// A set of operations.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct OpSet(u16);

impl OpSet {
    /// No operation.
    pub const EMPTY: Self = Self(0);
    /// Every operation, the opt-in ones too.
    pub const ALL: Self = Self((1 << Op::ALL.len()) - 1);
    /// The default set of a companion: metadata, output, input, detach, notifications.
    pub const COMPANION: Self = Self(
        Op::ReadMetadata.bit()
            | Op::StreamOutput.bit()
            | Op::SendInput.bit()
            | Op::Detach.bit()
            | Op::ReceiveNotifications.bit(),
    );

    /// Makes a set of one operation.
    #[must_use]
    pub const fn only(op: Op) -> Self {
        Self(op.bit())
    }

    /// Returns this set and one more operation.
    #[must_use]
    pub const fn with(self, op: Op) -> Self {
        Self(self.0 | op.bit())
    }

    /// Returns this set without one operation.
    #[must_use]
    pub const fn without(self, op: Op) -> Self {
        Self(self.0 & !op.bit())
    }

    /// Returns the operations in both sets.
    #[must_use]
    pub const fn intersection(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// Returns the operations in either set.
    #[must_use]
    pub const fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Returns the operations in this set that are not in the other.
    #[must_use]
    pub const fn difference(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// Whether `op` is in the set.
    #[must_use]
    pub const fn contains(self, op: Op) -> bool {
        self.0 & op.bit() != 0
    }

    /// Whether `other` contains this set.
    #[must_use]
    pub const fn is_subset_of(self, other: Self) -> bool {
        self.0 & !other.0 == 0
    }

    /// Whether the set is empty.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Returns the operations, in the order of their bits.
    pub fn iter(self) -> impl Iterator<Item = Op> {
        Op::ALL.iter().copied().filter(move |op| self.contains(*op))
    }

    /// Returns the bits, as on the wire.
    #[must_use]
    pub const fn bits(self) -> u16 {
        self.0
    }

    /// Makes a set from its bits.
    ///
    /// # Errors
    /// [`Error::OpUnknown`] if a bit is not that of an operation.
    pub fn from_bits(bits: u64) -> Result<Self, Error> {
        match u16::try_from(bits) {
            Ok(bits) if Self(bits).is_subset_of(Self::ALL) => Ok(Self(bits)),
            _ => Err(Error::OpUnknown),
        }
    }
}

impl FromIterator<Op> for OpSet {
    fn from_iter<I: IntoIterator<Item = Op>>(ops: I) -> Self {
        ops.into_iter().fold(Self::EMPTY, Self::with)
    }
}

/// Reads names separated by commas. `companion` means the default set, and `nothing` alone the empty one.
impl FromStr for OpSet {
    type Err = Error;

    /// # Errors
    /// [`Error::OpUnknown`] for any other name, and for an empty text.
    fn from_str(names: &str) -> Result<Self, Error> {
        if names == NOTHING {
            return Ok(Self::EMPTY);
        }
        names.split(',').map(str::trim).try_fold(Self::EMPTY, |set, name| match name {
            "companion" => Ok(set.union(Self::COMPANION)),
            name => Ok(set.with(name.parse()?)),
        })
    }
}

impl fmt::Display for OpSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_empty() {
            return f.write_str(NOTHING);
        }
        for (index, op) in self.iter().enumerate() {
            if index > 0 {
                f.write_str(",")?;
            }
            f.write_str(op.name())?;
        }
        Ok(())
    }
}

impl fmt::Debug for OpSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "OpSet({self})")
    }
}

/// Serialises as a list of names.
impl serde::Serialize for OpSet {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.iter())
    }
}

/// Deserialises from a list of names, each at most once.
impl<'de> serde::Deserialize<'de> for OpSet {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_seq(Names)
    }
}

struct Names;

impl<'de> Visitor<'de> for Names {
    type Value = OpSet;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of operations")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut names: A) -> Result<OpSet, A::Error> {
        let mut set = OpSet::EMPTY;
        while let Some(op) = names.next_element()? {
            if set.contains(op) {
                return Err(A::Error::custom(format_args!("`{op}` is named twice")));
            }
            set = set.with(op);
        }
        Ok(set)
    }
}

/// An action that no credential can allow.
///
/// A privilege cannot be converted to an [`Op`], so no code path can put one into a credential, an offer or a
/// scope:
///
/// ```compile_fail
/// let ops = sessioncap::OpSet::only(sessioncap::Privilege::CreateSession);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Privilege {
    /// Lists sessions, machines, applications or logs.
    DiscoverFleet,
    /// Starts a session.
    CreateSession,
    /// Deploys, closes, deletes or otherwise manages a session.
    Administer,
    /// Changes a mode, a setting or a title.
    Configure,
    /// Enrols a device or a recipient.
    Enroll,
    /// Runs a command outside the session.
    ExecuteOutsideSession,
    /// Uses the agent's file service.
    AccessFiles,
}

impl Privilege {
    /// All privileges.
    pub const ALL: &'static [Self] = &[
        Self::DiscoverFleet,
        Self::CreateSession,
        Self::Administer,
        Self::Configure,
        Self::Enroll,
        Self::ExecuteOutsideSession,
        Self::AccessFiles,
    ];

    /// Returns the name in the policy and in logs.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::DiscoverFleet => "discover_fleet",
            Self::CreateSession => "create_session",
            Self::Administer => "administer",
            Self::Configure => "configure",
            Self::Enroll => "enroll",
            Self::ExecuteOutsideSession => "execute_outside_session",
            Self::AccessFiles => "access_files",
        }
    }
}

impl fmt::Display for Privilege {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Privilege {
    type Err = Error;

    /// # Errors
    /// [`Error::PrivilegeUnknown`] for any text that is not a [`name`](Self::name).
    fn from_str(name: &str) -> Result<Self, Error> {
        let named = Self::ALL.iter().copied().find(|privilege| privilege.name() == name);
        named.ok_or(Error::PrivilegeUnknown)
    }
}

text_forms!(Privilege, "the name of a privilege");

/// The action that a peer's request asks for, once an adapter has parsed it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Action {
    /// A session operation, which the credential decides.
    Session(Op),
    /// A privilege, which code refuses to every credential before the policy runs.
    Privileged(Privilege),
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Session(op) => op.fmt(f),
            Self::Privileged(privilege) => privilege.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_reads_back_and_no_privilege_is_an_operation() {
        for &op in Op::ALL {
            assert_eq!(op.name().parse(), Ok(op));
            assert_eq!(op.name().parse::<Privilege>(), Err(Error::PrivilegeUnknown));
        }
        for &privilege in Privilege::ALL {
            assert_eq!(privilege.name().parse(), Ok(privilege));
            assert_eq!(privilege.name().parse::<Op>(), Err(Error::OpUnknown));
        }
    }

    #[test]
    fn the_companion_set_has_no_opt_in_operation() {
        assert_eq!(
            OpSet::COMPANION.to_string(),
            "read_metadata,stream_output,send_input,detach,receive_notifications"
        );
    }

    #[test]
    fn unknown_bits_are_refused() {
        assert_eq!(OpSet::from_bits(0xff), Ok(OpSet::ALL));
        for bits in [0x100, 0x8000, 0x1_0000, u64::MAX] {
            assert_eq!(OpSet::from_bits(bits), Err(Error::OpUnknown));
        }
    }

    #[test]
    fn text_form_reads_back() {
        for bits in 1..=u64::from(OpSet::ALL.bits()) {
            let set = OpSet::from_bits(bits).unwrap();
            assert_eq!(set.to_string().parse(), Ok(set));
        }
        assert_eq!("companion,resize".parse(), Ok(OpSet::COMPANION.with(Op::Resize)));
        assert_eq!("".parse::<OpSet>(), Err(Error::OpUnknown));
    }
}
