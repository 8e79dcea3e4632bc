//! The README's examples of `gateway bench`, each run for a moment: it works, and prints the lines that the
//! README shows.

use std::fs;
use std::path::Path;
use std::process::Stdio;

use crate::support::Gateway;

/// The lines after each `$ gateway bench …`, as far as the block or the next command goes.
fn examples() -> Vec<(String, Vec<String>)> {
    let readme = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md")).unwrap();
    let mut examples: Vec<(String, Vec<String>)> = Vec::new();
    let mut is_open = false;
    for line in readme.lines() {
        if let Some(command) = line.strip_prefix("$ gateway ").filter(|line| line.starts_with("bench ")) {
            examples.push((command.to_owned(), Vec::new()));
            is_open = true;
        } else if line.starts_with("```") {
            is_open = false;
        } else if is_open {
            examples.last_mut().unwrap().1.push(line.to_owned());
        }
    }
    examples
}

/// The same for a moment, and with few services.
fn shortened(command: &str) -> Vec<String> {
    let mut words: Vec<String> = command.split(' ').map(str::to_owned).collect();
    let mut set = |flag: &str, value: &str| match words.iter().position(|word| word == flag) {
        Some(at) => value.clone_into(&mut words[at + 1]),
        None if flag == "--seconds" => words.extend([flag.to_owned(), value.to_owned()]),
        None => {}
    };
    // A busy machine may measure nothing in less.
    set("--seconds", "1");
    set("--rate", "300");
    set("--connections", "40");
    if command.contains("reconnect") {
        set("--services", "20");
    }
    if command.contains("scaling") {
        words.extend(["--pairs", "1,2", "--rounds", "1"].map(str::to_owned));
    }
    words
}

/// What the first column says.
fn titles<'a>(lines: impl Iterator<Item = &'a str>) -> Vec<String> {
    lines.filter_map(|line| Some(line.get(..13)?.trim().to_owned())).collect()
}

#[test]
fn the_examples_of_the_readme_run_and_print_what_it_shows() {
    let examples = examples();
    let directory = tempfile::tempdir().unwrap();
    for bench in ["pairs", "fan-in", "latency", "idle", "reconnect", "scaling", "plot"] {
        let is_shown = examples.iter().any(|(command, _)| command.starts_with(&format!("bench {bench} ")));
        assert!(is_shown, "the README has no example of {bench}: {examples:#?}");
    }
    for (command, shown) in examples {
        let (command, to) = command.split_once(" > ").unwrap_or((&command, ""));
        let words = if command.starts_with("bench plot") {
            command.split(' ').map(|word| word.replace("src/bench/", "")).collect()
        } else {
            shortened(command)
        };
        let mut process = Gateway::command();
        let output = process.args(&words).current_dir(&directory).stdin(Stdio::null()).output().unwrap();
        let said = String::from_utf8(output.stdout).unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!((output.status.code(), &*stderr), (Some(0), ""), "{words:?}: {said}");
        if to.is_empty() {
            assert_eq!(titles(shown.iter().map(String::as_str)), titles(said.lines()), "{words:?}: {said}");
        } else {
            fs::write(directory.path().join(to), said).unwrap();
        }
    }
}
