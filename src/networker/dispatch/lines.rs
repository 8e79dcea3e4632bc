//! The targets that a connection has found, each with what it needs to send there again: one lookup for
//! many messages.

use std::sync::Arc;

use super::Dispatcher;
use crate::protocol::error::ErrorCode;
use crate::protocol::name::ShardId;
use crate::protocol::scan::Head;
use crate::protocol::target::{Target, shard_of_guild};
use crate::state::account::Entry;
use crate::state::parcel::OpenParcel;
use crate::state::route::Route;

/// How many targets a connection remembers.
const MAX_LINES: usize = 4096;

/// A target that was found before.
pub(super) struct Line {
    pub(super) route: Arc<Route>,
    /// Whether it may be sent to by its name, and not only as the holder of a shard.
    is_permitted: bool,
    pub(super) entry: Entry,
    pub(super) open: Option<OpenParcel>,
    /// How the first message to it began that has a head: most others begin alike. Those that spell the
    /// target otherwise, as one of many guilds, do not gain from it.
    pub(super) head: Option<Head>,
}

pub(super) const NO_SUCH_SERVICE: (ErrorCode, &str) =
    (ErrorCode::NoSuchService, "no service of that name is connected or away");
const NO_SUCH_SHARD: (ErrorCode, &str) = (ErrorCode::NoSuchShard, "no service holds that shard");
const FORBIDDEN: (ErrorCode, &str) =
    (ErrorCode::Forbidden, "this service's credential does not permit the target");
const BAD_TARGET: (ErrorCode, &str) =
    (ErrorCode::Malformed, "a target must be a service's name, shard/<id> or guild/<snowflake>");

impl Dispatcher {
    /// The line of the service that a target means now.
    pub(super) fn resolve(&mut self, spelling: &str) -> Result<usize, (ErrorCode, &'static str)> {
        let is_it = |line: &Line| line.is_permitted && line.route.name().as_str() == spelling;
        if self.lines.get(self.last).is_some_and(is_it) {
            return Ok(self.last);
        }
        let target = Target::parse(spelling).ok_or(BAD_TARGET)?;
        if let Some(line) = self.by_name.get(spelling).filter(|line| self.lines[**line].is_permitted) {
            self.last = *line;
            return Ok(self.last);
        }
        if !self.grant.may_send_to(spelling) {
            return Err(FORBIDDEN);
        }
        let shard = match target {
            Target::Service(name) => {
                self.last = self.line(name).ok_or(NO_SUCH_SERVICE)?;
                return Ok(self.last);
            }
            Target::Shard(shard_id) => shard_id,
            Target::Guild(snowflake) => shard_of_guild(snowflake, self.shards.shard_count()),
        };
        self.line_of_shard(shard)
    }

    fn line_of_shard(&mut self, shard: ShardId) -> Result<usize, (ErrorCode, &'static str)> {
        let shards = self.shards.clone();
        let holder = shards.holder(shard).ok_or(NO_SUCH_SHARD)?;
        self.last = self.line(holder.as_str()).ok_or(NO_SUCH_SHARD)?;
        Ok(self.last)
    }

    fn line(&mut self, name: &str) -> Option<usize> {
        if let Some(line) = self.by_name.get(name) {
            return Some(*line);
        }
        let route = self.routes.find(name)?;
        if self.lines.len() >= MAX_LINES {
            self.flush();
            self.forget_lines();
        }
        let entry = self.own.entry(Some(route.name()));
        self.by_name.insert(route.name().clone(), self.lines.len());
        let is_permitted = self.grant.may_send_to(name);
        self.lines.push(Line { route, is_permitted, entry, open: None, head: None });
        Some(self.lines.len() - 1)
    }

    /// Forgets all that was found. Parcels that are open are dropped.
    pub(super) fn forget_lines(&mut self) {
        self.lines.clear();
        self.by_name.clear();
        self.open.clear();
        self.last = 0;
    }

    /// Forgets what was found if a new session has the name of a closed one.
    pub(super) fn forget_closed(&mut self, line: usize) -> bool {
        let route = self.lines[line].route.clone();
        let is_new = self.routes.find(route.name().as_str()).is_some_and(|new| !Arc::ptr_eq(&new, &route));
        if is_new {
            self.flush();
            self.forget_lines();
        }
        is_new
    }
}
