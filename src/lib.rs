//! A message broker for the services of a distributed bot.
//!
//! Each service (a Discord shard, a backend, a web front) opens one WebSocket, says who it is, and
//! sends every message through the gateway, which forwards it by topic, counts it, and answers
//! for it: a message is delivered, returned with a reason, or still queued. Shards get their
//! shard ids from it too.
//!
//! # The actors
//!
//! ```text
//! service ⇄ Connection ──Identify──▶ Gateway ──owns──▶ Registry, ShardAllocator
//!               │  ▲                    │ publishes
//!               │  └─Outbound─ ClientSession ◀─── Routes (name → address)
//!               └────Deliver(parcel)──▶ ClientSession of the target
//! ```
//!
//! [`Gateway`](actors::gateway) is the control plane: it decides who is who, and no proxied message
//! passes through it. A [`ClientSession`](actors::client_session) *is* a service, as the others see
//! it; it outlives its [`Connection`](networker::websocket)s. The rules themselves are plain structs
//! in [`state`], which the actors drive. What Discord allows comes from [`discord`], and who may come in
//! from [`auth`].
//!
//! # The path of one message
//!
//! `{"s":"shard-3","t":"gateway-proxy:backend:discord:message_create","d":{"id":"8138"}}`
//!
//! 1. Bytes come from the [socket](networker::upgraded), to [`Bursts`](networker::bursts). The
//!    [`FrameReader`](protocol::reader) checks the frames and joins fragments; all messages of one read
//!    are one [`Burst`](protocol::burst).
//! 2. The [`Connection`](networker::websocket) unmasks each in its turn, and hands it to its
//!    [`Dispatcher`](networker::dispatch), which [scans](protocol::scan) it once: is it JSON, and
//!    where are `s`, `t` and `n`? The [`Envelope`](protocol::envelope) borrows them. Where it begins as
//!    the message before did, that is a known [`Head`](protocol::scan::Head).
//! 3. The target, `backend`, is looked up in [`Routes`](routes), through a small cache. What comes
//!    back is a [`Route`](state::route): the mailbox's [gauge](state::gauge) and the way in.
//! 4. Room is reserved in the gauge. Without room, this sender [is not read](state::hold) for a
//!    moment; then the message is refused.
//! 5. The message, less `gateway-proxy:backend:`, is copied as a finished WebSocket frame into the
//!    [parcel](state::parcel) for this target. At the end of the burst the parcel's messages are
//!    [accounted](state::account) as accepted, and it leaves as one actix message.
//! 6. The target's [`ClientSession`](actors::client_session) [queues](state::session) it, and hands
//!    its connection as much as that has credit for: now the messages are delivered.
//! 7. The target's [`Outgoing`](networker::outgoing) gives the frames as they are to its socket, which
//!    writes them from where they lie.
//!
//! A service that sends without end does not keep a thread for itself: its actors give way after a
//! [turn](actors::turn).
//!
//! A parcel that cannot go on, whatever happens to it, returns its messages to their source by
//! itself. What the settings mean is in [`config`], and how all parts are put together in
//! [`server`].

// The docs are for those who read the code too: they are built with private items.
#![allow(rustdoc::private_intra_doc_links)]

pub mod actors;
pub mod auth;
pub mod bench;
pub mod cli;
pub mod client;
pub mod config;
pub mod discord;
mod http;
pub mod logging;
mod metrics;
#[doc(hidden)]
pub mod microbench;
mod networker;
pub mod protocol;
mod reload;
pub mod routes;
pub mod server;
mod socket;
pub mod state;
pub mod store;
