//! The threads that serve connections, and which of them each connection is on from then on.
//!
//! The thread of a sender does most of the work: it reads and checks the messages. An HTTP server hands
//! connections out by turns; services that connect by turns too (a shard, its backend, the next shard) then
//! have all senders on the same threads, while others idle. So here a connection goes to a thread that has the
//! fewest, and to any of these, by chance. With two threads, and 8 or 64 pairs that connect like this, 1.1 to
//! 1.4 times as many messages came through, at the same CPU for each.
//!
//! A service, made once on each thread, says what is served on a connection; where connections come from is
//! in [`incoming`](super::incoming).

use std::future::poll_fn;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use actix::Arbiter;
use actix_service::{Service, ServiceFactory};
use fastrand::Rng;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

/// So many threads cannot be had.
#[derive(Debug, thiserror::Error)]
#[error("workers: cannot start {threads} threads: {why} (--workers chooses another number)")]
pub struct TooManyWorkers {
    threads: usize,
    why: io::Error,
}

/// The threads.
pub(super) struct Workers {
    arbiters: Vec<Arbiter>,
    load: Arc<Load>,
    max_connections: u32,
}

/// What the threads have to do.
struct Load {
    /// How many connections each has.
    connections: Vec<AtomicUsize>,
    /// One for each connection that there may be beside these.
    permits: Arc<Semaphore>,
}

/// Spreads the connections of one listener over the threads.
pub(super) struct Balancer<S> {
    workers: Vec<UnboundedSender<(S, Connected)>>,
    load: Arc<Load>,
    rng: Rng,
}

/// A connection counts as one of its thread's, as long as this is.
struct Connected {
    load: Arc<Load>,
    worker: usize,
    _permit: OwnedSemaphorePermit,
}

impl Drop for Connected {
    fn drop(&mut self) {
        self.load.connections[self.worker].fetch_sub(1, Ordering::Relaxed);
    }
}

impl Workers {
    /// Starts so many threads, which may have `max_connections` together. That must be more than there will be
    /// listeners: each holds a permit while it waits for a connection. To be called in an actix system.
    pub(super) fn start(threads: usize, max_connections: usize) -> Result<Self, TooManyWorkers> {
        let arbiters = (0..threads).map(|_| Arbiter::try_new()).collect::<io::Result<_>>();
        let arbiters = arbiters.map_err(|why| TooManyWorkers { threads, why })?;
        let max_connections = u32::try_from(max_connections).unwrap_or(u32::MAX);
        let load = Load {
            connections: (0..threads).map(|_| AtomicUsize::new(0)).collect(),
            permits: Arc::new(Semaphore::new(max_connections as usize)),
        };
        Ok(Self { arbiters, load: Arc::new(load), max_connections })
    }

    /// Makes a service on each thread, for the connections that this balancer will get.
    pub(super) fn serve<S, F>(&self, make: impl Fn() -> F + Clone + Send + 'static) -> Balancer<S>
    where
        S: Send + 'static,
        F: ServiceFactory<S, Config = ()> + 'static,
    {
        let workers = self.arbiters.iter().map(|arbiter| {
            let ((sender, connections), make) = (unbounded_channel(), make.clone());
            arbiter.spawn_fn(move || drop(actix_rt::spawn(serve(make(), connections))));
            sender
        });
        Balancer { workers: workers.collect(), load: self.load.clone(), rng: Rng::new() }
    }

    /// Ends the threads, and with them the connections that have not ended by themselves after `grace`. A
    /// thread that is still busy after as long again is left alone. To be called once nothing is listened on.
    pub(super) async fn stop(self, grace: Duration) {
        let _ = tokio::time::timeout(grace, self.load.permits.acquire_many(self.max_connections)).await;
        if tokio::time::timeout(grace, stop_threads(self.arbiters)).await.is_err() {
            log::error!("a thread that serves connections has not ended after {grace:?}");
        }
    }
}

/// Ends these threads, and waits for that. Whoever awaits it may do other things meanwhile, or give up.
pub(super) async fn stop_threads(arbiters: Vec<Arbiter>) {
    for arbiter in &arbiters {
        arbiter.stop();
    }
    let (done, all_done) = oneshot::channel();
    let waiting = thread::Builder::new().name("stop".to_owned()).spawn(move || {
        for arbiter in arbiters {
            let _ = arbiter.join();
        }
        let _ = done.send(());
    });
    if let Err(error) = waiting {
        log::error!("the end of threads cannot be waited for: {error}");
    }
    let _ = all_done.await;
}

/// Serves these connections, on this thread.
async fn serve<S, F>(factory: F, mut connections: UnboundedReceiver<(S, Connected)>)
where
    S: 'static,
    F: ServiceFactory<S, Config = ()>,
    F::Service: 'static,
{
    let Ok(service) = factory.new_service(()).await else {
        return log::error!("a thread has no service for its connections");
    };
    let service = Rc::new(service);
    while let Some((stream, connected)) = connections.recv().await {
        let service = service.clone();
        // If it panics, that is this connection's end only.
        actix_rt::spawn(async move {
            if poll_fn(|context| service.poll_ready(context)).await.is_ok() {
                let _ = service.call(stream).await;
            }
            drop(connected);
        });
    }
}

impl<S> Balancer<S> {
    /// Waits until there may be one more connection.
    pub(super) async fn permit(&self) -> OwnedSemaphorePermit {
        self.load.permits.clone().acquire_owned().await.expect("it is never closed")
    }

    /// Hands a connection to a thread that has the fewest. Fails if nobody serves connections there.
    pub(super) fn dispatch(&mut self, stream: S, permit: OwnedSemaphorePermit) -> io::Result<()> {
        let connections = self.load.connections.iter().map(|count| count.load(Ordering::Relaxed));
        let worker = least_loaded(connections, &mut self.rng);
        self.load.connections[worker].fetch_add(1, Ordering::Relaxed);
        let connected = Connected { load: self.load.clone(), worker, _permit: permit };
        let sent = self.workers[worker].send((stream, connected));
        sent.map_err(|_| io::Error::other(format!("thread {worker} of `workers` serves no connections")))
    }
}

/// The place of the least load, or of any of those, each as likely. 0 if there are none.
fn least_loaded(loads: impl Iterator<Item = usize>, rng: &mut Rng) -> usize {
    let (mut least, mut found, mut place) = (usize::MAX, 0, 0);
    for (at, load) in loads.enumerate() {
        if load < least {
            (least, found) = (load, 0);
        }
        if load == least {
            found += 1;
            if rng.usize(..found) == 0 {
                place = at;
            }
        }
    }
    place
}

#[cfg(test)]
mod tests;
