//! Private neural-network inference among two servers and a crypto producer: all of the cryptography and all of the
//! machine learning, none of the I/O.
//!
//! ```text
//! Graph ──compile──▶ Program ──plan──▶ Plan ──deal──▶ material, one half for each server
//! (what people write) (what all agree on) (no data yet)          │
//!                                                                ▼
//!      client: encode, share ──frames──▶ Party machines ⇄ rounds ⇄ … ──frames──▶ client: reconstruct, decode
//! ```
//!
//! Each box is a module and each arrow one function: [`graph`], [`program`], [`plan`], [`deal`], [`party`], [`client`].
//! Nothing here opens a socket, reads a clock, starts a thread or asks the operating system for randomness: seeds come in,
//! frames go in and out, and the same seeds give the same frames natively and in a browser, byte for byte.
#![no_std]
#![deny(unsafe_code)]

extern crate alloc;
#[cfg(any(test, feature = "std"))]
extern crate std;

#[cfg(feature = "bench")]
#[doc(hidden)]
pub mod bench;
mod bilinear;
mod bounds;
pub mod clear;
pub mod client;
pub mod compare;
pub mod deal;
pub mod drawing;
mod error;
mod field;
mod fixed;
mod gates;
pub mod golden;
pub mod graph;
pub mod kernel;
pub mod layers;
mod pack;
pub mod party;
pub mod plan;
pub mod program;
mod protocol;
mod ring;
mod role;
pub mod session;
mod share;
mod snapshot;
mod state;
pub mod statistics;
mod stock;
mod stream;
#[cfg(test)]
mod testing;
#[doc = include_str!("../docs/vocabulary.md")]
pub mod vocabulary {}
mod wipe;
pub mod wire;

pub use error::{Blame, Culprit, GraphError, PlanError};
pub use protocol::{Objective, Protocol, Truncation, Variant};
pub use role::Role;
pub use session::Session;
pub use snapshot::{SharedVariables, Snapshot};
pub use state::{Assigned, State};
pub use stock::{Burnt, Epoch, Stock};
pub use stream::{Seed, Seeds};
