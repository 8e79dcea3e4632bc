//! Every input that a fuzz target keeps, on stable. What a fuzzer found stays found.

#[path = "../fuzz/src/lib.rs"]
#[allow(unreachable_pub, reason = "it is a crate of its own for the fuzzer")]
mod targets;

use std::fs;
use std::panic::catch_unwind;
use std::path::{Path, PathBuf};

/// The inputs of a target: what covers the code, and, by name, what once failed or is easy to break.
fn inputs(target: &str) -> Vec<PathBuf> {
    let fuzz = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz");
    let mut inputs = Vec::new();
    for kept in ["corpus", "regressions"] {
        let files = fs::read_dir(fuzz.join(kept).join(target));
        inputs.extend(files.into_iter().flatten().map(|file| file.unwrap().path()));
    }
    inputs.sort();
    inputs
}

/// Runs a target on all its inputs; each that fails is named.
fn replay(target: &str, run: fn(&[u8])) {
    let inputs = inputs(target);
    let failed: Vec<_> = inputs
        .iter()
        .filter(|path| {
            let input = fs::read(path).unwrap();
            catch_unwind(|| run(&input)).is_err()
        })
        .collect();
    assert!(failed.is_empty(), "the fuzz target {target} fails on {failed:#?}");
    assert!(inputs.len() > 10, "only {} inputs for {target}: the corpus is not where it was", inputs.len());
}

#[test]
fn the_frame_guard_holds_against_every_stream_that_is_kept() {
    replay("frames", targets::frames::run);
}

#[test]
fn the_envelope_parser_agrees_with_serde_json_on_every_message_that_is_kept() {
    replay("envelope", targets::envelope::run);
}

#[test]
fn every_message_ends_once_in_every_life_of_sessions_that_is_kept() {
    replay("session", targets::session::run);
}
