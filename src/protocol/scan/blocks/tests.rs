//! The scan by blocks on any machine, against the scan by tokens.

use std::cell::Cell;

use super::super::random::{Choices, config, json};
use super::super::tests::{BAD_VALUES, message, mutate};
use super::super::tokens::{self, Shortcuts};
use super::super::{Limits, scan_by_tokens};
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
            white: bits(block, |byte| b" \t\n\r".contains(&byte)),
            opening: bits(block, |byte| b"{[".contains(&byte)),
            closing: bits(block, |byte| b"}]".contains(&byte)),
            braces: bits(block, |byte| byte & 0x20 != 0),
            colons: bits(block, |byte| byte == b':'),
            commas: bits(block, |byte| byte == b','),
        }
    }

    fn number_masks(self, block: &[u8; BLOCK]) -> NumberMasks {
        NumberMasks {
            digits: bits(block, |byte| byte.is_ascii_digit()),
            zeros: bits(block, |byte| byte == b'0'),
            minuses: bits(block, |byte| byte == b'-'),
            dots: bits(block, |byte| byte == b'.'),
        }
    }

    fn escapes(self, block: &[u8; BLOCK]) -> u64 {
        bits(block, |byte| b"\"\\/bfnrt".contains(&byte))
    }

    fn prefix_xor(self, bits: u64) -> u64 {
        (0..64).fold(0, |parities, place| {
            let below = bits & (u64::MAX >> (63 - place));
            parities | u64::from(below.count_ones() % 2) << place
        })
    }
}

impl Shortcuts for ByDefinition {
    fn specials(self, block: &[u8; BLOCK]) -> u64 {
        bits(block, |byte| matches!(byte, b'"' | b'\\' | ..0x20))
    }

    fn nested_end(self, text: &[u8], at: usize, max_levels: u32) -> Option<usize> {
        end(text, at, max_levels, self)
    }
}

/// Where a value of so many levels ends, whether its last block is a whole one or the shorter last one
/// of the text.
fn nested_end(value: &str, max_levels: u32) -> Option<usize> {
    let followed = format!("{value}{}", " ".repeat(BLOCK));
    let whole = end(followed.as_bytes(), 0, max_levels, ByDefinition);
    let before = r#""\[{"#.repeat(BLOCK / 4);
    let led = format!("{before}{value}");
    let shorter = end(led.as_bytes(), before.len(), max_levels, ByDefinition).map(|end| end - before.len());
    assert_eq!(whole, shorter, "{value}");
    whole
}

#[test]
fn what_has_too_many_levels_or_bytes_is_left_to_the_tokens() {
    let nested = |levels: usize| format!("{}{}", "[".repeat(levels), "]".repeat(levels));
    for levels in [1, 2, 31, 32, 33, 61, 62] {
        assert_eq!(nested_end(&nested(levels), 1000), Some(levels * 2));
        let allowed = u32::try_from(levels).unwrap();
        assert_eq!(nested_end(&nested(levels), allowed), Some(levels * 2));
        assert_eq!(nested_end(&nested(levels), allowed - 1), None);
    }
    assert_eq!(nested_end(&nested(63), 1000), None);
    assert_eq!(nested_end(&nested(64), 1000), None);
    assert_eq!(end(format!("[]{}", " ".repeat(BLOCK - 2)).as_bytes(), 0, 1, ByDefinition), Some(2));
    assert_eq!(end(format!("[]{}", " ".repeat(BLOCK - 3)).as_bytes(), 0, 1, ByDefinition), None);
}

/// Counts the values that were left to it.
#[derive(Clone, Copy)]
struct Counting<'a>(&'a Cell<u32>);

impl Shortcuts for Counting<'_> {
    fn specials(self, block: &[u8; BLOCK]) -> u64 {
        ByDefinition.specials(block)
    }

    fn nested_end(self, text: &[u8], at: usize, max_levels: u32) -> Option<usize> {
        self.0.update(|count| count + 1);
        ByDefinition.nested_end(text, at, max_levels)
    }
}

/// Not the levels in it, nor more values of one message than a block for each is worth.
#[test]
fn the_first_values_of_a_message_go_by_blocks() {
    let limits = Limits { max_depth: 9 };
    for (values, expected) in [(0, 0), (1, 1), (8, 8), (9, 8), (100, 8)] {
        let others = r#","x":[[{}],1]"#.repeat(values);
        let text = format!(r#"{{"s":"a","t":"b"{others}}}{}"#, " ".repeat(BLOCK));
        let count = Cell::new(0);
        let envelope = tokens::scan(None, &text, limits, Counting(&count));
        assert_eq!(envelope, scan_by_tokens(&text, limits));
        assert!(envelope.is_ok(), "{text}: {envelope:?}");
        assert_eq!(count.get(), expected, "{text}");
    }
}

/// What stands behind it is none of its business, though it may stand in the same block.
#[test]
fn a_value_ends_where_its_bracket_closes() {
    for behind in ["", "}", "]", ",", "\"", "\\", "\\x", "\0", "1e", "01", "{", r#""\x""#, ":", "é", "[[["] {
        for padding in 0..BLOCK {
            let value = format!(r#"{{"{}":[1]}}"#, "k".repeat(padding));
            assert_eq!(nested_end(&format!("{value}{behind}"), 9), Some(value.len()), "{value}{behind}");
        }
    }
}

/// Each of these at every place of a block and over its edge.
#[test]
fn tokens_are_seen_over_the_edge_of_a_block() {
    let (ones, zeros) = ("1".repeat(200), "0".repeat(150));
    let good = [
        r#"{"a":[1,"b",true,{}],"c":-1.5e3}"#,
        "[null,false,true]",
        r#""\\\"\u00e9\\""#,
        "[[],[ ],{ }]",
        "-0.0",
        "12345",
        &ones,
        &format!("-0.{zeros}"),
        &format!("1e{zeros}"),
    ];
    // Each would be well formed if one check were left out.
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
        "\u{b}1",
        "1\u{c}",
        &zeros,
        &format!("{ones}."),
        &format!("{ones}x{ones}"),
        &format!(r#"{ones}"a""#),
    ];
    let bad = [&bad[..], BAD_VALUES].concat();
    // Beside numbers that are looked at byte by byte, too.
    let beside = bad.iter().flat_map(|bad| [format!("[1e5,{bad}]"), format!("[1e5,2E-1,{bad},true,1e1]")]);
    let beside: Vec<String> = beside.collect();
    let bad: Vec<&str> = bad.iter().copied().chain(beside.iter().map(String::as_str)).collect();
    for shift in 0..BLOCK * 2 {
        for white in ["", " ", "                                                                      "] {
            for (values, is_good) in [(&good[..], true), (&bad[..], false)] {
                for value in values {
                    let key = "k".repeat(shift);
                    let text = format!(r#"{{{white}"a":1,"{key}":{white}{value}{white}}}"#);
                    let expected = is_good.then_some(text.len());
                    assert_eq!(nested_end(&text, 64), expected, "{text}");
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
        let limits = Limits { max_depth };
        prop_assert_eq!(tokens::scan(None, &text, limits, ByDefinition), scan_by_tokens(&text, limits), "{:?}", text);
    }

    /// The tokens would hide a value that blocks leave to them.
    #[test]
    fn a_value_passes_exactly_when_it_does_by_tokens(
        choices in prop::collection::vec(any::<u8>(), 0..200),
        mutations in prop::collection::vec(any::<(u16, u8, u8)>(), 0..3),
        max_levels in 1..9_u32,
    ) {
        let mut value = "[".to_owned();
        json(&mut Choices(&choices), 7, &mut value);
        let value = mutate(&format!("{value}]"), &mutations);
        prop_assume!(value.starts_with(['{', '[']));
        let passes = |value: &str| {
            let text = format!(r#"{{"s":"","t":"","d":{value}}}"#);
            let envelope = scan_by_tokens(&text, Limits { max_depth: max_levels + 1 });
            envelope.is_ok_and(|envelope| envelope.data() == value)
        };
        // A mutation may have ended it early.
        match nested_end(&value, max_levels) {
            Some(end) => prop_assert!(passes(&value[..end]), "{:?}", &value[..end]),
            None => prop_assert!(!passes(&value), "{:?}", value),
        }
    }
}
