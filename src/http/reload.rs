//! `POST /api/v1/reload`: reads the files anew that can be read anew, as SIGHUP does.

use actix_web::web::{Data, Payload};
use actix_web::{HttpRequest, HttpResponse};
use serde_json::json;

use super::body::{error, json_body};
use crate::networker::entrance::Entrance;

pub(super) async fn reload(request: HttpRequest, payload: Payload, entrance: Data<Entrance>) -> HttpResponse {
    match json_body(&request, payload, &entrance).await {
        Ok(body) if body.is_empty() => {}
        Ok(_) => return error(400, "bad_request", "the body must be empty"),
        Err(refusal) => return refusal,
    }
    match entrance.reload() {
        Ok(credentials) => HttpResponse::Ok().json(json!({"credentials": credentials})),
        Err(failed) => error(409, "not_reloaded", &failed.to_string()),
    }
}
