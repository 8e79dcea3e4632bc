//! How the messages of one service to one target begin: `s`, then `t` up to the colon behind the target.
//!
//! A service sends most of its messages to a target that it sent to before, and writes them all alike. What
//! was found in such a beginning need not be looked for again where the same bytes stand: one comparison,
//! and the scan goes on amid the topic. All behind that is checked as in any message, and what is wrong there
//! is told in the same words.

use std::borrow::Cow;
use std::ops::Range;

use super::fields::Value;
use super::{Limits, Malformed};
use crate::protocol::envelope::{Envelope, Proxy};

/// The most bytes of a head: a name and a target have at most 64 each. It is kept as long as its target is
/// remembered.
const MAX_HEAD_BYTES: usize = 256;

/// Such a beginning. Its ranges are places in `text`, between quotes or colons.
#[derive(Debug, Clone)]
pub struct Head {
    text: Box<str>,
    source: Range<usize>,
    topic_at: usize,
    target: Range<usize>,
}

impl Head {
    /// The head of a message that is to be forwarded; `proxy` is its [`route`](Envelope::route). `None`: other
    /// keys than `s` and `t` stand there, or escapes, or too much white space.
    pub fn of(envelope: &Envelope<'_>, proxy: &Proxy<'_>) -> Option<Self> {
        let Envelope { text, source_at, topic_at, .. } = *envelope;
        let text = text.get(..proxy.cut.end).filter(|text| text.len() <= MAX_HEAD_BYTES)?;
        let source = source_at..source_at + envelope.source.raw().len();
        let target = text.len() - 1 - proxy.target.len()..text.len() - 1;
        let is_plain = is_json(text.get(..source.start)?, br#"{"s":""#)
            && is_json(text.get(source.end..topic_at)?, br#"","t":""#)
            && !text.contains('\\');
        is_plain.then(|| Self { text: text.into(), source, topic_at, target })
    }

    /// What [`scan`](super::scan) finds in a message with this head, and [`Envelope::route`] in that. `None`:
    /// it begins otherwise, or its topic ends here.
    pub fn scan<'a>(
        &self,
        text: &'a str,
        limits: Limits,
    ) -> Option<Result<(Envelope<'a>, Proxy<'a>), Malformed>> {
        let rest = text.strip_prefix(&*self.text)?;
        if rest.starts_with('"') {
            return None;
        }
        let target = Cow::Borrowed(&text[self.target.clone()]);
        let proxy = Proxy { target, cut: self.topic_at..self.text.len() };
        Some(super::scan_behind(Some(self), text, limits).map(|envelope| (envelope, proxy)))
    }

    pub(super) fn text(&self) -> &str {
        &self.text
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

/// Whether that is all that stands there beside white space.
fn is_json(text: &str, tokens: &[u8]) -> bool {
    text.bytes().filter(|byte| !b" \t\n\r".contains(byte)).eq(tokens.iter().copied())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::random::{Choices, config, json};
    use super::super::tests::mutate;
    use super::super::{scan, scan_behind_each_way, scan_by_tokens};
    use super::*;
    use crate::protocol::envelope::Route;

    const LIMITS: Limits = Limits { max_depth: 8 };

    type Found<'a> = Result<(Envelope<'a>, Proxy<'a>), Malformed>;

    /// What the scan of the whole message finds. `None`: it is not to be forwarded.
    fn routed(text: &str) -> Option<Found<'_>> {
        match scan(text, LIMITS) {
            Ok(envelope) => match envelope.route() {
                Route::Proxy(proxy) => Some(Ok((envelope, proxy))),
                _ => None,
            },
            Err(malformed) => Some(Err(malformed)),
        }
    }

    fn head(text: &str) -> Option<Head> {
        let (envelope, proxy) = routed(text).expect(text).expect(text);
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
            assert_eq!(matches!(expected, Some(Ok(_))), is_its, "{text}");
        }
    }

    #[test]
    fn what_is_wrong_behind_a_head_is_told_as_by_the_scan() {
        let head = head(r#"{"s":"a","t":"gateway-proxy:b:c","d":1}"#).unwrap();
        for rest in [
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
            let found = head.scan(&text, LIMITS);
            assert!(matches!(found, Some(Err(_))), "{text}: {found:?}");
            assert_eq!(found, routed(&text), "{text}");
        }
    }

    #[test]
    fn a_head_is_not_for_a_topic_that_ends_with_it() {
        let head = head(r#"{"s":"a","t":"gateway-proxy:b:c","d":1}"#).unwrap();
        assert_eq!(head.scan(r#"{"s":"a","t":"gateway-proxy:b:","d":1}"#, LIMITS), None);
    }

    #[test]
    fn a_head_has_a_bound() {
        let text = |spaces: usize| format!(r#"{{{}"s":"a","t":"gateway-proxy:b:c"}}"#, " ".repeat(spaces));
        let spaces = MAX_HEAD_BYTES - r#"{"s":"a","t":"gateway-proxy:b:"#.len();
        assert!(head(&text(spaces)).is_some());
        assert!(head(&text(spaces + 1)).is_none());
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
        fn behind_a_head_all_is_found_as_by_the_scan(
            choices in prop::collection::vec(any::<u8>(), 0..200),
            mutations in prop::collection::vec(any::<(u16, u8, u8)>(), 0..3),
        ) {
            let begun = r#"{"s":"a","t":"gateway-proxy:b:"#;
            let head = head(&format!(r#"{begun}c"}}"#)).expect("it is plain");
            let choices = &mut Choices(&choices);
            let topic = ["c", r"\u0063:", "discord:message_create:é"][choices.below(3)];
            let nonce = ["", r#","n":7"#, r#","n":"\\" "#][choices.below(3)];
            let mut data = String::new();
            json(choices, 6, &mut data);
            let rest = mutate(&format!(r#"{topic}","d":{data}{nonce}}}"#), &mutations);
            let whole = format!("{begun}{rest}");
            let found = head.scan(&whole, LIMITS);
            prop_assert!(!mutations.is_empty() || matches!(found, Some(Ok(_))), "{:?}", whole);
            prop_assert_eq!(&found, &routed(&whole).filter(|_| !rest.starts_with('"')), "{:?}", whole);
            if let Some(found) = found {
                let found = found.map(|(envelope, _)| envelope);
                prop_assert_eq!(&found, &scan_by_tokens(&whole, LIMITS), "{:?}", whole);
                for same in scan_behind_each_way(Some(&head), &whole, LIMITS) {
                    prop_assert_eq!(&found, &same, "{:?}", whole);
                }
            }
        }
    }
}
