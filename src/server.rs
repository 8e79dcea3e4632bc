//! The whole gateway: the only file that knows every part.

mod accept;
mod incoming;
mod listeners;
mod reload;
mod restore;
mod tls;
mod unix;
mod workers;

use std::convert::Infallible;
use std::future::pending;
use std::io;
use std::os::unix::net::UnixListener as StdUnixListener;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use actix::{Addr, Arbiter, Context, Supervisor};
use actix_web::web::Data;
use futures_util::FutureExt;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::{oneshot, watch};

use self::unix::{SocketFile, Users};
use self::workers::{Workers, stop_threads};
use crate::actors::gateway::{CredentialsChanged, DiscordAnswered, Drain, Gateway};
use crate::auth::Auth;
use crate::config::Config;
use crate::discord;
use crate::http;
use crate::networker::entrance::{Entrance, REFUSED_AT_ONCE};
use crate::reload::Reloadable;
use crate::routes::{Routes, ShardTable};
use crate::state::account::{Accounts, Balance};
use crate::state::route::Shared;

pub use self::listeners::{ListenError, Listeners};
pub use self::restore::{Found, RestoreError, find};
pub use self::workers::TooManyWorkers;

/// Descriptors that are not for connections: listener, epoll, log.
const SPARE_DESCRIPTORS: u64 = 128;

/// Of the descriptors that connections may have, those that have not identified get at most one in
/// so many where the limit is tight.
const UNIDENTIFIED_SHARE: usize = 4;

/// How often it is looked whether connections have waited too long to identify.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// How long connections are waited for that have not ended when all services were told.
const STOP_TIMEOUT: Duration = Duration::from_secs(1);

/// How long the store may take to close before the log says what is waited for.
const TELL_AFTER: Duration = Duration::from_secs(1);

/// Runs the gateway on `listeners` until `shutdown` resolves, then stops it as the protocol says.
/// `found` comes from [`find`] with the same settings. To be called in an actix system.
pub async fn run(
    config: Config,
    auth: Auth,
    found: Found,
    listeners: Listeners,
    shutdown: impl Future<Output = ()>,
) -> io::Result<()> {
    let mut shutdown = pin!(shutdown.fuse());
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
    follow_discord(discord, gateway.clone(), routes.clone());
    let mut reloadable = listeners.reloadable();
    reloadable.extend(credentials(&auth, &gateway));
    let entrance = Entrance::new(config.clone(), auth, gateway.clone(), routes, closing, reloadable);
    let entrance = Data::new(entrance);
    let reloads = actix_rt::spawn(reload::at_hangup(hangups, entrance.clone().into_inner()));
    let room = actix_rt::spawn(keep_waiting_room(entrance.clone().into_inner()));
    let workers = start_workers(&config)?;
    let mut drained = pin!(drain(&gateway));
    let served = serve(&workers, listeners, entrance, async {
        shutdown.as_mut().await;
        drained.as_mut().await;
    })
    .await;
    if served.is_err() {
        tokio::select! {
            () = drained => {}
            // Whoever asks for the end now does not want to wait for that.
            () = &mut shutdown => {}
        }
    }
    workers.stop(STOP_TIMEOUT).await;
    room.abort();
    reloads.abort();
    gateway_arbiter.stop();
    tokio::select! {
        () = close_store(allocator_arbiter) => {}
        // As above: no signal has come so far, where something failed.
        () = shutdown => {}
    }
    log_account(&accounts.shared().accounts);
    served
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
    let Some(mut answers) = discord::follow(config) else { return Ok(None) };
    let first = answers.first(&mut config.shards, found.has_pool()).await;
    let first = first.map_err(|refused| io::Error::new(io::ErrorKind::PermissionDenied, refused))?;
    // A stored pool has the number that it has.
    if let (Some(told), Some(count), false) = (&first, config.shards.fixed(), found.has_pool()) {
        told.check(count).map_err(|refused| io::Error::new(io::ErrorKind::InvalidInput, refused))?;
    }
    Ok(Some((first, answers)))
}

/// Before any service is let in, so that the first permits are counted already.
fn follow_discord(discord: Discord, gateway: Addr<Gateway>, routes: Arc<Routes>) {
    let Some((first, mut answers)) = discord else { return };
    let tell = move |discord::Told { limit, asked_at }| {
        gateway.do_send(DiscordAnswered { limit, asked_at });
    };
    first.into_iter().for_each(&tell);
    actix_rt::spawn(async move {
        while let Some(told) = answers.next().await {
            tell(told);
        }
        // Nothing else ends the answers.
        routes.shared().discord_token_rejected.store(true, Ordering::Relaxed);
    });
}

fn start_workers(config: &Config) -> io::Result<Workers> {
    let at_once = config.max_connections + config.max_unidentified + REFUSED_AT_ONCE;
    // However few descriptors there are, somebody can come.
    let at_once = at_once.min(allowed_connections()?.max(REFUSED_AT_ONCE));
    Workers::start(config.workers, at_once).map_err(io::Error::other)
}

/// Lets in whoever comes, until `end` is there; then nothing listens any more.
async fn serve(
    workers: &Workers,
    listeners: Listeners,
    entrance: Data<Entrance>,
    end: impl Future<Output = ()>,
) -> io::Result<()> {
    let hosts = Data::new(http::guard::Hosts::new(&entrance.config));
    let Listeners { tcp, tls, unix } = listeners;
    log::info!("listening on {}", tcp.local_addr()?);
    if tls.is_some() {
        log::info!("only TLS is spoken there");
    }
    let (arrivals, names) = (entrance.clone(), hosts.clone());
    let balancer = workers.serve(move || accept::tcp(arrivals.clone(), names.clone(), tls.clone()));
    tcp.set_nonblocking(true)?;
    let by_tcp = incoming::accept(TcpListener::from_std(tcp)?, balancer);
    let by_unix = accept_unix(workers, unix, entrance, hosts);
    tokio::select! {
        () = end => Ok(()),
        Err(error) = by_tcp => Err(error),
        Err(error) = by_unix => Err(error),
    }
}

async fn accept_unix(
    workers: &Workers,
    listener: Option<(StdUnixListener, SocketFile)>,
    entrance: Data<Entrance>,
    hosts: Data<http::guard::Hosts>,
) -> io::Result<Infallible> {
    let Some((listener, file)) = listener else { return pending().await };
    log::info!("listening on the socket {}", file.path().display());
    let users = Arc::new(Users::new(&entrance.config.unix_uids));
    let balancer = workers.serve(move || accept::unix(entrance.clone(), hosts.clone(), users.clone()));
    listener.set_nonblocking(true)?;
    incoming::accept(UnixListener::from_std(listener)?, balancer).await
}

/// Whoever has to leave may have waited for no newcomer.
async fn keep_waiting_room(entrance: Arc<Entrance>) {
    let mut look = tokio::time::interval(LOOK_INTERVAL);
    loop {
        look.tick().await;
        entrance.make_room();
    }
}

async fn drain(gateway: &Addr<Gateway>) {
    log::info!("stopping");
    let (done, is_done) = oneshot::channel();
    gateway.do_send(Drain { done });
    let _ = is_done.await;
}

/// The store closes with its actor: what that has granted must be on the disk.
async fn close_store(allocator: Arbiter) {
    let mut closed = pin!(stop_threads(vec![allocator]));
    if tokio::time::timeout(TELL_AFTER, &mut closed).await.is_err() {
        log::warn!("data_dir: the disk is waited for; one more signal ends the gateway without it");
        closed.await;
    }
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

/// How many connections there are descriptors for, once their limit is raised.
fn allowed_connections() -> io::Result<usize> {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    // Each connection takes two: the server's and our own hold on it.
    Ok(usize::try_from(hard.saturating_sub(SPARE_DESCRIPTORS) / 2).unwrap_or(usize::MAX))
}

/// Raises the limit of open descriptors as far as it goes, and lowers `max_connections` and
/// `max_unidentified` to what it allows.
fn within_descriptor_limit(mut config: Config) -> io::Result<Config> {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
    let allowed = allowed_connections()?;
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
