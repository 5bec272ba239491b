//! Puts the parts of a message together again.

use core::fmt;

use super::Frame;
use crate::error::Error;
use crate::limits::MAX_MESSAGE_LEN;

/// Puts messages together whose frames arrive in parts (`docs/PROTOCOL.md` section 6.5). Pass every frame of one
/// direction of a connection to it.
///
/// Holds one unfinished message, at most [`Assembler::MAX_MESSAGE_LEN`] bytes. Notices, pings and the end may come
/// between the parts. A guarded channel has its own; a phone needs this one.
///
/// ```
/// use sessioncap::{Assembler, Frame};
///
/// # fn main() -> Result<(), sessioncap::Error> {
/// let mut assembler = Assembler::new();
/// assert_eq!(assembler.take(Frame::Part(b"good ".to_vec()))?, None);
/// assert_eq!(assembler.take(Frame::Data(b"day".to_vec()))?, Some(Frame::Data(b"good day".to_vec())));
/// # Ok(())
/// # }
/// ```
#[derive(Default)]
pub struct Assembler {
    collected: Vec<u8>,
    /// Whether the rest of the message is skipped, up to and including its last frame.
    skipping: bool,
}

impl Assembler {
    /// Most bytes of a message.
    pub const MAX_MESSAGE_LEN: usize = MAX_MESSAGE_LEN;

    /// Makes an assembler for one direction of a new connection.
    #[must_use]
    pub const fn new() -> Self {
        Self { collected: Vec::new(), skipping: false }
    }

    /// Takes the next frame. Returns a data frame with the whole message once it is complete, any other frame as it
    /// is, and `None` for a part or a discard. A message of a single frame is not copied.
    ///
    /// # Errors
    /// [`Error::MessageTooLong`] with the last frame of a message that is longer than
    /// [`Assembler::MAX_MESSAGE_LEN`]. Its parts were dropped when it became too long. A phone ends the connection
    /// with [`EndCode::PROTOCOL`](crate::EndCode::PROTOCOL).
    pub fn take(&mut self, frame: Frame) -> Result<Option<Frame>, Error> {
        match frame {
            Frame::Part(part) => {
                self.add(&part);
                Ok(None)
            }
            Frame::Discard => {
                self.discard();
                Ok(None)
            }
            Frame::Data(data) if !self.is_unfinished() => Ok(Some(Frame::Data(data))),
            Frame::Data(data) => {
                self.add(&data);
                match core::mem::take(self) {
                    Self { skipping: true, .. } => Err(Error::MessageTooLong { max: MAX_MESSAGE_LEN }),
                    Self { collected, .. } => Ok(Some(Frame::Data(collected))),
                }
            }
            control @ (Frame::Notice(_) | Frame::Ping { .. } | Frame::End(_)) => Ok(Some(control)),
        }
    }

    /// Whether a message has begun whose last frame has not come.
    #[must_use]
    pub fn is_unfinished(&self) -> bool {
        self.skipping || !self.collected.is_empty()
    }

    /// Adds bytes to the message. If it becomes too long, what was collected is dropped and the rest skipped. Returns
    /// whether the bytes were kept.
    pub(crate) fn add(&mut self, bytes: &[u8]) -> bool {
        let len = self.collected.len().saturating_add(bytes.len());
        if self.skipping || len > MAX_MESSAGE_LEN {
            self.skip();
            return false;
        }
        if len > self.collected.capacity() {
            // Twice as much, so that many short parts are not copied each time, and never more than a message may
            // have.
            let capacity = self.collected.capacity().saturating_mul(2).clamp(len, MAX_MESSAGE_LEN);
            self.collected.reserve_exact(capacity.saturating_sub(self.collected.len()));
        }
        self.collected.extend_from_slice(bytes);
        true
    }

    /// What was collected of the message.
    pub(crate) fn collected(&self) -> &[u8] {
        &self.collected
    }

    /// Drops what was collected and skips the rest.
    pub(crate) fn skip(&mut self) {
        *self = Self { collected: Vec::new(), skipping: true };
    }

    /// Drops the message. The next frame begins another.
    pub(crate) fn discard(&mut self) {
        *self = Self::new();
    }
}

/// Does not show what was collected.
impl fmt::Debug for Assembler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Assembler")
            .field("collected", &self.collected.len())
            .field("skipping", &self.skipping)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::protocol::frame::Notice;

    /// What comes out of these frames.
    fn taken(frames: impl IntoIterator<Item = Frame>) -> Vec<Result<Frame, Error>> {
        let mut assembler = Assembler::new();
        frames.into_iter().filter_map(|frame| assembler.take(frame).transpose()).collect()
    }

    fn data(len: usize) -> Frame {
        Frame::Data(vec![1; len])
    }

    fn part(len: usize) -> Frame {
        Frame::Part(vec![1; len])
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn any_split_of_a_message_is_put_together_again(
            message in proptest::collection::vec(any::<u8>(), 0..2_000),
            mut cuts in proptest::collection::vec(any::<prop::sample::Index>(), 0..12),
            pings in proptest::collection::vec(0..12_usize, 0..4),
            discarded: bool,
        ) {
            let mut places: Vec<usize> =
                cuts.drain(..).map(|cut| cut.index(message.len() + 1)).chain([0]).collect();
            places.sort_unstable();
            places.dedup();
            let mut frames = Vec::new();
            if discarded {
                frames.extend([part(7), Frame::Discard]);
            }
            for (index, pair) in places.windows(2).enumerate() {
                if pings.contains(&index) {
                    frames.push(Frame::Ping { answer: true, number: 1 });
                }
                frames.push(Frame::Part(message[pair[0]..pair[1]].to_vec()));
            }
            frames.push(Frame::Data(message[*places.last().unwrap()..].to_vec()));
            // Over the wire as well.
            let frames = frames.iter().map(|frame| Frame::from_bytes(&frame.to_bytes()).unwrap());
            let mut whole = taken(frames);
            prop_assert_eq!(whole.pop(), Some(Ok(Frame::Data(message))));
            let is_ping = |frame: &Result<Frame, Error>| matches!(frame, Ok(Frame::Ping { .. }));
            prop_assert!(whole.iter().all(is_ping));
        }

        #[test]
        fn what_is_split_for_sending_is_put_together_again(len in 0..300_000_usize) {
            let message: Vec<u8> = (0..len).map(|at| at.to_le_bytes()[0]).collect();
            let frames: Vec<Frame> = Frame::split(&message).map(|frame| frame.map(<[u8]>::to_vec)).collect();
            prop_assert_eq!(frames.len(), len.div_ceil(Frame::MAX_DATA_LEN).max(1));
            for frame in &frames {
                prop_assert!(frame.to_bytes().len() <= crate::limits::MAX_FRAME_LEN);
            }
            prop_assert_eq!(taken(frames), [Ok(Frame::Data(message))]);
        }
    }

    #[test]
    fn a_message_of_the_greatest_length_is_taken_and_one_byte_more_is_refused_with_its_last_frame() {
        let most = MAX_MESSAGE_LEN;
        assert_eq!(taken([part(most - 1), data(1)]), [Ok(data(most))]);
        let too_long = Error::MessageTooLong { max: most };
        assert_eq!(taken([part(most), data(1), data(2)]), [Err(too_long.clone()), Ok(data(2))]);
        // A part passed the bound already: the rest is skipped and held nowhere.
        let mut assembler = Assembler::new();
        for frame in [part(most), part(1), part(most)] {
            assert_eq!(assembler.take(frame), Ok(None));
        }
        assert_eq!(assembler.collected().len() + assembler.collected.capacity(), 0);
        assert_eq!(assembler.take(data(0)), Err(too_long));
        assert!(!assembler.is_unfinished());
    }

    #[test]
    fn short_parts_hold_no_more_memory_than_a_message_may_have() {
        let mut assembler = Assembler::new();
        for _ in 0..MAX_MESSAGE_LEN / 1_000 {
            assert!(assembler.add(&[0; 1_000]));
            assert!(assembler.collected.capacity() <= MAX_MESSAGE_LEN);
        }
    }

    #[test]
    fn a_discard_drops_what_was_collected_and_what_is_skipped() {
        assert_eq!(taken([part(5), Frame::Discard, data(1)]), [Ok(data(1))]);
        assert_eq!(taken([part(MAX_MESSAGE_LEN), part(1), Frame::Discard, data(1)]), [Ok(data(1))]);
        let notice = Frame::Notice(Notice { code: 1, detail: 0, number: 0 });
        assert_eq!(taken([Frame::Discard, notice.clone(), data(0)]), [Ok(notice), Ok(data(0))]);
    }
}
