//! What takes minutes: `make acceptance` runs it, one test after the other.

mod cluster;
mod fairness;
mod patience;
