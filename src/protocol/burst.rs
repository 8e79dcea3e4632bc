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
    /// What was read, masked, from `skipped` on.
    read: Bytes,
    /// How much of the read is not kept any more at its front.
    skipped: usize,
    /// Whether `read` is a copy, and not a part of the memory that connections read into.
    is_copy: bool,
    /// Where in the read the last message ends that came whole.
    masked_end: usize,
    /// The payloads that were put together from several frames or reads, unmasked.
    joined: Vec<u8>,
    /// How many slots there are up to the last that has such a payload.
    joined_until: usize,
    slots: Vec<Slot>,
    frames: u64,
    /// The message whose turn it is, unmasked.
    current: Vec<u8>,
}

/// An item, and where its payload stands. A read may bring twenty thousand, so these are small; neither a
/// read nor what is joined in one has 4 GiB.
#[derive(Debug)]
struct Slot {
    item: Item,
    /// In the read, if there is a mask; else among the joined payloads.
    start: u32,
    length: u32,
    mask: Option<[u8; 4]>,
    /// Where its last frame ends in the read.
    end: u32,
}

// The README tells of twice that, as vectors grow.
const _: () = assert!(size_of::<Slot>() <= 20);

impl Burst {
    /// How many items there are.
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// An item and its payload.
    pub fn get(&mut self, index: usize) -> Option<(Item, &[u8])> {
        let slot = self.slots.get(index)?;
        let (start, length) = (slot.start as usize, slot.length as usize);
        let payload = match slot.mask {
            None => &self.joined[start..start + length],
            Some(mask) => {
                self.current.clear();
                unmask_into(&mut self.current, &self.read[start - self.skipped..][..length], mask, 0);
                &self.current
            }
        };
        Some((slot.item, payload))
    }

    /// How many frames began, fragments and control frames included.
    pub fn frames(&self) -> u64 {
        self.frames
    }

    /// How many bytes that text and those behind it have at most: the headers between them count too.
    pub fn bytes_from(&self, index: usize) -> usize {
        let (Some(slot), Some(last)) = (self.slots.get(index), self.slots.last()) else { return 0 };
        (slot.length + last.end - slot.end) as usize
    }

    /// How much memory it keeps when it is cleared.
    pub fn capacity(&self) -> usize {
        self.joined.capacity() + self.current.capacity() + self.slots.capacity() * size_of::<Slot>()
    }

    /// The socket ended.
    pub fn end(&mut self) {
        self.push_mark(Item::End);
    }

    /// Begins with what was read.
    pub(super) fn begin(&mut self, read: &Bytes) {
        self.clear();
        self.read = read.clone();
    }

    /// Where in the read this rest of it begins.
    pub(super) fn place(&self, rest: &[u8]) -> usize {
        self.read.len() - rest.len()
    }

    pub(super) fn count_frame(&mut self) {
        self.frames += 1;
    }

    /// Adds a message that came whole, and where it stands in the read.
    pub(super) fn push_masked(&mut self, range: Range<usize>, mask: [u8; 4]) {
        self.masked_end = range.end;
        self.push(Item::Text, range, Some(mask), self.masked_end);
    }

    /// Adds an item with that payload, which is taken. Its last frame ends there in the read.
    pub(super) fn push_joined(&mut self, item: Item, payload: &mut Vec<u8>, end: usize) {
        if payload.is_empty() {
            return self.push(item, 0..0, None, end);
        }
        let start = self.joined.len();
        if item == Item::Text && start == 0 {
            // Most are the only one, and may be large.
            self.joined = std::mem::take(payload);
        } else {
            self.joined.append(payload);
        }
        self.joined_until = self.slots.len() + 1;
        self.push(item, start..self.joined.len(), None, end);
    }

    /// Adds an item that has no payload, and behind which nothing comes.
    pub(super) fn push_mark(&mut self, item: Item) {
        let end = self.slots.last().map_or(0, |last| last.end as usize);
        self.push(item, 0..0, None, end);
    }

    fn push(&mut self, item: Item, range: Range<usize>, mask: Option<[u8; 4]>, end: usize) {
        let [start, length, end] =
            [range.start, range.len(), end].map(|number| u32::try_from(number).expect("below 4 GiB"));
        self.slots.push(Slot { item, start, length, mask, end });
    }

    /// To be called where the items from that one on have to wait, and those before it are done: lets go of
    /// what they do not need. `shared` is the size of the memory that any part of a read keeps alive. However
    /// often it waits, what this copies of one read is at most twice that.
    pub fn fit(&mut self, from: usize, shared: usize) {
        self.current = Vec::new();
        self.slots.shrink_to(2 * self.slots.len());
        if from < self.joined_until {
            self.joined.shrink_to_fit();
        } else {
            self.joined = Vec::new();
        }
        let needed = self.needed(from);
        let held = if self.is_copy { self.read.len() } else { shared };
        if needed.len() * 2 < held {
            self.read = Bytes::copy_from_slice(&self.read[needed.start - self.skipped..][..needed.len()]);
            self.skipped = needed.start;
            self.is_copy = true;
        }
    }

    /// What the items from that one on need of the read.
    fn needed(&self, from: usize) -> Range<usize> {
        let done = match from.checked_sub(1) {
            None => 0,
            Some(last) => self.slots.get(last).map_or(self.masked_end, |slot| slot.end as usize),
        };
        done.clamp(self.skipped, self.masked_end)..self.masked_end
    }

    /// Forgets what came, and keeps its buffers.
    pub fn clear(&mut self) {
        self.read = Bytes::new();
        self.skipped = 0;
        self.is_copy = false;
        self.masked_end = 0;
        self.joined.clear();
        self.joined_until = 0;
        self.slots.clear();
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

    fn all_of(burst: &mut Burst) -> Vec<String> {
        let text = |(item, bytes): (Item, &[u8])| {
            assert_eq!(item, Item::Text);
            String::from_utf8(bytes.to_vec()).unwrap()
        };
        (0..burst.len()).map(|index| burst.get(index).map(text).unwrap()).collect()
    }

    fn burst_of(reads: &[Bytes]) -> Burst {
        let (mut reader, mut burst) = (FrameReader::new(100_000), Burst::default());
        for read in reads {
            reader.read(read, &mut burst);
        }
        burst
    }

    #[test]
    fn messages_come_in_order_as_often_as_they_are_asked_for() {
        let mut burst = burst_of(&two_reads());
        for index in [2, 0, 1, 1, 0, 2] {
            let expected = ["one", "two", "three"][index];
            assert_eq!(burst.get(index), Some((Item::Text, expected.as_bytes())));
        }
        assert_eq!(burst.get(3), None);
    }

    #[test]
    fn room_is_told_for_the_messages_and_their_headers_and_not_for_what_is_not_whole() {
        let [first, second] = two_reads();
        let unfinished = frame(&"x".repeat(100));
        let ping = [0x89, 0x80, 1, 2, 3, 4];
        let second = [&second[..], &ping, &unfinished[..90]].concat();
        let burst = burst_of(&[first, second.into()]);
        assert_eq!(burst.len(), 4);
        for (index, texts) in [(0, "onetwothree"), (1, "twothree"), (2, "three")] {
            let told = burst.bytes_from(index);
            assert!((texts.len()..=texts.len() + 3 * 6).contains(&told), "{told} for {texts}");
        }
        assert_eq!(burst.bytes_from(4), 0);
    }

    #[test]
    fn one_that_waits_lets_go_of_memory_of_which_it_needs_less_than_half() {
        let read = Bytes::from([frame("one"), frame("two")].concat());
        let mut burst = burst_of(std::slice::from_ref(&read));
        burst.fit(0, 2 * read.len());
        assert!(!read.is_unique(), "it needs half");
        burst.fit(0, 2 * read.len() + 1);
        assert!(read.is_unique());
        assert_eq!(all_of(&mut burst), ["one", "two"]);
    }

    #[test]
    fn one_that_waits_keeps_no_buffers_of_larger_ones() {
        let large = Bytes::from(frame("x").repeat(10_000));
        let mut burst = burst_of(&[large, frame("one").into()]);
        assert!(burst.capacity() > 100_000);
        burst.fit(0, 1 << 20);
        assert!(burst.capacity() < 100, "{}", burst.capacity());
        assert_eq!(all_of(&mut burst), ["one"]);
    }

    #[test]
    fn one_that_waits_often_is_copied_as_it_halves() {
        let texts: Vec<String> = (0..100).map(|number| format!("message {number}")).collect();
        let read = Bytes::from(texts.iter().flat_map(|text| frame(text)).collect::<Vec<u8>>());
        let mut burst = burst_of(std::slice::from_ref(&read));
        let mut copied = 0;
        for (from, text) in texts.iter().enumerate() {
            let before = burst.read.as_ptr();
            burst.fit(from, 1 << 20);
            copied += if before == burst.read.as_ptr() { 0 } else { burst.read.len() };
            assert!(burst.read.len() <= 2 * (texts.len() - from) * (text.len() + 6), "{from}");
            assert_eq!(burst.get(from), Some((Item::Text, text.as_bytes())));
        }
        assert!((1..=2 * read.len()).contains(&copied), "{copied} bytes for {}", read.len());
        burst.fit(texts.len(), 1 << 20);
        assert_eq!(burst.read.len(), 0);
    }

    /// A client's frame of 50,000 bytes.
    fn large_frame() -> Vec<u8> {
        let header = [&[0x81, 0xFE][..], &50_000_u16.to_be_bytes(), &[0; 4]].concat();
        [header, vec![b'x'; 50_000]].concat()
    }

    #[test]
    fn what_was_joined_waits_in_memory_of_its_size_until_it_is_done() {
        let large = large_frame();
        let ping = [0x89, 0x81, 0, 0, 0, 0, b'y'];
        let empty_ping = [0x89, 0x80, 0, 0, 0, 0];
        let second = [&large[40_000..], &ping, &empty_ping].concat();
        let mut burst = burst_of(&[Bytes::copy_from_slice(&large[..40_000]), second.into()]);
        burst.fit(0, 1 << 20);
        assert_eq!((burst.joined.capacity(), burst.read.len()), (50_001, 0));
        assert_eq!(burst.get(0).map(|(_, text)| text.len()), Some(50_000));
        burst.fit(1, 1 << 20);
        assert_eq!(burst.get(1), Some((Item::Ping, &b"y"[..])));
        burst.fit(2, 1 << 20);
        assert_eq!(burst.joined.capacity(), 0);
        assert_eq!(burst.get(2), Some((Item::Ping, &b""[..])));
    }

    #[test]
    fn joined_messages_stay_among_the_others_however_often_they_wait() {
        let mut fragments = [frame("fi"), frame("ve")].concat();
        (fragments[0], fragments[8]) = (0x01, 0x80);
        let [first, second] = two_reads();
        let second = Bytes::from([&second[..], &frame("four"), &fragments, &frame("six")].concat());
        let mut burst = burst_of(&[first, second]);
        for (index, expected) in ["one", "two", "three", "four", "five", "six"].iter().enumerate() {
            for shared in [1, 20, 1 << 20] {
                burst.fit(index, shared);
                assert_eq!(burst.get(index), Some((Item::Text, expected.as_bytes())));
            }
        }
    }

    #[test]
    fn nothing_is_held_once_it_is_cleared() {
        let read = Bytes::from(frame("one"));
        let mut burst = burst_of(std::slice::from_ref(&read));
        burst.clear();
        assert!(read.is_unique());
        assert_eq!((burst.len(), burst.frames(), burst.bytes_from(0)), (0, 0, 0));
    }
}
