//! What the micro-benchmarks of `tests/benches` need of the private parts: what a connection does
//! with the bytes of one read, without its actor, and what a scrape writes. For nobody else.

use std::sync::Arc;

use bytes::Bytes;

use crate::config::Config;
use crate::metrics::Exposition;
use crate::networker::dispatch::{Dispatcher, MessageLimits, Outcome, Wishes};
use crate::protocol::burst::{Burst, Item};
use crate::protocol::name::ConnectionId;
use crate::protocol::reader::FrameReader;
use crate::routes::Routes;
use crate::state::grant::Grant;
use crate::state::route::{Route, Shared};

/// A service's connection, from the bytes of its socket to the parcels for its targets.
pub struct Sender {
    reader: FrameReader,
    /// As a thread keeps it for the next read of any of its connections.
    burst: Burst,
    dispatcher: Dispatcher,
}

impl Sender {
    /// The connection that `own` is given to. It may do everything, and asked for nothing.
    pub fn new(own: Arc<Route>, connection: ConnectionId, routes: Arc<Routes>, config: &Config) -> Self {
        own.set_connection(connection);
        let Config { max_topic_bytes, max_depth, max_message_bytes, .. } = *config;
        let limits = MessageLimits { max_topic_bytes, max_depth };
        let wishes = Wishes { receipts: false, acks: false };
        let grant = Arc::new(Grant::everything());
        Self {
            reader: FrameReader::new(max_message_bytes),
            burst: Burst::default(),
            dispatcher: Dispatcher::new(own, connection, routes, limits, wishes, grant),
        }
    }

    /// Takes what one read brought. Panics at anything that is not accepted.
    pub fn read(&mut self, bytes: &Bytes) {
        self.reader.read(bytes, &mut self.burst);
        self.dispatcher.begin();
        for index in 0..self.burst.len() {
            let room = self.burst.bytes_from(index);
            let (item, bytes) = self.burst.get(index).expect("there are so many");
            assert_eq!(item, Item::Text);
            let text = simdutf8::basic::from_utf8(bytes).expect("UTF-8");
            let outcome = self.dispatcher.message(text, room, || true);
            assert!(matches!(outcome, Outcome::Done), "{outcome:?}");
        }
        self.dispatcher.flush();
        self.burst.clear();
    }
}

/// What a scrape tells of the messages.
pub fn scrape(shared: &Shared) -> String {
    let mut exposition = Exposition::default();
    exposition.accounts(&shared.accounts.snapshot());
    exposition.into_text()
}
