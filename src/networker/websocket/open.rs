//! The handshake: how a request becomes a connection.

use std::rc::Rc;

use actix_web::http::header;
use actix_web::web::{Data, Payload, Query};
use actix_web::{HttpRequest, HttpResponse, HttpResponseBuilder};
use actix_web_actors::ws::{self, WebsocketContext};
use futures_util::stream;
use serde::Deserialize;

use super::Connection;
use crate::networker::bursts::Bursts;
use crate::networker::entrance::{Arrival, Entrance, REFUSED_AT_ONCE};
use crate::networker::outgoing::Body;
use crate::networker::showing::Showing;
use crate::networker::throttle::Throttle;
use crate::protocol::op::Hidden;
use crate::state::tally::Turned;

/// The query of `GET /gateway`.
#[derive(Debug, Deserialize)]
pub(crate) struct Opening {
    pub(super) ticket: Option<Hidden>,
}

/// The request was no handshake of a WebSocket.
pub(crate) struct NoHandshake {
    pub(crate) reason: String,
    /// It asked for a WebSocket of this version, but not as it should.
    pub(crate) is_upgrade: bool,
}

impl From<ws::HandshakeError> for NoHandshake {
    fn from(error: ws::HandshakeError) -> Self {
        Self { reason: error.to_string(), is_upgrade: matches!(error, ws::HandshakeError::BadWebsocketKey) }
    }
}

/// `GET /gateway`: the handshake.
pub(crate) fn open(
    request: &HttpRequest,
    payload: Payload,
    query: Query<Opening>,
    entrance: Data<Entrance>,
) -> Result<HttpResponse, NoHandshake> {
    let mut response = ws::handshake(request)?;
    if request.headers().contains_key(header::TRANSFER_ENCODING) {
        // The server takes what follows for a body, and would write the answer as one.
        let reason = "a handshake has no Transfer-Encoding".to_owned();
        return Err(NoHandshake { reason, is_upgrade: true });
    }
    let over = entrance.connections().now().saturating_sub(entrance.config.max_connections as u64);
    let (arrival, showing) = (request.conn_data::<Rc<Arrival>>().cloned(), Showing::of(request));
    let (Some(arrival), Some(showing)) = (arrival, showing) else {
        return Ok(HttpResponse::ServiceUnavailable()
            .body("the gateway has no descriptor left for this connection\n"));
    };
    if over > REFUSED_AT_ONCE as u64 {
        entrance.turn_away(Turned::AtCapacity);
        return Ok(
            HttpResponse::ServiceUnavailable().body("there are more than max_connections connections\n")
        );
    }
    Ok(start(
        &mut response,
        payload,
        Connection::new(entrance.into_inner(), arrival, query.into_inner(), showing),
    ))
}

fn start(response: &mut HttpResponseBuilder, payload: Payload, mut connection: Connection) -> HttpResponse {
    let max_message_bytes = connection.entrance.config.max_message_bytes;
    let Entrance { config, routes, .. } = &*connection.entrance;
    let throttle = Throttle::new(config, routes.shared().clone(), connection.life.clone());
    connection.bursts = Some(Bursts::new(payload, max_message_bytes, connection.gate.clone(), throttle));
    let (outgoing, life) = (connection.outgoing.clone(), connection.life.clone());
    // Its own stream of messages is slow (few frames for each wake-up); ours takes its place.
    let actor = WebsocketContext::create(connection, stream::pending());
    response.streaming(Body::new(actor, outgoing, life))
}
