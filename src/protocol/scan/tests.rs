//! What passes the scan, what does not, and that `serde_json` agrees.

use proptest::prelude::*;

use super::oracle::{Message, decode};
use super::random::{Choices, config, json, white_space};
use super::*;

const LIMITS: Limits = Limits { max_depth: 128 };

fn error(text: &str) -> Malformed {
    scan(text, LIMITS).expect_err(text)
}

#[test]
fn the_parts_of_a_message_are_found() {
    let text = r#" { "x":[1] , "s" : "a" ,"t":"heartbeat:a", "d" : {"s":1,"s":2} , "n" : "7" } "#;
    let envelope = scan(text, LIMITS).unwrap();
    assert_eq!(envelope.text(), text);
    assert_eq!(envelope.source().raw(), "a");
    assert_eq!(envelope.topic().raw(), "heartbeat:a");
    assert_eq!(envelope.data(), r#"{"s":1,"s":2}"#);
    assert_eq!(envelope.nonce(), Some(r#""7""#));
}

#[test]
fn absent_data_reads_as_null() {
    let envelope = scan(r#"{"t":"","s":""}"#, LIMITS).unwrap();
    assert_eq!((envelope.data(), envelope.nonce()), ("null", None));
}

#[test]
fn source_and_topic_must_be_there_as_strings() {
    assert_eq!(error("{}"), Malformed::Missing('s'));
    assert_eq!(error(r#"{"s":"a"}"#), Malformed::Missing('t'));
    assert_eq!(error(r#"{"t":"a"}"#), Malformed::Missing('s'));
    for value in ["1", "null", "true", "{}", "[]"] {
        assert_eq!(error(&format!(r#"{{"s":{value},"t":"a"}}"#)), Malformed::NotAString('s'));
        assert_eq!(error(&format!(r#"{{"s":"a","t":{value}}}"#)), Malformed::NotAString('t'));
    }
}

#[test]
fn a_key_of_the_gateways_stands_at_most_once_in_any_spelling() {
    for (key, escaped, value) in [
        ('s', r"\u0073", r#""a""#),
        ('t', r"\u0074", r#""a""#),
        ('d', r"\u0064", "1"),
        ('n', r"\u006e", "1"),
        ('n', r"\u006E", "1"),
    ] {
        let others = match key {
            's' => r#""t":"a","#,
            't' => r#""s":"a","#,
            _ => r#""s":"a","t":"a","#,
        };
        assert!(scan(&format!(r#"{{{others}"{escaped}":{value}}}"#), LIMITS).is_ok());
        for twice in [
            format!(r#"{{{others}"{key}":{value},"{key}":{value}}}"#),
            format!(r#"{{{others}"{key}":{value},"{escaped}":{value}}}"#),
            format!(r#"{{{others}"{escaped}":{value},"x":0,"{key}":{value}}}"#),
        ] {
            assert_eq!(error(&twice), Malformed::Twice(key), "{twice}");
        }
    }
}

#[test]
fn a_delivery_number_is_the_gateways_to_write() {
    for key in ["i", r"\u0069"] {
        assert_eq!(error(&format!(r#"{{"s":"a","t":"b","{key}":1}}"#)), Malformed::DeliveryNumber);
    }
}

#[test]
fn other_keys_pass_also_twice() {
    for key in ["", "x", "ss", "S", "ſ", r"\n", r"\u0173", r"\u00731", r"\ud800", r"\u0053"] {
        let text = format!(r#"{{"{key}":1,"s":"a","t":"b","{key}":[]}}"#);
        assert!(scan(&text, LIMITS).is_ok(), "{text}");
    }
}

#[test]
fn a_nonce_is_a_short_string_or_an_integer() {
    let with = |nonce: &str| scan(&format!(r#"{{"s":"a","t":"b","n":{nonce}}}"#), LIMITS).map(drop);
    let nines = "9".repeat(64);
    let spelt = r"\u0061".repeat(64);
    let lone = r"\ud800".repeat(21);
    for good in [
        "0",
        "-0",
        "7",
        &nines,
        &format!("-{nines}"),
        r#""""#,
        &format!(r#""{nines}""#),
        &format!(r#""{spelt}""#),
        &format!(r#""{lone}a""#),
    ] {
        assert_eq!(with(good), Ok(()), "{good}");
    }
    for bad in [
        "null",
        "true",
        "[]",
        "{}",
        "1.0",
        "1e3",
        "1E3",
        &format!("{nines}9"),
        &format!("-{nines}9"),
        &format!(r#""{nines}9""#),
        &format!(r#""{spelt}a""#),
        &format!(r#""{lone}ab""#),
        &format!(r#""{}""#, "é".repeat(33)),
    ] {
        assert_eq!(with(bad), Err(Malformed::Nonce), "{bad}");
    }
}

/// None of these is a value.
pub(super) const BAD_VALUES: &[&str] = &[
    "01",
    "-",
    "+1",
    ".5",
    "1.",
    "1.e1",
    "1e",
    "1e+",
    "0x1",
    "1_0",
    "--1",
    "NaN",
    "xalse",
    "falsx",
    "xull",
    "nulx",
    "tru",
    "truee",
    "True",
    "nul",
    "nullx",
    "[1,]",
    "[,1]",
    "[1 2]",
    "[1",
    "[1}",
    "{",
    "{]",
    "{1:2}",
    r#"{"a"}"#,
    r#"{"a":}"#,
    r#"{"a":1,}"#,
    r#"{"a" 1}"#,
    r#"{"a":1 "b":2}"#,
    "{a:1}",
    "'a'",
    r#""a"#,
    r#""a""b""#,
    r#""\x""#,
    r#""\u12""#,
    r#""\u123g""#,
    r#""\"#,
    r#""\u"#,
    r#"1"a""#,
    r#"\"a""#,
    "\u{b}1",
    "\u{feff}1",
    "1\u{a0}",
    "/**/1",
    "\0",
    "1\0",
];

#[test]
fn data_is_checked_to_the_last_byte() {
    // What is longer than a block may go by blocks.
    for behind in ["", &" ".repeat(64)] {
        for bad in BAD_VALUES {
            for value in [(*bad).to_owned(), format!("[{bad},0]")] {
                let text = format!(r#"{{"s":"a","t":"b","d":{value}}}{behind}"#);
                assert_eq!(Message::parse(&text, 128), None, "{text}");
                error(&text);
            }
        }
    }
}

#[test]
fn control_characters_stand_in_no_string() {
    for control in 0..0x20_u8 {
        for before in [0, 1, 15, 16, 63, 64, 200] {
            let (before, control, behind) = ("x".repeat(before), char::from(control), "x".repeat(100));
            for text in [
                format!(r#"{{"s":"a","t":"b","d":"{before}{control}"}}"#),
                format!(r#"{{"s":"a","t":"b","d":["{before}{control}{behind}"]}}"#),
            ] {
                let error = error(&text);
                assert!(matches!(error, Malformed::ControlCharacter { .. }), "{text:?}: {error}");
            }
        }
    }
    assert!(scan("{\"s\":\"\u{7f}\u{80}\",\"t\":\"\"}", LIMITS).is_ok());
}

#[test]
fn a_message_is_exactly_one_object() {
    for bad in [
        "",
        " ",
        "null",
        "[]",
        r#""s""#,
        r#"[{"s":"a","t":"b"}]"#,
        r#"{"s":"a","t":"b"}}"#,
        r#"{"s":"a","t":"b"},"#,
        r#"{"s":"a","t":"b"}{}"#,
        "{\"s\":\"a\",\"t\":\"b\"}\0",
        r#"{"s":"a","t":"b""#,
        r#"{"s":"a","t":"b",}"#,
        "\u{feff}{\"s\":\"a\",\"t\":\"b\"}",
        r#"{"s":"a","t":"b","d":1},"x":{}"#,
        "\u{b}{\"s\":\"a\",\"t\":\"b\"}",
        "{\"s\":\"a\",\"t\":\"b\"}\u{c}",
        "\u{a0}{\"s\":\"a\",\"t\":\"b\"}",
    ] {
        error(bad);
    }
    assert!(scan("\r\n\t {\"s\":\"a\",\"t\":\"b\"} \t\r\n", LIMITS).is_ok());
}

#[test]
fn every_cut_off_message_is_malformed() {
    let text = r#"{"s":"a","t":"gateway-proxy:b:c","d":[{"x":[1.5e3,true,"\u00e9\n é"]},{}],"n":12}"#;
    assert!(scan(text, LIMITS).is_ok());
    for (end, _) in text.char_indices() {
        error(&text[..end]);
    }
}

#[test]
fn nesting_is_counted_from_the_messages_own_object() {
    for depth in [1, 2, 3, 63, 64, 65, 66, 127, 128, 129, 193, 1000, 200_000] {
        for (open, close) in [("[", "]"), (r#"{"a":"#, "}"), (r#"[{"b":"#, "}]")] {
            let levels = (depth - 1) / open.matches(['{', '[']).count();
            let innermost = if open == "[" { "" } else { "0" };
            let d = format!("{}{innermost}{}", open.repeat(levels), close.repeat(levels));
            let d = if d.is_empty() { "0" } else { &d };
            let text = format!(r#"{{"s":"a","t":"b","d":{d}}}"#);
            let used = u32::try_from(1 + levels * open.matches(['{', '[']).count()).unwrap();
            assert_eq!(scan(&text, Limits { max_depth: used }).unwrap().data(), d);
            let error = scan(&text, Limits { max_depth: used - 1 }).unwrap_err();
            assert!(matches!(error, Malformed::TooDeep { .. }), "{depth} {open}: {error}");
        }
    }
}

#[test]
fn brackets_that_do_not_match_are_malformed_at_every_depth() {
    for depth in [1, 62, 63, 64, 65, 127, 128, 129] {
        for wrong in 0..depth {
            let closing: String = (0..depth).map(|at| if at == wrong { '}' } else { ']' }).collect();
            let text = format!(r#"{{"s":"a","t":"b","d":{}{closing}}}"#, "[".repeat(depth));
            assert!(scan(&text, Limits { max_depth: 1000 }).is_err(), "{text}");
        }
    }
}

#[test]
fn an_error_says_what_was_expected_and_what_came() {
    for (text, message) in [
        ("", "expected an object at byte 0, found the end of the message"),
        (r#"{"s":x}"#, "expected a value at byte 5, found `x`"),
        (r#"{"s":"a" "t"}"#, r#"expected `,` or `}` at byte 9, found `"`"#),
        ("{\"s\":\"\n\"}", "expected an escape instead of the control character at byte 6, found `\\n`"),
        (r#"{"s":"a"#, "expected a closing quote at byte 7, found the end of the message"),
        (r#"{"s":1,"t":""}"#, "expected `s` to be a string, found something else"),
    ] {
        assert_eq!(error(text).to_string(), message, "{text}");
    }
    let error = scan(r#"{"d":[]}"#, Limits { max_depth: 1 }).unwrap_err();
    assert_eq!(
        error.to_string(),
        "expected at most 1 levels of nesting (`max_depth`), found one more at byte 5"
    );
}

/// Keys and values of a message, in a random order, with random white space.
pub(super) fn message(choices: &mut Choices<'_>) -> (String, String) {
    let mut data = String::new();
    json(choices, 7, &mut data);
    let topic = ["gateway-proxy:b:c", "gateway:opcode", "", r"\u0067ateway"][choices.below(4)];
    let mut fields = vec![
        format!(r#""{}":"{}""#, ["s", r"\u0073"][choices.below(8) / 7], "x".repeat(choices.below(130))),
        format!(r#""t":"{topic}""#),
        format!(r#""d":{}{data}{}"#, white_space(choices), white_space(choices)),
    ];
    match choices.below(4) {
        1 => fields.push(format!(r#""n":{}"#, choices.below(1000))),
        2 => fields.push(format!(r#""n":"{}""#, r"\u00e9".repeat(choices.below(34)))),
        3 => fields.push(r#""own":{"s":1}"#.to_owned()),
        _ => {}
    }
    let turn = choices.below(fields.len());
    fields.rotate_left(turn);
    let comma = format!("{},{}", white_space(choices), white_space(choices));
    (format!("{}{{{}}}{}", white_space(choices), fields.join(&comma), white_space(choices)), data)
}

/// What a mutation puts in: what means something in JSON, and a few bytes that do not.
const BYTES: &[u8] = b"{}[]:,\"\"\\/u019-+.eEstdnifalrx \n\t\0\x1f\x7f\xc3\xa9";

pub(super) fn mutate(text: &str, mutations: &[(u16, u8, u8)]) -> String {
    let mut bytes = text.as_bytes().to_vec();
    for (place, kind, byte) in mutations {
        let at = usize::from(*place) % (bytes.len() + 1);
        let byte = BYTES[usize::from(*byte) % BYTES.len()];
        match kind % 4 {
            0 => bytes.insert(at, byte),
            1 if at < bytes.len() => bytes[at] = byte,
            2 if at < bytes.len() => drop(bytes.remove(at)),
            3 => bytes.extend_from_within(at..(at + usize::from(byte)).min(bytes.len())),
            _ => {}
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

proptest! {
    #![proptest_config(config(6_000))]

    #[test]
    fn any_json_passes_as_data_untouched(choices in prop::collection::vec(any::<u8>(), 0..400)) {
        let (text, data) = message(&mut Choices(&choices));
        let reference: serde_json::Result<&serde_json::value::RawValue> = serde_json::from_str(&data);
        prop_assert!(reference.is_ok(), "{}", data);
        let envelope = scan(&text, LIMITS);
        prop_assert!(envelope.is_ok() || envelope.as_ref().err() == Some(&Malformed::Nonce), "{} {:?}", text, envelope);
        if let Ok(envelope) = envelope {
            prop_assert_eq!(envelope.data(), data);
        }
    }
}

proptest! {
    #![proptest_config(config(20_000))]

    #[test]
    fn a_damaged_message_passes_exactly_when_serde_json_takes_it(
        choices in prop::collection::vec(any::<u8>(), 0..120),
        mutations in prop::collection::vec(any::<(u16, u8, u8)>(), 0..4),
        max_depth in 1..9_u32,
    ) {
        let text = mutate(&message(&mut Choices(&choices)).0, &mutations);
        let outcome = scan(&text, Limits { max_depth });
        for same in scan_each_way(&text, Limits { max_depth }) {
            prop_assert_eq!(same, outcome, "{:?}", text);
        }
        let expected = Message::parse(&text, max_depth);
        prop_assert_eq!(outcome.is_ok(), expected.is_some(), "{:?}\n{:?}", text, outcome);
        if let (Ok(found), Some(expected)) = (outcome, expected) {
            prop_assert_eq!(format!("\"{}\"", found.source().raw()), expected.source);
            prop_assert_eq!(found.topic().decode(), decode(expected.topic));
            prop_assert_eq!(found.data(), expected.data.unwrap_or("null"));
            prop_assert_eq!(found.nonce(), expected.nonce);
            prop_assert!(expected.others.iter().all(|(key, value)| text.contains(key) && text.contains(value)));
        }
    }
}
