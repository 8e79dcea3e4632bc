//! What one read brought of a client's messages, in order, until they were handled.
//!
//! A message that came whole stays masked, as it was read, until its turn comes: then it is unmasked, scanned
//! and copied while it is near. How bytes become messages is the [`reader`](super::reader)'s to say.

use std::ops::Range;

use bytes::Bytes;

use super::close::Close;
use super::frame::unmask_into;

/// A whole message, or something about the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Item {
    Text,
    Ping,
    Pong,
    /// The service closes; the payload is code and reason.
    Close,
    /// What came must be answered with this close, and nothing after it counts.
    Violation(Close),
    /// The socket ended.
    End,
}

/// What one read brought.
#[derive(Debug, Default)]
pub struct Burst {
    /// What was read, masked.
    read: Bytes,
    /// The payloads that were put together from several frames or reads, unmasked.
    joined: Vec<u8>,
    entries: Vec<Entry>,
    frames: u64,
    /// The message whose turn it is, unmasked.
    current: Vec<u8>,
}

/// An item, and where its payload stands. A read may bring twenty thousand, so these are small; neither a
/// read nor what is joined in one has 4 GiB.
#[derive(Debug)]
struct Entry {
    item: Item,
    /// In what was read, if there is a mask; else among the joined payloads.
    start: u32,
    bytes: u32,
    mask: Option<[u8; 4]>,
    /// How much was read behind it.
    behind: u32,
}

const _: () = assert!(size_of::<Entry>() <= 24);

impl Burst {
    /// How many items there are.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// An item and its payload.
    pub fn get(&mut self, index: usize) -> Option<(Item, &[u8])> {
        let entry = self.entries.get(index)?;
        let range = entry.start as usize..(entry.start + entry.bytes) as usize;
        let payload = match entry.mask {
            None => &self.joined[range],
            Some(mask) => {
                self.current.clear();
                unmask_into(&mut self.current, &self.read[range], mask, 0);
                &self.current
            }
        };
        Some((entry.item, payload))
    }

    /// How many frames began, fragments and control frames included.
    pub fn frames(&self) -> u64 {
        self.frames
    }

    /// How many bytes the payloads from that item on have at most.
    pub fn bytes_from(&self, index: usize) -> usize {
        self.entries.get(index).map_or(0, |entry| entry.bytes as usize + entry.behind as usize)
    }

    /// How much memory it keeps when it is cleared.
    pub fn capacity(&self) -> usize {
        self.joined.capacity() + self.current.capacity()
    }

    /// The socket ended.
    pub fn end(&mut self) {
        self.push_joined(Item::End, Vec::new(), 0);
    }

    /// Begins with what was read.
    pub(super) fn begin(&mut self, read: &Bytes) {
        debug_assert!(self.is_empty());
        self.read = read.clone();
    }

    pub(super) fn count_frame(&mut self) {
        self.frames += 1;
    }

    /// Adds a message that came whole, which `rest`, the end of what was read, begins with.
    pub(super) fn push_masked(&mut self, rest: &[u8], bytes: usize, mask: [u8; 4]) {
        let start = self.read.len() - rest.len();
        self.push(Item::Text, start..start + bytes, Some(mask), rest.len() - bytes);
    }

    /// Adds an item with that payload, unmasked. So much was read `behind` it.
    pub(super) fn push_joined(&mut self, item: Item, mut payload: Vec<u8>, behind: usize) {
        let start = self.joined.len();
        if start == 0 {
            // Most are the only one, and may be large.
            self.joined = payload;
        } else {
            self.joined.append(&mut payload);
        }
        self.push(item, start..self.joined.len(), None, behind);
    }

    fn push(&mut self, item: Item, range: Range<usize>, mask: Option<[u8; 4]>, behind: usize) {
        let [start, bytes, behind] =
            [range.start, range.len(), behind].map(|number| u32::try_from(number).expect("below 4 GiB"));
        self.entries.push(Entry { item, start, bytes, mask, behind });
    }

    /// To be called where it has to wait, with how much memory what was read may share: it must not hold much
    /// more than its bytes.
    pub fn fit(&mut self, shared: usize) {
        if self.read.len() * 2 < shared {
            self.read = Bytes::copy_from_slice(&self.read);
        }
        self.current = Vec::new();
    }

    /// Forgets what came, and keeps its buffers.
    pub fn clear(&mut self) {
        self.read = Bytes::new();
        self.joined.clear();
        self.entries.clear();
        self.frames = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::super::reader::FrameReader;
    use super::*;

    /// A client's text frame.
    fn frame(payload: &str) -> Vec<u8> {
        let mask = [1, 2, 3, 4];
        let masked = payload.bytes().zip(mask.iter().cycle()).map(|(byte, key)| byte ^ key);
        [0x81, 0x80 | u8::try_from(payload.len()).expect("short")]
            .into_iter()
            .chain(mask)
            .chain(masked)
            .collect()
    }

    /// What two reads bring, cut amid the first message.
    fn two_reads() -> [Bytes; 2] {
        let mut first = frame("one");
        let second = first.split_off(7);
        [first, [second, frame("two"), frame("three")].concat()].map(Bytes::from)
    }

    #[test]
    fn messages_come_in_order_as_often_as_they_are_asked_for() {
        let (mut reader, mut burst) = (FrameReader::new(100), Burst::default());
        for read in two_reads() {
            reader.read(&read, &mut burst);
        }
        for index in [2, 0, 1, 1, 0, 2] {
            let expected = ["one", "two", "three"][index];
            assert_eq!(burst.get(index), Some((Item::Text, expected.as_bytes())));
        }
        assert_eq!(burst.get(3), None);
    }

    #[test]
    fn room_is_told_for_all_that_may_come() {
        let (mut reader, mut burst) = (FrameReader::new(100), Burst::default());
        for read in two_reads() {
            reader.read(&read, &mut burst);
        }
        let left = |index: usize| ["one", "two", "three"][index..].concat().len();
        for index in 0..3 {
            let told = burst.bytes_from(index);
            assert!((left(index)..left(index) + 3 * 6).contains(&told), "{told} for {}", left(index));
        }
        assert_eq!(burst.bytes_from(3), 0);
    }

    #[test]
    fn one_that_waits_lets_go_of_memory_of_which_it_has_little() {
        let (mut reader, mut burst) = (FrameReader::new(100), Burst::default());
        let read = Bytes::from(frame("one"));
        reader.read(&read, &mut burst);
        burst.fit(2 * read.len());
        assert!(!read.is_unique(), "it has half");
        burst.fit(2 * read.len() + 1);
        assert!(read.is_unique());
        assert_eq!(burst.get(0), Some((Item::Text, &b"one"[..])));
    }

    #[test]
    fn nothing_is_held_once_it_is_cleared() {
        let (mut reader, mut burst) = (FrameReader::new(100), Burst::default());
        let read = Bytes::from(frame("one"));
        reader.read(&read, &mut burst);
        burst.clear();
        assert!(read.is_unique());
        assert_eq!((burst.len(), burst.frames(), burst.bytes_from(0)), (0, 0, 0));
    }
}
