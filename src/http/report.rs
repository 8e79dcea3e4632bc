//! Answers that may be large: so many at once, each for so long.
//!
//! A scrape's size grows with the pairs of services that talk, and whoever asks may not read it.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use actix_web::body::{BodySize, MessageBody};
use actix_web::web::Bytes;
use actix_web::{HttpResponse, HttpResponseBuilder};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::timeout;

use super::body::error;
use crate::networker::entrance::Entrance;

/// How long one waits for its turn.
const PATIENCE: Duration = Duration::from_secs(1);

/// The right to make one such answer. It goes with the answer until that is written.
pub(super) struct Turn(OwnedSemaphorePermit);

/// Waits for a turn; the answer to those that get none.
pub(super) async fn turn(entrance: &Entrance) -> Result<Turn, HttpResponse> {
    match timeout(PATIENCE, entrance.reports.clone().acquire_owned()).await {
        Ok(Ok(permit)) => Ok(Turn(permit)),
        _ => Err(error(503, "busy", "too many answers of this size are not read yet; try again")),
    }
}

impl Turn {
    /// The answer.
    pub(super) fn answer(self, mut response: HttpResponseBuilder, text: String) -> HttpResponse {
        response.body(Report { bytes: Some(text.into()), _turn: self.0 })
    }

    /// The answer, as JSON.
    pub(super) fn json(self, value: &serde_json::Value) -> HttpResponse {
        let mut response = HttpResponse::Ok();
        response.content_type("application/json");
        self.answer(response, value.to_string())
    }
}

/// A body that holds its turn until it is dropped, when the server has written it.
struct Report {
    bytes: Option<Bytes>,
    _turn: OwnedSemaphorePermit,
}

impl MessageBody for Report {
    type Error = std::convert::Infallible;

    fn size(&self) -> BodySize {
        BodySize::Sized(self.bytes.as_ref().map_or(0, Bytes::len) as u64)
    }

    fn poll_next(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Bytes, Self::Error>>> {
        /// As much as the server takes over at once.
        const PIECE: usize = 32 * 1024;
        let piece = self.bytes.as_mut().map(|bytes| bytes.split_to(bytes.len().min(PIECE)));
        Poll::Ready(piece.filter(|piece| !piece.is_empty()).map(Ok))
    }
}
