//! Frames: what parties exchange within a session.
//!
//! A message of one level is cut into frames of at most [`MAX_FRAME`] bytes, numbered from 0. The link's own header (kind
//! and channel) is the host's; a frame adds the step (the plan's level) and the part. Since both ends know the plan, a
//! frame that is not exactly the next one expected is refused before anything is stored.

use alloc::format;
use alloc::vec::Vec;

use crate::Role;
use crate::error::Blame;

/// The bytes of a frame's own header: step and part, little-endian.
pub const HEADER_BYTES: usize = 8;
/// The largest frame, its own header included; leaves room for a link's header within 64 KiB.
pub const MAX_FRAME: usize = 65_536 - 16;
/// The largest payload.
pub const MAX_PAYLOAD: usize = MAX_FRAME - HEADER_BYTES;

/// The frames that a message of `bytes` bytes is cut into.
pub fn frames_for(bytes: u64) -> u64 {
    bytes.div_ceil(MAX_PAYLOAD as u64)
}

/// A piece of a message between two parties of a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// The level of the plan whose message this is a part of.
    pub step: u32,
    /// Which part, from 0.
    pub part: u32,
    /// At most [`MAX_PAYLOAD`] bytes.
    pub payload: Vec<u8>,
}

impl Frame {
    /// The frame's bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(HEADER_BYTES + self.payload.len());
        bytes.extend_from_slice(&self.step.to_le_bytes());
        bytes.extend_from_slice(&self.part.to_le_bytes());
        bytes.extend_from_slice(&self.payload);
        bytes
    }

    /// Reads a frame that `from` sent.
    ///
    /// # Errors
    /// It is shorter than its header or longer than allowed.
    pub fn decode(from: Role, bytes: &[u8]) -> Result<Self, Blame> {
        if bytes.len() > MAX_FRAME {
            return Err(Blame::party(
                from,
                format!("a frame of {} bytes, at most {MAX_FRAME} are allowed", bytes.len()),
            ));
        }
        let cut = || Blame::party(from, format!("a frame of {} bytes, which is cut off in its header", bytes.len()));
        let (step, rest) = bytes.split_first_chunk::<4>().ok_or_else(cut)?;
        let (part, payload) = rest.split_first_chunk::<4>().ok_or_else(cut)?;
        Ok(Self { step: u32::from_le_bytes(*step), part: u32::from_le_bytes(*part), payload: payload.to_vec() })
    }

    /// A message as frames.
    pub(crate) fn cut(step: u32, message: &[u8]) -> impl Iterator<Item = Frame> + '_ {
        (0..).zip(message.chunks(MAX_PAYLOAD)).map(move |(part, payload)| Frame {
            step,
            part,
            payload: payload.to_vec(),
        })
    }
}
