//! What the scan found in a message, borrowed from its text, and what its topic asks for.
//!
//! Nothing is checked here: an [`Envelope`] comes only from [`scan`](super::scan::scan), and all
//! strings in it are valid JSON. Whether a name or a target is well formed is for
//! [`name`](super::name) and [`target`](super::target) to say.

use std::borrow::Cow;
use std::ops::Range;

use super::{HEARTBEAT_PREFIX, OPCODE_TOPIC, PROXY_PREFIX};

/// A string as it stands in the JSON, between its quotes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct JsonString<'a> {
    raw: &'a str,
    escaped: bool,
}

impl<'a> JsonString<'a> {
    /// `raw` must be what a valid JSON string has between its quotes.
    #[expect(clippy::needless_bitwise_bool, reason = "without an early end it is a few vector instructions")]
    pub(super) fn new(raw: &'a str) -> Self {
        let escaped = raw.bytes().fold(false, |escaped, byte| escaped | (byte == b'\\'));
        Self { raw, escaped }
    }

    /// The same where it is known whether there are escapes.
    pub(super) fn known(raw: &'a str, escaped: bool) -> Self {
        debug_assert_eq!(escaped, raw.contains('\\'), "{raw}");
        Self { raw, escaped }
    }

    pub fn raw(self) -> &'a str {
        self.raw
    }

    /// The text it stands for; lone surrogates become U+FFFD. Borrowed when there are no escapes.
    pub fn decode(self) -> Cow<'a, str> {
        if self.escaped {
            Cow::Owned(characters(self.raw).map(|(character, _)| character).collect())
        } else {
            Cow::Borrowed(self.raw)
        }
    }

    /// How many bytes the decoded text has.
    pub(super) fn decoded_len(self) -> usize {
        if self.escaped {
            characters(self.raw).map(|(character, _)| character.len_utf8()).sum()
        } else {
            self.raw.len()
        }
    }

    /// What follows that prefix, in whatever spelling the prefix stands there.
    fn strip_prefix(self, prefix: &str) -> Option<Self> {
        if !self.escaped {
            return self.raw.strip_prefix(prefix).map(|raw| Self { raw, escaped: false });
        }
        let mut found = characters(self.raw);
        let mut end = 0;
        for wanted in prefix.chars() {
            let (character, range) = found.next()?;
            if character != wanted {
                return None;
            }
            end = range.end;
        }
        Some(Self::new(&self.raw[end..]))
    }

    /// What stands before and after the first colon, in whatever spelling it stands there.
    fn split_at_colon(self) -> Option<(Self, Self)> {
        if self.escaped {
            let (_, colon) = characters(self.raw).find(|(character, _)| *character == ':')?;
            return Some((Self::new(&self.raw[..colon.start]), Self::new(&self.raw[colon.end..])));
        }
        // A target is short: a plain loop beats the search that `find` sets up.
        let at = self.raw.bytes().position(|byte| byte == b':')?;
        Some((Self::known(&self.raw[..at], false), Self::known(&self.raw[at + 1..], false)))
    }
}

/// The characters that a valid JSON string stands for, each with the raw bytes that spell it.
fn characters(raw: &str) -> impl Iterator<Item = (char, Range<usize>)> {
    let mut at = 0;
    std::iter::from_fn(move || {
        let (character, len) = first_character(&raw[at..])?;
        at += len;
        Some((character, at - len..at))
    })
}

fn first_character(raw: &str) -> Option<(char, usize)> {
    let first = raw.chars().next()?;
    if first != '\\' {
        return Some((first, first.len_utf8()));
    }
    let simple = match raw.as_bytes().get(1)? {
        b'u' => return Some(first_unicode_escape(raw)),
        b'b' => '\u{8}',
        b'f' => '\u{c}',
        b'n' => '\n',
        b'r' => '\r',
        b't' => '\t',
        other => char::from(*other),
    };
    Some((simple, 2))
}

/// RFC 8259, section 7: a character outside the basic plane is written as two escapes.
fn first_unicode_escape(raw: &str) -> (char, usize) {
    let unit = |at: usize| {
        let hex = raw.get(at..at + 6)?.strip_prefix("\\u")?;
        u32::from_str_radix(hex, 16).ok()
    };
    let first = unit(0).unwrap_or(0xfffd);
    if let (0xd800..0xdc00, Some(second @ 0xdc00..0xe000)) = (first, unit(6)) {
        let code = 0x1_0000 + ((first - 0xd800) << 10) + (second - 0xdc00);
        return (char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER), 12);
    }
    (char::from_u32(first).unwrap_or(char::REPLACEMENT_CHARACTER), 6)
}

/// One message: its text, and where the parts stand that the gateway reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Envelope<'a> {
    pub(super) text: &'a str,
    pub(super) source: JsonString<'a>,
    /// Where the source's raw text begins in `text`.
    pub(super) source_at: usize,
    pub(super) topic: JsonString<'a>,
    /// Where the topic's raw text begins in `text`.
    pub(super) topic_at: usize,
    pub(super) data: Option<&'a str>,
    pub(super) nonce: Option<&'a str>,
}

impl<'a> Envelope<'a> {
    /// The whole message.
    pub fn text(&self) -> &'a str {
        self.text
    }

    /// `s`
    pub fn source(&self) -> JsonString<'a> {
        self.source
    }

    /// `t`
    pub fn topic(&self) -> JsonString<'a> {
        self.topic
    }

    /// `d` as raw JSON; `null` where it is absent.
    pub fn data(&self) -> &'a str {
        self.data.unwrap_or("null")
    }

    /// `n` as raw JSON: with its quotes if it is a string.
    pub fn nonce(&self) -> Option<&'a str> {
        self.nonce
    }

    /// What the topic asks for.
    pub fn route(&self) -> Route<'a> {
        if let Some(rest) = self.topic.strip_prefix(PROXY_PREFIX) {
            self.proxy(rest)
        } else if let Some(name) = self.topic.strip_prefix(HEARTBEAT_PREFIX) {
            Route::Heartbeat(name.decode())
        } else if self.topic.strip_prefix(OPCODE_TOPIC).is_some_and(|rest| rest.raw.is_empty()) {
            Route::Op
        } else {
            Route::Unroutable
        }
    }

    /// `rest` is what follows `gateway-proxy:` in the topic.
    fn proxy(&self, rest: JsonString<'a>) -> Route<'a> {
        let Some((target, topic)) = rest.split_at_colon() else {
            return Route::Malformed(
                "`t` must be `gateway-proxy:<target>:<topic>`: its second colon is missing",
            );
        };
        if target.raw.is_empty() {
            return Route::Malformed("`t` must be `gateway-proxy:<target>:<topic>`: its target is empty");
        }
        if topic.raw.is_empty() {
            return Route::Malformed("`t` must be `gateway-proxy:<target>:<topic>`: its topic is empty");
        }
        let end = self.topic_at + self.topic.raw.len() - topic.raw.len();
        Route::Proxy(Proxy { target: target.decode(), cut: self.topic_at..end })
    }
}

/// What a topic asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Route<'a> {
    /// `gateway:opcode`
    Op,
    /// `heartbeat:<name>`: the name, which may be empty.
    Heartbeat(Cow<'a, str>),
    /// `gateway-proxy:<target>:<topic>`
    Proxy(Proxy<'a>),
    /// `gateway-proxy:` with a missing or empty target or topic; the text says what was expected.
    Malformed(&'static str),
    /// No topic that the gateway understands.
    Unroutable,
}

/// A message to be forwarded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proxy<'a> {
    /// `<target>` decoded, usually borrowed.
    pub target: Cow<'a, str>,
    /// The bytes of the message's text that are left out of what the target gets: those that spell
    /// `gateway-proxy:<target>:`, both colons included.
    pub cut: Range<usize>,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::super::scan::random::{self, Choices};
    use super::super::scan::{Limits, scan};
    use super::*;

    fn message(topic: &str) -> String {
        format!(r#"{{"s":"a","t":"{topic}","d":1}}"#)
    }

    fn envelope(text: &str) -> Envelope<'_> {
        scan(text, Limits { max_depth: 128 }).expect(text)
    }

    #[test]
    fn a_string_decodes_to_what_it_stands_for() {
        for (raw, decoded) in [
            ("", ""),
            ("plain é 漢", "plain é 漢"),
            (r#"\"\\\/\b\f\n\r\t"#, "\"\\/\u{8}\u{c}\n\r\t"),
            (r"\u0061\u00E9\u6f22é", "aé漢é"),
            (r"\ud83d\ude00!", "😀!"),
            (r"\ud83d", "\u{fffd}"),
            (r"\ude00\ud83d", "\u{fffd}\u{fffd}"),
            (r"\ud83d\ud83d\ude00", "\u{fffd}😀"),
            (r"\ud83dude00", "\u{fffd}ude00"),
            (r"\ud83d\n", "\u{fffd}\n"),
        ] {
            let string = JsonString::new(raw);
            assert_eq!(string.decode(), decoded, "{raw}");
            assert_eq!(string.decoded_len(), decoded.len(), "{raw}");
            assert_eq!(matches!(string.decode(), Cow::Borrowed(_)), !raw.contains('\\'), "{raw}");
        }
    }

    #[test]
    fn a_topic_says_what_it_asks_for_in_any_spelling() {
        for (topic, route) in [
            ("gateway:opcode", Route::Op),
            (r"\u0067ateway\u003aopcode", Route::Op),
            ("gateway:opcodes", Route::Unroutable),
            ("gateway:", Route::Unroutable),
            ("heartbeat:a", Route::Heartbeat("a".into())),
            ("heartbeat:", Route::Heartbeat("".into())),
            (r"heartbea\u0074:\u0061:b", Route::Heartbeat("a:b".into())),
            ("heartbeat", Route::Unroutable),
            ("", Route::Unroutable),
            ("gateway-proxy", Route::Unroutable),
            ("Gateway-proxy:b:c", Route::Unroutable),
            (r"gateway-proxy\n:b:c", Route::Unroutable),
        ] {
            assert_eq!(envelope(&message(topic)).route(), route, "{topic}");
        }
    }

    #[test]
    fn a_missing_or_empty_target_or_topic_is_malformed() {
        for (topic, wrong) in [
            ("gateway-proxy:", "second colon"),
            ("gateway-proxy:b", "second colon"),
            ("gateway-proxy::", "target is empty"),
            ("gateway-proxy::c", "target is empty"),
            ("gateway-proxy:b:", "topic is empty"),
            (r"gateway-proxy\u003a\u003ac", "target is empty"),
            (r"gateway-proxy:b\u003A", "topic is empty"),
        ] {
            let text = message(topic);
            let Route::Malformed(expected) = envelope(&text).route() else { panic!("{topic} is routed") };
            assert!(expected.contains(wrong), "{topic}: {expected}");
        }
    }

    #[test]
    fn the_target_is_borrowed_from_a_plain_topic() {
        let text = message("gateway-proxy:shard/3:x:y");
        let Route::Proxy(proxy) = envelope(&text).route() else { panic!("not proxied") };
        assert!(matches!(proxy.target, Cow::Borrowed("shard/3")));
        assert_eq!(&text[proxy.cut], "gateway-proxy:shard/3:");
    }

    /// Each character as it is, or as one of its escapes.
    fn spell(text: &str, choices: &mut Choices<'_>) -> String {
        let spell = |character: char| {
            let plain = !matches!(character, '"' | '\\' | '\0'..='\u{1f}');
            if plain && choices.below(3) > 0 {
                return character.to_string();
            }
            let upper = choices.below(2) == 0;
            let mut units = [0; 2];
            let escape = |unit: &u16| if upper { format!("\\u{unit:04X}") } else { format!("\\u{unit:04x}") };
            character.encode_utf16(&mut units).iter().map(escape).collect()
        };
        text.chars().map(spell).collect()
    }

    proptest! {
        #![proptest_config(random::config(10_000))]

        #[test]
        fn the_cut_leaves_the_same_message_with_the_rest_of_the_topic(
            target in "[A-Za-z0-9._/é😀\"\n-]{1,8}",
            topic in "[a-z:_漢😀\\\\\t]{1,12}",
            choices in prop::collection::vec(any::<u8>(), 0..200),
        ) {
            let choices = &mut Choices(&choices);
            let spelt = spell(&format!("gateway-proxy:{target}:{topic}"), choices);
            let mut data = String::new();
            random::json(choices, 3, &mut data);
            let (before, after) = [(r#"{"s":"a","#, "}"), (r#"{"s":"a" , "x":"t", "#, r#", "n":7 }"#)][choices.below(2)];
            let d = format!(r#""d":{data}"#);
            let t = format!(r#""t" : "{spelt}""#);
            let (first, second) = if choices.below(2) == 0 { (&t, &d) } else { (&d, &t) };
            let text = format!("{before}{first},{second}{after}");

            let Route::Proxy(proxy) = envelope(&text).route() else {
                return Err(TestCaseError::fail(format!("not proxied: {text}")));
            };
            prop_assert_eq!(&proxy.target, &target);
            let rest = format!("{}{}", &text[..proxy.cut.start], &text[proxy.cut.end..]);
            // serde_json's values hold no lone surrogates, so `d` is compared as text.
            let without_data = |text: &str| text.replacen(&d, r#""d":0"#, 1);
            let mut expected: Value = serde_json::from_str(&without_data(&text)).unwrap();
            expected["t"] = topic.into();
            prop_assert_eq!(serde_json::from_str::<Value>(&without_data(&rest)).unwrap(), expected);
            prop_assert_eq!(envelope(&rest).data(), data);
        }
    }
}
