//! All three roles run here, with fixed seeds: what they send must be the same bytes as everywhere else.

use wasm_bindgen::prelude::*;

use crate::failure::Failure;

/// One line for each protocol and ring: its name, and the digests of what server0, server1 and crypto-producer send.
///
/// # Errors
/// A bug: the run does not finish.
#[wasm_bindgen]
pub fn transcripts() -> Result<String, Failure> {
    let lines = selkie::golden::transcripts()?.into_iter();
    Ok(lines.map(|(name, digests)| format!("{name} {}\n", digests.join(" "))).collect())
}
