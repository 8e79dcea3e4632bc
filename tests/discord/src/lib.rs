//! What it takes to test the gateway as a bot's shard manager, all on loopback:
//!
//! - [`Fake`] is Discord, as far as a shard manager meets it. Its rules are in [`rules`], the sockets in
//!   [`server`]; [`control`] lets another process start it and ask it (`fake-discord`).
//! - [`shards`] are a bot's shards: [twilight](https://twilight.rs)'s, with the gateway as its queue.
//!   The process of them is `shards`. `node/shards.mjs` is the same with
//!   [@discordjs/ws](https://discord.js.org).

#![deny(unsafe_code)]

pub mod control;
pub mod rules;
pub mod server;
pub mod shards;

pub use self::rules::{Settings, Violation};
pub use self::server::{Fake, Http};
