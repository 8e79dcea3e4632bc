//! Waits for sockets and for time, to the microsecond.
//!
//! epoll's own time-out counts in milliseconds, and messages are due every few microseconds. So time comes as
//! a descriptor too (timerfd, by the kernel's high-resolution timers, which no timer slack delays).

use std::os::fd::AsFd;
use std::time::Duration;

use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::timer::{Expiration, TimerSetTimeFlags};
use nix::sys::timerfd::{ClockId, TimerFd, TimerFlags};

/// The token of the timer.
const TIMER: u64 = u64::MAX;
/// How many sockets one wait may tell of.
const EVENTS: usize = 1024;
/// The longest wait: what the threads are told is looked at in between.
const LONGEST: Duration = Duration::from_millis(5);

pub(super) struct Poller {
    epoll: Epoll,
    timer: TimerFd,
    events: Vec<EpollEvent>,
    ready: usize,
}

/// A socket that can go on.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ready {
    pub(super) token: usize,
    /// Something came, or the connection ended.
    pub(super) reads: bool,
    pub(super) writes: bool,
}

impl Poller {
    pub(super) fn new() -> nix::Result<Self> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        let timer =
            TimerFd::new(ClockId::CLOCK_MONOTONIC, TimerFlags::TFD_NONBLOCK | TimerFlags::TFD_CLOEXEC)?;
        epoll.add(timer.as_fd(), EpollEvent::new(EpollFlags::EPOLLIN, TIMER))?;
        Ok(Self { epoll, timer, events: vec![EpollEvent::empty(); EVENTS], ready: 0 })
    }

    /// Watches a socket from now on.
    pub(super) fn add(&self, socket: impl AsFd, token: usize, writes: bool) -> nix::Result<()> {
        self.epoll.add(socket, EpollEvent::new(interest(writes), token as u64))
    }

    /// Watches it for room to write too, or not any more.
    pub(super) fn change(&self, socket: impl AsFd, token: usize, writes: bool) -> nix::Result<()> {
        self.epoll.modify(socket, &mut EpollEvent::new(interest(writes), token as u64))
    }

    /// Waits until a socket is ready, or as long as it is said, or a few milliseconds.
    pub(super) fn wait(&mut self, longest: Duration) -> nix::Result<usize> {
        let longest = longest.min(LONGEST);
        if longest.is_zero() {
            self.ready = self.epoll.wait(&mut self.events, EpollTimeout::ZERO)?;
        } else {
            // Set anew each time: that also makes it unreadable again.
            self.timer.set(Expiration::OneShot(longest.into()), TimerSetTimeFlags::empty())?;
            self.ready = self.epoll.wait(&mut self.events, EpollTimeout::NONE)?;
        }
        Ok(self.ready)
    }

    /// The socket at this place among those of the last wait. `None`: it is the timer.
    pub(super) fn ready(&self, at: usize) -> Option<Ready> {
        let event = self.events[at];
        let token = (event.data() != TIMER).then(|| usize::try_from(event.data()).ok())??;
        let writes = event.events().contains(EpollFlags::EPOLLOUT);
        Some(Ready { token, reads: event.events() != EpollFlags::EPOLLOUT, writes })
    }
}

fn interest(writes: bool) -> EpollFlags {
    if writes { EpollFlags::EPOLLIN | EpollFlags::EPOLLOUT } else { EpollFlags::EPOLLIN }
}
