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
    let failures: Vec<String> = outcomes
        .iter()
        .filter_map(|(name, outcome)| outcome.as_ref().err().map(|error| format!("{name}: {error}")))
        .collect();
    if failures.is_empty() {
        let names: Vec<&str> = outcomes.iter().map(|(name, _)| *name).collect();
        return HttpResponse::Ok().json(json!({"reloaded": names}));
    }
    error(409, "not_reloaded", &failures.join("; "))
}
