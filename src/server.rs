//! The whole gateway: the only file that knows every part.

mod accept;
mod listeners;
mod reload;
mod restore;
mod tls;
mod unix;

use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use actix::{Addr, Arbiter, Context, Supervisor};
use actix_server::{Server, ServerHandle};
use actix_web::web::Data;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tokio::sync::{oneshot, watch};

use self::unix::{SocketFile, Users};
use crate::actors::gateway::{CredentialsChanged, DiscordAnswered, Drain, Gateway};
use crate::auth::Auth;
use crate::config::{Config, ShardCount};
use crate::discord;
use crate::http;
use crate::networker::entrance::{Entrance, REFUSED_AT_ONCE};
use crate::reload::Reloadable;
use crate::routes::{Routes, ShardTable};
use crate::state::account::{Accounts, Balance};
use crate::state::route::Shared;

pub use self::listeners::{ListenError, Listeners};
pub use self::restore::{Found, RestoreError, find};

/// Descriptors that are not for connections: listener, epoll, log.
const SPARE_DESCRIPTORS: u64 = 128;

/// Of the descriptors that connections may have, those that have not identified get at most one in
/// so many where the limit is tight.
const UNIDENTIFIED_SHARE: usize = 4;

/// How often it is looked whether connections have waited too long to identify.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// Runs the gateway on `listeners` until `shutdown` resolves, then stops it as the protocol says.
/// `found` comes from [`find`] with the same settings. To be called in an actix system.
pub async fn run(
    config: Config,
    auth: Auth,
    found: Found,
    listeners: Listeners,
    shutdown: impl Future<Output = ()>,
) -> io::Result<()> {
    let mut shutdown = pin!(shutdown);
    let mut config = within_descriptor_limit(config)?;
    // Before Discord is waited for: whoever renews a certificate does not know of that.
    let hangups = reload::catch(auth.is_in_use() || config.tls_cert.is_some());
    let discord = tokio::select! {
        discord = ask_discord(&mut config, &found) => discord?,
        () = &mut shutdown => return Ok(()),
    };
    let config = Arc::new(config);
    let auth = Arc::new(auth);
    let shared = Arc::new(Shared::new(config.max_account_names, config.mailbox_total_bytes));
    let restored =
        found.restore(&config).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
    let routes = Arc::new(Routes::new(ShardTable::of(restored.pool.holders()), shared));
    let (gateway_arbiter, allocator_arbiter) = (Arbiter::new(), Arbiter::new());
    let (close_all, closing) = watch::channel(false);
    let accounts = routes.clone();
    let gateway = Gateway::new(
        config.clone(),
        auth.clone(),
        routes.clone(),
        close_all,
        restored,
        allocator_arbiter.handle(),
    );
    let gateway =
        Supervisor::start_in_arbiter(&gateway_arbiter.handle(), move |_: &mut Context<Gateway>| gateway);
    follow_discord(discord, gateway.clone());
    let mut reloadable = listeners.reloadable();
    reloadable.extend(credentials(&auth, &gateway));
    let entrance = Entrance::new(config.clone(), auth, gateway.clone(), routes, closing, reloadable);
    let entrance = Data::new(entrance);
    let reloads = actix_rt::spawn(reload::at_hangup(hangups, entrance.clone().into_inner()));
    let room = actix_rt::spawn(keep_waiting_room(entrance.clone().into_inner()));
    let (server, socket_file) = start_server(&config, listeners, entrance)?;
    let handle = server.handle();
    let mut serving = actix_rt::spawn(server);
    tokio::select! {
        () = &mut shutdown => stop(&gateway, &handle).await,
        ended = &mut serving => return ended.map_err(io::Error::other)?,
    }
    let _ = serving.await;
    drop(socket_file);
    room.abort();
    reloads.abort();
    gateway_arbiter.stop();
    // The store closes with its actor.
    allocator_arbiter.stop();
    let _ = allocator_arbiter.join();
    log_account(&accounts.shared().accounts);
    Ok(())
}

/// The credentials, where they are in use: who has none that stands has to go.
fn credentials(auth: &Arc<Auth>, gateway: &Addr<Gateway>) -> Option<Reloadable> {
    let (auth, gateway) = (auth.clone(), gateway.clone());
    auth.is_in_use().then(|| Reloadable {
        name: "credentials",
        reload: Box::new(move || {
            auth.reload()?;
            gateway.do_send(CredentialsChanged);
            Ok(())
        }),
    })
}

/// What Discord allows, where there is a token: at first, where it is known, and from then on.
type Discord = Option<(Option<discord::Told>, discord::Answers)>;

async fn ask_discord(config: &mut Config, found: &Found) -> io::Result<Discord> {
    if config.shards == ShardCount::Auto && found.has_pool() {
        // The gateway never reshards by itself.
        config.shards = ShardCount::Stored;
    }
    let Some(mut answers) = discord::follow(config) else { return Ok(None) };
    let first = answers.first(&mut config.shards).await;
    let first = first.map_err(|refused| io::Error::new(io::ErrorKind::PermissionDenied, refused))?;
    // A stored pool has the number that it has.
    if let (Some(told), Some(count), false) = (&first, config.shards.fixed(), found.has_pool()) {
        told.check(count).map_err(|refused| io::Error::new(io::ErrorKind::InvalidInput, refused))?;
    }
    Ok(Some((first, answers)))
}

/// Before any service is let in, so that the first permits are counted already.
fn follow_discord(discord: Discord, gateway: Addr<Gateway>) {
    let Some((first, mut answers)) = discord else { return };
    let tell = move |discord::Told { limit, asked_at }| {
        gateway.do_send(DiscordAnswered { limit, asked_at });
    };
    first.into_iter().for_each(&tell);
    actix_rt::spawn(async move {
        while let Some(told) = answers.next().await {
            tell(told);
        }
    });
}

fn start_server(
    config: &Config,
    listeners: Listeners,
    entrance: Data<Entrance>,
) -> io::Result<(Server, Option<SocketFile>)> {
    let hosts = Data::new(http::guard::Hosts::new(config));
    let at_once = config.max_connections + config.max_unidentified + REFUSED_AT_ONCE;
    let for_each_worker = at_once.div_ceil(config.workers);
    let Listeners { tcp, tls, unix } = listeners;
    log::info!("listening on {}", tcp.local_addr()?);
    if tls.is_some() {
        log::info!("only TLS is spoken there");
    }
    let (room, names) = (entrance.clone(), hosts.clone());
    let mut server = Server::build()
        .workers(config.workers)
        .max_concurrent_connections(for_each_worker)
        .disable_signals()
        .shutdown_timeout(1)
        .listen("tcp", tcp, move || accept::tcp(room.clone(), names.clone(), tls.clone()))?;
    let mut file = None;
    if let Some((listener, made)) = unix {
        log::info!("listening on the socket {}", made.path().display());
        let users = Arc::new(Users::new(&config.unix_uids));
        let accept = move || accept::unix(entrance.clone(), hosts.clone(), users.clone());
        server = server.listen_uds("unix", listener, accept)?;
        file = Some(made);
    }
    Ok((server.run(), file))
}

/// Whoever has to leave may have waited for no newcomer.
async fn keep_waiting_room(entrance: Arc<Entrance>) {
    let mut look = tokio::time::interval(LOOK_INTERVAL);
    loop {
        look.tick().await;
        entrance.make_room();
    }
}

async fn stop(gateway: &Addr<Gateway>, server: &ServerHandle) {
    log::info!("stopping");
    let (done, is_done) = oneshot::channel();
    gateway.do_send(Drain { done });
    let _ = is_done.await;
    server.stop(true).await;
}

/// The last word: what became of every message.
fn log_account(accounts: &Accounts) {
    let mut sum = Balance::default();
    for row in accounts.snapshot() {
        log::debug!("from {} to {}: {}", row.source, row.target, row.balance);
        sum += row.balance;
    }
    log::info!("stopped; messages: {sum}");
    if !sum.queued.is_zero() {
        let queued = sum.queued.messages;
        log::error!("{queued} messages were still queued when the gateway had to end: they are lost");
    }
}

/// Raises the limit of open descriptors as far as it goes, and lowers `max_connections` and
/// `max_unidentified` to what it allows.
fn within_descriptor_limit(mut config: Config) -> io::Result<Config> {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
    // Each connection takes two: the server's and our own hold on it.
    let allowed = usize::try_from(hard.saturating_sub(SPARE_DESCRIPTORS) / 2).unwrap_or(usize::MAX);
    let unidentified = config.max_unidentified + REFUSED_AT_ONCE;
    if allowed >= config.max_connections.saturating_add(unidentified) {
        return Ok(config);
    }
    let unidentified = unidentified.min(allowed / UNIDENTIFIED_SHARE);
    let connections = config.max_connections.min(allowed - unidentified).max(1);
    log::warn!(
        "max_connections is lowered from {} to {connections}, max_unidentified from {} to {}: \
         the process may open {hard} files (ulimit -n)",
        config.max_connections,
        config.max_unidentified,
        config.max_unidentified.min(unidentified / 2).max(1),
    );
    config.max_connections = connections;
    config.max_unidentified = config.max_unidentified.min(unidentified / 2).max(1);
    Ok(config)
}
