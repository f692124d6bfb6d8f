//! Longshore hands data out of systems to partners and analysts, as jobs on a RabbitMQ worker
//! pool, and can prove what was handed over.
//!
//! The flow in twenty lines; `docs/ARCHITECTURE.md` walks it with every turn:
//!
//! 1. A producer's message, the command line or a schedule ([`scheduler::due`]) asks for a run.
//! 2. [`intake::order`] makes an order of it, with its key ([`job::key`]); [`Accept`] puts it into
//!    the [`ledger`] once, together with its wake-up.
//! 3. The [`scheduler`] publishes wake-ups from the ledger's outbox onto the [`queue`].
//! 4. A [`worker`] takes a message, and claims the key ([`claims`]), which spares the ledger most
//!    duplicates.
//! 5. [`Plan`] makes of definition ([`export`]) and run what is to be done, over which
//!    connections ([`connect`]).
//! 6. [`Open`] takes what the run needs, all or none, or parks it; it raises the fence by which
//!    stale workers are refused. Rates are kept by [`limits`].
//! 7. The [`pipeline`] runs: a [`source`] gives [`rows`], [`transform`], [`contract`] and
//!    [`protect`] change them or take them out, a [`sink`] stages them, as bytes of a
//!    [`format`](mod@format) or in a database.
//! 8. [`Decide`] is the point after which a delivery only goes forward; a database decides in its
//!    own transaction instead. The sink makes it visible, whole; of files the
//!    [`manifest`](job::manifest) comes last.
//! 9. [`Record`] ends the run. Then the claim is marked done; then the message is acked.
//! 10. What fails is retried by the class of its [`error`], or set aside as a dead letter, which
//!     [`replay`] brings back. [`delivery`] holds what was delivered against its manifest.
//!
//! All rules of a run's life are pure, in [`job::book`] and [`job::machine`]. [`wiring`] picks the
//! backends that [`config`] names.
//!
//! [`Accept`]: job::command::Command::Accept
//! [`Decide`]: job::command::Command::Decide
//! [`Open`]: job::command::Command::Open
//! [`Plan`]: pipeline::Plan
//! [`Record`]: job::command::Command::Record

pub mod budget;
pub mod claims;
pub mod cli;
pub mod config;
pub mod connect;
pub mod contract;
pub mod delivery;
pub mod demo;
pub mod digest;
pub mod error;
pub mod export;
pub mod fail;
pub mod finding;
pub mod format;
#[cfg(test)]
mod generated;
pub mod http;
pub mod intake;
pub mod job;
pub mod ledger;
pub mod limits;
pub mod notify;
pub mod pipeline;
pub mod protect;
pub mod queue;
pub mod reconcile;
pub mod replay;
pub mod rows;
pub mod scheduler;
pub mod scrub;
pub mod secret;
pub mod sink;
pub mod source;
pub mod suggest;
pub mod telemetry;
mod tls;
pub mod transform;
pub mod units;
pub mod wiring;
pub mod worker;
