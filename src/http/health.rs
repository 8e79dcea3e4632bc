//! Health, readiness and metrics.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use actix_web::HttpResponse;
use actix_web::web::Data;

use super::body::error;
use super::report::turn;
use super::services::word;
use super::shard_metrics;
use crate::actors::gateway::{ListServices, Ping, ReportShards, ServiceState};
use crate::logging;
use crate::metrics::{Exposition, Kind};
use crate::networker::entrance::Entrance;

/// How long the gateway actor may take to answer before it is not ready.
const READY_TIMEOUT: Duration = Duration::from_secs(1);

/// It serves, or this would not be answered.
pub(super) async fn healthz() -> &'static str {
    "ok\n"
}

/// Whether it takes services.
pub(super) async fn readyz(entrance: Data<Entrance>) -> HttpResponse {
    if entrance.routes.is_draining() {
        return error(503, "draining", "the gateway is stopping");
    }
    if let Some(trouble) = entrance.routes.shared().store.trouble(Instant::now()) {
        return error(503, "store_failing", &format!("no shard id is granted: {trouble}"));
    }
    match tokio::time::timeout(READY_TIMEOUT, entrance.gateway.send(Ping)).await {
        Ok(Ok(())) => HttpResponse::Ok().body("ok\n"),
        _ => error(503, "not_ready", "the gateway's registry does not answer"),
    }
}

/// Everything that is counted, in Prometheus's text format.
pub(super) async fn metrics(entrance: Data<Entrance>) -> HttpResponse {
    let turn = match turn(&entrance).await {
        Ok(turn) => turn,
        Err(busy) => return busy,
    };
    let mut exposition = Exposition::default();
    exposition.accounts(&entrance.routes.shared().accounts.snapshot());
    entrance_metrics(&mut exposition, &entrance);
    if let Ok(Some(services)) = entrance.gateway.send(ListServices { only: None }).await {
        let states = [ServiceState::Up, ServiceState::Away, ServiceState::Stopping]
            .map(|state| (word(state), services.iter().filter(|view| view.state == state).count() as u64));
        exposition.by_label("gateway_sessions", Kind::Gauge, "Sessions by state.", "state", states);
    }
    let report = entrance.gateway.send(ReportShards).await.ok().flatten();
    exposition.one(
        "gateway_shards_reported",
        Kind::Gauge,
        "0: the metrics of shard ids are left out, since data_dir does not answer.",
        u64::from(report.is_some()),
    );
    if let Some(report) = report {
        shard_metrics::write(&mut exposition, &report);
    }
    let mut response = HttpResponse::Ok();
    response.content_type("text/plain; version=0.0.4; charset=utf-8");
    turn.answer(response, exposition.into_text())
}

fn entrance_metrics(exposition: &mut Exposition, entrance: &Entrance) {
    let shared = entrance.routes.shared();
    let connections = entrance.connections().now();
    exposition.one(
        "gateway_connections",
        Kind::Gauge,
        "WebSocket connections, identified or not.",
        connections,
    );
    let held = shared.total.held();
    exposition.one("gateway_mailbox_bytes", Kind::Gauge, "Bytes reserved in all mailboxes together.", held);
    exposition.one(
        "gateway_log_lines_dropped_total",
        Kind::Counter,
        "Log lines that were dropped since nobody read the log.",
        logging::dropped(),
    );
    let errors = shared.errors.iter().map(|(code, count)| (code.as_str(), count));
    exposition.by_label("gateway_errors_sent_total", Kind::Counter, "ERRORs sent, by code.", "code", errors);
    let closes = shared.closes.by_code().into_iter().map(|(code, count)| (code.to_string(), count));
    exposition.by_label(
        "gateway_closes_total",
        Kind::Counter,
        "Connections closed, by code.",
        "code",
        closes,
    );
    let held = shared.held.iter().map(|(why, count)| (why.as_str(), count));
    exposition.by_label(
        "gateway_held_total",
        Kind::Counter,
        "How often a connection was not read for a while, by why.",
        "why",
        held,
    );
    let turned = shared.turned.iter().map(|(why, count)| (why.as_str(), count));
    exposition.by_label(
        "gateway_turned_away_total",
        Kind::Counter,
        "Connections that never became a service and requests that were not answered as asked, by why.",
        "why",
        turned,
    );
    let panics = shared.panics.iter().map(|(part, count)| (part.as_str(), count));
    exposition.one(
        "gateway_store_failures_total",
        Kind::Counter,
        "Writes to data_dir that failed and were tried again.",
        shared.store.failures(),
    );
    exposition.by_label("gateway_panics_total", Kind::Counter, "Panics caught, by where.", "part", panics);
    exposition.one(
        "gateway_discord_token_rejected",
        Kind::Gauge,
        "1: Discord does not take the bot's token, and is not asked any more.",
        u64::from(shared.discord_token_rejected.load(Ordering::Relaxed)),
    );
    let warned = shared.warned.iter().map(|(what, count)| (what.as_str(), count));
    exposition.by_label(
        "gateway_shard_warnings_total",
        Kind::Counter,
        "Warnings about shard ids, by what.",
        "what",
        warned,
    );
    exposition.by_label(
        "gateway_build_info",
        Kind::Gauge,
        "The gateway's version.",
        "version",
        [(env!("CARGO_PKG_VERSION"), 1)],
    );
}
