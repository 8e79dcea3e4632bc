//! `POST /api/v1/reload`: reads the files anew that can be read anew, as SIGHUP does.

use actix_web::web::{Data, Payload, block};
use actix_web::{HttpRequest, HttpResponse};
use serde_json::json;

use super::body::{error, json_body};
use super::services::unavailable;
use crate::networker::entrance::Entrance;
use crate::reload::reload_all;

pub(super) async fn reload(request: HttpRequest, payload: Payload, entrance: Data<Entrance>) -> HttpResponse {
    match json_body(&request, payload, &entrance).await {
        Ok(body) if body.is_empty() => {}
        Ok(_) => return error(400, "bad_request", "the body must be empty"),
        Err(refusal) => return refusal,
    }
    // A disk may take its time.
    let Ok(outcomes) = block(move || reload_all(&entrance.reloads)).await else { return unavailable() };
    answer(&outcomes)
}

/// What was reloaded, and why the rest was not: each is read by itself, and its error names the setting.
fn answer(outcomes: &[(&str, Result<(), String>)]) -> HttpResponse {
    let reloaded: Vec<&str> =
        outcomes.iter().filter(|(_, outcome)| outcome.is_ok()).map(|(name, _)| *name).collect();
    let failures: Vec<&str> =
        outcomes.iter().filter_map(|(_, outcome)| outcome.as_ref().err().map(String::as_str)).collect();
    if failures.is_empty() {
        return HttpResponse::Ok().json(json!({"reloaded": reloaded}));
    }
    let failure = json!({"code": "not_reloaded", "message": failures.join("; ")});
    HttpResponse::Conflict().json(json!({"error": failure, "reloaded": reloaded}))
}
