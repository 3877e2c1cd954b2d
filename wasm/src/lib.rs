//! Selkie's core in a browser or Node: the prediction client, and what a page wants beside it.
//!
//! Nothing here knows a protocol. Randomness comes from `getrandom` (`crypto.getRandomValues`) and from nowhere else:
//! where that fails, so does the call.
//!
//! No closure crosses into JavaScript: callbacks are JavaScript's own functions, and listeners are exported objects. The
//! glue's names then do not depend on compiler flags, so that one glue serves the builds with and without SIMD.

pub mod clear;
pub mod client;
mod conversation;
pub mod drawing;
pub mod failure;
#[cfg(feature = "all-roles")]
pub mod golden;
pub mod shares;
pub mod socket;
