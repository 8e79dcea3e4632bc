//! Metrics of the shard ids: what [`Report`] says, as numbers.

use crate::metrics::{Exposition, Kind};
use crate::protocol::op::WaitReason;
use crate::state::shards::{Awaits, BudgetReport, Report, ShardView, Standing};

/// `awaits` of an id without a holder, as far as something keeps it from being granted.
const KEPT_BACK: [&str; 5] =
    ["identify_rate_limit", "budget_exhausted", "frozen", "holder_vanished", "crash_loop"];

pub(super) fn write(exposition: &mut Exposition, report: &Report) {
    ids(exposition, report);
    requests(exposition, report);
    generations(exposition, report);
    if let Some(budget) = &report.budget {
        session_starts(exposition, budget);
    }
}

/// The ids of the current generation.
fn ids(exposition: &mut Exposition, report: &Report) {
    let current = || report.shards.iter().filter(|view| view.shard.shard_count == report.shard_count);
    let count = |fits: &dyn Fn(&ShardView) -> bool| current().filter(|view| fits(view)).count() as u64;
    let states = Standing::ALL.map(|state| (state.as_str(), count(&|view| view.standing == state)));
    exposition.by_label("gateway_shards", Kind::Gauge, "Shard ids by state.", "state", states);
    let awaits = |view: &ShardView| view.awaits.map(Awaits::as_str);
    exposition.by_label(
        "gateway_shards_kept_back",
        Kind::Gauge,
        "Shard ids without a holder that cannot be granted now, by why.",
        "why",
        KEPT_BACK.map(|why| (why, count(&|view| awaits(view) == Some(why)))),
    );
    let deaths = report.deaths.iter().map(|(code, count)| (code_of(*code), *count));
    exposition.by_label(
        "gateway_shard_deaths_total",
        Kind::Counter,
        "Leases that ended by a death, by Discord's close code.",
        "close_code",
        deaths,
    );
}

/// The label of a close code, in the API too.
pub(super) fn code_of(close_code: Option<u16>) -> String {
    close_code.map_or_else(|| "none".to_owned(), |code| code.to_string())
}

fn requests(exposition: &mut Exposition, report: &Report) {
    let waiting = WaitReason::ALL
        .map(|reason| (reason.as_str(), report.waiting.get(&reason).copied().unwrap_or_default()));
    exposition.by_label(
        "gateway_shard_requests_waiting",
        Kind::Gauge,
        "Requests that wait for a shard id, by what they were told.",
        "reason",
        waiting,
    );
    exposition.one(
        "gateway_shard_permits_total",
        Kind::Counter,
        "Permits to IDENTIFY to Discord that were given.",
        report.permits,
    );
}

fn generations(exposition: &mut Exposition, report: &Report) {
    let is_frozen = u64::from(report.frozen.is_some());
    exposition.one("gateway_shards_frozen", Kind::Gauge, "1 while no shard id is granted.", is_frozen);
    let (filling, ready) =
        report.reshard.map_or((0, 0), |(reshard, ready)| (u64::from(reshard.shard_count), ready as u64));
    exposition.one(
        "gateway_reshard_shards",
        Kind::Gauge,
        "Shard ids of the generation that is being filled; 0: none is.",
        filling,
    );
    exposition.one("gateway_reshard_ready", Kind::Gauge, "Those of them that are ready.", ready);
}

/// Only where Discord was asked.
fn session_starts(exposition: &mut Exposition, budget: &BudgetReport) {
    for (name, help, value) in [
        ("gateway_session_starts_limit", "Session starts that Discord allows in a day.", budget.total),
        ("gateway_session_starts_remaining", "Those that are left.", budget.remaining),
        ("gateway_session_starts_reset_after_ms", "Until Discord resets them.", budget.resets_in_ms),
        (
            "gateway_shards_recommended",
            "The number of shards that Discord recommends.",
            u64::from(budget.recommended_shards),
        ),
    ] {
        exposition.one(name, Kind::Gauge, help, value);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::protocol::name::{Epoch, ShardId};
    use crate::state::shards::{FrozenRecord, ReshardRecord, Shard};

    fn view(shard_count: u32, standing: Standing, awaits: Option<Awaits>) -> ShardView {
        ShardView {
            shard: Shard { shard_count, shard_id: ShardId(0) },
            standing,
            holder: None,
            epoch: Epoch(1),
            since_ms: None,
            deaths: 0,
            awaits,
        }
    }

    #[test]
    fn a_report_is_told_in_numbers() {
        let report = Report {
            shard_count: 2,
            reshard: Some((ReshardRecord { shard_count: 4, since_ms: 0 }, 3)),
            max_concurrency: 1,
            frozen: Some(FrozenRecord { cause: None, since_ms: 0 }),
            shards: vec![
                view(2, Standing::Ready, None),
                view(2, Standing::HeldBack, Some(Awaits::CrashLoop { in_ms: 1 })),
                view(4, Standing::Ready, None),
            ],
            waiting: BTreeMap::from([(WaitReason::Frozen, 5)]),
            permits: 6,
            deaths: BTreeMap::from([(None, 7), (Some(4009), 8)]),
            budget: Some(BudgetReport {
                recommended_shards: 9,
                total: 1000,
                remaining: 10,
                resets_in_ms: 11,
            }),
        };
        let mut exposition = Exposition::default();
        write(&mut exposition, &report);
        let text = exposition.into_text();
        for line in [
            "gateway_shards{state=\"ready\"} 1",
            "gateway_shards{state=\"held_back\"} 1",
            "gateway_shards_kept_back{why=\"crash_loop\"} 1",
            "gateway_shards_kept_back{why=\"frozen\"} 0",
            "gateway_shard_deaths_total{close_code=\"none\"} 7",
            "gateway_shard_deaths_total{close_code=\"4009\"} 8",
            "gateway_shard_requests_waiting{reason=\"frozen\"} 5",
            "gateway_shard_permits_total 6",
            "gateway_shards_frozen 1",
            "gateway_reshard_shards 4",
            "gateway_reshard_ready 3",
            "gateway_session_starts_limit 1000",
            "gateway_session_starts_remaining 10",
            "gateway_session_starts_reset_after_ms 11",
            "gateway_shards_recommended 9",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
        }
    }

    #[test]
    fn whatever_keeps_an_id_back_has_its_label() {
        for awaits in [
            Awaits::Permit { in_ms: 1 },
            Awaits::Budget { in_ms: 1 },
            Awaits::Thaw,
            Awaits::Notice { in_ms: 1 },
            Awaits::CrashLoop { in_ms: 1 },
        ] {
            assert!(KEPT_BACK.contains(&awaits.as_str()), "{awaits:?}");
        }
    }
}
