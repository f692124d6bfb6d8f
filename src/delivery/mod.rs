//! Deliveries once they are made: checking one against its manifest.

pub mod verify;

pub use verify::{Mismatch, Verified, verify, verify_manifest};
