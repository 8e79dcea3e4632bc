//! WebSocket frames as bytes (RFC 6455 section 5): reading the headers of a client's frames,
//! unmasking, and writing a server's.
//!
//! Which frames may follow each other, and how large a message may get, is the reader's to say
//! ([`reader`](super::reader)).

use bytes::{BufMut, Bytes, BytesMut};

use super::close::Close;

/// The most bytes in the payload of a control frame (RFC 6455 section 5.5).
pub const MAX_CONTROL_PAYLOAD: usize = 125;

/// The longest header of a server's frame: two bytes and a length of eight.
pub const MAX_SERVER_HEADER: usize = 10;

const FIN: u8 = 0x80;
const RESERVED: u8 = 0x70;
const MASKED: u8 = 0x80;

/// What a frame is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FrameKind {
    Continuation,
    Text,
    Binary,
    Close,
    Ping,
    Pong,
}

impl FrameKind {
    fn from_opcode(opcode: u8) -> Option<Self> {
        Some(match opcode {
            0x0 => Self::Continuation,
            0x1 => Self::Text,
            0x2 => Self::Binary,
            0x8 => Self::Close,
            0x9 => Self::Ping,
            0xA => Self::Pong,
            _ => return None,
        })
    }

    fn opcode(self) -> u8 {
        match self {
            Self::Continuation => 0x0,
            Self::Text => 0x1,
            Self::Binary => 0x2,
            Self::Close => 0x8,
            Self::Ping => 0x9,
            Self::Pong => 0xA,
        }
    }

    pub fn is_control(self) -> bool {
        matches!(self, Self::Close | Self::Ping | Self::Pong)
    }
}

/// The header of a frame from a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClientHeader {
    pub kind: FrameKind,
    /// Whether this is the last frame of its message.
    pub fin: bool,
    pub mask: [u8; 4],
    pub payload_bytes: u64,
    /// The bytes of the header itself.
    pub header_bytes: usize,
}

/// A frame that RFC 6455 forbids a client to send, whatever came before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BadFrame;

impl ClientHeader {
    /// Reads the header at the start of `bytes`; `None`: more bytes are needed.
    pub fn parse(bytes: &[u8]) -> Result<Option<Self>, BadFrame> {
        let &[first, second, ..] = bytes else { return Ok(None) };
        let kind = FrameKind::from_opcode(first & 0x0F).ok_or(BadFrame)?;
        let fin = first & FIN != 0;
        let short = second & !MASKED;
        let bad_control = kind.is_control() && (!fin || usize::from(short) > MAX_CONTROL_PAYLOAD);
        if first & RESERVED != 0 || second & MASKED == 0 || bad_control {
            return Err(BadFrame);
        }
        let (payload_bytes, mask_at) = match short {
            126 => match bytes.get(2..4) {
                Some(length) => (u64::from(u16::from_be_bytes(length.try_into().expect("2 bytes"))), 4),
                None => return Ok(None),
            },
            127 => match bytes.get(2..10) {
                Some(length) => (u64::from_be_bytes(length.try_into().expect("8 bytes")), 10),
                None => return Ok(None),
            },
            length => (u64::from(length), 2),
        };
        let Some(mask) = bytes.get(mask_at..mask_at + 4) else { return Ok(None) };
        let mask = mask.try_into().expect("4 bytes");
        Ok(Some(Self { kind, fin, mask, payload_bytes, header_bytes: mask_at + 4 }))
    }
}

/// Appends `masked`, unmasked, to `out`. `offset` is how many bytes of the payload came before.
pub fn unmask_into(out: &mut Vec<u8>, masked: &[u8], mask: [u8; 4], offset: usize) {
    let skipped = u32::try_from(offset % 4).expect("below 4");
    let mask = u64::from(u32::from_le_bytes(mask).rotate_right(8 * skipped));
    let wide = mask << 32 | mask;
    out.reserve(masked.len());
    // A block at a time, which stays in registers between reading and writing.
    let (blocks, rest) = masked.as_chunks::<64>();
    for block in blocks {
        out.extend_from_slice(&unmasked(block, wide));
    }
    if rest.is_empty() {
        return;
    }
    if let Some(last) = masked.last_chunk::<64>() {
        // The last 64 bytes, again where blocks had them: copies of other sizes are calls.
        out.truncate(out.len() - (64 - rest.len()));
        let turned = wide.rotate_right(8 * u32::try_from((masked.len() - 64) % 4).expect("below 4"));
        out.extend_from_slice(&unmasked(last, turned));
    } else {
        let mut last = [0; 64];
        last[..rest.len()].copy_from_slice(rest);
        out.extend_from_slice(&unmasked(&last, wide)[..rest.len()]);
    }
}

#[inline]
fn unmasked(block: &[u8; 64], mask: u64) -> [u8; 64] {
    let mut block = *block;
    for word in block.as_chunks_mut::<8>().0 {
        *word = (u64::from_le_bytes(*word) ^ mask).to_le_bytes();
    }
    block
}

/// Writes the header of a server's text frame.
pub fn put_text_header(out: &mut BytesMut, payload_bytes: usize) {
    put_header(out, FrameKind::Text, payload_bytes);
}

fn put_header(out: &mut BytesMut, kind: FrameKind, payload_bytes: usize) {
    out.put_u8(FIN | kind.opcode());
    match payload_bytes {
        0..126 => out.put_u8(u8::try_from(payload_bytes).expect("below 126")),
        126..0x1_0000 => {
            out.put_u8(126);
            out.put_u16(u16::try_from(payload_bytes).expect("below 2^16"));
        }
        _ => {
            out.put_u8(127);
            out.put_u64(payload_bytes as u64);
        }
    }
}

fn frame(kind: FrameKind, payload: &[u8]) -> Bytes {
    let mut out = BytesMut::with_capacity(MAX_SERVER_HEADER + payload.len());
    put_header(&mut out, kind, payload.len());
    out.extend_from_slice(payload);
    out.freeze()
}

/// A whole text message as one frame.
pub fn text(payload: &str) -> Bytes {
    frame(FrameKind::Text, payload.as_bytes())
}

/// A ping without a payload.
pub fn ping() -> Bytes {
    frame(FrameKind::Ping, &[])
}

/// The answer to a ping; `payload` is the ping's.
pub fn pong(payload: &[u8]) -> Bytes {
    frame(FrameKind::Pong, payload)
}

/// A close frame with the code and reason of `close`.
pub fn close(close: Close) -> Bytes {
    let mut payload = close.code().to_be_bytes().to_vec();
    payload.extend_from_slice(close.reason().as_bytes());
    frame(FrameKind::Close, &payload)
}

/// The answer to a client's close frame: its own code, or none where it gave none.
pub fn close_reply(code: Option<u16>) -> Bytes {
    match code {
        Some(code) => frame(FrameKind::Close, &code.to_be_bytes()),
        None => frame(FrameKind::Close, &[]),
    }
}

/// The payloads of the text frames that [`put_text_header`] heads, one after another.
#[derive(Debug, Clone)]
pub struct TextFrames<'a>(&'a [u8]);

impl<'a> TextFrames<'a> {
    pub fn new(frames: &'a [u8]) -> Self {
        Self(frames)
    }

    /// The frames that are not walked yet.
    pub fn rest(&self) -> &'a [u8] {
        self.0
    }
}

impl<'a> Iterator for TextFrames<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let (length, header) = match *self.0.get(1)? {
            126 => (u64::from(u16::from_be_bytes(self.0.get(2..4)?.try_into().ok()?)), 4),
            127 => (u64::from_be_bytes(self.0.get(2..10)?.try_into().ok()?), 10),
            length => (u64::from(length), 2),
        };
        let end = header + usize::try_from(length).ok()?;
        let payload = self.0.get(header..end)?;
        self.0 = &self.0[end..];
        Some(payload)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn masked(first: u8, length: &[u8]) -> Vec<u8> {
        let mut bytes = vec![first];
        bytes.extend_from_slice(length);
        bytes.extend_from_slice(&[1, 2, 3, 4]);
        bytes
    }

    #[test]
    fn a_header_is_read_in_each_of_its_three_lengths() {
        for (length, payload_bytes, header_bytes) in [
            (vec![0x80 | 5], 5, 6),
            (vec![0xFE, 1, 0], 256, 8),
            (vec![0xFF, 0, 0, 0, 0, 0x40, 0, 0, 0], 1 << 30, 14),
        ] {
            let bytes = masked(0x81, &length);
            for cut in 0..bytes.len() {
                assert_eq!(ClientHeader::parse(&bytes[..cut]), Ok(None), "{cut} bytes of {bytes:?}");
            }
            let header = ClientHeader::parse(&bytes).unwrap().unwrap();
            assert_eq!((header.payload_bytes, header.header_bytes), (payload_bytes, header_bytes));
            assert_eq!((header.kind, header.fin, header.mask), (FrameKind::Text, true, [1, 2, 3, 4]));
        }
    }

    #[test]
    fn what_a_client_may_never_send_is_refused() {
        for bytes in [
            vec![0x81, 5],    // not masked
            vec![0xC1, 0x85], // a reserved bit
            vec![0x83, 0x85], // a reserved opcode
            vec![0x09, 0x80], // a fragmented ping
            vec![0x89, 0xFE], // a ping of more than 125 bytes
        ] {
            assert_eq!(ClientHeader::parse(&bytes), Err(BadFrame), "{bytes:?}");
        }
    }

    #[test]
    fn unmasking_in_pieces_is_unmasking_at_once() {
        let plain: Vec<u8> = (0..=u8::MAX).collect();
        let mask = [7, 99, 200, 31];
        let masked: Vec<u8> = plain.iter().zip(mask.iter().cycle()).map(|(byte, key)| byte ^ key).collect();
        for cut in 0..plain.len() {
            let mut out = Vec::new();
            unmask_into(&mut out, &masked[..cut], mask, 0);
            unmask_into(&mut out, &masked[cut..], mask, cut);
            assert_eq!(out, plain, "cut at {cut}");
        }
    }

    #[test]
    fn frames_that_were_written_are_walked_again() {
        let mut out = BytesMut::new();
        let payloads: Vec<String> = [0, 125, 126, 65_535, 65_536].map(|length| "x".repeat(length)).into();
        for payload in &payloads {
            put_text_header(&mut out, payload.len());
            out.extend_from_slice(payload.as_bytes());
        }
        assert!(TextFrames::new(&out).eq(payloads.iter().map(String::as_bytes)));
    }
}
