//! The actors: thin, around the rules in [`state`](crate::state).
//!
//! ```text
//! service ⇄ Connection ──Identify──▶ Gateway ──owns──▶ Registry, ShardAllocator
//!               │  ▲                    │ publishes
//!               │  └─Outbound─ ClientSession ◀─── Routes (name → address)
//!               └────Deliver──────▶ ClientSession of the target
//! ```
//!
//! Calls go one way: no actor waits for another's answer. Every message goes by `do_send`, whose
//! queue has no bound of its own; so whoever sends holds a reservation in the target's gauge, a
//! permit ([`link::OpPermit`]), or is one of few for each connection.

pub mod client_session;
pub mod gateway;
pub mod link;
pub mod shard_allocator;
pub(crate) mod supervision;
pub(crate) mod turn;
