//! `/api/v1/services`: who is there, and telling a service to stop.

use std::time::Duration;

use actix_web::web::{Data, Path, Payload};
use actix_web::{HttpRequest, HttpResponse};
use serde::Deserialize;
use serde_json::{Value, json};

use super::body::{error, json_body};
use super::report::turn;
use crate::actors::gateway::{ListServices, ServiceState, ServiceView, StopError, StopService, Stopped};
use crate::networker::entrance::Entrance;
use crate::protocol::name::Name;
use crate::state::registry::Stopping;

/// The longest deadline that can be named.
const MAX_DEADLINE_MS: u64 = 3_600_000;

/// The longest reason that can be given.
const MAX_REASON_BYTES: usize = 200;

pub(super) async fn list(entrance: Data<Entrance>) -> HttpResponse {
    let turn = match turn(&entrance).await {
        Ok(turn) => turn,
        Err(busy) => return busy,
    };
    match entrance.gateway.send(ListServices { only: None }).await {
        Ok(Some(views)) => {
            let services: Vec<Value> = views.iter().map(shown).collect();
            turn.json(&json!({"services": services}))
        }
        _ => unavailable(),
    }
}

pub(super) async fn one(name: Path<String>, entrance: Data<Entrance>) -> HttpResponse {
    let Ok(name) = Name::new(&name) else { return no_such_service() };
    match entrance.gateway.send(ListServices { only: Some(name) }).await {
        Ok(Some(views)) => {
            views.first().map_or_else(no_such_service, |view| HttpResponse::Ok().json(shown(view)))
        }
        _ => unavailable(),
    }
}

fn shown(view: &ServiceView) -> Value {
    json!({
        "name": view.name,
        "state": word(view.state),
        "since": view.since,
        "queued": {"messages": view.queued.messages, "bytes": view.queued.bytes},
        "shards": view.shards,
        "group": view.group,
    })
}

/// The word for a state, in the API and in metrics.
pub(super) fn word(state: ServiceState) -> &'static str {
    match state {
        ServiceState::Up => "up",
        ServiceState::Away => "away",
        ServiceState::Stopping => "stopping",
    }
}

pub(super) async fn shutdown(
    request: HttpRequest,
    payload: Payload,
    entrance: Data<Entrance>,
) -> HttpResponse {
    stop(Stopping::Shutdown, &request, payload, &entrance).await.unwrap_or_else(|refusal| refusal)
}

pub(super) async fn reboot(request: HttpRequest, payload: Payload, entrance: Data<Entrance>) -> HttpResponse {
    stop(Stopping::Reboot, &request, payload, &entrance).await.unwrap_or_else(|refusal| refusal)
}

/// The body of a request to stop a service.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Wish {
    reason: Option<String>,
    deadline_ms: Option<u64>,
}

impl Wish {
    fn parse(body: &[u8]) -> Result<Self, HttpResponse> {
        if body.is_empty() {
            return Ok(Self::default());
        }
        let bad = |message: &str| error(400, "bad_request", message);
        let wish: Self = serde_json::from_slice(body).map_err(|failed| {
            bad(&format!(
                "the body must be {{\"reason\": text, \"deadline_ms\": number}}, both optional: {failed}"
            ))
        })?;
        let reason = wish.reason.as_deref().unwrap_or_default();
        if reason.len() > MAX_REASON_BYTES || reason.chars().any(char::is_control) {
            return Err(bad("`reason` must have at most 200 bytes and no control characters"));
        }
        if wish.deadline_ms.is_some_and(|deadline| deadline > MAX_DEADLINE_MS) {
            return Err(bad("`deadline_ms` must be from 0 to 3600000"));
        }
        Ok(wish)
    }
}

async fn stop(
    stopping: Stopping,
    request: &HttpRequest,
    payload: Payload,
    entrance: &Entrance,
) -> Result<HttpResponse, HttpResponse> {
    let name = Name::new(request.match_info().query("name"))
        .map_err(|invalid| error(400, "invalid_name", &invalid.to_string()))?;
    let wish = Wish::parse(&json_body(request, payload, entrance).await?)?;
    let deadline = wish.deadline_ms.map_or(entrance.config.deadline, Duration::from_millis);
    let reason = wish.reason.unwrap_or_else(|| "an operator asked for it".to_owned());
    let keep_discord_session = true;
    let message = StopService { name: name.clone(), stopping, reason, deadline, keep_discord_session };
    let stopped = entrance.gateway.send(message).await.map_err(|_| unavailable())?;
    match stopped {
        Ok(Stopped::Told) => Ok(HttpResponse::Accepted().json(json!({"service": name, "state": "stopping"}))),
        Ok(Stopped::Down) => Ok(HttpResponse::Ok().json(json!({"service": name, "state": "down"}))),
        Err(StopError::NoSuchService) => Err(no_such_service()),
        Err(away @ StopError::Away) => Err(error(409, "away", &away.to_string())),
        Err(failed @ StopError::Failed) => Err(error(500, "internal", &failed.to_string())),
    }
}

fn no_such_service() -> HttpResponse {
    error(404, "no_such_service", &StopError::NoSuchService.to_string())
}

pub(super) fn unavailable() -> HttpResponse {
    error(503, "unavailable", "the gateway is restarting a part of itself; try again")
}
