//! Faults of every kind, on real servers: nothing is lost, nothing is there twice, nothing is half there.

mod matrix;
