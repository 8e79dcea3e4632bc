//! The whole gateway: the only file that knows every part.

use std::io;
use std::net::TcpListener;
use std::os::fd::AsFd;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use actix::{Addr, Arbiter, Context, Supervisor};
use actix_web::dev::{Extensions, ServerHandle};
use actix_web::middleware::from_fn;
use actix_web::web::Data;
use actix_web::{App, HttpServer};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tokio::net::TcpStream;
use tokio::sync::{oneshot, watch};

use crate::actors::gateway::{Drain, Gateway};
use crate::config::Config;
use crate::http;
use crate::networker::websocket::Entrance;
use crate::routes::{Routes, ShardTable};
use crate::socket::Socket;
use crate::state::account::Accounts;
use crate::state::gauge::Total;
use crate::state::route::Shared;
use crate::state::tally::{CloseTally, ConnectionTally, ErrorTally, PanicTally};
use crate::state::waiting_room::WaitingRoom;

/// Descriptors that are not for services: listeners, epoll, and twice [`SPARE_CONNECTIONS`].
const SPARE_DESCRIPTORS: u64 = 1024;

/// Connections beyond `max_connections`: HTTP requests, and services that are told why they are
/// refused. Beyond them nothing is accepted until one ends.
const SPARE_CONNECTIONS: usize = 384;

/// How long an idle HTTP connection is kept, and how long a closing one is waited for.
const KEEP_ALIVE: Duration = Duration::from_secs(30);
const DISCONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// Runs the gateway on `listener` until `shutdown` resolves, then stops it as the protocol says.
/// To be called in an actix system.
pub async fn run(
    config: Config,
    listener: TcpListener,
    shutdown: impl Future<Output = ()>,
) -> io::Result<()> {
    let config = Arc::new(within_descriptor_limit(config)?);
    let shared = Arc::new(Shared {
        accounts: Accounts::new(config.max_account_names),
        total: Total::new(config.mailbox_total_bytes),
        errors: ErrorTally::default(),
        closes: CloseTally::default(),
        connections: ConnectionTally::default(),
        panics: PanicTally::default(),
    });
    let routes = Arc::new(Routes::new(ShardTable::new(config.shards), shared));
    let gateway_arbiter = Arbiter::new();
    let (close_all, closing) = watch::channel(false);
    let gateway = Gateway::new(config.clone(), routes.clone(), close_all);
    let gateway =
        Supervisor::start_in_arbiter(&gateway_arbiter.handle(), move |_: &mut Context<Gateway>| gateway);
    let entrance = Data::new(Entrance {
        config: config.clone(),
        gateway: gateway.clone(),
        routes,
        next_connection: AtomicU64::new(1),
        closing,
        unidentified: Mutex::new(WaitingRoom::new(config.max_unidentified)),
    });
    log::info!("listening on {}", listener.local_addr()?);
    let server = start_server(&config, listener, entrance)?;
    let handle = server.handle();
    let mut serving = actix_rt::spawn(server);
    tokio::select! {
        () = shutdown => stop(&gateway, &handle).await,
        ended = &mut serving => return ended.map_err(io::Error::other)?,
    }
    let _ = serving.await;
    gateway_arbiter.stop();
    Ok(())
}

fn start_server(
    config: &Config,
    listener: TcpListener,
    entrance: Data<Entrance>,
) -> io::Result<actix_web::dev::Server> {
    let hosts = Data::new(http::guard::Hosts::new(config));
    let for_each_worker = (config.max_connections + SPARE_CONNECTIONS).div_ceil(config.workers);
    let user_timeout = config.stuck * 2;
    let server = HttpServer::new(move || {
        App::new()
            .app_data(entrance.clone())
            .app_data(hosts.clone())
            .wrap(from_fn(http::guard::guard))
            .configure(http::routes)
    })
    .workers(config.workers)
    .max_connections(for_each_worker)
    .tcp_nodelay(true)
    .keep_alive(KEEP_ALIVE)
    .client_request_timeout(config.identify_timeout)
    .client_disconnect_timeout(DISCONNECT_TIMEOUT)
    .disable_signals()
    .shutdown_timeout(1)
    .on_connect(move |stream, extensions| {
        if let Some(stream) = stream.downcast_ref::<TcpStream>() {
            remember_socket(stream, user_timeout, extensions);
        }
    })
    .listen(listener)?;
    Ok(server.run())
}

/// Keeps a second hold on the socket for the connection that may come of it.
fn remember_socket(stream: &impl AsFd, user_timeout: Duration, extensions: &mut Extensions) {
    match Socket::duplicate(stream) {
        Ok(socket) => {
            socket.set_user_timeout(user_timeout);
            extensions.insert(Arc::new(socket));
        }
        Err(error) => log::warn!("a connection's descriptor could not be duplicated: {error}"),
    }
}

async fn stop(gateway: &Addr<Gateway>, server: &ServerHandle) {
    log::info!("stopping");
    let (done, is_done) = oneshot::channel();
    gateway.do_send(Drain { done });
    let _ = is_done.await;
    server.stop(true).await;
    log::info!("stopped");
}

/// Raises the limit of open descriptors as far as it goes, and lowers `max_connections` to what
/// it allows.
fn within_descriptor_limit(mut config: Config) -> io::Result<Config> {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
    // Each connection takes two: the server's and our own hold on it.
    let allowed = usize::try_from(hard.saturating_sub(SPARE_DESCRIPTORS) / 2).unwrap_or(usize::MAX).max(1);
    if allowed < config.max_connections {
        log::warn!(
            "max_connections is lowered from {} to {allowed}: the process may open {hard} files (ulimit -n)",
            config.max_connections
        );
        config.max_connections = allowed;
    }
    Ok(config)
}
