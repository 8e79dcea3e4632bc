//! How services are connected: by WebSocket.
//!
//! | module | what it does |
//! |---|---|
//! | [`entrance`] | what every connection needs, and where it waits until it has identified |
//! | [`showing`] | what a request shows of who sends it |
//! | [`stream`] | what its bytes go through: TCP, TLS or a Unix domain socket |
//! | [`upgraded`] | a WebSocket's socket, once its handshake was read |
//! | [`websocket`] | the `Connection` actor: one WebSocket, from its handshake to its end |
//! | [`client`] | who asks, and by what name it reached us |
//! | [`forwarded`] | what reverse proxies say of that |
//! | [`bursts`] | bytes in: all frames of one read become one burst of messages |
//! | [`throttle`] | how fast bytes may come in |
//! | [`dispatch`] | what each message of a burst asks for: the hot path |
//! | [`outgoing`] | bytes out: ops first, then frames as they were handed over |
//!
//! This is the one place that knows `actix-web-actors`.

pub(crate) mod bursts;
pub(crate) mod client;
pub(crate) mod dispatch;
pub(crate) mod entrance;
mod forwarded;
pub(crate) mod outgoing;
mod refusals;
pub(crate) mod showing;
pub(crate) mod stream;
mod throttle;
pub(crate) mod upgraded;
pub(crate) mod websocket;
