//! The gateway's rules as plain structs: no actor, no clock, no I/O. Each takes `now` as an
//! argument, so that property tests drive them under a simulated clock.

pub mod account;
pub mod audit;
pub mod backlog;
pub mod gauge;
pub mod grant;
pub mod guesses;
pub mod hold;
pub mod listed;
pub mod outstanding;
pub mod parcel;
pub mod peer;
#[cfg(test)]
mod properties;
pub mod pulse;
pub mod rate;
pub mod registry;
pub mod restarts;
pub mod route;
pub mod secret;
pub mod session;
pub mod shards;
mod spare;
pub mod store_health;
pub mod tally;
pub mod waiting_room;
