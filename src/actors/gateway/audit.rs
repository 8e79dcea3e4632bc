//! The debug build's audit: whenever traffic rests, what is counted as queued is held against what
//! walking over the mailboxes finds.

use std::sync::Arc;
use std::time::Duration;

use actix::{ActorFutureExt, Addr, AsyncContext, Context, WrapFuture};

use super::Gateway;
use crate::actors::client_session::ClientSession;
use crate::actors::client_session::walk::{Found, WalkMailbox};
use crate::state::account::{Amount, Row};
use crate::state::audit::Walk;
use crate::state::route::{Route, Shared};

const INTERVAL: Duration = Duration::from_millis(200);

/// What the last audit saw.
#[derive(Default)]
pub(super) struct Audit {
    traffic: Traffic,
    /// A message may be between account and mailbox for a moment: only what is found twice is
    /// wrong.
    suspected: Vec<String>,
    /// A second walk begins after the first has ended: where a thread stood still for long, both would else find
    /// what it is just about to do.
    is_walking: bool,
}

/// What changes whenever a message or a notice moves.
#[derive(Default, Clone, PartialEq)]
struct Traffic {
    rows: Vec<Row>,
    /// How many ERRORs were sent: those about refused messages stand in no row.
    errors: u64,
}

impl Traffic {
    fn of(shared: &Shared) -> Self {
        Self { rows: shared.accounts.snapshot(), errors: shared.errors.iter().map(|(_, count)| count).sum() }
    }
}

impl Gateway {
    pub(super) fn start_audits(&mut self, context: &mut Context<Self>) {
        // A walk ends with the actor's run.
        self.audit.is_walking = false;
        context.run_interval(INTERVAL, Self::audit_if_at_rest);
    }

    fn audit_if_at_rest(&mut self, context: &mut Context<Self>) {
        if self.audit.is_walking {
            return;
        }
        let traffic = Traffic::of(self.routes.shared());
        let is_at_rest = traffic == self.audit.traffic;
        self.audit.traffic.clone_from(&traffic);
        if !is_at_rest {
            self.audit.suspected.clear();
            return;
        }
        let sessions: Vec<_> = self
            .registry
            .iter()
            .map(|(_, known)| (known.handle.session.clone(), known.handle.route.clone()))
            .collect();
        let routes = self.routes.clone();
        let audited = async move {
            let differences = differences(sessions, &traffic.rows).await;
            (Traffic::of(routes.shared()) == traffic).then_some(differences)
        };
        self.audit.is_walking = true;
        context.spawn(audited.into_actor(self).map(|differences, gateway: &mut Self, _| {
            gateway.conclude(differences.unwrap_or_default());
        }));
    }

    fn conclude(&mut self, differences: Vec<String>) {
        self.audit.is_walking = false;
        for difference in &differences {
            if self.audit.suspected.contains(difference) {
                log::error!("the account and the mailboxes differ: {difference}");
            }
        }
        self.audit.suspected = differences;
    }
}

async fn differences(sessions: Vec<(Addr<ClientSession>, Arc<Route>)>, rows: &[Row]) -> Vec<String> {
    let mut all = Walk::default();
    let mut differences = Vec::new();
    for (session, route) in sessions {
        // One that is being restarted, or went down, is looked at the next time.
        let Ok(Found(walk)) = session.send(WalkMailbox).await else { return Vec::new() };
        let (found, reserved) = (walk.held(), route.gauge().held());
        if found != reserved {
            let shown = |amount: Amount| format!("{} messages of {} bytes", amount.messages, amount.bytes);
            let (name, found, reserved) = (route.name(), shown(found), shown(reserved));
            differences.push(format!("{name} has room taken for {reserved} and holds {found}"));
        }
        all.add(walk);
    }
    differences.extend(all.differences(rows));
    differences
}
