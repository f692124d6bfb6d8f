//! What takes too long for every day: `make acceptance` runs it.

mod fairness;
