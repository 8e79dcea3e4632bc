//! Refuses what a web page could have sent, and finds out who asks.
//!
//! Any page that a browser on this machine shows can reach a loopback port: directly, which its
//! `Origin` tells, or by a name of its own that resolves to 127.0.0.1, which `Host` tells. (OWASP:
//! cross-site WebSocket hijacking; DNS rebinding.) Every host that a request names has to be an
//! allowed one: by that other name, a page could also write what a trusted proxy would.
//!
//! A page of another host whose origin is listed may do all that its token permits ([`cors`]).

use std::rc::Rc;
use std::time::Duration;

use actix_web::body::{BoxBody, MessageBody};
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::http::StatusCode;
use actix_web::http::header::{HeaderMap, ORIGIN};
use actix_web::middleware::Next;
use actix_web::web::Data;
use actix_web::{Error, HttpMessage, HttpRequest, HttpResponse};

use super::body::error;
use super::cors;
use crate::config::{AllowedHosts, AllowedOrigins, Config, Host, TrustedProxies, WebOrigin};
use crate::networker::client::Client;
use crate::networker::entrance::{Arrival, Entrance};
use crate::state::tally::Turned;

/// How long an answer may take to be read.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// Under which hosts the gateway may be reached, from which pages, and who is believed about that.
#[derive(Debug, Clone)]
pub(crate) struct Hosts {
    allowed: AllowedHosts,
    origins: AllowedOrigins,
    proxies: TrustedProxies,
    on_loopback: bool,
}

/// Why a request is not looked at.
#[derive(Debug, PartialEq, Eq)]
enum Refusal {
    Malformed(String),
    ForeignPage(String),
}

impl Hosts {
    pub(crate) fn new(config: &Config) -> Self {
        Self {
            allowed: config.allowed_hosts.clone(),
            origins: config.allowed_origins.clone(),
            proxies: config.trusted_proxies.clone(),
            on_loopback: config.listen.ip().to_canonical().is_loopback(),
        }
    }

    /// Who asks, if it may, and the page of another host by which it does.
    fn check(&self, request: &HttpRequest) -> Result<(Client, Option<WebOrigin>), Refusal> {
        let client = Client::of(request, &self.proxies).map_err(Refusal::Malformed)?;
        // No browser reaches the Unix domain socket, and there is no other name for it.
        let is_local = |host: &Host| client.is_local_user() && host.is_loopback();
        let allow = |host: &Host| is_local(host) || self.allowed.allow(host, self.on_loopback);
        if !client.hosts.iter().all(allow) {
            let expected = if self.on_loopback {
                "this gateway listens on loopback: Host must be localhost, 127.0.0.1 or [::1], or one of allowed_hosts"
            } else {
                "Host must be one of allowed_hosts"
            };
            return Err(Refusal::ForeignPage(expected.to_owned()));
        }
        match origin(request.headers())? {
            Some(origin) if !self.origins.allow(&origin, &client.own_origin) => {
                let own = &client.own_origin;
                Err(Refusal::ForeignPage(format!(
                    "a web page from {origin} may not use this gateway, which is {own} to it (allowed_origins, \
                     trusted_proxies)"
                )))
            }
            origin => {
                let foreign = origin.filter(|origin| *origin != client.own_origin);
                Ok((client, foreign))
            }
        }
    }
}

/// The middleware.
pub(crate) async fn guard(
    hosts: Data<Hosts>,
    entrance: Data<Entrance>,
    request: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse<BoxBody>, Error> {
    let Some(arrival) = request.conn_data::<Rc<Arrival>>() else {
        let message = "the gateway has no descriptor left for this connection";
        return Ok(request.into_response(error(503, "unavailable", message)));
    };
    arrival.asked();
    let (client, page) = match hosts.check(request.request()) {
        Ok(admitted) => admitted,
        Err(refusal) => {
            let response = refused(&refusal, &entrance);
            return Ok(request.into_response(response));
        }
    };
    request.extensions_mut().insert(client);
    let is_preflight = page.is_some() && cors::is_preflight(request.method(), request.headers());
    let mut response = if is_preflight {
        request.into_response(cors::preflight())
    } else {
        next.call(request).await?.map_into_boxed_body()
    };
    if let Some(page) = page {
        cors::allow(&page, response.headers_mut());
    }
    if response.status() != StatusCode::SWITCHING_PROTOCOLS
        && let Some(arrival) = response.request().conn_data::<Rc<Arrival>>()
    {
        arrival.cut_off_after(ANSWER_TIMEOUT);
    }
    Ok(response)
}

fn refused(refusal: &Refusal, entrance: &Entrance) -> HttpResponse {
    let (status, code, message, why) = match refusal {
        Refusal::Malformed(message) => (400, "bad_request", message, Turned::MalformedHead),
        Refusal::ForeignPage(message) => (403, "forbidden", message, Turned::ForeignPage),
    };
    entrance.turn_away(why);
    log::debug!("a request was refused: {message}");
    error(status, code, message)
}

/// The page that a request is from, if it is from one.
fn origin(headers: &HeaderMap) -> Result<Option<WebOrigin>, Refusal> {
    let mut values = headers.get_all(ORIGIN);
    let value = match (values.next(), values.next()) {
        (None, _) => return Ok(None),
        (Some(value), None) => value,
        (Some(_), Some(_)) => {
            return Err(Refusal::Malformed("a request may have one Origin header".to_owned()));
        }
    };
    // `null`, which is sent for a page of a file or a sandbox, is nobody's.
    let origin = value.to_str().ok().and_then(WebOrigin::parse);
    let message = "a web page must have an origin, such as https://bots.example (allowed_origins)";
    origin.map(Some).ok_or_else(|| Refusal::ForeignPage(message.to_owned()))
}

#[cfg(test)]
mod tests;
