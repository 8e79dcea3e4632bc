//! Bodies of requests, read and bounded, and the errors that the API answers with.

use actix_web::HttpRequest;
use actix_web::HttpResponse;
use actix_web::http::StatusCode;
use actix_web::http::header::CONTENT_TYPE;
use actix_web::web::{Bytes, BytesMut, Payload};
use futures_util::StreamExt;
use serde_json::json;

use crate::networker::entrance::Entrance;
use crate::state::tally::Turned;

/// The most bytes in a body.
pub(super) const MAX_BODY_BYTES: usize = 64 * 1024;

/// An answer that is an error: `{"error": {"code", "message"}}`.
pub(super) fn error(status: u16, code: &str, message: &str) -> HttpResponse {
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    HttpResponse::build(status).json(json!({"error": {"code": code, "message": message}}))
}

/// A JSON body. Empty where there is none; with one, its type must be named: a form of a web page
/// cannot do that. It may take `handshake_timeout_ms` to come.
pub(super) async fn json_body(
    request: &HttpRequest,
    payload: Payload,
    entrance: &Entrance,
) -> Result<Bytes, HttpResponse> {
    let time = entrance.config.handshake_timeout;
    let body = tokio::time::timeout(time, whole_body(payload)).await.unwrap_or_else(|_| {
        entrance.turn_away(Turned::SlowBody);
        let message = format!("the body took longer than handshake_timeout_ms = {}", time.as_millis());
        Err(error(408, "body_too_slow", &message))
    })?;
    if body.is_empty() || is_json(request) {
        return Ok(body);
    }
    Err(error(415, "not_json", "a body must have the Content-Type application/json"))
}

async fn whole_body(mut payload: Payload) -> Result<Bytes, HttpResponse> {
    let mut body = BytesMut::new();
    while let Some(part) = payload.next().await {
        let part =
            part.map_err(|failed| error(400, "bad_body", &format!("the body was cut off: {failed}")))?;
        if body.len() + part.len() > MAX_BODY_BYTES {
            let message = format!("a body has at most {MAX_BODY_BYTES} bytes");
            return Err(error(413, "body_too_large", &message));
        }
        body.extend_from_slice(&part);
    }
    Ok(body.freeze())
}

fn is_json(request: &HttpRequest) -> bool {
    let content_type = request.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
    content_type
        .and_then(|value| value.split(';').next())
        .is_some_and(|media_type| media_type.trim().eq_ignore_ascii_case("application/json"))
}
