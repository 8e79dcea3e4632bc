//! The scan by blocks on any machine, against the scan by tokens.

use super::super::random::{Choices, config};
use super::super::tests::{message, mutate};
use super::super::{Limits, scan_by_tokens};
use super::marks::MAX_FIELDS;
use super::*;

use proptest::prelude::*;

/// Any machine.
#[derive(Clone, Copy)]
pub(in super::super) struct ByDefinition;

fn bits(block: &[u8; BLOCK], is: fn(u8) -> bool) -> u64 {
    block.iter().enumerate().fold(0, |bits, (place, byte)| bits | u64::from(is(*byte)) << place)
}

impl Machine for ByDefinition {
    fn masks(self, block: &[u8; BLOCK]) -> Masks {
        Masks {
            quotes: bits(block, |byte| byte == b'"'),
            backslashes: bits(block, |byte| byte == b'\\'),
            controls: bits(block, |byte| byte < 0x20),
            spaces: bits(block, |byte| byte == b' '),
            brackets: bits(block, |byte| b"{}[]".contains(&byte)),
            colons: bits(block, |byte| byte == b':'),
            commas: bits(block, |byte| byte == b','),
        }
    }

    fn digits(self, block: &[u8; BLOCK]) -> u64 {
        bits(block, |byte| byte.is_ascii_digit())
    }

    fn prefix_xor(self, bits: u64) -> u64 {
        (0..64).fold(0, |parities, place| {
            let below = bits & (u64::MAX >> (63 - place));
            parities | u64::from(below.count_ones() % 2) << place
        })
    }
}

fn scan_here(text: &str, max_depth: u32) -> Option<Envelope<'_>> {
    scan(text, Limits { max_depth }, ByDefinition)
}

#[test]
fn what_it_does_not_look_at_is_left_to_the_tokens() {
    let fields = |count: usize| {
        let others = r#","x":1"#.repeat(count - 2);
        format!(r#"{{"s":"a","t":"b"{others}}}"#)
    };
    assert!(scan_here(&fields(MAX_FIELDS), 63).is_some());
    assert!(scan_here(&fields(MAX_FIELDS + 1), 63).is_none());
    let nested = |levels: usize| {
        format!(r#"{{"s":"a","t":"b","d":{}{}}}"#, "[".repeat(levels - 1), "]".repeat(levels - 1))
    };
    assert!(scan_here(&nested(63), 1000).is_some());
    assert!(scan_here(&nested(64), 1000).is_none());
}

/// Each of these at every place of a block and over its edge.
#[test]
fn tokens_are_seen_over_the_edge_of_a_block() {
    let good = [r#"{"a":[1,"b",true,{}],"c":-1.5e3}"#, r#""\\\"\u00e9\\""#, "[[],[ ],{ }]", "-0.0", "12345"];
    // Each would be well formed if one check were left out. The last ends the message early.
    let bad = [
        r#"{"a":[1,"b",tru,{}]}"#,
        r#""\\\"\u00g9""#,
        r#"{"a",1}"#,
        r#"["a":1]"#,
        "[1,]",
        "01",
        "[}",
        "{1}",
        "{[]}",
        "{{}}",
        "{:1}",
        "{,}",
        r#"{"a":1,[]}"#,
        r#"{"a":1,:2}"#,
        r#"{"a"::1}"#,
        r#"{"a":,"b":1}"#,
        r#"{"a":1,}"#,
        "[,1]",
        "[:1]",
        "[1 2]",
        r#"1"a""#,
        r#""a"1"#,
        r#""a""b""#,
        "1\\",
        "\"\n\"",
        ":1",
        r#"1},"x":{}"#,
    ];
    for shift in 0..BLOCK * 2 {
        for white in ["", " ", "                                                                      "] {
            for (values, is_good) in [(&good[..], true), (&bad[..], false)] {
                for value in values {
                    let key = "k".repeat(shift);
                    let text = format!(r#"{{"s":"a",{white}"t":"b","{key}":{white}{value}{white}}}"#);
                    assert_eq!(scan_here(&text, 64).is_some(), is_good, "{text}");
                }
            }
        }
    }
}

proptest! {
    #![proptest_config(config(20_000))]

    #[test]
    fn what_passes_and_what_is_found_is_as_by_tokens(
        choices in prop::collection::vec(any::<u8>(), 0..200),
        mutations in prop::collection::vec(any::<(u16, u8, u8)>(), 0..4),
        max_depth in 1..9_u32,
    ) {
        let text = mutate(&message(&mut Choices(&choices)).0, &mutations);
        let by_tokens = scan_by_tokens(&text, Limits { max_depth }).ok();
        prop_assert_eq!(scan_here(&text, max_depth), by_tokens, "{:?}", text);
    }
}
