//! The wire protocol as types: what a service and the gateway say to each other.
//!
//! A message is one JSON object in one WebSocket text message:
//!
//! ```json
//! {"s": "shard-3", "t": "gateway-proxy:backend:discord:message_create", "d": {"id": "8138"}}
//! ```
//!
//! | module | what it names |
//! |---|---|
//! | [`reader`] | a client's bytes as messages: frames checked, joined and bounded |
//! | [`burst`] | what one read brought of them, until it is handled |
//! | [`scan`] | one pass over a message: is it JSON, and where are `s`, `t`, `d`, `n`? |
//! | [`envelope`] | what that pass found, borrowed from the message |
//! | [`name`] | service names, shard ids, epochs, connection ids |
//! | [`pattern`] | several names or targets at once |
//! | [`target`] | who a proxied message is for |
//! | [`op`] | the ops: what services ask, what the gateway answers |
//! | [`error`] | why something was refused |
//! | [`close`] | why a connection was closed |
//!
//! Nothing here knows an actor, a socket or a clock.

pub mod burst;
pub mod close;
pub mod envelope;
pub mod error;
pub mod frame;
pub mod name;
pub mod op;
pub mod pattern;
pub mod reader;
pub mod scan;
pub mod target;

/// Version of the protocol, told in ACCEPT.
pub const VERSION: u32 = 1;

/// `s` of every message that the gateway itself writes; no service may be called so.
pub const GATEWAY_NAME: &str = "gateway";

/// Topic of every op.
pub const OPCODE_TOPIC: &str = "gateway:opcode";

/// Prefix of the topic of a proxied message; the target follows.
pub const PROXY_PREFIX: &str = "gateway-proxy:";

/// Prefix of the topic of a heartbeat; the service's name follows.
pub const HEARTBEAT_PREFIX: &str = "heartbeat:";
