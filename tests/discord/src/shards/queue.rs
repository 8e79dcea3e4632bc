//! The gateway as twilight's queue.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{Mutex, oneshot};
use twilight_gateway::queue::Queue;

use super::link::{Claim, Id, Link};

/// An older permit than this is not relied on. They are good for `permit_ttl_ms`, 5 s where it is not
/// set; here it is set to less.
const FRESH: Duration = Duration::from_millis(1300);

/// Says when a shard may IDENTIFY: when the gateway permits it.
#[derive(Debug)]
pub(super) struct GatewayQueue {
    pub(super) link: Link,
    pub(super) id: Id,
    /// When the permit that came with the lease was given, until it is used.
    pub(super) permit: Arc<Mutex<Option<Instant>>>,
}

impl Queue for GatewayQueue {
    fn enqueue(&self, _: u32) -> oneshot::Receiver<()> {
        let (link, id, permit) = (self.link.clone(), self.id, self.permit.clone());
        let (permitted, is_permitted) = oneshot::channel();
        tokio::spawn(async move {
            let is_fresh = permit.lock().await.take().is_some_and(|at| at.elapsed() < FRESH);
            if !is_fresh {
                link.lease(Claim::Held(id), true).await;
            }
            if permitted.send(()).is_ok() {
                link.state(id, "identifying", serde_json::Value::Null);
            }
        });
        is_permitted
    }
}
