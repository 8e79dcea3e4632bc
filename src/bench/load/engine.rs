//! One thread's services, and the loop that serves them.

use std::collections::{HashSet, VecDeque};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::crew::{Orders, Phase};
use super::endpoint::Endpoint;
use super::frame::{self, Frame};
use super::outcome::Outcome;
use super::outgoing::Outgoing;
use super::plan::Plan;
use super::poller::{Poller, Ready};
use super::schedule::Schedule;
use super::service::Service;
use super::wire::READ_BYTES;
use crate::bench::BenchError;
use crate::bench::pattern::Pattern;

/// How a service's place is written in its name: all names are equally long.
const INDEX_DIGITS: usize = 6;
/// What a topic is in these messages.
const TOPIC: &str = "bench:load";

pub(super) struct Engine {
    pub(super) plan: Arc<Plan>,
    pub(super) orders: Arc<Orders>,
    pub(super) endpoint: Arc<Endpoint>,
    /// The place of the first service among those of all threads.
    pub(super) first: usize,
    /// What stands in front of a source's place in each message, less its first brace.
    pub(super) before_index: String,
    pub(super) services: Vec<Service>,
    /// The places of those that send.
    pub(super) senders: Vec<usize>,
    pub(super) poller: Poller,
    pub(super) buffer: Vec<u8>,
    /// Those that are to connect.
    pub(super) absent: VecDeque<usize>,
    pub(super) connecting: usize,
    /// Cuts of all connections that were made, and when the last one was.
    pub(super) cuts: u32,
    pub(super) cut_at: u64,
    /// Those that can send.
    pub(super) ready: VecDeque<usize>,
    pub(super) has_begun: bool,
    /// Those that have not answered a ping; `None`: none was asked.
    pub(super) asked: Option<usize>,
    pub(super) schedule: Option<Schedule>,
    /// In ns since the start of the crew, as of the last read.
    pub(super) now: u64,
    /// What was due before does not count, nor what was due after.
    pub(super) measured: Range<u64>,
    pub(super) last_arrival: u64,
    pub(super) found: Outcome,
}

impl Engine {
    pub(super) fn new(
        plan: Arc<Plan>,
        part: Range<usize>,
        salt: u32,
        endpoint: Arc<Endpoint>,
        orders: Arc<Orders>,
    ) -> Result<Self, BenchError> {
        let prefix = format!("bench-{salt:08x}-");
        let name = |index: usize| format!("{prefix}{index:0INDEX_DIGITS$}");
        let receivers: HashSet<usize> = part.clone().filter_map(|index| plan.shape.target(index)).collect();
        let service = |index: usize| {
            let acknowledges = plan.ack && receivers.contains(&index);
            Service::new(name(index), fastrand::u32(..).to_ne_bytes(), acknowledges)
        };
        let mut services: Vec<Service> = part.clone().map(service).collect();
        let (first, mut senders) = (part.start, Vec::new());
        for index in part.clone() {
            let Some(target) = plan.shape.target(index) else { continue };
            let place = index - first;
            let outgoing = outgoing(&plan, &services[place], &name(target), target - first);
            services[place].outgoing = Some(outgoing);
            senders.push(place);
        }
        Ok(Self {
            orders,
            endpoint,
            first,
            before_index: format!(r#""s":"{prefix}"#),
            absent: (0..services.len()).collect(),
            services,
            senders,
            poller: Poller::new().map_err(BenchError::Poll)?,
            buffer: vec![0; READ_BYTES],
            connecting: 0,
            cuts: 0,
            cut_at: 0,
            ready: VecDeque::new(),
            has_begun: false,
            asked: None,
            schedule: None,
            now: 0,
            measured: u64::MAX..u64::MAX,
            last_arrival: 0,
            found: Outcome::new(),
            plan,
        })
    }

    /// Serves until all has settled.
    pub(super) fn work(mut self) -> Result<Outcome, BenchError> {
        loop {
            self.clock();
            let phase = self.orders.phase();
            self.follow_cuts()?;
            self.connect_more()?;
            match phase {
                Phase::Gathering => {}
                Phase::Warming => self.begin(),
                Phase::Measuring => {
                    self.begin();
                    self.measured.start = self.measured.start.min(self.now);
                }
                Phase::Settling => {
                    self.stop_sending();
                    if self.has_settled()? {
                        return Ok(self.leave());
                    }
                }
                Phase::Abandoned => return Err(BenchError::Abandoned),
            }
            let is_sending = matches!(phase, Phase::Warming | Phase::Measuring);
            let longest = if is_sending { self.send()? } else { Duration::MAX };
            self.turn(longest)?;
        }
    }

    /// Waits for sockets, for so long at most, and serves those that are ready.
    pub(super) fn turn(&mut self, longest: Duration) -> Result<(), BenchError> {
        let longest = if self.plan.spin { Duration::ZERO } else { longest };
        let count = match self.poller.wait(longest) {
            Err(nix::Error::EINTR) => 0,
            count => count.map_err(BenchError::Poll)?,
        };
        for at in 0..count {
            let Some(Ready { token, reads, writes }) = self.poller.ready(at) else { continue };
            if writes {
                self.write(token)?;
            }
            if reads {
                self.read(token)?;
            }
        }
        Ok(())
    }

    /// Writes what waits, and watches the socket for room while some of it does.
    pub(super) fn write(&mut self, place: usize) -> Result<(), BenchError> {
        let Some(wire) = &mut self.services[place].wire else { return Ok(()) };
        let flushed = wire.flush();
        let is_done = flushed.map_err(|error| self.broken(place, &error))?;
        let service = &mut self.services[place];
        let Some(wire) = &mut service.wire else { return Ok(()) };
        if wire.is_watched == is_done {
            wire.is_watched = !is_done;
            self.poller.change(&*wire, place, !is_done).map_err(BenchError::Poll)?;
            if is_done && service.is_accepted {
                self.can_send(place);
            }
        }
        Ok(())
    }

    fn read(&mut self, place: usize) -> Result<(), BenchError> {
        let mut buffer = std::mem::take(&mut self.buffer);
        let read = self.read_into(place, &mut buffer);
        self.buffer = buffer;
        read
    }

    fn read_into(&mut self, place: usize, buffer: &mut Vec<u8>) -> Result<(), BenchError> {
        let Some(wire) = &mut self.services[place].wire else { return Ok(()) };
        let read = wire.read(buffer);
        let Some(length) = read.map_err(|error| self.broken(place, &error))? else { return Ok(()) };
        self.clock();
        let mut rest = &buffer[..length];
        if self.is_upgraded(place, &mut rest)? {
            while let Some(frame) = Frame::take(&mut rest).map_err(|_| self.misread(place))? {
                self.frame(place, &frame)?;
            }
        }
        let service = &mut self.services[place];
        if service.has_news {
            service.acknowledge();
        }
        if let Some(wire) = &mut service.wire {
            wire.keep(rest);
        }
        if service.unwritten() > 0 { self.write(place) } else { Ok(()) }
    }

    fn frame(&mut self, place: usize, frame: &Frame<'_>) -> Result<(), BenchError> {
        match frame.opcode {
            frame::TEXT if self.services[place].is_accepted => self.text(place, frame.payload),
            frame::TEXT => self.answered(place, frame.payload),
            frame::PING => {
                if let Some(wire) = &mut self.services[place].wire {
                    wire.put(frame::PONG, frame.payload);
                }
                Ok(())
            }
            frame::PONG => {
                self.answered_ping(place, frame.payload);
                Ok(())
            }
            frame::CLOSE => Err(self.closed(place, frame.payload)),
            _ => Ok(()),
        }
    }

    pub(super) fn clock(&mut self) {
        self.now = u64::try_from(self.orders.start.elapsed().as_nanos()).unwrap_or(u64::MAX);
    }

    pub(super) fn arrived(&mut self, count: u64) {
        self.orders.arrived.fetch_add(count, Ordering::Relaxed);
        self.last_arrival = self.now;
    }

    /// The place of the service that a message comes from. It comes without its first brace.
    pub(super) fn source(&self, body: &[u8]) -> Option<usize> {
        let (index, _) = body.strip_prefix(self.before_index.as_bytes())?.split_at_checked(INDEX_DIGITS)?;
        let index = usize::try_from(crate::bench::pattern::decimal(index)?).ok()?;
        index.checked_sub(self.first).filter(|place| *place < self.services.len())
    }
}

fn outgoing(plan: &Plan, source: &Service, target: &str, place: usize) -> Outgoing {
    let data = Pattern::data(plan.size);
    let topic = format!("{}{target}:{TOPIC}", crate::protocol::PROXY_PREFIX);
    let outgoing = Pattern::message(&source.name, &topic, &data, plan.receipts);
    let incoming = Pattern::message(&source.name, TOPIC, &data, plan.receipts);
    Outgoing::new(place, &outgoing, incoming, source.mask, plan.receipts)
}
