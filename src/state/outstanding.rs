//! Deliveries that wait to be acknowledged.
//!
//! Each message that a service is handed after it asked for `ack` gets the next number, and is kept
//! until that number, or a later one, is acknowledged. A new connection gets again what is kept, in
//! order, with the numbers it had.

use std::collections::VecDeque;
use std::io::Write;

use bytes::{Bytes, BytesMut};

use super::parcel::Parcel;
use super::spare;
use crate::protocol::frame::{self, MAX_SERVER_HEADER};

/// The bytes that a delivery number adds to a frame, at most: `"i":18446744073709551615,`, and a
/// header that is longer for it.
const NUMBER_BYTES: usize = 25 + MAX_SERVER_HEADER;

/// A number was acknowledged that has not been sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("`d.i`: delivery {i} has not been sent; the last one is {last}")]
pub struct NeverSent {
    pub(super) i: u64,
    pub(super) last: u64,
}

/// One session's deliveries, over all its connections.
#[derive(Debug, Default)]
pub struct Outstanding {
    last: u64,
    /// In order, each with the number of its first message.
    parcels: VecDeque<(u64, Parcel)>,
    messages: u64,
    /// How many parcels this connection has been handed.
    handed: usize,
}

impl Outstanding {
    /// The number that was given last; 0: none yet.
    pub fn last(&self) -> u64 {
        self.last
    }

    /// How many parcels there is memory for.
    #[cfg(test)]
    pub(super) fn capacity(&self) -> usize {
        self.parcels.capacity()
    }

    /// How many messages are kept.
    pub fn messages(&self) -> u64 {
        self.messages
    }

    /// The parcels that are kept, in order.
    pub fn parcels(&self) -> impl Iterator<Item = &Parcel> {
        self.parcels.iter().map(|(_, parcel)| parcel)
    }

    /// The most bytes that the parcel's frames have once they are numbered.
    pub fn numbered_bytes(parcel: &Parcel) -> usize {
        parcel.frame_bytes() + usize::try_from(parcel.amount().messages).unwrap_or(0) * NUMBER_BYTES
    }

    /// Keeps the parcel and numbers its messages; gives the frames to hand over.
    pub fn hand(&mut self, parcel: Parcel) -> Bytes {
        let first = self.last + 1;
        let frames = numbered(first, &parcel);
        self.last += parcel.amount().messages;
        self.messages += parcel.amount().messages;
        self.parcels.push_back((first, parcel));
        self.handed = self.parcels.len();
        frames
    }

    /// A new connection: everything that is kept is to be handed to it again.
    pub fn rewind(&mut self) {
        self.handed = 0;
    }

    /// The next parcel that is to be handed again, if its size `fits`.
    pub fn hand_again(&mut self, fits: impl FnOnce(usize) -> bool) -> Option<Bytes> {
        let (first, parcel) =
            self.parcels.get(self.handed).filter(|(_, parcel)| fits(Self::numbered_bytes(parcel)))?;
        let frames = numbered(*first, parcel);
        self.handed += 1;
        Some(frames)
    }

    /// Whether something is still to be handed again.
    pub fn has_more(&self) -> bool {
        self.handed < self.parcels.len()
    }

    /// That number and all before it are done: these messages are delivered.
    pub fn acknowledge(&mut self, i: u64) -> Result<(), NeverSent> {
        if i > self.last || i == 0 {
            return Err(NeverSent { i, last: self.last });
        }
        while let Some((first, mut parcel)) = self.parcels.pop_front_if(|(first, _)| *first <= i) {
            let done = (i - first + 1).min(parcel.amount().messages);
            self.messages -= done;
            if done < parcel.amount().messages {
                parcel.split_front(done).delivered();
                self.parcels.push_front((first + done, parcel));
                break;
            }
            parcel.delivered();
            self.handed = self.handed.saturating_sub(1);
        }
        spare::let_go(&mut self.parcels);
        Ok(())
    }

    /// Gives up what is kept, in order; the numbers are not given again.
    pub fn take(&mut self) -> impl DoubleEndedIterator<Item = Parcel> + use<> {
        self.messages = 0;
        self.handed = 0;
        std::mem::take(&mut self.parcels).into_iter().map(|(_, parcel)| parcel)
    }
}

/// The messages as frames, each with its number as its first key.
fn numbered(first: u64, parcel: &Parcel) -> Bytes {
    let mut frames = BytesMut::with_capacity(Outstanding::numbered_bytes(parcel));
    let mut key = Vec::with_capacity(NUMBER_BYTES);
    for (number, text) in (first..).zip(parcel.texts()) {
        // A message is an object, with white space before it at most, and has keys.
        let open = text.iter().position(|byte| *byte == b'{').map_or(0, |at| at + 1);
        key.clear();
        write!(key, "\"i\":{number},").expect("a vector takes all");
        frame::put_text_header(&mut frames, text.len() + key.len());
        frames.extend_from_slice(&text[..open]);
        frames.extend_from_slice(&key);
        frames.extend_from_slice(&text[open..]);
    }
    frames.freeze()
}
