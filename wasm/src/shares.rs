//! What the two servers hold of an input: made by the same function as what is sent.

use selkie::client::{ClientSpec, InputSpec, SEED_BYTES};
use selkie::program::{Numbers, Visibility};
use wasm_bindgen::prelude::*;

use crate::failure::Failure;

/// The two servers' shares of one tensor: each alone is uniformly random, their sum modulo 2^k is the encoded input. One is the
/// expansion of a seed: of a shared input the one that server0 is sent, of a masked one the one that server1 handed out.
#[wasm_bindgen(getter_with_clone)]
pub struct Shares {
    /// What server0 holds.
    #[wasm_bindgen(readonly)]
    pub share0: Vec<u64>,
    /// What server1 holds.
    #[wasm_bindgen(readonly)]
    pub share1: Vec<u64>,
}

/// Splits values of 0 to 1 in the default ring and encoding. Every call draws new randomness.
///
/// # Errors
/// A value is not finite or out of range; there is no randomness.
#[wasm_bindgen]
pub fn split(values: &[f32]) -> Result<Shares, Failure> {
    share(&plain(values.len()), values)
}

/// Puts two shares of the default ring and encoding together, exactly.
///
/// # Errors
/// They are not of one length.
#[wasm_bindgen]
pub fn join(share0: &[u64], share1: &[u64]) -> Result<Vec<f32>, Failure> {
    add(&plain(share0.len()), share0, share1)
}

/// Splits one sample of `spec`'s first input. Of a masked one, too, the servers hold two shares, one of them a seed's
/// expansion: to show them, nobody need be asked for seeds.
pub(crate) fn share(spec: &ClientSpec, values: &[f32]) -> Result<Shares, Failure> {
    let mut spec = spec.clone();
    spec.inputs.iter_mut().for_each(|input| input.visibility = Visibility::Private);
    let shared = spec.share(&[values], 1, seed()?)?;
    let [share0, share1] = spec.expand(&shared, 0)?;
    Ok(Shares { share0, share1 })
}

/// Puts together what [`share`] split.
pub(crate) fn add(spec: &ClientSpec, share0: &[u64], share1: &[u64]) -> Result<Vec<f32>, Failure> {
    if share0.len() != share1.len() {
        return Err(Failure::usage(format!(
            "The shares are of {} and {} elements: they are not of one input.",
            share0.len(),
            share1.len()
        )));
    }
    let mut values = spec.join([share0, share1])?;
    if let Some([mean, deviation]) = spec.inputs.first().and_then(|input| input.normalised) {
        values.iter_mut().for_each(|value| *value = (f64::from(*value) * deviation + mean) as f32);
    }
    Ok(values)
}

/// Fresh random bytes.
pub(crate) fn seed() -> Result<[u8; SEED_BYTES], Failure> {
    let mut seed = [0; SEED_BYTES];
    getrandom::fill(&mut seed).map_err(Failure::no_randomness)?;
    Ok(seed)
}

/// One input of `elements` values from 0 to 1, to no particular model.
fn plain(elements: usize) -> ClientSpec {
    let input = InputSpec {
        player: "prediction-client".into(),
        name: "input".into(),
        shape: vec![elements as u32],
        range: [0.0, 1.0],
        visibility: Visibility::Private,
        whole: false,
        normalised: None,
    };
    ClientSpec {
        program: [0; 32],
        plan: [0; 32],
        protocol: String::new(),
        numbers: Numbers::default(),
        inputs: vec![input],
        outputs: vec![],
    }
}
