//! Holds a connection to its rates: once it passed one, it is not read for a while.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use tokio::time::{Sleep, sleep};

use crate::actors::link::Life;
use crate::config::Config;
use crate::state::rate::Rate;
use crate::state::route::Shared;
use crate::state::tally::Held;

/// One connection's rates of frames and bytes.
pub(crate) struct Throttle {
    frames: Rate,
    bytes: Rate,
    shared: Arc<Shared>,
    life: Arc<Life>,
    /// While this runs, nothing is read.
    pause: Option<Pin<Box<Sleep>>>,
}

impl Throttle {
    pub(crate) fn new(config: &Config, shared: Arc<Shared>, life: Arc<Life>) -> Self {
        Self {
            frames: Rate::new(config.max_frames_per_second),
            bytes: Rate::new(config.max_bytes_per_second),
            shared,
            life,
            pause: None,
        }
    }

    /// So much was read.
    pub(crate) fn spend(&mut self, frames: u64, bytes: usize) {
        let now = Instant::now();
        let waits = [
            (self.frames.spend(frames, now), Held::Frames),
            (self.bytes.spend(bytes as u64, now), Held::Bytes),
        ];
        let longest =
            waits.into_iter().filter_map(|(wait, held)| Some((wait?, held))).max_by_key(|(wait, _)| *wait);
        if let Some((wait, held)) = longest {
            self.shared.held.add(held);
            self.life.set_throttled(true);
            self.pause = Some(Box::pin(sleep(wait)));
        }
    }

    /// Ready once more may be read.
    pub(crate) fn poll(&mut self, context: &mut Context<'_>) -> Poll<()> {
        if let Some(pause) = &mut self.pause {
            std::task::ready!(pause.as_mut().poll(context));
            self.pause = None;
            self.life.set_throttled(false);
        }
        Poll::Ready(())
    }
}
