//! What a request shows of who sends it: a token, a client certificate, and where it comes from.

use std::rc::Rc;
use std::sync::Arc;

use actix_web::HttpRequest;
use actix_web::http::header::{AUTHORIZATION, HeaderMap};

use super::client::client_of;
use super::entrance::{Arrival, Entrance};
use super::stream::ClientCertificate;
use crate::auth::{Shown, Unauthorized};
use crate::protocol::op::Hidden;
use crate::state::grant::Grant;
use crate::state::peer::Peer;
use crate::state::tally::Turned;

/// Of one request.
pub(crate) struct Showing {
    pub(crate) peer: Peer,
    /// The token of `Authorization: Bearer` (RFC 6750 section 2.1).
    bearer: Option<Hidden>,
    certificate: Option<ClientCertificate>,
}

impl Showing {
    /// `None`: nobody knows where it comes from.
    pub(crate) fn of(request: &HttpRequest) -> Option<Self> {
        Some(Self {
            peer: client_of(request)?,
            bearer: bearer(request.headers()),
            certificate: request.conn_data::<ClientCertificate>().filter(|_| is_its_own(request)).cloned(),
        })
    }

    /// What it permits beside a ticket: `None` where it shows no credential, or only a certificate that
    /// stands for none.
    pub(crate) fn beside_ticket(&self, entrance: &Entrance) -> Result<Option<Arc<Grant>>, Unauthorized> {
        if self.bearer.is_some() {
            return self.authenticate(None, entrance).map(Some);
        }
        let name = self.certificate.as_ref().map(|certificate| certificate.common_name.as_str());
        Ok(name.and_then(|name| entrance.auth.of_certificate(name)))
    }

    /// What it permits, or everybody's rights where no credentials are in use. `token` is one that was
    /// shown in another way, and stands above. A failure is counted and logged, without the token.
    pub(crate) fn authenticate(
        &self,
        token: Option<&Hidden>,
        entrance: &Entrance,
    ) -> Result<Arc<Grant>, Unauthorized> {
        let shown = Shown {
            token: token.or(self.bearer.as_ref()).map(Hidden::reveal),
            certificate: self.certificate.as_ref().map(|certificate| certificate.common_name.as_str()),
        };
        entrance.auth.authenticate(shown, self.peer).inspect_err(|unauthorized| {
            if unauthorized.retry_after.is_some() {
                entrance.turn_away(Turned::TooManyFailures);
            } else {
                entrance.turn_away(Turned::Unauthorized);
                log::warn!("{} showed no valid credential", self.peer);
            }
        })
    }
}

/// Whether the connection is the client's own: a proxy's certificate is not that of its clients.
fn is_its_own(request: &HttpRequest) -> bool {
    let arrival = request.conn_data::<Rc<Arrival>>().map(|arrival| arrival.peer());
    arrival == client_of(request)
}

/// Where there is one such header.
fn bearer(headers: &HeaderMap) -> Option<Hidden> {
    let mut values = headers.get_all(AUTHORIZATION);
    let (Some(value), None) = (values.next(), values.next()) else { return None };
    let (scheme, token) = value.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| Hidden::new(token.trim()))
}
