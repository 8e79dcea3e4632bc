//! Every setting of the gateway, each written once.
//!
//! An entry gives the name, the field of [`Config`] and its type, and what may be typed. The flag,
//! the variable, the key in the file, `--help`, `gateway config` and the field's documentation all
//! come from it, so that a new setting is one new entry. What two settings demand of each other is
//! checked in [`super`].

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use super::origin::{self, AllowedHosts, AllowedOrigins};
use super::proxies::{self, TrustedProxies};
use super::setting::{Kind, Setting};
use super::shard_count::ShardCount;
use super::token::BotToken;
use super::unix::{self, FileMode, UserList};
use super::value::{Field, Value};

macro_rules! settings {
    ($(
        $(#[doc = $help:literal])+
        $name:literal => $field:ident: $type:ty = $kind:expr;
    )+) => {
        /// What the settings mean, each within its range. [`Config::load`] also holds them against
        /// each other.
        #[derive(Debug, Clone, PartialEq, Eq)]
        pub struct Config {
            $( $(#[doc = $help])+ pub $field: $type, )+
        }

        pub(crate) static SETTINGS: &[Setting] =
            &[$( Setting { name: $name, help: concat!($($help),+), kind: $kind } ),+];

        impl Config {
            /// `value_of` is asked for each setting by its name.
            pub(super) fn from_values(value_of: impl Fn(&str) -> Value) -> Self {
                Self { $( $field: Field::from_value(value_of($name)), )+ }
            }
        }
    };
}

settings! {
    /// Address and port of HTTP and WebSocket; port 0 picks a free one and logs it.
    "listen" => listen: SocketAddr = Kind::Address { default: "127.0.0.1:7117" };

    /// File of credentials: who may come in, and what they may do. Without it everybody may do
    /// everything.
    "credentials" => credentials: Option<PathBuf> = Kind::Path;

    /// Wrong credentials that one address may show in a minute, and at once; beyond it, signed tokens
    /// from there are not checked for a while.
    "auth_failures_per_minute" => auth_failures_per_minute: u32 =
        Kind::number("failures", 1..=1_000_000, 30);

    /// Accept an address that other machines can reach although there are no credentials: whoever
    /// reaches the port can then use the gateway.
    "expose_without_credentials" => expose_without_credentials: bool = Kind::Switch;

    /// PEM file of the certificate that TLS shows, then those that vouch for it. With one, `listen`
    /// speaks TLS only. SIGHUP reads it again.
    "tls_cert" => tls_cert: Option<PathBuf> = Kind::Path;

    /// PEM file of the certificate's private key.
    "tls_key" => tls_key: Option<PathBuf> = Kind::Path;

    /// PEM file of the certificates that vouch for clients' certificates. A client need not show one;
    /// one that is shown must be good.
    "tls_client_ca" => tls_client_ca: Option<PathBuf> = Kind::Path;

    /// Path of a Unix domain socket to listen on as well. It never has TLS.
    "unix" => unix: Option<PathBuf> = Kind::Path;

    /// Permissions of that socket's file, in octal.
    "unix_mode" => unix_mode: FileMode = unix::MODE;

    /// Ids of the users who may connect there; `own` is the gateway's user and root.
    "unix_uids" => unix_uids: UserList = unix::USERS;
    /// Web pages that may use the gateway, by their origin; `same-host` are those that came from the
    /// host under which the gateway is asked.
    "allowed_origins" => allowed_origins: AllowedOrigins = origin::ORIGINS;

    /// Hosts under which the gateway may be asked; `auto` are loopback's names where it listens on
    /// loopback, and `any` elsewhere.
    "allowed_hosts" => allowed_hosts: AllowedHosts = origin::HOSTS;

    /// Reverse proxies that are believed about their clients (`Forwarded`, `X-Forwarded-For`, `-Host`,
    /// `-Proto`), by their address or network.
    "trusted_proxies" => trusted_proxies: TrustedProxies = proxies::PROXIES;

    /// Threads that serve connections.
    "workers" => workers: usize = Kind::one_per_core("threads", 1..=1_024);

    /// Shard ids to give out: Discord's `shard_count`. `stored` is what `data_dir` has, 1 at first;
    /// `auto` likewise, but at first the number that Discord recommends, for which it needs a bot's
    /// token.
    "shards" => shards: ShardCount = Kind::Count { range: 1..=65_536 };

    /// Connections at once; beyond it a service is rejected with `at_capacity`. Lowered, with a
    /// warning, to what the descriptor limit allows (each takes two).
    "max_connections" => max_connections: usize = Kind::number("connections", 1..=1_000_000, 10_000);

    /// Sessions at once, those away included; beyond it a service is rejected with `at_capacity`.
    "max_sessions" => max_sessions: usize = Kind::number("sessions", 1..=1_000_000, 20_000);

    /// Tickets at once for one credential or, where none are in use, one address; beyond it `POST
    /// /gateway` is rejected with `at_capacity`.
    "max_tickets" => max_tickets: usize = Kind::number("tickets", 1..=1_000_000, 1_000);

    /// Connections at once that have not identified, whatever they do instead; for one more, the
    /// oldest of them is closed.
    "max_unidentified" => max_unidentified: usize = Kind::number("connections", 1..=1_000_000, 1_000);

    /// Size of one whole message; a bigger one closes its connection (1009).
    "max_message_bytes" => max_message_bytes: usize =
        Kind::number("bytes", 256..=268_435_456, 1_048_576);

    /// Size of a topic; a message with a longer one is refused (`too_large`).
    "max_topic_bytes" => max_topic_bytes: usize = Kind::number("bytes", 80..=65_536, 256);

    /// How deeply the JSON of a message may nest; a deeper one is refused (`malformed`).
    "max_depth" => max_depth: u32 = Kind::number("levels", 2..=1_024, 128);

    /// WebSocket frames that one connection may send in a second, pings and fragments included;
    /// beyond it the connection is not read for a while.
    "max_frames_per_second" => max_frames_per_second: u64 =
        Kind::number("frames", 1..=1_000_000_000, 4_000_000);

    /// Bytes that one connection may send in a second; beyond it the connection is not read for a
    /// while.
    "max_bytes_per_second" => max_bytes_per_second: u64 =
        Kind::number("bytes", 1_024..=1_099_511_627_776, 4_294_967_296);

    /// Ops, pings, pongs, and messages answered with an ERROR at once, that one connection may send
    /// in a second; beyond it the connection is not read for a while. A valid ACK counts for none,
    /// WATCH for 1000.
    "max_ops_per_second" => max_ops_per_second: u64 = Kind::number("ops", 1..=1_000_000_000, 10_000);

    /// Messages that one service's mailbox holds.
    "mailbox_messages" => mailbox_messages: u64 = Kind::number("messages", 1..=8_000_000, 65_536);

    /// Bytes that one service's mailbox holds; at least `max_message_bytes`.
    "mailbox_bytes" => mailbox_bytes: u64 = Kind::number("bytes", 256..=274_877_906_944, 67_108_864);

    /// Bytes that all mailboxes hold together; at least `mailbox_bytes`.
    "mailbox_total_bytes" => mailbox_total_bytes: u64 =
        Kind::number("bytes", 256..=1_099_511_627_776, 1_073_741_824);

    /// Names of services whose messages are counted apart; those beyond it are counted as `other`.
    "max_account_names" => max_account_names: usize = Kind::number("names", 1..=10_000_000, 20_000);

    /// How long in any second a sender to a full mailbox is held back before its message is refused
    /// (`mailbox_full`).
    "hold_ms" => hold: Duration = Kind::number("milliseconds", 0..=1_000, 250);

    /// How long a TLS handshake may take, the head of a request, and its body; half a second less or more.
    "handshake_timeout_ms" => handshake_timeout: Duration =
        Kind::number("milliseconds", 1_000..=3_600_000, 5_000);

    /// A connection without IDENTIFY for so long is closed (4001).
    "identify_timeout_ms" => identify_timeout: Duration =
        Kind::number("milliseconds", 100..=3_600_000, 10_000);

    /// Between two WebSocket pings; a service silent for three of these is closed (4009).
    "heartbeat_ms" => heartbeat: Duration = Kind::number("milliseconds", 100..=3_600_000, 5_000);

    /// A connection that takes less than `min_drain_bytes` in this time, with more waiting for it, is
    /// cut off (4008).
    "stuck_ms" => stuck: Duration = Kind::number("milliseconds", 100..=3_600_000, 30_000);

    /// What a connection must take in `stuck_ms` while more is waiting for it.
    "min_drain_bytes" => min_drain_bytes: u64 = Kind::number("bytes", 1..=1_073_741_824, 65_536);

    /// How long a session waits for its service to come back.
    "resume_window_ms" => resume_window: Duration =
        Kind::number("milliseconds", 10..=86_400_000, 30_000);

    /// How long a service may stay after SHUTDOWN or REBOOT, where the operator names no time.
    "deadline_ms" => deadline: Duration = Kind::number("milliseconds", 0..=3_600_000, 10_000);

    /// How long the gateway goes on delivering after SIGTERM.
    "stop_ms" => stop: Duration = Kind::number("milliseconds", 0..=600_000, 5_000);

    /// Deliveries that a service with `ack` may leave unacknowledged; the rest wait in its mailbox.
    "max_unacked" => max_unacked: u64 = Kind::number("messages", 1..=1_000_000, 1_024);

    /// Between two permits of one key (`shard_id % max_concurrency`) to IDENTIFY to Discord, which
    /// demands 5 s; 0 is no pacing.
    "identify_interval_ms" => identify_interval: Duration =
        Kind::number("milliseconds", 0..=3_600_000, 5_500);

    /// How long a permit to IDENTIFY to Discord is good.
    "permit_ttl_ms" => permit_ttl: Duration = Kind::number("milliseconds", 1..=3_600_000, 5_000);

    /// How many keys IDENTIFY to Discord side by side, where Discord has not been asked.
    "max_concurrency" => max_concurrency: u32 = Kind::number("keys", 1..=1_024, 1);

    /// File of the bot's token at Discord. With a token, Discord is asked for its limits: how many
    /// session starts are left, how many shards may start side by side, how many it recommends.
    "discord_token_file" => discord_token_file: Option<PathBuf> = Kind::Path;

    /// The token itself instead, by variable or in the settings file; it has no flag, which others
    /// could see.
    "discord_token" => discord_token: Option<BotToken> = Kind::Token;

    /// Base of Discord's HTTP API.
    "discord_api" => discord_api: String = Kind::Url { default: "https://discord.com/api/v10" };

    /// Directory of what survives a restart: who holds which shard id. `none` keeps everything in
    /// memory.
    "data_dir" => data_dir: Option<PathBuf> = Kind::StateDirectory;

    /// What is logged: a level, or levels by module such as `warn,gateway::state=debug`.
    "log" => log: String = Kind::LogFilter { default: "info" };
}
