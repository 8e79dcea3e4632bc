//! What the gateway answers over HTTP: the WebSocket's handshake, IDENTIFY by POST, the operators'
//! API, health and metrics.
//!
//! | module | what it answers |
//! |---|---|
//! | [`guard`] | nothing: it refuses what a web page could have sent, before anything else |
//! | [`cors`] | nothing: it lets pages of listed origins read answers |
//! | [`permission`] | nothing: it refuses what a credential does not permit |
//! | [`identify`] | `POST /gateway` |
//! | [`services`] | `/api/v1/services` |
//! | [`shards`] | `/api/v1/shards` |
//! | [`accounting`] | `/api/v1/accounting` |
//! | [`reload`] | `/api/v1/reload` |
//! | [`health`] | `/healthz`, `/readyz`, `/metrics` |
//! | [`shard_metrics`] | those of `/metrics` that are about shard ids |
//! | [`body`] | nothing: it reads bodies, and writes errors |
//! | [`report`] | nothing: it bounds answers that may be large |

mod accounting;
mod body;
mod cors;
pub(crate) mod guard;
mod health;
mod identify;
pub(crate) mod permission;
mod reload;
mod report;
mod services;
mod shard_metrics;
mod shards;

use actix_web::http::Method;
use actix_web::http::header::{ALLOW, HeaderValue, SEC_WEBSOCKET_VERSION, UPGRADE};
use actix_web::web::{Data, Payload, Query, ServiceConfig, delete, get, post, resource, to};
use actix_web::{HttpRequest, HttpResponse};

use self::body::error;
use crate::networker::entrance::Entrance;
use crate::networker::websocket::{self, NoHandshake, Opening};

/// What `GET /` says.
const INDEX: &str = "gateway: a message broker for the services of a distributed bot

GET  /gateway                           the WebSocket
POST /gateway                           IDENTIFY by HTTP, answered with a ticket
GET  /api/v1/services                   every service
GET  /api/v1/services/{name}            one service
POST /api/v1/services/{name}/shutdown   send it SHUTDOWN: {\"reason\", \"deadline_ms\"}
POST /api/v1/services/{name}/reboot     send it REBOOT: {\"reason\", \"deadline_ms\"}
GET  /api/v1/shards                     every shard id
POST /api/v1/shards/{id}/release        take it from its holder: {\"shard_count\"}
POST /api/v1/shards/freeze              grant no id from now on
POST /api/v1/shards/thaw                grant ids again
POST /api/v1/shards/reshard             change their number: {\"shard_count\", \"mode\", \"dry_run\"}
DELETE /api/v1/shards/reshard           abort that, before it switches over
GET  /api/v1/accounting                 what became of every message
POST /api/v1/reload                     read credentials and certificates anew
GET  /metrics                           counters, for Prometheus
GET  /healthz, /readyz                  whether it serves, and takes services
";

/// Every route.
pub(crate) fn routes(config: &mut ServiceConfig) {
    config
        .service(
            resource("/gateway")
                .route(get().to(socket))
                .route(post().to(identify::post))
                .default_service(to(|| wrong_method(&[Method::GET, Method::POST]))),
        )
        .service(only_get("/").route(get().to(|| async { INDEX })))
        .service(only_get("/healthz").route(get().to(health::healthz)))
        .service(only_get("/readyz").route(get().to(health::readyz)))
        .service(only_get("/metrics").route(get().to(health::metrics)))
        .service(only_get("/api/v1/accounting").route(get().to(accounting::accounting)))
        .service(only_get("/api/v1/services").route(get().to(services::list)))
        .service(only_get("/api/v1/services/{name}").route(get().to(services::one)))
        .service(only_post("/api/v1/services/{name}/shutdown").route(post().to(services::shutdown)))
        .service(only_post("/api/v1/services/{name}/reboot").route(post().to(services::reboot)))
        .service(only_get("/api/v1/shards").route(get().to(shards::list)))
        .service(only_post("/api/v1/shards/freeze").route(post().to(shards::freeze)))
        .service(only_post("/api/v1/shards/thaw").route(post().to(shards::thaw)))
        .service(
            resource("/api/v1/shards/reshard")
                .route(post().to(shards::reshard))
                .route(delete().to(shards::abort_reshard))
                .default_service(to(|| wrong_method(&[Method::POST, Method::DELETE]))),
        )
        .service(only_post("/api/v1/reload").route(post().to(reload::reload)))
        .service(only_post("/api/v1/shards/{id}/release").route(post().to(shards::release)))
        .default_service(to(not_found));
}

fn only_get(path: &str) -> actix_web::Resource {
    resource(path).default_service(to(|| wrong_method(&[Method::GET])))
}

fn only_post(path: &str) -> actix_web::Resource {
    resource(path).default_service(to(|| wrong_method(&[Method::POST])))
}

async fn socket(
    request: HttpRequest,
    payload: Payload,
    query: Query<Opening>,
    entrance: Data<Entrance>,
) -> HttpResponse {
    websocket::open(&request, payload, query, entrance).unwrap_or_else(|refused| not_a_websocket(&refused))
}

/// RFC 9110 section 15.5.22, RFC 6455 section 4.4.
fn not_a_websocket(refused: &NoHandshake) -> HttpResponse {
    let status = if refused.is_upgrade { 400 } else { 426 };
    let message = format!("GET /gateway opens a WebSocket (RFC 6455): {}", refused.reason);
    let mut response = error(status, "websocket_expected", &message);
    let headers = response.headers_mut();
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
    response
}

async fn not_found() -> HttpResponse {
    error(404, "not_found", "nothing is here; GET / lists what there is")
}

fn wrong_method(allowed: &'static [Method]) -> std::future::Ready<HttpResponse> {
    let allowed: Vec<&str> = allowed.iter().map(Method::as_str).collect();
    let allowed = allowed.join(", ");
    let mut response = error(405, "method_not_allowed", &format!("allowed here: {allowed}"));
    if let Ok(value) = allowed.parse() {
        response.headers_mut().insert(ALLOW, value);
    }
    std::future::ready(response)
}
