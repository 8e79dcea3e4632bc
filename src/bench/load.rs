//! The load: services without an async runtime, so that they cost little beside the gateway.
//!
//! | module | what it is |
//! |---|---|
//! | [`plan`] | who sends to whom, how much and how fast |
//! | [`crew`] | the threads, each with an [`engine`] of its own, and what they are told to do |
//! | [`engine`], [`gathering`], [`traffic`], [`schedule`], [`ending`] | one thread's services: they come, send and hear, and leave |
//! | [`service`], [`outgoing`] | one service, and the messages that it sends |
//! | [`wire`], [`frame`], [`endpoint`] | its WebSocket, and where that goes |
//! | [`poller`] | what waits for sockets and for time |
//! | [`outcome`] | what a thread found |
//!
//! A message is formatted, framed and masked once for each sender; then only the digits of its number are
//! patched, and many leave in one write. RFC 6455 asks for a mask that cannot be foreseen, against
//! proxies that scripts in browsers try to fool; here each connection keeps one random mask. What arrives is
//! compared whole, where it was read to.

mod crew;
mod ending;
mod endpoint;
mod engine;
mod frame;
mod gathering;
mod outcome;
mod outgoing;
mod plan;
mod poller;
mod schedule;
mod service;
mod traffic;
mod wire;

pub(super) use self::crew::Crew;
pub(super) use self::outcome::Outcome;
pub(super) use self::plan::{Pace, Plan, Shape};
