//! Random JSON for tests.

use proptest::test_runner::{Config, RngSeed};

/// The same cases in every run.
pub(crate) fn config(cases: u32) -> Config {
    Config { cases, rng_seed: RngSeed::Fixed(8259), failure_persistence: None, ..Config::default() }
}

/// What decides in a generator. Runs into zeros, so that shorter means simpler.
pub(crate) struct Choices<'a>(pub(crate) &'a [u8]);

impl Choices<'_> {
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        usize::from(*first) % bound
    }
}

pub(crate) fn white_space(choices: &mut Choices<'_>) -> &'static str {
    let long = "                                                                      ";
    ["", "", "", "", " ", "\n\t", "\r\n", long][choices.below(8)]
}

/// Appends a value of at most that many levels.
pub(crate) fn json(choices: &mut Choices<'_>, levels: usize, out: &mut String) {
    match choices.below(if levels == 0 { 6 } else { 12 }) {
        0 => out.push_str(["null", "true", "false", "0", "-0"][choices.below(5)]),
        1..=2 => number(choices, out),
        3..=5 => string(choices, out),
        6..=8 => several(choices, "[", "]", out, |choices, out| json(choices, levels - 1, out)),
        _ => several(choices, "{", "}", out, |choices, out| {
            string(choices, out);
            out.push_str(white_space(choices));
            out.push(':');
            out.push_str(white_space(choices));
            json(choices, levels - 1, out);
        }),
    }
}

fn several(
    choices: &mut Choices<'_>,
    open: &str,
    close: &str,
    out: &mut String,
    mut item: impl FnMut(&mut Choices<'_>, &mut String),
) {
    out.push_str(open);
    for index in 0..choices.below(5) {
        out.push_str(if index == 0 { "" } else { "," });
        out.push_str(white_space(choices));
        item(choices, out);
        out.push_str(white_space(choices));
    }
    out.push_str(close);
}

fn number(choices: &mut Choices<'_>, out: &mut String) {
    out.push_str(["", "-"][choices.below(2)]);
    out.push_str(["0", "7", "10", "999999999999999999", "123456789012345678901234567890"][choices.below(5)]);
    out.push_str(["", "", ".0", ".25", ".00000000000000000000001"][choices.below(5)]);
    out.push_str(["", "", "", "e0", "E+17", "e-9", "e99999"][choices.below(7)]);
}

fn string(choices: &mut Choices<'_>, out: &mut String) {
    let long = "the quick brown fox jumps over the lazy dog, and it does so again: {[]}";
    out.push('"');
    for _ in 0..choices.below(6) {
        out.push_str(
            [
                "a",
                "s",
                "t",
                "é",
                "漢字",
                "😀",
                "\u{7f}",
                "\u{2028}",
                r#"\""#,
                r"\\",
                r"\/",
                r"\b\f\n\r\t",
                r"\u0073",
                r"\u00E9",
                r"\ud83d\ude00",
                r"\ud83d",
                r"\udE00",
                long,
                "{",
                ":",
            ][choices.below(20)],
        );
    }
    out.push('"');
}
