//! A client's bytes as messages (RFC 6455): where frames are checked, joined from fragments and bounded.
//!
//! A frame that declares too much is refused at its header, before any of it is kept. Where the
//! bytes come from is the networker's to say, what is found in them waits in a [`Burst`], and what the
//! messages mean is [`scan`](super::scan)'s.

use bytes::Bytes;

use super::burst::{Burst, Item};
use super::close::Close;
use super::frame::{ClientHeader, FrameKind, unmask_into};

/// The longest header of a client's frame.
const MAX_CLIENT_HEADER: usize = 14;

/// Splits bytes into frames and joins frames to messages.
#[derive(Debug)]
pub struct FrameReader {
    max_message_bytes: usize,
    /// The start of a header that was cut off by the end of a read.
    header: Vec<u8>,
    /// The frame that is being read, and how much of its payload came.
    frame: Option<(ClientHeader, usize)>,
    /// What came of the message that is being read.
    message: Vec<u8>,
    /// Whether a fragment came and the last one has not.
    is_fragmented: bool,
    /// What came of the control frame that is being read.
    control: Vec<u8>,
    is_broken: bool,
}

impl FrameReader {
    /// A reader that takes messages of up to that many bytes.
    pub fn new(max_message_bytes: usize) -> Self {
        Self {
            max_message_bytes,
            header: Vec::new(),
            frame: None,
            message: Vec::new(),
            is_fragmented: false,
            control: Vec::new(),
            is_broken: false,
        }
    }

    /// How much memory it holds for what is not complete.
    pub fn held_bytes(&self) -> usize {
        self.header.capacity() + self.message.capacity() + self.control.capacity()
    }

    /// Reads all of `bytes`. What was completed, and nothing else, is then in `burst`.
    pub fn read(&mut self, bytes: &Bytes, burst: &mut Burst) {
        burst.begin(bytes);
        let mut rest = &bytes[..];
        while !rest.is_empty() && !self.is_broken {
            rest = match self.frame {
                Some((header, came)) => self.read_payload(header, came, rest, burst),
                None => self.read_header(rest, burst),
            };
        }
    }

    /// Reads a header, and its payload too where all of it is there. Returns what is left.
    fn read_header<'a>(&mut self, bytes: &'a [u8], burst: &mut Burst) -> &'a [u8] {
        if !self.header.is_empty() {
            return self.read_split_header(bytes, burst);
        }
        match ClientHeader::parse(bytes) {
            Ok(Some(header)) => self.begin(header, &bytes[header.header_bytes..], burst),
            Ok(None) => {
                self.header.extend_from_slice(bytes);
                &[]
            }
            Err(_) => self.fail(Close::ProtocolError, burst),
        }
    }

    /// Reads a header whose start came with the last read.
    fn read_split_header<'a>(&mut self, bytes: &'a [u8], burst: &mut Burst) -> &'a [u8] {
        let before = self.header.len();
        let more = bytes.len().min(MAX_CLIENT_HEADER - before);
        self.header.extend_from_slice(&bytes[..more]);
        match ClientHeader::parse(&self.header) {
            Ok(Some(header)) => {
                self.header.clear();
                self.begin(header, &bytes[header.header_bytes - before..], burst)
            }
            Ok(None) => &bytes[more..],
            Err(_) => self.fail(Close::ProtocolError, burst),
        }
    }

    fn begin<'a>(&mut self, header: ClientHeader, bytes: &'a [u8], burst: &mut Burst) -> &'a [u8] {
        burst.count_frame();
        if let Err(close) = self.check(header) {
            return self.fail(close, burst);
        }
        let length = usize::try_from(header.payload_bytes).unwrap_or(usize::MAX);
        if header.kind == FrameKind::Text && header.fin && length <= bytes.len() {
            let start = burst.place(bytes);
            burst.push_masked(start..start + length, header.mask);
            return &bytes[length..];
        }
        self.read_payload(header, 0, bytes, burst)
    }

    /// Whether the frame may come now and is not too large.
    fn check(&self, header: ClientHeader) -> Result<(), Close> {
        let is_continued = header.kind == FrameKind::Continuation;
        if header.kind.is_control() {
            return Ok(());
        }
        if is_continued != self.is_fragmented {
            return Err(Close::ProtocolError);
        }
        if header.kind == FrameKind::Binary {
            return Err(Close::Binary);
        }
        let whole = header.payload_bytes.saturating_add(self.message.len() as u64);
        if whole > self.max_message_bytes as u64 { Err(Close::TooBig) } else { Ok(()) }
    }

    /// Reads what there is of a frame's payload, `came` bytes of which came before.
    fn read_payload<'a>(
        &mut self,
        header: ClientHeader,
        came: usize,
        bytes: &'a [u8],
        burst: &mut Burst,
    ) -> &'a [u8] {
        let length = usize::try_from(header.payload_bytes).unwrap_or(usize::MAX);
        let more = bytes.len().min(length - came);
        let into = if header.kind.is_control() {
            &mut self.control
        } else {
            make_room(&mut self.message, more, self.max_message_bytes);
            &mut self.message
        };
        unmask_into(into, &bytes[..more], header.mask, came);
        if came + more < length {
            self.frame = Some((header, came + more));
        } else {
            self.frame = None;
            self.end_frame(header, burst, burst.place(&bytes[more..]));
        }
        &bytes[more..]
    }

    /// `end`: where the frame ends in what was read.
    fn end_frame(&mut self, header: ClientHeader, burst: &mut Burst, end: usize) {
        let item = match header.kind {
            FrameKind::Close => Item::Close,
            FrameKind::Ping => Item::Ping,
            FrameKind::Pong => Item::Pong,
            FrameKind::Text | FrameKind::Binary | FrameKind::Continuation => {
                self.is_fragmented = !header.fin;
                if header.fin {
                    burst.push_joined(Item::Text, &mut self.message, end);
                    self.message = Vec::new();
                }
                return;
            }
        };
        burst.push_joined(item, &mut self.control, end);
    }

    fn fail(&mut self, close: Close, burst: &mut Burst) -> &'static [u8] {
        self.is_broken = true;
        self.message = Vec::new();
        burst.push_mark(Item::Violation(close));
        &[]
    }
}

/// Makes room for so many bytes more, and for later ones as a vector does, but never for more than
/// a message may have.
fn make_room(message: &mut Vec<u8>, more: usize, max_message_bytes: usize) {
    let needed = message.len() + more;
    if needed > message.capacity() {
        let wanted = needed.max((message.capacity() * 2).min(max_message_bytes));
        message.reserve_exact(wanted - message.len());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAX: usize = 1000;

    fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
        let mask = [1, 2, 3, 4];
        let mut bytes = vec![first];
        if let Ok(short @ 0..126) = u8::try_from(payload.len()) {
            bytes.push(0x80 | short);
        } else {
            bytes.push(0xFE);
            bytes.extend_from_slice(&u16::try_from(payload.len()).unwrap().to_be_bytes());
        }
        bytes.extend_from_slice(&mask);
        bytes.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, key)| byte ^ key));
        bytes
    }

    /// What comes of the bytes when they are read in pieces of that size.
    fn read(bytes: &[u8], piece: usize) -> Vec<(Item, Vec<u8>)> {
        let mut reader = FrameReader::new(MAX);
        let mut items = Vec::new();
        for piece in bytes.chunks(piece) {
            let mut burst = Burst::default();
            reader.read(&Bytes::copy_from_slice(piece), &mut burst);
            items.extend(
                (0..burst.len())
                    .map(|index| burst.get(index).map(|(item, bytes)| (item, bytes.to_vec())).unwrap()),
            );
        }
        items
    }

    fn each_way(bytes: &[u8], expected: &[(Item, &[u8])]) {
        let expected: Vec<(Item, Vec<u8>)> =
            expected.iter().map(|(item, bytes)| (*item, bytes.to_vec())).collect();
        for piece in [1, 2, 3, 7, 64, bytes.len().max(1)] {
            assert_eq!(read(bytes, piece), expected, "in pieces of {piece}");
        }
    }

    #[test]
    fn messages_come_out_whole_however_they_were_cut() {
        let long = vec![b'x'; 700];
        let bytes = [frame(0x81, b"one"), frame(0x81, b""), frame(0x81, &long)].concat();
        each_way(&bytes, &[(Item::Text, b"one"), (Item::Text, b""), (Item::Text, &long)]);
    }

    #[test]
    fn fragments_are_joined_and_a_ping_between_them_comes_first() {
        let bytes =
            [frame(0x01, b"on"), frame(0x89, b"p"), frame(0x00, b"e m"), frame(0x80, b"essage")].concat();
        each_way(&bytes, &[(Item::Ping, b"p"), (Item::Text, b"one message")]);
    }

    #[test]
    fn every_frame_is_counted_once() {
        let bytes = [frame(0x81, b"one"), frame(0x01, b"t"), frame(0x89, b""), frame(0x80, b"wo")].concat();
        for piece in [1, 5, bytes.len()] {
            let mut reader = FrameReader::new(MAX);
            let mut frames = 0;
            for piece in bytes.chunks(piece) {
                let mut burst = Burst::default();
                reader.read(&Bytes::copy_from_slice(piece), &mut burst);
                frames += burst.frames();
            }
            assert_eq!(frames, 4, "in pieces of {piece}");
        }
    }

    #[test]
    fn a_message_of_the_largest_size_passes_and_one_byte_more_does_not() {
        let largest = vec![b'x'; MAX];
        each_way(&frame(0x81, &largest), &[(Item::Text, &largest)]);
        let larger = frame(0x81, &vec![b'x'; MAX + 1]);
        each_way(&larger, &[(Item::Violation(Close::TooBig), b"")]);
        let fragments = [frame(0x01, &largest), frame(0x00, b""), frame(0x80, b"x")].concat();
        each_way(&fragments, &[(Item::Violation(Close::TooBig), b"")]);
    }

    #[test]
    fn a_declared_gibibyte_is_refused_at_its_header() {
        let mut bytes = vec![0x81, 0xFF];
        bytes.extend_from_slice(&(1_u64 << 30).to_be_bytes());
        bytes.extend_from_slice(&[1, 2, 3, 4]);
        each_way(&bytes, &[(Item::Violation(Close::TooBig), b"")]);
    }

    #[test]
    fn nothing_counts_after_a_violation() {
        for (bad, close) in [
            (frame(0x82, b"x"), Close::Binary),
            (frame(0x80, b"x"), Close::ProtocolError),
            ([frame(0x01, b"x"), frame(0x81, b"y")].concat(), Close::ProtocolError),
            (vec![0x81, 0x01, b'x'], Close::ProtocolError),
        ] {
            let bytes = [frame(0x81, b"before"), bad, frame(0x81, b"after")].concat();
            each_way(&bytes, &[(Item::Text, b"before"), (Item::Violation(close), b"")]);
        }
    }
}
