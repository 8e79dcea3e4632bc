//! How long a holder that heard no more of the gateway may still be connected to Discord: it was told
//! `resume_window_ms` and `heartbeat_ms` in its ACCEPT, and goes by those.
//!
//! So where either is lowered over a restart, the earlier ones hold until every holder of the earlier
//! run must have noticed; they are stored for as long.

use serde::{Deserialize, Serialize};

use super::Settings;
use super::time::millis;

/// How many heartbeats after its window a holder that vanished must have noticed.
const NOTICE_HEARTBEATS: u32 = 3;

/// The longest times that any holder goes by.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NoticeRecord {
    /// For which a holder keeps its ids without a connection.
    pub window_ms: u64,
    /// After its last frame it must have noticed that it lost them.
    pub notice_ms: u64,
}

pub(super) struct Notice {
    configured: NoticeRecord,
    in_force: NoticeRecord,
    /// Until when a holder may go by what an earlier run told it; 0: none does.
    earlier_until_ms: u64,
}

impl Notice {
    /// `stored`: what is in force of earlier runs; older gateways stored nothing.
    pub(super) fn restore(stored: NoticeRecord, settings: Settings, now: u64) -> Self {
        let configured = NoticeRecord {
            window_ms: millis(settings.resume_window),
            notice_ms: millis(settings.resume_window + NOTICE_HEARTBEATS * settings.heartbeat),
        };
        let in_force = NoticeRecord {
            window_ms: stored.window_ms.max(configured.window_ms),
            notice_ms: stored.notice_ms.max(configured.notice_ms),
        };
        let earlier_until_ms = if stored.notice_ms > 0 { now + stored.notice_ms } else { 0 };
        Self { configured, in_force, earlier_until_ms }
    }

    pub(super) fn in_force(&self) -> NoticeRecord {
        self.in_force
    }

    /// Lets earlier times go when everybody must have noticed; true: what is in force has changed.
    pub(super) fn pass(&mut self, now: u64) -> bool {
        if self.earlier_until_ms > now || self.in_force == self.configured {
            return false;
        }
        self.in_force = self.configured;
        true
    }

    /// When a holder whose last frame came then must have noticed that it lost its ids.
    pub(super) fn noticed_ms(&self, last_frame: u64) -> u64 {
        (last_frame + self.configured.notice_ms).max(self.earlier_until_ms)
    }
}
