//! Messages as services send them: events of Discord in JSON, nested, with numbers, escapes and
//! other scripts, each of an exact size. The same in every run.

use std::fmt::Write;

/// What stands between the tokens of a message.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Style {
    /// Nothing: as by JavaScript's `JSON.stringify`, discord.js's.
    Compact,
    /// A space after each comma and colon: as by Python's `json.dumps`, discord.py's.
    Spaced,
}

/// What somebody may have written: each character as it stands in JSON.
const PROSE: &str = r#"we said \"half past eight\" at the café — bring 3 chairs, señor; 明日は雨です \ud83d\ude00\n👋🏽 ok C:\\tmp, "#;

/// A message to that target of exactly so many bytes. About two thirds of a large one are records.
pub(crate) fn message(target: &str, bytes: usize, style: Style) -> String {
    let mut text = format!(
        r#"{{"s":"shard-3","t":"gateway-proxy:{target}:discord:message","n":17,"d":{{"id":"1164201840917102653","flags":[0,-1.5e3,true,null],"members":["#
    );
    let mut index = 0;
    while text.len() + RECORD_BYTES + 40 < bytes * 2 / 3 {
        record(&mut text, index);
        index += 1;
    }
    text.push_str(r#"],"content":""#);
    let mut text = styled(&text, style);
    fill(&mut text, bytes - 3);
    text.push_str(r#""}}"#);
    assert_eq!(text.len(), bytes, "{text}");
    text
}

/// At most.
const RECORD_BYTES: usize = 230;

fn record(text: &mut String, index: u32) {
    let comma = if index == 0 { "" } else { "," };
    write!(
        text,
        r#"{comma}{{"user":{{"id":"8035111022467{index:04}","name":"us\u00e9r{index}","bot":false,"avatar":null}},"nick":"ニック {index}","roles":["1037358836{index:02}",[{index}]],"at":"2015-04-26T06:26:56.936000+00:00","activity":{{"score":{index}.25,"deaf":false}}}}"#,
    )
    .expect("a String takes it");
}

/// Puts spaces where the style wants them. What is styled holds no comma or colon of which the next
/// character tells that it may stand in a string.
fn styled(text: &str, style: Style) -> String {
    match style {
        Style::Compact => text.to_owned(),
        Style::Spaced => [(r#"":"#, r#"": "#), (",\"", ", \""), (",{", ", {"), (",[", ", [")]
            .into_iter()
            .fold(text.to_owned(), |text, (tight, wide)| text.replace(tight, wide)),
    }
}

/// Adds prose up to that size.
fn fill(text: &mut String, bytes: usize) {
    assert!(text.len() <= bytes, "{bytes} bytes are too few: {text}");
    let mut units = units(PROSE).into_iter().cycle();
    while let Some(unit) = units.next().filter(|unit| text.len() + unit.len() <= bytes) {
        text.push_str(unit);
    }
    text.extend(std::iter::repeat_n('.', bytes - text.len()));
}

/// The characters and escapes of what stands in a JSON string, surrogates as pairs.
fn units(text: &str) -> Vec<&str> {
    let mut units = Vec::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let bytes = match rest.as_bytes() {
            [b'\\', b'u', ..] => 12,
            [b'\\', ..] => 2,
            _ => first.len_utf8(),
        };
        let (unit, after) = rest.split_at(bytes);
        units.push(unit);
        rest = after;
    }
    units
}

/// What a client puts on the wire: each text as one masked frame (RFC 6455 section 5.2), one after the
/// other.
pub(crate) fn masked(texts: &[String]) -> Vec<u8> {
    let mut wire = Vec::new();
    for (index, text) in (1..).zip(texts) {
        let mask = 0x9E37_79B9_u32.wrapping_mul(index).to_be_bytes();
        let length = u16::try_from(text.len()).expect("a message below 64 KiB");
        assert!(length >= 126, "shorter ones have another header");
        wire.extend([0x81, 0xFE]);
        wire.extend(length.to_be_bytes());
        wire.extend(mask);
        wire.extend(text.bytes().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    }
    wire
}
