//! How the messages of one service to one target begin: `s`, then `t` up to the colon behind the target.
//!
//! A service sends most of its messages to a target that it sent to before, and writes them all alike. What
//! was found in such a beginning need not be looked for again where the same bytes stand: one comparison,
//! and the scan goes on amid the topic.

use std::borrow::Cow;
use std::ops::Range;

use super::Limits;
use super::fields::Value;
use crate::protocol::envelope::{Envelope, Proxy};

/// Such a beginning.
#[derive(Debug, Clone)]
pub struct Head {
    text: Box<str>,
    source: Range<usize>,
    topic_at: usize,
    target: Range<usize>,
}

impl Head {
    /// The head of a message that is to be forwarded. `None`: other keys than `s` and `t` stand there, or
    /// escapes.
    pub fn of(envelope: &Envelope<'_>, proxy: &Proxy<'_>) -> Option<Self> {
        let Envelope { text, source_at, topic_at, .. } = *envelope;
        let text = &text[..proxy.cut.end];
        let source = source_at..source_at + envelope.source.raw().len();
        let target = text.len() - 1 - proxy.target.len()..text.len() - 1;
        let before = without_white_space(text.get(..source.start)?);
        let between = without_white_space(text.get(source.end..topic_at)?);
        let is_plain = before == r#"{"s":""# && between == r#"","t":""# && !text.contains('\\');
        is_plain.then(|| Self { text: text.into(), source, topic_at, target })
    }

    /// What [`scan`](super::scan) finds in a message with this head, and [`Envelope::route`] in that.
    /// `None`: it begins otherwise, or something is wrong with it.
    pub fn scan<'a>(&self, text: &'a str, limits: Limits) -> Option<(Envelope<'a>, Proxy<'a>)> {
        let rest = text.strip_prefix(&*self.text)?;
        if rest.starts_with('"') {
            return None;
        }
        let envelope = super::scan_behind(Some(self), text, limits).ok()?;
        let target = Cow::Borrowed(&text[self.target.clone()]);
        Some((envelope, Proxy { target, cut: self.topic_at..self.text.len() }))
    }

    /// How many bytes it has.
    pub(super) fn len(&self) -> usize {
        self.text.len()
    }

    /// Where the topic's value begins, with its quote.
    pub(super) fn topic_value_at(&self) -> usize {
        self.topic_at - 1
    }

    /// The value of `s` in a message with this head.
    pub(super) fn source<'a>(&self, text: &'a str) -> Value<'a> {
        let at = self.source.start - 1;
        Value { raw: &text[at..=self.source.end], escaped: false, at }
    }
}

fn without_white_space(json: &str) -> String {
    json.replace([' ', '\t', '\n', '\r'], "")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::random::{Choices, config};
    use super::super::tests::{message, mutate};
    use super::super::{scan, scan_by_tokens};
    use super::*;
    use crate::protocol::envelope::Route;

    const LIMITS: Limits = Limits { max_depth: 8 };

    fn routed(text: &str) -> Option<(Envelope<'_>, Proxy<'_>)> {
        let envelope = scan(text, LIMITS).ok()?;
        match envelope.route() {
            Route::Proxy(proxy) => Some((envelope, proxy)),
            _ => None,
        }
    }

    fn head(text: &str) -> Option<Head> {
        let (envelope, proxy) = routed(text).expect(text);
        Head::of(&envelope, &proxy)
    }

    #[test]
    fn a_head_is_that_of_the_messages_that_begin_with_it() {
        let head = head(r#"{"s":"a","t":"gateway-proxy:b:c","d":1}"#).unwrap();
        for (text, is_its) in [
            (r#"{"s":"a","t":"gateway-proxy:b:c","d":1}"#, true),
            (r#"{"s":"a","t":"gateway-proxy:b:c"}"#, true),
            (r#"{"s":"a","t":"gateway-proxy:b:é\"c:" , "n":7,"d":[[1]],"x":"s"} "#, true),
            (r#"{"s":"a","t":"gateway-proxy:b:\\"}"#, true),
            (r#"{"s":"b","t":"gateway-proxy:b:c","d":1}"#, false),
            (r#"{"s":"a","t":"gateway-proxy:c:c","d":1}"#, false),
            (r#"{"s":"a","t":"gateway-proxy:b","d":1}"#, false),
            (r#"{"s": "a","t":"gateway-proxy:b:c","d":1}"#, false),
            (r#"{"d":1,"s":"a","t":"gateway-proxy:b:c"}"#, false),
            ("", false),
        ] {
            let expected = routed(text).filter(|_| is_its);
            assert_eq!(head.scan(text, LIMITS), expected, "{text}");
            assert_eq!(expected.is_some(), is_its, "{text}");
        }
    }

    #[test]
    fn what_is_wrong_behind_a_head_is_left_to_the_scan() {
        let head = head(r#"{"s":"a","t":"gateway-proxy:b:c","d":1}"#).unwrap();
        for rest in [
            r#"","d":1}"#,
            r#"c","s":"x"}"#,
            r#"c","s":"a"}"#,
            r#"c","t":"gateway-proxy:b:c"}"#,
            r#"c","\u0073":"a"}"#,
            r#"c","d":1,"d":1}"#,
            r#"c","i":1}"#,
            r#"c","d":01}"#,
            r#"c","d":1}}"#,
            r#"c","d":1,}"#,
            r#"c","d":1"#,
            r#"c\x"}"#,
            "c\n\"}",
            r#"c" "d":1}"#,
            "c",
            "",
            r#"c","d":[[[[[[[[1]]]]]]]]}"#,
        ] {
            let text = format!(r#"{{"s":"a","t":"gateway-proxy:b:{rest}"#);
            assert_eq!(head.scan(&text, LIMITS), None, "{text}");
            assert_eq!(routed(&text), None, "{text}");
        }
    }

    #[test]
    fn a_head_holds_nothing_but_source_and_topic_without_escapes() {
        for text in [
            r#"{"s":"a","t":"gateway-proxy:b:c"}"#,
            r#"{"s": "a", "t": "gateway-proxy:shard/3:c", "d": 1}"#,
            " { \"s\"\t:\"é a\" ,\r\n\"t\":\"gateway-proxy:b::\"}",
        ] {
            let head = head(text).expect(text);
            assert_eq!(head.scan(text, LIMITS), routed(text), "{text}");
        }
        for text in [
            r#"{"t":"gateway-proxy:b:c","s":"a"}"#,
            r#"{"d":1,"s":"a","t":"gateway-proxy:b:c"}"#,
            r#"{"s":"a","d":1,"t":"gateway-proxy:b:c"}"#,
            r#"{"s":"a","n":"\"","t":"gateway-proxy:b:c"}"#,
            r#"{"s":"\u0061","t":"gateway-proxy:b:c"}"#,
            r#"{"\u0073":"a","t":"gateway-proxy:b:c"}"#,
            r#"{"s":"a","\u0074":"gateway-proxy:b:c"}"#,
            r#"{"s":"a","t":"gateway-proxy:\u0062:c"}"#,
            r#"{"s":"a","t":"gateway\u002dproxy:b:c"}"#,
            r#"{"s":"a","t":"gateway-proxy:b\u003ac"}"#,
        ] {
            assert!(head(text).is_none(), "{text}");
        }
    }

    proptest! {
        #![proptest_config(config(20_000))]

        #[test]
        fn a_head_finds_what_the_scan_finds(
            choices in prop::collection::vec(any::<u8>(), 0..200),
            mutations in prop::collection::vec(any::<(u16, u8, u8)>(), 0..3),
        ) {
            let head_text = r#"{"s":"a","t":"gateway-proxy:b:"#;
            let head = head(&format!(r#"{head_text}c"}}"#)).expect("it is plain");
            let (rest, _) = message(&mut Choices(&choices));
            // As the rest of the topic, and behind it.
            for start in [r#"x","#, "x"] {
                let text = format!("{head_text}{start}{}", mutate(rest.trim_start_matches(['{', ' ']), &mutations));
                let found = head.scan(&text, LIMITS);
                prop_assert_eq!(&found, &routed(&text), "{:?}", text);
                let by_tokens = scan_by_tokens(&text, LIMITS).ok();
                prop_assert_eq!(found.map(|(envelope, _)| envelope), by_tokens, "{:?}", text);
            }
        }
    }
}
