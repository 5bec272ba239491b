//! What a request can be: a session operation that a credential may allow, or a privilege that no
//! credential can.

use core::fmt;
use core::str::FromStr;

use serde::de::{Error as _, SeqAccess, Visitor};

use crate::error::Error;
use crate::text::text_forms;

/// One thing that a phone can be allowed to do with its session.
///
/// The numbers are bit positions on the wire, the names are the Datalog and text form
/// (`docs/PROTOCOL.md` section 3). Both are fixed for ever.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Op {
    /// See the session's name, state, size and times.
    ReadMetadata = 0,
    /// Receive its output, with the recent screen that an attach replays from memory.
    StreamOutput = 1,
    /// Type into it, or answer its prompt.
    SendInput = 2,
    /// Leave it, with the session going on.
    Detach = 3,
    /// Be told of prompts and of the session's end.
    ReceiveNotifications = 4,
    /// Change the terminal's size, which every viewer sees. Opt-in.
    Resize = 5,
    /// Read the stored transcript from before. Opt-in.
    ReadHistory = 6,
    /// Cancel running work. Opt-in.
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

    /// The name in Datalog, on command lines and in logs.
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

    /// What it lets a phone do, for a person.
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
    /// [`Error::OpUnknown`] for any other text than a [`name`](Self::name).
    fn from_str(name: &str) -> Result<Self, Error> {
        Self::ALL.iter().copied().find(|op| op.name() == name).ok_or(Error::OpUnknown)
    }
}

text_forms!(Op, "the name of an operation");

/// How the empty set is written.
const NOTHING: &str = "nothing";

/// A set of operations.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct OpSet(u16);

impl OpSet {
    /// No operation.
    pub const EMPTY: Self = Self(0);
    /// Every operation, the opt-in ones too.
    pub const ALL: Self = Self((1 << Op::ALL.len()) - 1);
    /// What a companion has by default: metadata, output, input, detach, notifications.
    pub const COMPANION: Self = Self(
        Op::ReadMetadata.bit()
            | Op::StreamOutput.bit()
            | Op::SendInput.bit()
            | Op::Detach.bit()
            | Op::ReceiveNotifications.bit(),
    );

    /// The set of one operation.
    #[must_use]
    pub const fn only(op: Op) -> Self {
        Self(op.bit())
    }

    /// This set and one operation more.
    #[must_use]
    pub const fn with(self, op: Op) -> Self {
        Self(self.0 | op.bit())
    }

    /// This set less one operation.
    #[must_use]
    pub const fn without(self, op: Op) -> Self {
        Self(self.0 & !op.bit())
    }

    /// What is in both.
    #[must_use]
    pub const fn intersection(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// What is in either.
    #[must_use]
    pub const fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// What is in this set and not in the other.
    #[must_use]
    pub const fn difference(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// Whether `op` is in it.
    #[must_use]
    pub const fn contains(self, op: Op) -> bool {
        self.0 & op.bit() != 0
    }

    /// Whether all of this set is in `other`.
    #[must_use]
    pub const fn is_subset_of(self, other: Self) -> bool {
        self.0 & !other.0 == 0
    }

    /// Whether it holds nothing.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Its operations, in the order of their bits.
    pub fn iter(self) -> impl Iterator<Item = Op> {
        Op::ALL.iter().copied().filter(move |op| self.contains(*op))
    }

    /// The bits, as on the wire.
    #[must_use]
    pub const fn bits(self) -> u16 {
        self.0
    }

    /// The set of some bits.
    ///
    /// # Errors
    /// [`Error::OpUnknown`] if a bit stands for no operation.
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

/// Names separated by commas; `companion` stands for the default set, and `nothing` alone for the empty one.
impl FromStr for OpSet {
    type Err = Error;

    /// # Errors
    /// [`Error::OpUnknown`] for any other name, and for no name.
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

/// Serialised as a list of names.
impl serde::Serialize for OpSet {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.iter())
    }
}

/// From a list of names, each at most once.
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

/// What no credential can ever allow.
///
/// There is no conversion from a privilege to an [`Op`], so no code path can put one in a
/// credential, an offer or a scope:
///
/// ```compile_fail
/// let ops = sessioncap::OpSet::only(sessioncap::Privilege::CreateSession);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Privilege {
    /// List sessions, machines, applications, logs.
    DiscoverFleet,
    /// Start a session.
    CreateSession,
    /// Deploy, close, delete, or otherwise rule a lifecycle.
    Administer,
    /// Change a mode, a setting, a title.
    Configure,
    /// Enrol a device or a recipient.
    Enroll,
    /// Run a command anywhere but in the session.
    ExecuteOutsideSession,
    /// Use the agent's file service.
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

    /// The name in the policy and in logs.
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
    /// [`Error::PrivilegeUnknown`] for any other text than a [`name`](Self::name).
    fn from_str(name: &str) -> Result<Self, Error> {
        let named = Self::ALL.iter().copied().find(|privilege| privilege.name() == name);
        named.ok_or(Error::PrivilegeUnknown)
    }
}

text_forms!(Privilege, "the name of a privilege");

/// What a peer's request amounts to, once an adapter has read it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Action {
    /// A session operation: the credential decides.
    Session(Op),
    /// A privilege: refused to every credential, in code, before any policy is asked.
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
