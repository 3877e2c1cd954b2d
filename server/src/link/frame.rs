//! What travels on a link: one kind byte, the channel (u32, little-endian), a body.
//!
//! | kind | body |
//! |---|---|
//! | 1 open | the hello of a new channel |
//! | 2 data | one frame, opaque here |
//! | 3 credit | u32: so much more may be sent on this channel |
//! | 4 end | empty: in good order; else the reason, in UTF-8 |
//! | 5 beat | nothing; says that the sender is alive |
//! | 6 bye | the reason why the whole link ends |

use super::handshake::printable;

/// What a link adds to every frame.
pub(super) const HEADER: usize = 5;
/// The longest reason that is sent.
const REASON: usize = 300;
/// The largest plaintext of a TLS record, and what the record adds to it.
pub(super) const RECORD: u64 = 16_384;
const RECORD_OVERHEAD: u64 = 22;

/// One message of a link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Frame {
    Open { id: u32, hello: Vec<u8> },
    Data { id: u32, payload: Vec<u8> },
    Credit { id: u32, bytes: u32 },
    End { id: u32, reason: String },
    Beat,
    Bye { reason: String },
}

impl Frame {
    /// The channel, or 0 for the link itself.
    pub(super) fn channel(&self) -> u32 {
        match self {
            Self::Open { id, .. } | Self::Data { id, .. } | Self::Credit { id, .. } | Self::End { id, .. } => *id,
            Self::Beat | Self::Bye { .. } => 0,
        }
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let credit;
        let (kind, body): (u8, &[u8]) = match self {
            Self::Open { hello, .. } => (1, hello),
            Self::Data { payload, .. } => (2, payload),
            Self::Credit { bytes, .. } => {
                credit = bytes.to_le_bytes();
                (3, &credit)
            }
            Self::End { reason, .. } => (4, cut(reason)),
            Self::Beat => (5, &[]),
            Self::Bye { reason } => (6, cut(reason)),
        };
        let mut bytes = Vec::with_capacity(HEADER + body.len());
        bytes.push(kind);
        bytes.extend_from_slice(&self.channel().to_le_bytes());
        bytes.extend_from_slice(body);
        bytes
    }

    /// Reads a message; what is wrong with it otherwise.
    pub(super) fn decode(bytes: &[u8]) -> Result<Self, String> {
        let Some(((kind, id), body)) =
            bytes.split_first_chunk::<HEADER>().map(|([kind, id @ ..], body)| ((*kind, u32::from_le_bytes(*id)), body))
        else {
            return Err(format!("it sent a message of {} bytes, shorter than a header", bytes.len()));
        };
        let frame = match kind {
            1 => Self::Open { id, hello: body.to_vec() },
            2 => Self::Data { id, payload: body.to_vec() },
            3 => Self::Credit {
                id,
                bytes: u32::from_le_bytes(
                    body.try_into().map_err(|_| "it sent a credit that is no number".to_owned())?,
                ),
            },
            4 => Self::End { id, reason: printable(body) },
            5 if body.is_empty() => Self::Beat,
            6 => Self::Bye { reason: printable(body) },
            _ => return Err(format!("it sent a message of the unknown kind {kind}")),
        };
        let of_the_link = matches!(frame, Self::Beat | Self::Bye { .. });
        if of_the_link != (id == 0) {
            return Err(format!("it sent a message of kind {kind} on channel {id}"));
        }
        Ok(frame)
    }
}

fn cut(reason: &str) -> &[u8] {
    let mut end = reason.len().min(REASON);
    while !reason.is_char_boundary(end) {
        end -= 1;
    }
    reason.get(..end).unwrap_or_default().as_bytes()
}

/// What a message of `body` bytes costs on the wire when it leaves alone: the link's header,
/// the WebSocket's, and TLS records. Messages that leave together save part of the last.
pub(super) fn wire_bytes(body: usize, masked: bool) -> u64 {
    let message = (HEADER + body) as u64;
    let length = match message {
        0..=125 => 2,
        126..=65_535 => 4,
        _ => 10,
    };
    let socket = message + length + if masked { 4 } else { 0 };
    socket + socket.div_ceil(RECORD) * RECORD_OVERHEAD
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot unwrap has failed")]

    use super::*;

    #[test]
    fn every_kind_is_read_back() {
        for frame in [
            Frame::Open { id: 7, hello: vec![1, 2] },
            Frame::Data { id: u32::MAX, payload: vec![] },
            Frame::Credit { id: 1, bytes: 9 },
            Frame::End { id: 2, reason: String::new() },
            Frame::Beat,
            Frame::Bye { reason: "é".to_owned() },
        ] {
            assert_eq!(Frame::decode(&frame.encode()).unwrap(), frame);
        }
    }

    #[test]
    fn nonsense_is_refused() {
        for bytes in [
            &[][..],
            &[2, 0, 0, 0],
            &[0, 1, 0, 0, 0],
            &[9, 1, 0, 0, 0],
            &[3, 1, 0, 0, 0, 1],
            &[2, 0, 0, 0, 0],
            &[5, 1, 0, 0, 0],
            &[5, 0, 0, 0, 0, 1],
        ] {
            assert!(Frame::decode(bytes).is_err(), "{bytes:?}");
        }
    }

    #[test]
    fn long_reasons_are_cut_between_letters() {
        let bytes = Frame::Bye { reason: "é".repeat(400) }.encode();
        assert!(bytes.len() <= HEADER + REASON);
        assert!(Frame::decode(&bytes).is_ok());
    }

    #[test]
    fn wire_bytes_counts_every_layer() {
        // 100 + 5, a header of 2 and a mask of 4, one record.
        assert_eq!(wire_bytes(100, true), 105 + 2 + 4 + 22);
        // 65536 + 5, a header of 10, five records.
        assert_eq!(wire_bytes(65_536, false), 65_541 + 10 + 5 * 22);
    }
}
