//! That the time of a refusal does not tell how much of a guess is right, by counting instructions.

use std::path::Path;
use std::process::Command;

use super::Shown;
use super::file::Credentials;
use super::token::TokenHash;
use crate::state::secret::Secret;

/// Which token is looked at, in the process that is counted.
const GUESS: &str = "GATEWAY_TEST_GUESS";

/// What is counted. Its name stands in the command below.
#[inline(never)]
fn looked_at(credentials: &Credentials, secret: &Secret, guess: &str) -> bool {
    let shown = Shown { token: Some(guess), certificate: None };
    credentials.look_up(shown, 0).is_some() | secret.is(guess)
}

/// Runs in a process of its own, with one guess.
#[test]
#[ignore = "the next test runs it, under valgrind"]
fn one_look() {
    let Ok(guess) = std::env::var(GUESS) else { return };
    let token = right();
    let entry = format!("[[credential]]\nid = \"a\"\ntoken_sha256 = \"{}\"\n", TokenHash::of(&token));
    let credentials = Credentials::read(Path::new("c.toml"), &|_| Ok(entry.clone())).unwrap();
    let is_right = looked_at(&credentials, &Secret::known(&token), &guess);
    assert_eq!(is_right, guess == token);
}

fn right() -> String {
    format!("gw_{}", "0123456789abcdef".repeat(4))
}

/// How many instructions it takes to look at that guess.
fn instructions(guess: &str) -> u64 {
    let counts = tempfile::NamedTempFile::new().unwrap();
    let run = Command::new("valgrind")
        .args(["--tool=callgrind", "--collect-atstart=no", "--toggle-collect=*timing::looked_at*"])
        .arg(format!("--callgrind-out-file={}", counts.path().display()))
        .arg(std::env::current_exe().unwrap())
        .args(["auth::timing::one_look", "--exact", "--ignored", "--test-threads=1"])
        .env(GUESS, guess)
        .output()
        .expect("valgrind runs");
    assert!(run.status.success(), "{run:?}");
    let counts = std::fs::read_to_string(counts.path()).unwrap();
    let total = counts.lines().find_map(|line| line.strip_prefix("summary: ")).unwrap();
    total.trim().parse().unwrap()
}

#[test]
#[ignore = "needs valgrind; tests/run looks for it"]
fn a_guess_costs_the_same_wherever_it_is_wrong() {
    let wrong_at = |place: usize| {
        let mut guess = right().into_bytes();
        guess[place] = b'x';
        instructions(&String::from_utf8(guess).unwrap())
    };
    let counted = [0, 1, 33, 65, 66].map(wrong_at);
    assert!(counted[0] > 1000, "something is counted: {counted:?}");
    assert!(counted.iter().all(|count| *count == counted[0]), "{counted:?}");
}
