//! What one link is still to bring: exactly the plan's messages, in order, cut as the sender must cut them.

use alloc::collections::VecDeque;
use alloc::format;
use alloc::vec::Vec;

use crate::Role;
use crate::error::Blame;
use crate::wire::{Frame, MAX_PAYLOAD};

/// The messages of one peer in one session.
#[derive(Debug)]
pub(crate) struct Inbox {
    from: Role,
    /// Messages still to come: level and bytes.
    expected: VecDeque<(u32, u64)>,
    /// Parts of the first expected message.
    parts: u32,
    partial: Vec<u8>,
    complete: VecDeque<(u32, Vec<u8>)>,
}

impl Inbox {
    pub(crate) fn new(from: Role, expected: impl IntoIterator<Item = (u32, u64)>) -> Self {
        let expected = expected.into_iter().collect();
        Self { from, expected, parts: 0, partial: Vec::new(), complete: VecDeque::new() }
    }

    /// Takes the next frame. Nothing is stored before its place and length are known to be right.
    pub(crate) fn accept(&mut self, frame: &Frame) -> Result<(), Blame> {
        let Frame { step, part, payload } = frame;
        let Some((level, bytes)) = self.expected.front().copied() else {
            return Err(Blame::party(
                self.from,
                format!("part {part} of step {step}, after everything it had to send"),
            ));
        };
        if (level, self.parts) != (*step, *part) {
            return Err(Blame::party(
                self.from,
                format!("part {part} of step {step}, where part {} of step {level} comes next", self.parts),
            ));
        }
        let left = bytes - self.partial.len() as u64;
        let wanted = left.min(MAX_PAYLOAD as u64);
        if payload.len() as u64 != wanted {
            return Err(Blame::party(
                self.from,
                format!("{} bytes as part {part} of step {step}, where {wanted} belong", payload.len()),
            ));
        }
        self.partial.extend_from_slice(payload);
        self.parts += 1;
        if left == wanted {
            self.expected.pop_front();
            self.parts = 0;
            self.complete.push_back((level, core::mem::take(&mut self.partial)));
        }
        Ok(())
    }

    /// Whether the message of `level` is still awaited.
    pub(crate) fn awaits(&self, level: u32) -> bool {
        self.expected.front().is_some_and(|(next, _)| *next <= level)
    }

    /// The message of `level`, empty if there is none at that level.
    pub(crate) fn take(&mut self, level: u32) -> Vec<u8> {
        match self.complete.front() {
            Some((first, _)) if *first == level => {
                self.complete.pop_front().map(|(_, bytes)| bytes).unwrap_or_default()
            }
            _ => Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed test may panic")]
    use super::*;
    use alloc::vec;

    fn frame(step: u32, part: u32, bytes: usize) -> Frame {
        Frame { step, part, payload: vec![7; bytes] }
    }

    #[test]
    fn only_the_next_frame_is_taken() {
        let expected = [(2, MAX_PAYLOAD as u64 + 3), (5, 4)];
        let wrong = [
            (frame(2, 1, 3), "part 0 of step 2 comes next"),
            (frame(5, 0, 4), "part 0 of step 2 comes next"),
            (frame(2, 0, 3), "where"),
            (frame(2, 0, MAX_PAYLOAD + 1), "where"),
        ];
        for (frame, why) in wrong {
            let error = Inbox::new(Role::Server0, expected).accept(&frame).unwrap_err();
            assert!(format!("{error}").starts_with("server0 sent") && format!("{error}").contains(why), "{error}");
        }
        let mut inbox = Inbox::new(Role::Server0, expected);
        inbox.accept(&frame(2, 0, MAX_PAYLOAD)).unwrap();
        assert!(inbox.accept(&frame(2, 0, MAX_PAYLOAD)).is_err(), "repeated");
        assert!(inbox.awaits(2) && !inbox.awaits(1));
        inbox.accept(&frame(2, 1, 3)).unwrap();
        assert!(!inbox.awaits(4) && inbox.awaits(5));
        inbox.accept(&frame(5, 0, 4)).unwrap();
        assert!(inbox.accept(&frame(5, 0, 4)).is_err(), "after the end");
        assert_eq!((inbox.take(1).len(), inbox.take(2).len(), inbox.take(5).len()), (0, MAX_PAYLOAD + 3, 4));
    }
}
