//! Services that are only routes, and parcels that are caught on their way.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use gateway::config::Config;
use gateway::microbench::Sender;
use gateway::protocol::name::{ConnectionId, Name};
use gateway::routes::{Routes, ShardTable};
use gateway::state::gauge::Bounds;
use gateway::state::parcel::{OpenParcel, Parcel};
use gateway::state::route::{Inbox, Route, Shared};

use crate::traffic::{Style, masked, message};

/// How many messages one read brings.
const BURST: usize = 64;

/// Where parcels go instead of a session's actor.
#[derive(Clone, Default)]
struct Caught(Arc<Mutex<VecDeque<Parcel>>>);

impl Inbox for Caught {
    fn deliver(&self, parcel: Parcel) {
        self.0.lock().unwrap().push_back(parcel);
    }
}

impl Caught {
    fn take(&self) -> VecDeque<Parcel> {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}

fn shared() -> Arc<Shared> {
    Arc::new(Shared::new(1_000, 1 << 40))
}

fn route(name: &str, shared: &Arc<Shared>) -> (Arc<Route>, Caught) {
    let bounds = Bounds { messages: 65_536, bytes: 64 << 20 };
    let route = Arc::new(Route::new(Name::new(name).unwrap(), bounds, shared.clone()));
    let caught = Caught::default();
    route.open(Box::new(caught.clone()));
    (route, caught)
}

/// A connection, and what its socket brings next.
pub(crate) struct Line {
    sender: Sender,
    wire: Bytes,
    caught: Caught,
}

impl Line {
    /// To one target, with messages of that size. It has read the like before.
    pub(crate) fn of(bytes: usize) -> Self {
        let shared = shared();
        let routes = Arc::new(Routes::new(ShardTable::new(1), shared.clone()));
        let (own, _) = route("shard-3", &shared);
        let (backend, caught) = route("backend", &shared);
        routes.insert(own.clone());
        routes.insert(backend);
        let sender = Sender::new(own, ConnectionId(1), routes, &Config::default());
        let wire = masked(&vec![message("backend", bytes, Style::Compact); BURST]).into();
        let mut line = Self { sender, wire, caught };
        line.read();
        let messages: u64 = line.caught.take().iter().map(|parcel| parcel.amount().messages).sum();
        assert_eq!(messages, BURST as u64);
        line
    }

    pub(crate) fn read(&mut self) {
        self.sender.read(&self.wire);
    }
}

/// So many parcels for one service, each of so many messages of that size.
pub(crate) fn parcels(count: usize, messages: usize, bytes: usize) -> VecDeque<Parcel> {
    let shared = shared();
    let ((source, _), (target, caught)) = (route("shard-3", &shared), route("backend", &shared));
    let entry = source.entry(Some(target.name()));
    let text = message("", bytes, Style::Compact);
    for _ in 0..count {
        let mut parcel = OpenParcel::new(target.clone(), messages * (bytes + 10));
        for _ in 0..messages {
            parcel.push([text.as_bytes(), b""]).unwrap();
        }
        parcel.send(Some((&source, &entry)));
    }
    caught.take()
}
