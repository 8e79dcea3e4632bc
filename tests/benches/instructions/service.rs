//! A service's session, and the connection that takes what it hands over.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use bytes::Bytes;
use gateway::protocol::name::ConnectionId;
use gateway::state::parcel::Parcel;
use gateway::state::pulse::Limits;
use gateway::state::session::{Action, Input, Session, Settings};

use crate::post::parcels;

const CONNECTION: ConnectionId = ConnectionId(1);

/// How many deliveries may be unacknowledged.
pub(crate) const OUTSTANDING: usize = 1_024;

const SETTINGS: Settings = Settings {
    pulse: Limits {
        heartbeat: Duration::from_secs(5),
        stuck: Duration::from_secs(30),
        min_drain_bytes: 65_536,
    },
    max_unacked: OUTSTANDING as u64,
    max_presence: 1_024,
};

pub(crate) struct Service {
    session: Session,
    actions: VecDeque<Action>,
    now: Instant,
    /// Bytes that were handed over.
    taken: usize,
}

impl Service {
    /// One that is away.
    pub(crate) fn away() -> Self {
        Self { session: Session::new(SETTINGS), actions: VecDeque::new(), now: Instant::now(), taken: 0 }
    }

    /// One that has a connection, and acknowledges.
    pub(crate) fn acknowledging() -> Self {
        let mut service = Self::away();
        service.attach(true);
        service
    }

    /// Its connection comes, and takes all that waits.
    pub(crate) fn attach(&mut self, acks: bool) {
        self.step(Input::Attach { connection: CONNECTION, acks });
    }

    pub(crate) fn deliver(&mut self, parcels: VecDeque<Parcel>) {
        for parcel in parcels {
            self.step(Input::Deliver(parcel));
        }
    }

    pub(crate) fn acknowledge(&mut self, i: u64) {
        self.step(Input::Ack { i });
    }

    pub(crate) fn waiting(&self) -> u64 {
        self.session.mailbox().map(|parcel| parcel.amount().messages).sum()
    }

    /// Steps, and writes what was handed over.
    fn step(&mut self, input: Input) {
        self.session.step(input, self.now, &mut self.actions);
        while let Some(action) = self.actions.pop_front() {
            let Action::Frames(frames) = action else { panic!("{action:?}") };
            let bytes = frames.iter().map(Bytes::len).sum();
            drop(frames);
            self.taken += bytes;
            let written = Input::Written { connection: CONNECTION, bytes, presences: 0 };
            self.session.step(written, self.now, &mut self.actions);
        }
    }
}

/// One that is away, and what comes for it.
pub(crate) fn away_with_post(count: usize, messages: usize) -> (Service, VecDeque<Parcel>) {
    (Service::away(), parcels(count, messages, 256))
}

/// One that is away, with that in its mailbox.
pub(crate) fn away_and_full(count: usize, messages: usize) -> Service {
    let (mut service, parcels) = away_with_post(count, messages);
    service.deliver(parcels);
    assert_eq!(service.waiting(), (count * messages) as u64);
    service
}

/// One that acknowledges, and what comes for it.
pub(crate) fn acknowledging_with_post(count: usize, messages: usize) -> (Service, VecDeque<Parcel>) {
    (Service::acknowledging(), parcels(count, messages, 256))
}

/// One that has that to acknowledge.
pub(crate) fn owing(count: usize, messages: usize) -> Service {
    let (mut service, parcels) = acknowledging_with_post(count, messages);
    service.deliver(parcels);
    assert_eq!((service.waiting(), service.session.last_number()), (1_024, 1_024));
    service
}
