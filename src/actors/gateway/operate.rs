//! What operators ask for: the list of services, to shut one down or reboot it, and what they do to
//! the shard ids.

use std::collections::{BTreeSet, HashMap};
use std::time::{Duration, Instant};

use actix::{Handler, Message, ResponseFuture};
use tokio::sync::oneshot;

use super::{Gateway, Handle, unix_ms};
use crate::actors::client_session::Order;
use crate::actors::shard_allocator::{self, Outcome, ShardCommand};
use crate::protocol::close::Close;
use crate::protocol::name::{Name, ShardId};
use crate::protocol::op::GatewayOp;
use crate::routes::ShardTable;
use crate::state::account::Amount;
use crate::state::registry::{Known, Stopping};
use crate::state::shards::{Command, Departure, Done, Report};

/// Asks whether the gateway handles what it is sent.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct Ping;

impl Handler<Ping> for Gateway {
    type Result = ();

    fn handle(&mut self, _: Ping, _: &mut Self::Context) {}
}

/// Asks for every service, or for one. `None`: the gateway failed at it.
#[derive(Debug, Message)]
#[rtype(result = "Option<Vec<ServiceView>>")]
pub struct ListServices {
    pub only: Option<Name>,
}

/// A service, as operators see it.
#[derive(Debug, Clone)]
pub struct ServiceView {
    pub name: Name,
    pub state: ServiceState,
    /// Since when it is up or away, as Unix time in ms.
    pub since: u64,
    /// What waits in its mailbox.
    pub queued: Amount,
    pub shards: Vec<ShardId>,
    pub group: Option<Name>,
}

/// What a service is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ServiceState {
    Up,
    Away,
    /// It was sent SHUTDOWN or REBOOT and is still connected.
    Stopping,
}

impl Handler<ListServices> for Gateway {
    type Result = Option<Vec<ServiceView>>;

    fn handle(&mut self, ListServices { only }: ListServices, context: &mut Self::Context) -> Self::Result {
        self.guarded(context, |gateway, _| match only {
            Some(name) => gateway
                .registry
                .get(&name)
                .map(|known| view(&name, known, gateway.shards_of(&name)))
                .into_iter()
                .collect(),
            None => gateway.list_services(),
        })
    }
}

impl Gateway {
    fn list_services(&self) -> Vec<ServiceView> {
        let mut shards = self.shards_by_holder();
        let mut views: Vec<_> = self
            .registry
            .iter()
            .map(|(name, known)| {
                view(name, known, shards.remove(name).map(Vec::from_iter).unwrap_or_default())
            })
            .collect();
        views.sort_by(|a, b| a.name.cmp(&b.name));
        views
    }

    pub(super) fn shards_by_holder(&self) -> HashMap<&Name, BTreeSet<ShardId>> {
        let mut shards: HashMap<&Name, BTreeSet<ShardId>> = HashMap::new();
        for (holder, id) in
            [Some(&self.table), self.filling.as_ref()].into_iter().flatten().flat_map(ShardTable::leases)
        {
            shards.entry(holder).or_default().insert(id);
        }
        shards
    }
}

fn view(name: &Name, known: &Known<Handle>, shards: Vec<ShardId>) -> ServiceView {
    ServiceView {
        name: name.clone(),
        state: match (known.is_up(), known.stopping) {
            (false, _) => ServiceState::Away,
            (true, None) => ServiceState::Up,
            (true, Some(_)) => ServiceState::Stopping,
        },
        since: unix_ms() - u64::try_from(known.since.elapsed().as_millis()).unwrap_or(0),
        queued: known.handle.route.gauge().held(),
        shards,
        group: known.group.clone(),
    }
}

/// Asks to shut a service down, or to reboot it.
#[derive(Debug, Message)]
#[rtype(result = "Result<Stopped, StopError>")]
pub struct StopService {
    pub name: Name,
    pub stopping: Stopping,
    pub reason: String,
    /// How long it has before its connection is closed.
    pub deadline: Duration,
    /// What REBOOT says: whether its shards are to be resumed at Discord afterwards.
    pub keep_discord_session: bool,
}

/// How a service was stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stopped {
    /// It was told, and has its deadline.
    Told,
    /// It was away: its session is over.
    Down,
}

/// A service cannot be stopped so.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum StopError {
    #[error("no service of that name is connected or away")]
    NoSuchService,
    #[error("the service is away; there is no connection over which to tell it to reboot")]
    Away,
    #[error("the gateway failed at this request")]
    Failed,
}

impl Handler<StopService> for Gateway {
    type Result = Result<Stopped, StopError>;

    fn handle(&mut self, message: StopService, context: &mut Self::Context) -> Self::Result {
        self.guarded(context, |gateway, _| gateway.stop_service(message)).unwrap_or(Err(StopError::Failed))
    }
}

impl Gateway {
    pub(super) fn stop_service(&mut self, message: StopService) -> Result<Stopped, StopError> {
        let StopService { name, stopping, reason, deadline, keep_discord_session } = message;
        let known = self.registry.get_mut(&name).ok_or(StopError::NoSuchService)?;
        if !known.is_up() {
            return match stopping {
                Stopping::Reboot => Err(StopError::Away),
                Stopping::Shutdown => {
                    let departure = Departure::Vanished { last_frame: None };
                    self.end_session(&name, "it was shut down while it was away", departure);
                    Ok(Stopped::Down)
                }
            };
        }
        known.stopping = Some(stopping);
        let deadline_ms = u64::try_from(deadline.as_millis()).unwrap_or(u64::MAX);
        let (op, close) = match stopping {
            Stopping::Shutdown => (GatewayOp::Shutdown { reason, deadline_ms }, Close::ShutDown),
            Stopping::Reboot => {
                (GatewayOp::Reboot { reason, deadline_ms, keep_discord_session }, Close::Rebooted)
            }
        };
        log::info!(
            "{name} is told to {}",
            if stopping == Stopping::Shutdown { "shut down" } else { "reboot" }
        );
        self.order(&name, Order::Op { op, answers: None, permit: None });
        self.order(&name, Order::CloseAfter { deadline, close });
        Ok(Stopped::Told)
    }
}

/// How long the allocator may take to tell what the shard ids are doing.
const REPORT_TIMEOUT: Duration = Duration::from_secs(1);

/// Asks what each shard id is doing; `None` where the allocator does not answer: not while its disk
/// does not.
#[derive(Debug, Message)]
#[rtype(result = "Option<Report>")]
pub struct ReportShards;

impl Handler<ReportShards> for Gateway {
    type Result = ResponseFuture<Option<Report>>;

    fn handle(&mut self, _: ReportShards, _: &mut Self::Context) -> Self::Result {
        let allocator = self.allocator.clone();
        // It may wait for the disk.
        let report = async move { allocator?.send(shard_allocator::ReportShards).await.ok()? };
        Box::pin(async move { tokio::time::timeout(REPORT_TIMEOUT, report).await.ok()? })
    }
}

/// Does something to the shard ids; `None` where a part of the gateway failed at it. Answered when
/// all that comes of it is done, or at once where the store takes no writes.
#[derive(Debug, Message)]
#[rtype(result = "Option<Outcome>")]
pub struct OperateShards(pub Command);

impl Handler<OperateShards> for Gateway {
    type Result = ResponseFuture<Option<Outcome>>;

    fn handle(&mut self, OperateShards(command): OperateShards, _: &mut Self::Context) -> Self::Result {
        let allocator = self.allocator.clone();
        // Also while a write neither fails nor ends.
        let trouble = self.routes.shared().store.trouble(Instant::now());
        Box::pin(async move {
            let (answer, answered) = oneshot::channel();
            let outcome = if let Some(why) = trouble {
                Outcome::StoreFailing(why)
            } else {
                allocator?.do_send(ShardCommand { command, answer });
                answered.await.ok()?
            };
            log_command(command, &outcome);
            Some(outcome)
        })
    }
}

pub(super) fn log_command(command: Command, outcome: &Outcome) {
    let done = match outcome {
        Outcome::Refused(refused) => return log::info!("an operator's {command:?} was refused: {refused}"),
        Outcome::StoreFailing(why) => return log::info!("an operator's {command:?} was refused: {why}"),
        Outcome::Decided => {
            return log::warn!("an operator's {command:?} is decided, and waits for data_dir");
        }
        Outcome::Done(done) => done,
    };
    let what = match done {
        Done::Planned(_) => return,
        Done::Frozen => "froze the shard ids".to_owned(),
        Done::Thawed => "thawed the shard ids".to_owned(),
        Done::Released { holder, free_in_ms } => {
            format!("took a shard id from {holder}; it is free in {free_in_ms} ms")
        }
        Done::Freed { free_in_ms } => {
            format!("freed a shard id that was held back; it is free in {free_in_ms} ms")
        }
        Done::Resharding(plan) => format!("began a reshard to {} shards", plan.shard_count),
        Done::Aborted => "aborted the reshard".to_owned(),
    };
    log::info!("an operator {what}");
}
