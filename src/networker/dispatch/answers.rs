//! What a sender is told of its proxied messages: ERROR and RECEIPT, as parcels for its own mailbox.

use serde_json::value::RawValue;

use super::{Dispatcher, Outcome, PARCEL_BYTES};
use crate::protocol::envelope::Envelope;
use crate::protocol::error::ErrorCode;
use crate::protocol::op::{self, GatewayOp};
use crate::protocol::{GATEWAY_NAME, OPCODE_TOPIC};
use crate::state::account::{Amount, End, Entry};
use crate::state::parcel::OpenParcel;

pub(super) const MAILBOX_FULL: (ErrorCode, &str) =
    (ErrorCode::MailboxFull, "the mailbox is full (mailbox_messages, mailbox_bytes or mailbox_total_bytes)");

impl Dispatcher {
    /// Answers a proxied message with an ERROR in our own mailbox. Where that has no room, the
    /// message was accepted and is dead: the account says so.
    pub(super) fn refuse(
        &mut self,
        envelope: &Envelope<'_>,
        target: Option<&str>,
        entry: Option<Entry>,
        code: ErrorCode,
        message: &str,
    ) {
        self.refusals.note(self.own.name(), code);
        let error = op::Error { target: target.map(str::to_owned), ..self.about(envelope, code, message) };
        let json = GatewayOp::Error(error).to_json();
        let parts = [json.as_bytes(), b""];
        // Where there is none, our own parcels may have room that they do not need.
        let has_room = self.own_notices().push(parts).is_ok()
            || self.release_spare() && self.own_notices().push(parts).is_ok();
        if has_room {
            self.own.errors().add(code);
            if self.own_notices().frame_bytes() >= PARCEL_BYTES {
                self.flush();
            }
            return;
        }
        let entry = entry.unwrap_or_else(|| self.own.entry(None));
        let amount = Amount::message(envelope.text().len());
        entry.accept(amount);
        entry.end(amount, End::Dead);
        self.refusals.note_dead();
    }

    /// An ERROR that names the message by its `t` and `n`, as they were sent. A topic that is too
    /// large is not sent back.
    pub(super) fn about(
        &self,
        envelope: &Envelope<'_>,
        code: ErrorCode,
        message: impl Into<String>,
    ) -> op::Error {
        let raw = |json: String| RawValue::from_string(json).ok();
        let topic = Some(envelope.topic().raw()).filter(|topic| topic.len() <= self.limits.max_topic_bytes);
        let topic = topic.and_then(|topic| raw(format!("\"{topic}\"")));
        let nonce = envelope.nonce().and_then(|nonce| raw(nonce.to_owned()));
        op::Error { t: topic, n: nonce, ..op::Error::new(code, message) }
    }

    pub(super) fn own_notices(&mut self) -> &mut OpenParcel {
        self.notices.get_or_insert_with(|| OpenParcel::new(self.own.clone(), 0))
    }

    pub(super) fn topic_bound(&self) -> String {
        format!("`t` has more than max_topic_bytes = {} bytes", self.limits.max_topic_bytes)
    }

    pub(super) fn refuse_topic(&mut self, envelope: &Envelope<'_>, code: ErrorCode) -> Outcome {
        let message = self.topic_bound();
        self.refuse(envelope, None, None, code, &message);
        Outcome::Done
    }
}

/// A RECEIPT, written by hand since it is on the hot path of those who ask for them.
pub(super) fn receipt(nonce: &str) -> String {
    let opcode = op::Opcode::Receipt as u8;
    format!(r#"{{"s":"{GATEWAY_NAME}","t":"{OPCODE_TOPIC}","d":{{"opcode":{opcode},"n":{nonce}}}}}"#)
}
