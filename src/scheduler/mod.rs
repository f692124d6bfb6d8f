//! The scheduler: finds what is due.

pub mod due;
