//! Hands frames from party to party, and counts.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use crate::Role;
use crate::error::Blame;
use crate::party::{Event, Party};
use crate::wire::{Frame, HEADER_BYTES, frames_for};

/// What a run moved, counted frame by frame.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Moved {
    /// The longest chain of dependent messages, found by giving every frame a Lamport clock.
    pub rounds: u32,
    /// Payload among the parties.
    pub online_bytes: u64,
    /// Payload dealt ahead.
    pub offline_bytes: u64,
    /// Payload on the client's links.
    pub client_bytes: u64,
    /// All of these with the frames' headers.
    pub wire_bytes: u64,
    /// Payload by sender and receiver.
    pub links: BTreeMap<(Role, Role), u64>,
}

/// Sees every frame as it is handed over.
pub type Tap<'a> = &'a mut dyn FnMut(Role, Role, &Frame);

/// The bytes of a message, cut into frames.
pub(super) fn with_headers(message: usize) -> u64 {
    message as u64 + frames_for(message as u64) * HEADER_BYTES as u64
}

impl Moved {
    /// [`exchange`], all of whose frames are counted.
    pub(super) fn exchange(
        &mut self,
        parties: &mut [(Role, Party)],
        tap: Tap<'_>,
        events: &mut dyn FnMut(Role, Event),
    ) -> Result<(), Blame> {
        // The clocks of the messages that each party received, by level, and of those that it sent.
        let mut received: BTreeMap<(Role, u32), u32> = BTreeMap::new();
        let mut sent: BTreeMap<(Role, u32), u32> = BTreeMap::new();
        let mut count = |from: Role, to: Role, frame: &Frame| {
            tap(from, to, frame);
            let bytes = frame.payload.len() as u64;
            self.online_bytes += bytes;
            self.wire_bytes += bytes + HEADER_BYTES as u64;
            *self.links.entry((from, to)).or_default() += bytes;
            // What arrived early, for a later level, has not been read yet when this message leaves.
            let read = received.range((from, 0)..(from, frame.step)).map(|(_, clock)| *clock).max().unwrap_or(0);
            let clock = *sent.entry((from, frame.step)).or_insert(read + 1);
            let arrival = received.entry((to, frame.step)).or_default();
            *arrival = (*arrival).max(clock);
            self.rounds = self.rounds.max(clock);
        };
        exchange(parties, &mut count, events)
    }
}

/// Hands frames from party to party until all are done.
pub(super) fn exchange(
    parties: &mut [(Role, Party)],
    tap: Tap<'_>,
    events: &mut dyn FnMut(Role, Event),
) -> Result<(), Blame> {
    loop {
        let (mut done, mut frames) = (0, Vec::new());
        for (role, party) in parties.iter_mut() {
            loop {
                match party.poll()? {
                    Event::Transmit(to, frame) => frames.push((*role, to, frame)),
                    Event::Need(_) => break,
                    Event::Done => {
                        done += 1;
                        break;
                    }
                    event => events(*role, event),
                }
            }
        }
        if done == parties.len() {
            return Ok(());
        }
        if frames.is_empty() {
            return Err(Blame::bug("all parties wait for each other"));
        }
        for (from, to, frame) in frames {
            tap(from, to, &frame);
            let receiver = parties.iter_mut().find(|(role, _)| *role == to);
            receiver.ok_or_else(|| Blame::bug("a frame to a party that is not there"))?.1.handle(from, &frame)?;
        }
    }
}
