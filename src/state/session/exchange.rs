//! What goes into a session, and what comes of that.

use std::time::Duration;

use bytes::Bytes;

use crate::protocol::close::Close;
use crate::protocol::name::ConnectionId;
use crate::protocol::op::{GatewayOp, Presence, ShardWait};
use crate::state::parcel::Parcel;
use crate::state::pulse::{Limits, Observation};

/// The settings of a session.
#[derive(Debug, Clone, Copy)]
pub struct Settings {
    pub pulse: Limits,
    /// How many deliveries may be unacknowledged.
    pub max_unacked: u64,
    /// How many PRESENCE events may wait for a watcher before it is too slow.
    pub max_presence: usize,
}

/// What happens to a session.
#[derive(Debug)]
pub enum Input {
    /// Messages came for the service.
    Deliver(Parcel),
    /// The connection wrote what it was handed.
    Written {
        connection: ConnectionId,
        bytes: usize,
        presences: usize,
    },
    /// A connection was given the service's name. What comes from now on is for that one, and waits until
    /// it is attached.
    Expect {
        connection: ConnectionId,
    },
    /// A connection identified and is now the session's own. With `acks`, deliveries are numbered
    /// and kept until they are acknowledged.
    Attach {
        connection: ConnectionId,
        acks: bool,
    },
    /// The service acknowledged that delivery and all before it.
    Ack {
        i: u64,
    },
    /// The connection is about to end: it is handed nothing more.
    Release {
        connection: ConnectionId,
    },
    /// The session's connection ended; it waits for another for that long.
    Detach {
        connection: ConnectionId,
        window: Duration,
    },
    /// An op for the service. Lost, where it is away.
    Op(GatewayOp),
    Presence(Presence),
    ShardWait(ShardWait),
    /// SHUTDOWN or REBOOT was sent: after `deadline` the connection is closed.
    CloseAfter {
        deadline: Duration,
        close: Close,
    },
    /// Closes the connection now.
    Close(Close),
    /// The session is over, for a reason that begins with "it" or "the gateway": the mailbox is to be returned.
    GoDown {
        reason: &'static str,
    },
    /// A deadline came, or [`Action::Continue`] asked for it; `None`: no connection to look at.
    Wake(Option<Observation>),
}

/// What is to be done for a session.
#[derive(Debug)]
pub enum Action {
    /// Hand these frames to the connection.
    Frames(Vec<Bytes>),
    Op(GatewayOp),
    Ping,
    /// Close the connection with a close frame.
    Close(Close),
    /// End the connection at its socket: it did not close when told to, since it is stuck.
    CutOff(Close),
    /// Ask the registry to end the session: nobody came within the resume window after that
    /// connection.
    WindowElapsed(ConnectionId),
    /// Step again with [`Input::Wake`] soon, after others had their turn.
    Continue,
}
