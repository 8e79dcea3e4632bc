//! Who may ask for what, and a line in the log for each thing that was done.
//!
//! Where credentials are in use, everything but the doors below takes one: to look takes `api =
//! "read"`, to change anything `api = "write"`. A route that nobody thought of here is therefore
//! closed.

use std::sync::Arc;

use actix_web::body::{BoxBody, MessageBody};
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::http::Method;
use actix_web::http::header::{HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE};
use actix_web::middleware::Next;
use actix_web::web::Data;
use actix_web::{Error, HttpRequest, HttpResponse};

use super::body::error;
use crate::auth::Unauthorized;
use crate::logging::AUDIT;
use crate::networker::entrance::Entrance;
use crate::networker::showing::Showing;
use crate::state::grant::{Api, Grant};
use crate::state::tally::Turned;

/// Open to all: what they answer is no secret, or they check credentials themselves.
const DOORS: [&str; 4] = ["/", "/gateway", "/healthz", "/readyz"];

/// The most bytes of a path in the log.
const MAX_PATH_BYTES: usize = 128;

/// The middleware.
pub(crate) async fn permission(
    entrance: Data<Entrance>,
    request: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse<BoxBody>, Error> {
    if DOORS.contains(&request.path()) {
        return Ok(next.call(request).await?.map_into_boxed_body());
    }
    let needs = needed(request.method());
    let operator = match permitted(&request, &entrance, needs) {
        Ok(operator) => operator,
        Err((who, refusal)) => {
            // Who has no credential is counted, and does not write the log.
            if let Some(who) = who {
                audit(needs, &who, request.request(), &refusal);
            }
            return Ok(request.into_response(refusal));
        }
    };
    let response = next.call(request).await?.map_into_boxed_body();
    audit(needs, &operator.id, response.request(), response.response());
    Ok(response)
}

fn needed(method: &Method) -> Api {
    if [Method::GET, Method::HEAD].contains(method) { Api::Read } else { Api::Write }
}

/// The operator's grant, if it is enough; else who it was, and the answer.
fn permitted(
    request: &ServiceRequest,
    entrance: &Entrance,
    needs: Api,
) -> Result<Arc<Grant>, (Option<Arc<str>>, HttpResponse)> {
    let nobody = |response| (None, response);
    let showing = Showing::of(request.request()).ok_or_else(|| {
        nobody(error(503, "unavailable", "the gateway has no descriptor left for this connection"))
    })?;
    let grant = showing.authenticate(None, entrance).map_err(|refused| nobody(unauthorized(refused)))?;
    if grant.api < needs {
        entrance.turn_away(Turned::Forbidden);
        log::warn!("the credential {} may not {} {}", grant.id, request.method(), shown(request.path()));
        let message = "this credential does not permit the request";
        return Err((Some(grant.id.clone()), error(403, "forbidden", message)));
    }
    Ok(grant)
}

fn unauthorized(refused: Unauthorized) -> HttpResponse {
    let Some(retry_after) = refused.retry_after else {
        let message = "a valid credential is needed: Authorization: Bearer";
        let mut response = error(401, "unauthorized", message);
        response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        return response;
    };
    let message = "too many wrong credentials came from this address (auth_failures_per_minute)";
    let mut response = error(429, "too_many_failures", message);
    response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(retry_after.as_secs().max(1)));
    response
}

/// A path, cut where it is too long for a line.
fn shown(path: &str) -> &str {
    path.get(..path.floor_char_boundary(MAX_PATH_BYTES)).unwrap_or(path)
}

/// Who changed what, or tried to, and what came of it: one line.
fn audit(needs: Api, who: &str, request: &HttpRequest, response: &HttpResponse) {
    if needs < Api::Write {
        return;
    }
    let peer = Showing::of(request).map_or_else(|| "nowhere".to_owned(), |showing| showing.peer.to_string());
    let (method, path, status) = (request.method(), shown(request.path()), response.status().as_u16());
    log::info!(target: AUDIT, "{who} at {peer}: {method} {path}: {status}");
}
