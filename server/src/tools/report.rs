//! What the tools found out, as one JSON document each: the fields that scripts rely on.

use std::io::Write;

use selkie::Role;
use selkie::plan::{Cost, Disclosure, LayerCost, LinkCost};
use serde::Serialize;

use crate::exit::Failure;

/// The version of the documents.
pub const SCHEMA: u32 = 1;

/// What `evaluate` and `predict` report. Costs are those of one full batch; fractions lie in 0..=1; what cannot be known
/// without labels or a reference is null.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Evaluation {
    /// [`SCHEMA`].
    pub schema: u32,
    /// The model's name.
    pub model: String,
    /// The protocol's name.
    pub protocol: String,
    /// k.
    pub ring_bits: u32,
    /// f.
    pub fraction_bits: u32,
    /// Samples in a batch.
    pub batch: usize,
    /// Samples in all.
    pub images: usize,
    /// The part of the images that were recognised, computing on shares.
    pub accuracy_private: Option<f64>,
    /// The part of the images that the reference recognises.
    pub accuracy_plaintext: Option<f64>,
    /// The part of the images for which both say the same.
    pub agreement: Option<f64>,
    /// The largest difference between a logit and the reference's.
    pub max_abs_error: Option<f64>,
    /// Messages on the longest chain.
    pub rounds: u32,
    /// Payload among the parties.
    pub online_bytes: u64,
    /// Payload dealt ahead.
    pub offline_bytes: u64,
    /// Payload on the client's links.
    pub client_bytes: u64,
    /// All of it with headers.
    pub wire_bytes: u64,
    /// What the plan says of `rounds`.
    pub planned_rounds: u32,
    /// What the plan says of `online_bytes`.
    pub planned_online_bytes: u64,
    /// What the plan says of `offline_bytes`.
    pub planned_offline_bytes: u64,
    /// What the plan says of `client_bytes`.
    pub planned_client_bytes: u64,
    /// The median time from a batch's inputs to its outputs.
    pub latency_ms_p50: f64,
}

/// What `plan` reports of one protocol.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Planned {
    /// [`SCHEMA`].
    pub schema: u32,
    /// The model's name.
    pub model: String,
    /// The protocol's name.
    pub protocol: String,
    /// What its variant is chosen for.
    pub variant: String,
    /// Samples in the batch that the costs are for.
    pub batch: usize,
    /// k.
    pub ring_bits: u32,
    /// f.
    pub fraction_bits: u32,
    /// Messages on the longest chain.
    pub rounds: u32,
    /// Payload among the parties.
    pub online_bytes: u64,
    /// Payload dealt ahead.
    pub offline_bytes: u64,
    /// Payload on the client's links.
    pub client_bytes: u64,
    /// The most that each party holds at one time.
    pub memory_peak_bytes: MemoryPeak,
    /// Every link and direction that is used.
    pub links: Vec<LinkCost>,
    /// Each operation's part.
    pub layers: Vec<LayerCost>,
    /// What each party sees in clear.
    pub disclosures: Vec<Disclosure>,
}

/// Bytes by role.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct MemoryPeak {
    /// server0's.
    pub server0: u64,
    /// server1's.
    pub server1: u64,
    /// The crypto producer's.
    pub crypto_producer: u64,
}

impl FromIterator<(Role, u64)> for MemoryPeak {
    fn from_iter<I: IntoIterator<Item = (Role, u64)>>(peaks: I) -> Self {
        let mut all = Self::default();
        for (role, bytes) in peaks {
            *match role {
                Role::Server0 => &mut all.server0,
                Role::Server1 => &mut all.server1,
                Role::CryptoProducer => &mut all.crypto_producer,
            } = bytes;
        }
        all
    }
}

/// What `plan --protocol all` reports.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Compared {
    /// [`SCHEMA`].
    pub schema: u32,
    /// One plan for each protocol.
    pub plans: Vec<Planned>,
}

impl Evaluation {
    /// Whether what was measured of one batch is what was planned; otherwise the program has a bug, which this names.
    ///
    /// # Errors
    /// It is not.
    pub fn check(&self, planned: &Cost) -> Result<(), Failure> {
        let pairs = [
            ("rounds", u64::from(self.rounds), u64::from(planned.rounds)),
            ("online bytes", self.online_bytes, planned.online_bytes),
            ("offline bytes", self.offline_bytes, planned.offline_bytes),
            ("client bytes", self.client_bytes, planned.client_bytes),
            ("wire bytes", self.wire_bytes, planned.wire_bytes()),
        ];
        match pairs.into_iter().find(|(_, measured, planned)| measured != planned) {
            None => Ok(()),
            Some((what, measured, planned)) => Err(Failure::other(format!(
                "a bug in selkie, please report it: {measured} {what} were measured, where the plan says {planned}"
            ))),
        }
    }
}

/// Prints one JSON document.
///
/// # Errors
/// Standard output is closed.
pub fn print_json(document: &impl Serialize) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    serde_json::to_writer_pretty(&mut out, document).map_err(Failure::other)?;
    writeln!(out)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may fail loudly")]

    use super::*;

    #[test]
    fn the_evaluation_has_the_fields_that_scripts_rely_on() {
        let evaluation = Evaluation {
            schema: SCHEMA,
            model: "A".into(),
            protocol: "securenn".into(),
            ring_bits: 64,
            fraction_bits: 16,
            batch: 1,
            images: 2,
            accuracy_private: None,
            accuracy_plaintext: Some(0.5),
            agreement: Some(1.0),
            max_abs_error: None,
            rounds: 1,
            online_bytes: 2,
            offline_bytes: 3,
            client_bytes: 4,
            wire_bytes: 5,
            planned_rounds: 1,
            planned_online_bytes: 2,
            planned_offline_bytes: 3,
            planned_client_bytes: 4,
            latency_ms_p50: 1.5,
        };
        let document = serde_json::to_value(&evaluation).unwrap();
        let mut fields: Vec<&str> = document.as_object().unwrap().keys().map(String::as_str).collect();
        let mut wanted: Vec<&str> = "schema model protocol ring_bits fraction_bits batch images accuracy_private             accuracy_plaintext agreement max_abs_error rounds online_bytes offline_bytes client_bytes wire_bytes             planned_rounds planned_online_bytes planned_offline_bytes planned_client_bytes latency_ms_p50"
            .split_whitespace()
            .collect();
        fields.sort_unstable();
        wanted.sort_unstable();
        assert_eq!(fields, wanted);
        let nulls = ["accuracy_private", "max_abs_error"].map(|field| document.get(field).unwrap().is_null());
        assert_eq!(nulls, [true, true]);
        assert_eq!(document.get("agreement").unwrap().as_f64(), Some(1.0));
    }

    #[test]
    fn memory_is_kept_by_role() {
        let peak: MemoryPeak =
            [(Role::Server1, 2), (Role::CryptoProducer, 3), (Role::Server0, 1)].into_iter().collect();
        assert_eq!(peak, MemoryPeak { server0: 1, server1: 2, crypto_producer: 3 });
    }
}
