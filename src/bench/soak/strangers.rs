//! Connections that are no services: they never identify, say the wrong thing first, or leave.

use std::sync::Arc;
use std::time::Duration;

use fastrand::Rng;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

use super::faults::Fault;
use super::world::{Stage, World, count};
use crate::bench::http::Http;
use crate::client::{Client, ClientError};
use crate::protocol::close::Close;

/// Longer than a gateway waits for IDENTIFY.
const PATIENCE: Duration = Duration::from_mins(1);

/// One stranger after the other, while the soak runs.
pub(super) async fn come_and_go(world: Arc<World>, http: Http, index: usize) {
    let mut random = Rng::with_seed(world.seed ^ !(index as u64));
    let mut stage = world.stage.clone();
    let _ = stage.wait_for(|stage| *stage >= Stage::Running).await;
    while world.stage() == Stage::Running {
        let visit = visit(&world, &http, random.u32(0..4));
        tokio::select! {
            fault = timeout(PATIENCE, visit) => {
                let fault = fault.unwrap_or_else(|_| Some("it is still connected".to_owned()));
                if let Some(told) = fault {
                    world.faults.add(Fault::Ended, || format!("a stranger: {told}"));
                }
                count(&world.counts.strangers);
            }
            _ = stage.wait_for(|stage| *stage >= Stage::Settling) => return,
        }
        sleep(Duration::from_millis(random.u64(100..2_000))).await;
    }
}

/// What went otherwise than it should.
async fn visit(world: &World, http: &Http, way: u32) -> Option<String> {
    if way == 0 {
        // Half a request.
        let stream = TcpStream::connect(http.authority()).await;
        let sent = match stream {
            Ok(mut stream) => stream.write_all(b"GET /gateway HTTP/1.1\r\nHos").await,
            Err(error) => Err(error),
        };
        return sent.err().map(|error| error.to_string());
    }
    let mut client = match Client::open(&world.url, "stranger").await {
        Ok(client) => client,
        Err(error) => return Some(error.to_string()),
    };
    if way == 1 {
        return None;
    }
    if way == 2 && client.heartbeat().await.is_err() {
        return Some("it could not speak".to_owned());
    }
    loop {
        match client.next_text().await {
            Ok(Some(text)) if way == 2 && text.contains("not_identified") => {}
            Err(ClientError::Closed { code, .. }) if code == Close::NotIdentified.code() => return None,
            other => return Some(format!("it expected to be closed with 4001, and got {other:?}")),
        }
    }
}
