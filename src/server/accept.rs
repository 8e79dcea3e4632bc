//! How a connection gets in, from when it was accepted until the HTTP server has it.
//!
//! The HTTP server is put together from its parts here, since `HttpServer` tells of a connection
//! only after its TLS handshake: until then it would wait in no waiting room, and nobody could end it.

use std::io;
use std::net;
use std::os::unix;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use actix_http::body::MessageBody;
use actix_http::error::DispatchError;
use actix_http::{HttpService, Request};
use actix_service::{
    IntoServiceFactory, ServiceFactory, ServiceFactoryExt, fn_factory, fn_service, map_config,
};
use actix_web::dev::{AppConfig, ServiceResponse};
use actix_web::http::KeepAlive;
use actix_web::middleware::from_fn;
use actix_web::web::Data;
use actix_web::{App, HttpResponse};
use futures_util::TryFutureExt;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpStream, UnixStream};

use super::tls::{Handshake, Tls};
use super::unix::Users;
use crate::http;
use crate::networker::entrance::{Arrival, Entrance};
use crate::networker::stream::{ClientCertificate, Stream, Transport};
use crate::networker::upgraded::serve;
use crate::state::peer::Peer;
use crate::state::tally::Turned;

/// How long a closing connection is waited for.
const DISCONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// How long somebody who may not come has to read why.
const REFUSAL_TIMEOUT: Duration = Duration::from_secs(1);

/// A connection that the HTTP server may have. It asks for an address beside it, which nothing here
/// looks at: [`Arrival::peer`] is that.
type LetIn = (Stream, Option<std::net::SocketAddr>);

/// The connections of the TCP listener, with TLS where that is set.
pub(super) fn tcp(
    entrance: Data<Entrance>,
    hosts: Data<http::guard::Hosts>,
    tls: Option<Arc<Tls>>,
) -> impl ServiceFactory<net::TcpStream, Config = (), Response = (), Error = DispatchError, InitError = ()> {
    let arrivals = entrance.clone().into_inner();
    fn_service(move |stream: net::TcpStream| {
        let (arrivals, tls) = (arrivals.clone(), tls.clone());
        async move { over_tcp(stream, &arrivals, tls.as_deref()).await }
    })
    .and_then(server(entrance, hosts))
}

/// The connections of the Unix domain socket, by these users.
pub(super) fn unix(
    entrance: Data<Entrance>,
    hosts: Data<http::guard::Hosts>,
    users: Arc<Users>,
) -> impl ServiceFactory<unix::net::UnixStream, Config = (), Response = (), Error = DispatchError, InitError = ()>
{
    let arrivals = entrance.clone().into_inner();
    fn_service(move |stream: unix::net::UnixStream| {
        let (arrivals, users) = (arrivals.clone(), users.clone());
        async move { over_unix(stream, &arrivals, &users).await }
    })
    .and_then(server(entrance, hosts))
}

/// HTTP/1.1 on connections that were let in.
fn server(
    entrance: Data<Entrance>,
    hosts: Data<http::guard::Hosts>,
) -> impl ServiceFactory<LetIn, Config = (), Response = (), Error = DispatchError, InitError = ()> {
    let handshake_timeout = entrance.config.handshake_timeout;
    let upgraded = Rc::new(app(entrance.clone(), hosts.clone()));
    HttpService::build()
        // One request for each connection: the server times the head of the first one only.
        .keep_alive(KeepAlive::Disabled)
        .client_request_timeout(handshake_timeout)
        .client_disconnect_timeout(DISCONNECT_TIMEOUT)
        .on_connect_ext(|stream: &Stream, data| stream.introduce(data))
        // Requests for a WebSocket, whose connection the server then has no part in.
        .upgrade(fn_factory(move || {
            let upgraded = upgraded.clone();
            async move {
                let app = Rc::new(upgraded.new_service(()).await?);
                Ok::<_, ()>(fn_service(move |(request, framed)| {
                    serve(app.clone(), request, framed, DISCONNECT_TIMEOUT).map_err(actix_web::Error::from)
                }))
            }
        }))
        .h1(app(entrance, hosts))
}

/// What is answered, on whichever connection.
fn app(
    entrance: Data<Entrance>,
    hosts: Data<http::guard::Hosts>,
) -> impl ServiceFactory<
    Request,
    Config = (),
    Response = ServiceResponse<impl MessageBody>,
    Error = HttpResponse,
    InitError = (),
> {
    let app = App::new()
        .app_data(entrance)
        .app_data(hosts)
        .wrap(from_fn(http::permission::permission))
        .wrap(from_fn(http::guard::guard))
        .configure(http::routes)
        .into_factory()
        .map_err(|error: actix_web::Error| error.error_response());
    map_config(app, |()| AppConfig::default())
}

async fn over_tcp(
    stream: net::TcpStream,
    entrance: &Arc<Entrance>,
    tls: Option<&Tls>,
) -> Result<LetIn, DispatchError> {
    let stream = TcpStream::from_std(stream).inspect_err(log_lost)?;
    let peer = Peer::Address(stream.peer_addr()?.ip().to_canonical());
    let _ = stream.set_nodelay(true);
    let arrival = Arrival::let_in(&stream, peer, entrance);
    let Some(tls) = tls else { return Ok((Stream::new(Transport::Tcp(stream), arrival, None), None)) };
    let time = entrance.config.handshake_timeout;
    match tls.accept(stream, time).await {
        Ok(Handshake { stream, common_name }) => {
            let certificate = common_name.map(|common_name| ClientCertificate { common_name });
            Ok((Stream::new(Transport::Tls(Box::new(stream)), arrival, certificate), None))
        }
        Err(error) => {
            log::debug!("the TLS handshake with {peer} failed: {error}");
            // What is no TLS, or no good TLS. Who only went is told apart.
            if let Some(arrival) = arrival
                && error.kind() == io::ErrorKind::InvalidData
            {
                arrival.turn_away(Turned::TlsHandshake);
            }
            Err(error.into())
        }
    }
}

async fn over_unix(
    stream: unix::net::UnixStream,
    entrance: &Arc<Entrance>,
    users: &Users,
) -> Result<LetIn, DispatchError> {
    let stream = UnixStream::from_std(stream).inspect_err(log_lost)?;
    let uid = stream.peer_cred()?.uid();
    let arrival = Arrival::let_in(&stream, Peer::User(uid), entrance);
    if users.contains(uid) {
        return Ok((Stream::new(Transport::Unix(stream), arrival, None), None));
    }
    log::debug!("user {uid} came by the Unix domain socket and is none of unix_uids");
    if let Some(arrival) = arrival {
        arrival.turn_away(Turned::ForeignUser);
        let _ = tokio::time::timeout(REFUSAL_TIMEOUT, refuse(stream, uid)).await;
    }
    Err(io::Error::from(io::ErrorKind::PermissionDenied).into())
}

/// It was accepted, and then the thread could not take it.
fn log_lost(error: &io::Error) {
    log::error!("a connection cannot be served: {error}");
}

/// Says why, and reads what comes: a socket that is closed over unread bytes is reset, and the
/// answer may be lost.
async fn refuse(mut stream: UnixStream, uid: u32) -> io::Result<()> {
    stream.write_all(refusal(uid).as_bytes()).await?;
    stream.shutdown().await?;
    tokio::io::copy(&mut stream, &mut tokio::io::sink()).await.map(drop)
}

/// What a user is told who may not come, before anything was read.
fn refusal(uid: u32) -> String {
    let body = format!(
        r#"{{"error":{{"code":"forbidden","message":"user {uid} may not use this socket (unix_uids)"}}}}"#
    );
    format!(
        "HTTP/1.1 403 Forbidden\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\
         Connection: close\r\n\r\n{body}",
        body.len()
    )
}
