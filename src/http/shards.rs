//! `/api/v1/shards`: who holds which shard id, and what operators do to the ids.

use actix_web::web::{Bytes, Data, Path, Payload};
use actix_web::{HttpRequest, HttpResponse};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

use super::body::{error, json_body};
use super::services::unavailable;
use super::shard_metrics::code_of;
use crate::actors::gateway::{OperateShards, ReportShards};
use crate::actors::shard_allocator::Outcome;
use crate::networker::entrance::Entrance;
use crate::protocol::name::ShardId;
use crate::state::shards::{
    Awaits, BudgetReport, Command, CommandError, Done, FrozenRecord, Mode, Plan, Report, ShardView,
};

type Answer = Result<HttpResponse, HttpResponse>;

pub(super) async fn list(entrance: Data<Entrance>) -> HttpResponse {
    match entrance.gateway.send(ReportShards).await {
        Ok(Some(report)) => HttpResponse::Ok().json(shown(&report)),
        _ => unavailable(),
    }
}

pub(super) async fn freeze(request: HttpRequest, payload: Payload, entrance: Data<Entrance>) -> HttpResponse {
    either(without_fields(Command::Freeze, &request, payload, &entrance).await)
}

pub(super) async fn thaw(request: HttpRequest, payload: Payload, entrance: Data<Entrance>) -> HttpResponse {
    either(without_fields(Command::Thaw, &request, payload, &entrance).await)
}

pub(super) async fn release(
    id: Path<String>,
    request: HttpRequest,
    payload: Payload,
    entrance: Data<Entrance>,
) -> HttpResponse {
    either(release_id(&id, &request, payload, &entrance).await)
}

pub(super) async fn reshard(
    request: HttpRequest,
    payload: Payload,
    entrance: Data<Entrance>,
) -> HttpResponse {
    either(begin_reshard(&request, payload, &entrance).await)
}

pub(super) async fn abort_reshard(
    request: HttpRequest,
    payload: Payload,
    entrance: Data<Entrance>,
) -> HttpResponse {
    either(without_fields(Command::AbortReshard, &request, payload, &entrance).await)
}

fn either(answer: Answer) -> HttpResponse {
    answer.unwrap_or_else(|refusal| refusal)
}

/// A body without a field.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Nothing {}

/// The body of a request to release an id.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Release {
    /// Which generation; the current one where it is left out.
    shard_count: Option<u32>,
}

/// The body of a request to change the number of shards.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Reshard {
    shard_count: u32,
    #[serde(default)]
    mode: Way,
    #[serde(default)]
    dry_run: bool,
}

/// As in the body.
#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Way {
    #[default]
    Rolling,
    Immediate,
}

/// Reads a body, `{}` where there is none; `fields` says what it may have.
fn read<T: DeserializeOwned>(body: &Bytes, fields: &str) -> Result<T, HttpResponse> {
    let body: &[u8] = if body.is_empty() { b"{}" } else { body };
    // serde reads a struct from an array too.
    let object: Result<Map<String, Value>, _> = serde_json::from_slice(body);
    object.and_then(|_| serde_json::from_slice(body)).map_err(|failed| {
        error(400, "bad_request", &format!("the body must be a JSON object {fields}: {failed}"))
    })
}

async fn without_fields(
    command: Command,
    request: &HttpRequest,
    payload: Payload,
    entrance: &Entrance,
) -> Answer {
    let _: Nothing = read(&json_body(request, payload, entrance).await?, "without fields, or empty")?;
    operate(command, entrance).await
}

async fn release_id(id: &str, request: &HttpRequest, payload: Payload, entrance: &Entrance) -> Answer {
    let body = json_body(request, payload, entrance).await?;
    let Release { shard_count } = read(&body, r#"{"shard_count": number}, which is optional"#)?;
    let shard_id = id.parse().map(ShardId).map_err(|_| {
        error(400, "bad_request", "the address must be /api/v1/shards/{id}/release with a shard id, a number")
    })?;
    operate(Command::Release { shard_id, shard_count }, entrance).await
}

async fn begin_reshard(request: &HttpRequest, payload: Payload, entrance: &Entrance) -> Answer {
    let body = json_body(request, payload, entrance).await?;
    let Reshard { shard_count, mode, dry_run } = read(
        &body,
        r#"{"shard_count": number, "mode": "rolling" or "immediate", "dry_run": true or false}, of which only the first is needed"#,
    )?;
    let mode = match mode {
        Way::Rolling => Mode::Rolling,
        Way::Immediate => Mode::Immediate,
    };
    operate(Command::Reshard { shard_count, mode, dry_run }, entrance).await
}

async fn operate(command: Command, entrance: &Entrance) -> Answer {
    match entrance.gateway.send(OperateShards(command)).await {
        Ok(Some(Outcome::Done(done))) => Ok(answer(command, &done)),
        Ok(Some(Outcome::Refused(refused))) => Err(refusal(&refused)),
        Ok(Some(Outcome::StoreFailing(why))) => Err(store_failing(&why)),
        Ok(Some(Outcome::Decided)) => Ok(HttpResponse::Accepted().json(json!({"waits_for": "data_dir"}))),
        _ => Err(unavailable()),
    }
}

fn store_failing(why: &str) -> HttpResponse {
    let message = format!(
        "nothing was done, since data_dir does not take writes as it should; send it again, at the latest when \
         /readyz answers 200: {why}"
    );
    error(503, "store_failing", &message)
}

fn answer(command: Command, done: &Done) -> HttpResponse {
    match done {
        Done::Frozen => HttpResponse::Ok().json(json!({"frozen": true})),
        Done::Thawed => HttpResponse::Ok().json(json!({"frozen": false})),
        Done::Released { holder, free_in_ms } => {
            HttpResponse::Ok().json(json!({"released": true, "holder": holder, "free_in_ms": free_in_ms}))
        }
        Done::Freed { free_in_ms } => {
            HttpResponse::Ok().json(json!({"released": true, "holder": null, "free_in_ms": free_in_ms}))
        }
        Done::Planned(plan) => HttpResponse::Ok().json(planned(command, plan)),
        Done::Resharding(plan) => HttpResponse::Accepted().json(planned(command, plan)),
        Done::Aborted => HttpResponse::Ok().json(json!({"aborted": true})),
    }
}

fn planned(command: Command, plan: &Plan) -> Value {
    let Command::Reshard { mode, dry_run, .. } = command else { return Value::Null };
    let mode = match mode {
        Mode::Rolling => "rolling",
        Mode::Immediate => "immediate",
    };
    let budget =
        plan.remaining.map(|remaining| json!({"remaining": remaining, "resets_in_ms": plan.resets_in_ms}));
    json!({
        "shard_count": plan.shard_count,
        "mode": mode,
        "dry_run": dry_run,
        "identifies": plan.identifies,
        "duration_ms": plan.duration_ms,
        "minutes": plan.duration_ms.div_ceil(60_000),
        "budget": budget,
        "covered": plan.is_covered(),
    })
}

fn refusal(refused: &CommandError) -> HttpResponse {
    let (status, code) = match refused {
        CommandError::NoSuchShard { .. } => (404, "no_such_shard"),
        CommandError::NotLeased(_) => (409, "not_leased"),
        CommandError::ReshardUnderWay { .. } => (409, "reshard_under_way"),
        CommandError::NoReshard => (409, "no_reshard"),
        CommandError::SameCount { .. } => (409, "same_count"),
        CommandError::OutOfRange { .. } => (400, "out_of_range"),
        CommandError::NotAMultiple { .. } => (409, "not_a_multiple"),
        CommandError::RecentlyEnded { .. } => (409, "recently_ended"),
        CommandError::BudgetTooSmall { .. } => (409, "budget_too_small"),
    };
    error(status, code, &refused.to_string())
}

fn shown(report: &Report) -> Value {
    let waiting: Map<_, _> =
        report.waiting.iter().map(|(reason, count)| (reason.as_str().to_owned(), json!(count))).collect();
    let deaths: Map<_, _> =
        report.deaths.iter().map(|(code, count)| (code_of(*code), json!(count))).collect();
    let reshard = report.reshard.map(|(reshard, ready)| {
        json!({"shard_count": reshard.shard_count, "since": reshard.since_ms, "ready": ready})
    });
    json!({
        "shard_count": report.shard_count,
        "max_concurrency": report.max_concurrency,
        "frozen": report.frozen.as_ref().map(frozen),
        "reshard": reshard,
        "budget": report.budget.as_ref().map(budget),
        "permits": report.permits,
        "waiting": waiting,
        "deaths": deaths,
        "shards": report.shards.iter().map(shard).collect::<Vec<_>>(),
    })
}

fn frozen(frozen: &FrozenRecord) -> Value {
    let since = frozen.since_ms;
    match frozen.cause {
        None => json!({"by": "operator", "since": since}),
        Some((close_code, shard)) => json!({
            "by": "close_code",
            "since": since,
            "close_code": close_code,
            "shard_id": shard.shard_id,
            "shard_count": shard.shard_count,
        }),
    }
}

fn budget(budget: &BudgetReport) -> Value {
    json!({
        "total": budget.total,
        "remaining": budget.remaining,
        "resets_in_ms": budget.resets_in_ms,
        "recommended_shards": budget.recommended_shards,
    })
}

fn shard(view: &ShardView) -> Value {
    let awaits = |awaits: &Awaits| json!({"what": awaits.as_str(), "in_ms": awaits.in_ms()});
    json!({
        "shard_id": view.shard.shard_id,
        "shard_count": view.shard.shard_count,
        "state": view.standing.as_str(),
        "holder": view.holder,
        "epoch": view.epoch,
        "since": view.since_ms,
        "deaths": view.deaths,
        "awaits": view.awaits.as_ref().map(awaits),
    })
}
