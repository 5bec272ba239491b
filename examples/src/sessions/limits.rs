//! Every bound of what the server of the sessions and agents keep of each other, and of how long they wait.

use std::time::Duration;

use crate::pty::{MAX_SESSIONS, TRANSCRIPT};

/// Longest JSON of an agent, in bytes: a device's request, of one frame, and what stands around it.
pub const LONGEST_ASK: usize = 128 * 1024;
/// Longest JSON of the server, in bytes: a session's command is no longer than what it was started with, and a path has
/// 4 KiB, each byte of which may be spelled with six.
pub const LONGEST_TELL: usize = 256 * 1024;
/// Most plain bytes of a message: a session's history, or its screen, 1 MiB each.
pub const LONGEST_OUTPUT: usize = TRANSCRIPT;
/// Most sessions in a list: as many as there may be.
pub const MOST_LISTED: usize = MAX_SESSIONS as usize;
/// Connections whose first message has not come whole. The next one waits until one of them is closed.
pub const MOST_WAITING: usize = 64;
/// News that wait for one agent. One that is further behind is disconnected, and comes again.
pub const MOST_NEWS: usize = 1024;
/// Sizes and ends of sessions that an agent has not told the server yet, at most one size of each session. They are twice
/// as many as all sessions have, for those that have ended meanwhile. A caller with one more is refused, and nothing has
/// changed.
pub const MOST_CHANGES: usize = 4 * MOST_LISTED;
/// Programs that an agent has asked the server to start and that it has not answered. The next one waits.
pub const MOST_STARTING: usize = MOST_LISTED;
/// Messages that were read and wait to be looked at.
pub const MOST_READ: usize = 16;

/// How long the first message may take, until it is whole. The connection is closed then.
pub const FIRST: Duration = Duration::from_secs(5);
/// How long an agent may take to know a new session, or to take news. One that takes longer is disconnected, and comes
/// again.
pub const KNOWING: Duration = Duration::from_secs(5);
/// How long the server may take to answer, and an agent to take the answer.
pub const PATIENCE: Duration = Duration::from_secs(10);
