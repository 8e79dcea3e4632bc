//! The gateway as its services see it: each test starts a gateway of its own and talks to it over
//! the wire. On failure it prints what was sent, what came, and the gateway's log.

mod acknowledge;
mod architecture;
mod bench;
mod bot;
#[cfg(feature = "fault-injection")]
mod chaos;
mod credentials;
mod endings;
#[cfg(feature = "fault-injection")]
mod faults;
mod fuzz;
mod http;
mod identify;
mod network;
mod operate;
mod proxies;
mod proxy;
mod readme;
mod resilience;
mod sessions;
mod shard_flood;
mod shard_kill;
mod shard_store;
mod shards;
mod slow_disk;
mod slow_link;
mod smuggling;
mod soak;
#[path = "../support/mod.rs"]
mod support;
mod tls;
mod unix;
mod wire;
