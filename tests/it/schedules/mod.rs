//! The schedules at the end of the protocol, on real servers: several workers, each of them held at
//! one point of its way while the others, and operators, go on. Each file says which it replays.
//!
//! In the end there is, whatever the order was: one delivery for each key and edition, in which every
//! row of the source is once; counts that say so; nothing held, staged, or waiting.

mod jobs;
mod long_jobs;
mod poison;
mod s06_between_listing_and_spreading;
mod s07_a_newer_wake_up;
mod s08_dead_or_not_yet;
mod s10_one_key_two_contents;
mod s11_flushed;
mod s14_delivery_limit;
mod s15_waiting;
mod s17_between_confirm_and_mark;
mod s17_target_crashes;
