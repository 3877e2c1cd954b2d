//! Selkie's servers, crypto producer, model tools and command line.

pub mod bench;
pub mod cli;
pub mod client;
pub mod config;
pub mod data;
pub mod demo;
pub mod deploy;
pub mod exit;
mod heap;
pub mod identity;
pub mod init;
pub mod link;
pub mod model;
pub mod node;
pub mod onnx;
pub mod page;
pub mod predict;
pub mod remote;
mod scratch;
pub mod store;
pub mod tools;
pub mod train;

pub use remote::Session;
