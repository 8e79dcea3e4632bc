//! The frame guard: any bytes in any split give what a decoder of the whole stream gives.
//!
//! Input: one byte for `max_message_bytes`, one that seeds a way to split, then the client's stream.

use bytes::Bytes;
use gateway::protocol::burst::{Burst, Item};
use gateway::protocol::close::Close;
use gateway::protocol::reader::FrameReader;

/// What the reader may hold beside a message: a header and a control frame, as vectors grow.
const SLACK_BYTES: usize = 512;

type Items = Vec<(Item, Vec<u8>)>;

pub fn run(input: &[u8]) {
    let [max, seed, stream @ ..] = input else { return };
    let max = [0, 1, 2, 7, 64, 125, 126, 127, 300, 1000, 4096, 65_535, 65_536, 70_000, 100_000, 1 << 20]
        [usize::from(*max) % 16];
    let expected = decode(stream, max);
    for split in [Split::Whole, Split::Bytes, Split::Random(u32::from(*seed) + 1)] {
        assert_eq!(read(stream, max, split), expected, "{split:?}, max {max}");
    }
}

/// How a stream comes from the socket.
#[derive(Debug, Clone, Copy)]
enum Split {
    Whole,
    Bytes,
    Random(u32),
}

impl Split {
    /// How many bytes the next read brings, at least 1.
    fn next(&mut self) -> usize {
        match self {
            Self::Whole => usize::MAX,
            Self::Bytes => 1,
            Self::Random(state) => {
                // Marsaglia's xorshift.
                *state ^= *state << 13;
                *state ^= *state >> 17;
                *state ^= *state << 5;
                let most = [3, 16, 200, 5000][*state as usize % 4];
                1 + (*state >> 8) as usize % most
            }
        }
    }
}

fn all_of(burst: &mut Burst) -> Items {
    (0..burst.len())
        .filter_map(|index| burst.get(index).map(|(item, bytes)| (item, bytes.to_vec())))
        .collect()
}

/// Room must be told for a text and those behind it.
fn check_room(burst: &Burst, found: &[(Item, Vec<u8>)]) {
    let mut left = 0;
    for (index, (item, bytes)) in found.iter().enumerate().rev() {
        if *item == Item::Text {
            left += bytes.len();
            let told = burst.bytes_from(index);
            assert!(told >= left, "{told} for {left} from {index} on in {burst:?}");
        }
    }
}

/// What has to wait stays as it is.
fn check_waiting(burst: &mut Burst, found: &[(Item, Vec<u8>)], shared: usize) {
    for (index, (item, bytes)) in found.iter().enumerate() {
        burst.fit(index, shared);
        assert_eq!(burst.get(index), Some((*item, &bytes[..])), "{index}");
    }
    burst.fit(found.len(), shared);
}

fn read(mut stream: &[u8], max: usize, mut split: Split) -> Items {
    let mut reader = FrameReader::new(max);
    let mut items = Items::new();
    let mut burst = Burst::default();
    while !stream.is_empty() {
        let (bytes, rest) = stream.split_at(split.next().min(stream.len()));
        stream = rest;
        let was_broken = is_broken(&items);
        let held = reader.held_bytes();
        reader.read(&Bytes::copy_from_slice(bytes), &mut burst);
        assert!(!was_broken || burst.is_empty(), "{burst:?} came after a violation");
        assert!(burst.bytes_from(0) <= held + bytes.len(), "{burst:?} is more than came");
        let found = all_of(&mut burst);
        check_room(&burst, &found);
        check_waiting(&mut burst, &found, bytes.len());
        items.extend(found);
        let bound = if is_broken(&items) { 0 } else { max } + SLACK_BYTES;
        assert!(reader.held_bytes() <= bound, "{} bytes are held, max {max}", reader.held_bytes());
    }
    items
}

fn is_broken(items: &Items) -> bool {
    matches!(items.last(), Some((Item::Violation(_), _)))
}

/// RFC 6455 on a whole stream. The one difference: a length may be longer than it needs to be.
fn decode(stream: &[u8], max: usize) -> Items {
    let mut items = Items::new();
    let mut stream = stream.iter().copied();
    let mut message: Option<Vec<u8>> = None;
    while let Some(frame) = Frame::next(&mut stream, message.as_deref(), max) {
        match frame {
            Err(close) => {
                items.push((Item::Violation(close), Vec::new()));
                break;
            }
            Ok(Frame { opcode: 8, payload, .. }) => items.push((Item::Close, payload)),
            Ok(Frame { opcode: 9, payload, .. }) => items.push((Item::Ping, payload)),
            Ok(Frame { opcode: 10, payload, .. }) => items.push((Item::Pong, payload)),
            Ok(Frame { fin, payload, .. }) => {
                message.get_or_insert_default().extend(payload);
                if fin {
                    items.extend(message.take().map(|message| (Item::Text, message)));
                }
            }
        }
    }
    items
}

struct Frame {
    fin: bool,
    opcode: u8,
    payload: Vec<u8>,
}

impl Frame {
    /// The next frame; `None`: the stream ends before it does. `message` is what came of a message
    /// that is not complete.
    fn next(
        stream: &mut impl Iterator<Item = u8>,
        message: Option<&[u8]>,
        max: usize,
    ) -> Option<Result<Self, Close>> {
        let (first, second) = (stream.next()?, stream.next()?);
        let (fin, reserved, opcode) = (first >= 0x80, first >> 4 & 7, first & 0xF);
        let (is_masked, short) = (second >= 0x80, second & 0x7F);
        let is_control = opcode >= 8;
        let is_known = matches!(opcode, 0..=2 | 8..=10);
        if reserved != 0 || !is_known || !is_masked || is_control && (!fin || short > 125) {
            return Some(Err(Close::ProtocolError));
        }
        let length_bytes = match short {
            126 => 2,
            127 => 8,
            _ => 0,
        };
        let mut length = if length_bytes == 0 { u128::from(short) } else { 0 };
        for _ in 0..length_bytes {
            length = length << 8 | u128::from(stream.next()?);
        }
        let mask = [stream.next()?, stream.next()?, stream.next()?, stream.next()?];
        if !is_control {
            if (opcode == 0) != message.is_some() {
                return Some(Err(Close::ProtocolError));
            }
            if opcode == 2 {
                return Some(Err(Close::Binary));
            }
            if length + message.map_or(0, <[u8]>::len) as u128 > max as u128 {
                return Some(Err(Close::TooBig));
            }
        }
        let mut payload = Vec::new();
        for index in 0..length as usize {
            payload.push(stream.next()? ^ mask[index % 4]);
        }
        Some(Ok(Self { fin, opcode, payload }))
    }
}
