//! Messages on their way into one mailbox: framed, reserved and accounted as one value.
//!
//! A sender fills an [`OpenParcel`] while it works through one burst, and [sends](OpenParcel::send)
//! it: from then on its messages are accepted. A [`Parcel`] ends in exactly one way. It is
//! [delivered](Parcel::delivered), or [returned](Parcel::give_back); dropped anywhere (a panic, a
//! dead actor, a stopped thread) it returns itself. Either way its room is free again.
//!
//! Notices, the ERROR and RECEIPT messages about proxied messages, travel in parcels too, but
//! stand in no account: they end by being dropped.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use serde_json::value::RawValue;

use super::account::{Amount, End, Entry, Place};
use super::gauge::Refused;
use super::route::Route;
use crate::protocol::error::ErrorCode;
use crate::protocol::frame::{self, TextFrames};
use crate::protocol::op::{Error, GatewayOp};
use crate::protocol::{PROXY_PREFIX, scan};

/// Room in [`Total`](super::gauge::Total) is taken in lumps of this many bytes, since all
/// senders share it.
const TOTAL_LUMP_BYTES: u64 = 64 * 1024;

/// A parcel that is being filled.
#[derive(Debug)]
pub struct OpenParcel {
    target: Arc<Route>,
    frames: BytesMut,
    amount: Amount,
    total_reserved: u64,
    spellings: Spellings,
}

impl OpenParcel {
    /// An empty parcel; `capacity` is how many bytes of frames may come.
    pub fn new(target: Arc<Route>, capacity: usize) -> Self {
        Self {
            target,
            frames: BytesMut::with_capacity(capacity),
            amount: Amount::default(),
            total_reserved: 0,
            spellings: Spellings::default(),
        }
    }

    /// Adds a message whose text is `parts`, one after the other, if there is room for it.
    pub fn push(&mut self, parts: [&[u8]; 2]) -> Result<(), Refused> {
        self.reserve(parts[0].len() + parts[1].len())?;
        self.write(parts);
        Ok(())
    }

    /// Takes room for a message of that many bytes, to be [written](Self::write) or
    /// [given back](Self::unreserve).
    pub fn reserve(&mut self, bytes: usize) -> Result<(), Refused> {
        self.target.gauge().reserve(bytes)?;
        let needed = self.amount.bytes + bytes as u64;
        if needed > self.total_reserved && !self.reserve_total(needed - self.total_reserved) {
            self.target.gauge().release(Amount::message(bytes));
            return Err(Refused::Full);
        }
        self.amount += Amount::message(bytes);
        Ok(())
    }

    /// Gives back the room that was reserved last.
    pub fn unreserve(&mut self, bytes: usize) {
        self.amount -= Amount::message(bytes);
        self.target.gauge().release(Amount::message(bytes));
    }

    /// Writes a message that room was reserved for.
    pub fn write(&mut self, parts: [&[u8]; 2]) {
        frame::put_text_header(&mut self.frames, parts[0].len() + parts[1].len());
        self.frames.extend_from_slice(parts[0]);
        self.frames.extend_from_slice(parts[1]);
    }

    /// Remembers how the sender spelled the target of the message written last, where that is not
    /// the target's name.
    pub fn spelled(&mut self, target: &str) {
        self.spellings.add(self.amount.messages - 1, target, self.target.name().as_str());
    }

    fn reserve_total(&mut self, missing: u64) -> bool {
        let total = self.target.total();
        [missing.max(TOTAL_LUMP_BYTES), missing].into_iter().any(|bytes| {
            let taken = total.reserve(bytes);
            self.total_reserved += if taken { bytes } else { 0 };
            taken
        })
    }

    /// Gives back what it has of the room of all mailboxes beyond its messages' own. Whether that was anything.
    pub fn release_spare(&mut self) -> bool {
        let spare = self.total_reserved - self.amount.bytes;
        if spare > 0 {
            self.target.total().release(spare);
            self.total_reserved = self.amount.bytes;
        }
        spare > 0
    }

    pub fn frame_bytes(&self) -> usize {
        self.frames.len()
    }

    /// Accepts the messages and sends them to the target's session. `origin` is their source;
    /// without one they are notices.
    pub fn send(mut self, origin: Option<(&Arc<Route>, &Entry)>) {
        if self.amount.is_zero() {
            return;
        }
        let origin = origin.map(|(source, entry)| {
            entry.accept(self.amount);
            Origin {
                source: source.clone(),
                entry: entry.clone(),
                spellings: std::mem::take(&mut self.spellings),
            }
        });
        self.release_spare();
        let parcel = Parcel {
            target: self.target.clone(),
            frames: fitted(std::mem::take(&mut self.frames)),
            amount: std::mem::take(&mut self.amount),
            origin,
        };
        self.total_reserved = 0;
        self.target.deliver(parcel);
    }
}

impl Drop for OpenParcel {
    /// What was not sent was not accepted: only its room is given back.
    fn drop(&mut self) {
        self.target.gauge().release(self.amount);
        self.target.total().release(self.total_reserved);
    }
}

/// A parcel may wait for long: it must not hold much more memory than its bytes. `freeze` would allocate a
/// count of references at once where capacity is left; a boxed slice gets one when it is first shared.
fn fitted(frames: BytesMut) -> Bytes {
    if frames.len() * 2 < frames.capacity() {
        return Bytes::copy_from_slice(&frames);
    }
    Vec::from(frames).into_boxed_slice().into()
}

/// Where a parcel's messages come from.
#[derive(Debug)]
struct Origin {
    source: Arc<Route>,
    entry: Entry,
    spellings: Spellings,
}

impl Origin {
    fn split_front(&mut self, messages: u64) -> Self {
        let spellings = self.spellings.split_front(messages);
        Self { source: self.source.clone(), entry: self.entry.clone(), spellings }
    }
}

/// Accepted messages of one source, in the order sent, on their way into one mailbox.
#[derive(Debug)]
pub struct Parcel {
    target: Arc<Route>,
    frames: Bytes,
    amount: Amount,
    origin: Option<Origin>,
}

// The README tells what a message takes that waits by itself.
const _: () = assert!(size_of::<Parcel>() <= 104);

impl Parcel {
    /// The bytes of its WebSocket frames.
    pub fn frame_bytes(&self) -> usize {
        self.frames.len()
    }

    pub fn amount(&self) -> Amount {
        self.amount
    }

    /// The balance that its messages are counted in; `None`: these are notices.
    pub fn place(&self) -> Option<Place> {
        self.origin.as_ref().map(|origin| origin.entry.place())
    }

    /// Whether these are notices, which stand in no account.
    pub fn is_notice(&self) -> bool {
        self.origin.is_none()
    }

    /// The texts of the messages, in order.
    pub fn texts(&self) -> impl Iterator<Item = &[u8]> {
        TextFrames::new(&self.frames)
    }

    /// Takes the first messages off, at most as many as there are, as a parcel of their own.
    #[must_use]
    pub fn split_front(&mut self, messages: u64) -> Self {
        let mut texts = TextFrames::new(&self.frames);
        let mut amount = Amount::default();
        while amount.messages < messages
            && let Some(text) = texts.next()
        {
            amount += Amount::message(text.len());
        }
        let frame_bytes = self.frames.len() - texts.rest().len();
        self.amount -= amount;
        Self {
            target: self.target.clone(),
            frames: self.frames.split_to(frame_bytes),
            amount,
            origin: self.origin.as_mut().map(|origin| origin.split_front(amount.messages)),
        }
    }

    /// Ends the messages as delivered: the frames go to the target's connection.
    pub fn delivered(mut self) -> Bytes {
        if let Some(origin) = self.origin.take() {
            origin.entry.end(self.amount, End::Delivered);
        }
        std::mem::take(&mut self.frames)
    }

    /// Ends the messages as returned: an ERROR for each goes into its source's mailbox, in the room of all
    /// mailboxes that the messages had, and in more where that is not enough. What finds no room is dead.
    pub fn give_back(mut self, code: ErrorCode, message: &str) {
        self.end_returned(code, message);
    }

    fn end_returned(&mut self, code: ErrorCode, message: &str) {
        let Some(origin) = self.origin.take() else { return };
        let mut notices = self.notices_in_place(origin.source.clone());
        let (mut returned, mut dead) = (Amount::default(), Amount::default());
        for (index, text) in TextFrames::new(&self.frames).enumerate() {
            let spelling = origin.spellings.of(index as u64, self.target.name().as_str());
            let error = returning(text, spelling, code, message);
            match notices.push([error.as_bytes(), b""]) {
                Ok(()) => {
                    origin.source.errors().add(code);
                    returned += Amount::message(text.len());
                }
                Err(_) => dead += Amount::message(text.len()),
            }
        }
        origin.entry.end(returned, End::Returned);
        origin.entry.end(dead, End::Dead);
        if !dead.is_zero() {
            log::warn!(
                "{} messages from {} to {} are dead: they were to be returned ({}), but their source is gone, or its mailbox or all together full",
                dead.messages,
                origin.source.name(),
                self.target.name(),
                code.as_str(),
            );
        }
        notices.send(None);
    }

    /// A parcel for notices that takes over the messages' room of all mailboxes: there may be no other, and a
    /// stop, which goes on once nothing is held, must not find it free in between. Their room in their own
    /// mailbox is free at once, as their source may be that of the same mailbox.
    fn notices_in_place(&mut self, source: Arc<Route>) -> OpenParcel {
        let room = std::mem::take(&mut self.amount);
        self.target.gauge().release(room);
        let mut notices = OpenParcel::new(source, 0);
        notices.total_reserved = room.bytes;
        notices
    }
}

impl Drop for Parcel {
    fn drop(&mut self) {
        self.end_returned(ErrorCode::Internal, "the gateway failed while it held this message");
        self.target.gauge().release(self.amount);
        self.target.total().release(self.amount.bytes);
    }
}

/// The ERROR that returns one message. `text` is the message as its target would have got it:
/// the topic as it was sent has the prefix again that was cut.
fn returning(text: &[u8], spelling: &str, code: ErrorCode, message: &str) -> String {
    let envelope = std::str::from_utf8(text)
        .ok()
        .and_then(|text| scan::scan(text, scan::Limits { max_depth: u32::MAX }).ok());
    let raw = |json: String| RawValue::from_string(json).ok();
    let topic =
        envelope.and_then(|envelope| raw(format!("\"{PROXY_PREFIX}{spelling}:{}\"", envelope.topic().raw())));
    let nonce = envelope.and_then(|envelope| raw(envelope.nonce()?.to_owned()));
    GatewayOp::Error(Error {
        t: topic,
        n: nonce,
        target: Some(spelling.to_owned()),
        ..Error::new(code, message)
    })
    .to_json()
}

/// How the messages of a parcel spelled their target: `shard/3` and `guild/8138` reach a service
/// whose name is another. Empty where all used its name.
#[derive(Debug, Default)]
struct Spellings(Vec<(u64, Box<str>)>);

impl Spellings {
    fn add(&mut self, index: u64, spelling: &str, name: &str) {
        let last = self.0.last().map_or(name, |(_, last)| last);
        if last != spelling {
            self.0.push((index, spelling.into()));
        }
    }

    /// Takes the spellings of the first messages off.
    fn split_front(&mut self, messages: u64) -> Self {
        let after = self.0.partition_point(|(first, _)| *first < messages);
        // A spelling that began before holds on behind the cut.
        let holds_on = self.0[..after].last().map(|(_, spelling)| (0, spelling.clone()));
        let is_anew = self.0.get(after).is_some_and(|(first, _)| *first == messages);
        let behind =
            self.0.split_off(after).into_iter().map(|(first, spelling)| (first - messages, spelling));
        let behind: Vec<_> = holds_on.filter(|_| !is_anew).into_iter().chain(behind).collect();
        Self(std::mem::replace(&mut self.0, behind))
    }

    fn of<'a>(&'a self, index: u64, name: &'a str) -> &'a str {
        match self.0.partition_point(|(first, _)| *first <= index) {
            0 => name,
            after => &self.0[after - 1].1,
        }
    }
}

#[cfg(test)]
mod tests;
