//! `POST /gateway`: a service asks by HTTP whether it would be accepted, and gets a ticket.

use actix_web::http::StatusCode;
use actix_web::http::header::ContentType;
use actix_web::web::{Data, Payload};
use actix_web::{HttpRequest, HttpResponse};

use super::body::{error, json_body};
use crate::actors::gateway::{LOOKS, NEXT_LOOK, PostIdentify, unauthorized};
use crate::networker::entrance::Entrance;
use crate::networker::showing::Showing;
use crate::protocol::envelope::Route;
use crate::protocol::error::RejectCode;
use crate::protocol::name::Name;
use crate::protocol::op::{self, Accept, GatewayOp, Reject, ServiceOp};
use crate::protocol::scan::{Limits, scan};

pub(super) async fn post(request: HttpRequest, payload: Payload, entrance: Data<Entrance>) -> HttpResponse {
    let body = match json_body(&request, payload, &entrance).await {
        Ok(body) => body,
        Err(refusal) => return refusal,
    };
    let Some(showing) = Showing::of(&request) else {
        return error(503, "unavailable", "the gateway has no descriptor left for this connection");
    };
    let limits = Limits { max_depth: entrance.config.max_depth };
    let (name, identify) = match parse(&body, limits) {
        Ok(parsed) => parsed,
        Err(reject) => return answer(&GatewayOp::Reject(reject)),
    };
    let grant = match showing.authenticate(identify.token.as_ref(), &entrance) {
        Ok(grant) => grant,
        Err(refused) => return answer(&GatewayOp::Reject(unauthorized(refused.retry_after))),
    };
    if let Err(reject) = entrance.may_be(&grant, &name) {
        return answer(&GatewayOp::Reject(reject));
    }
    match ask(&entrance, PostIdentify { name, identify, grant, address: showing.peer }).await {
        Ok(Ok(accept)) => answer(&GatewayOp::Accept(accept)),
        Ok(Err(reject)) => answer(&GatewayOp::Reject(reject)),
        Err(_) => error(503, "unavailable", "the gateway is restarting a part of itself; try again"),
    }
}

/// Asks again after a moment where the name seems to be taken, as for a WebSocket.
async fn ask(
    entrance: &Entrance,
    message: PostIdentify,
) -> Result<Result<Accept, Reject>, actix::MailboxError> {
    for _ in 1..LOOKS {
        let answer = entrance.gateway.send(message.clone()).await;
        if !matches!(&answer, Ok(Err(reject)) if reject.code == RejectCode::AlreadyConnected) {
            return answer;
        }
        tokio::time::sleep(NEXT_LOOK).await;
    }
    entrance.gateway.send(message).await
}

fn parse(body: &[u8], limits: Limits) -> Result<(Name, op::Identify), Reject> {
    let text = std::str::from_utf8(body).map_err(|_| malformed("the body must be UTF-8"))?;
    let envelope = scan(text, limits).map_err(|reason| malformed(reason.to_string()))?;
    if envelope.route() != Route::Op {
        return Err(malformed("the body must be an IDENTIFY message: topic gateway:opcode, d.opcode 0"));
    }
    let identify = match ServiceOp::parse(envelope.data()) {
        Ok(ServiceOp::Identify(identify)) => identify,
        Ok(_) => return Err(malformed("`d.opcode` must be 0, IDENTIFY")),
        Err(error) => return Err(malformed(error.message)),
    };
    let name = Name::new(&envelope.source().decode()).map_err(|invalid| Reject {
        code: RejectCode::InvalidName,
        message: format!("`s`: {invalid}"),
        retry_after_ms: None,
    })?;
    Ok((name, identify))
}

fn malformed(message: impl Into<String>) -> Reject {
    Reject { code: RejectCode::Malformed, message: message.into(), retry_after_ms: None }
}

fn answer(op: &GatewayOp) -> HttpResponse {
    let status = match op {
        GatewayOp::Reject(reject) => reject.code.http_status(),
        _ => 200,
    };
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    HttpResponse::build(status).content_type(ContentType::json()).body(op.to_json())
}
