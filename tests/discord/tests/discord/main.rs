//! The gateway between a fake Discord and shards of a real library. On failure the gateway's log is
//! told, and what the shards said.

mod discordjs;
mod kills;
mod limits;
mod processes;
mod restarts;
mod shards;
mod world;
