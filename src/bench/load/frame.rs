//! WebSocket frames as a client sees them: writing masked ones, reading those of the gateway.

/// Of text messages.
pub(super) const TEXT: u8 = 0x1;
pub(super) const CLOSE: u8 = 0x8;
pub(super) const PING: u8 = 0x9;
pub(super) const PONG: u8 = 0xA;

const CONTINUATION: u8 = 0x0;
const OPCODE: u8 = 0x0F;
const FIN: u8 = 0x80;
const MASKED: u8 = 0x80;
/// In the place of a length that does not fit there.
const LENGTH_OF_2: u8 = 126;
const LENGTH_OF_8: u8 = 127;

/// A frame of the gateway, whole.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Frame<'a> {
    pub(super) opcode: u8,
    pub(super) payload: &'a [u8],
}

/// A frame that a server must not send, or that the gateway never sends: masked, with reserved bits, or
/// a part of a message.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct BadFrame;

impl<'a> Frame<'a> {
    /// Takes a frame off the front of `bytes`; `None`: it is not all there.
    pub(super) fn take(bytes: &mut &'a [u8]) -> Result<Option<Self>, BadFrame> {
        let &[first, second, ..] = *bytes else { return Ok(None) };
        if first & !OPCODE != FIN || first & OPCODE == CONTINUATION || second & MASKED != 0 {
            return Err(BadFrame);
        }
        let (length, header) = match second {
            LENGTH_OF_2 => match bytes.get(2..4) {
                Some(length) => (u64::from(u16::from_be_bytes(length.try_into().expect("2 bytes"))), 4),
                None => return Ok(None),
            },
            LENGTH_OF_8 => match bytes.get(2..10) {
                Some(length) => (u64::from_be_bytes(length.try_into().expect("8 bytes")), 10),
                None => return Ok(None),
            },
            length => (u64::from(length), 2),
        };
        let end = usize::try_from(length).ok().and_then(|length| length.checked_add(header));
        let Some(payload) = bytes.get(header..end.ok_or(BadFrame)?) else { return Ok(None) };
        *bytes = &bytes[header + payload.len()..];
        Ok(Some(Self { opcode: first & OPCODE, payload }))
    }
}

/// Appends a frame. Returns where its payload starts.
pub(super) fn put(out: &mut Vec<u8>, opcode: u8, mask: [u8; 4], payload: &[u8]) -> usize {
    out.push(FIN | opcode);
    match payload.len() {
        length @ 0..126 => out.push(MASKED | u8::try_from(length).expect("below 126")),
        length @ 126..0x1_0000 => {
            out.push(MASKED | LENGTH_OF_2);
            out.extend(u16::try_from(length).expect("below 2^16").to_be_bytes());
        }
        length => {
            out.push(MASKED | LENGTH_OF_8);
            out.extend((length as u64).to_be_bytes());
        }
    }
    out.extend(mask);
    let start = out.len();
    out.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, key)| byte ^ key));
    start
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::frame::{ClientHeader, FrameKind, text, unmask_into};

    #[test]
    fn what_is_written_the_gateway_reads() {
        for length in [0, 1, 125, 126, 65_535, 65_536] {
            let (payload, mask) = (vec![b'a'; length], [1, 2, 3, 4]);
            let mut out = vec![b'?'];
            let start = put(&mut out, TEXT, mask, &payload);
            let header = ClientHeader::parse(&out[1..]).unwrap().unwrap();
            assert_eq!((header.kind, header.fin, header.mask), (FrameKind::Text, true, mask));
            assert_eq!((header.payload_bytes, header.header_bytes), (length as u64, start - 1));
            let mut unmasked = Vec::new();
            unmask_into(&mut unmasked, &out[start..], mask, 0);
            assert_eq!(unmasked, payload);
        }
    }

    #[test]
    fn the_gateways_frames_are_read_one_after_another_and_never_in_part() {
        let texts = ["", "short", &"x".repeat(126), &"y".repeat(70_000)];
        let bytes: Vec<u8> = texts.iter().flat_map(|it| text(it)).collect();
        let mut rest = &bytes[..];
        for expected in texts {
            let whole = rest;
            let frame = Frame::take(&mut rest).unwrap().unwrap();
            assert_eq!(frame, Frame { opcode: TEXT, payload: expected.as_bytes() });
            let length = whole.len() - rest.len();
            for cut in (0..length.min(20)).chain([length - 1]) {
                let mut part = &whole[..cut];
                assert_eq!((Frame::take(&mut part), part.len()), (Ok(None), cut));
            }
        }
        assert!(rest.is_empty());
    }

    #[test]
    fn a_frame_that_the_gateway_never_sends_is_an_error() {
        for bytes in [[0x01, 0], [0x80, 0], [0xC1, 0], [0x81, 0x80]] {
            assert_eq!(Frame::take(&mut &bytes[..]), Err(BadFrame), "{bytes:x?}");
        }
    }
}
