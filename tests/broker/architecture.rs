//! What may know what: dependencies point one way.

use std::fs;
use std::path::{Path, PathBuf};

fn sources(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(sources(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    found
}

/// The code of a file, less its comments.
fn code(path: &Path) -> String {
    let text = fs::read_to_string(path).unwrap();
    text.lines().map(|line| line.split("//").next().unwrap_or_default()).collect::<Vec<_>>().join("\n")
}

fn check(part: &str, forbidden: &[&str]) {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = if source.join(part).is_dir() { sources(&source.join(part)) } else { Vec::new() };
    files.push(source.join(format!("{part}.rs")));
    for file in files {
        let code = code(&file);
        for word in forbidden {
            assert!(!code.contains(word), "{} names {word}", file.display());
        }
    }
}

#[test]
fn the_protocol_knows_nothing_but_itself() {
    check(
        "protocol",
        &[
            "actix",
            "tokio",
            "crate::state",
            "crate::routes",
            "crate::actors",
            "crate::networker",
            "std::net",
            "Instant::now",
        ],
    );
}

#[test]
fn the_rules_know_no_actor_no_socket_and_no_clock() {
    check(
        "state",
        &[
            "actix",
            "crate::routes",
            "crate::actors",
            "crate::networker",
            "crate::http",
            "std::fs",
            "TcpStream",
            "SystemTime",
        ],
    );
}

#[test]
fn the_store_knows_neither_actor_nor_rule() {
    check("store", &["actix", "crate::actors", "crate::routes", "crate::config", "ShardPool", "Action"]);
}

#[test]
fn the_actors_know_no_networker() {
    check("actors", &["crate::networker", "crate::http", "actix_web", "crate::server"]);
    check("networker", &["crate::http", "crate::server"]);
    check("discord", &["crate::actors", "crate::networker", "crate::http", "crate::server"]);
}

#[test]
fn the_readme_names_every_setting_with_its_default() {
    let readme = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md")).unwrap();
    let mut command = crate::support::Gateway::command();
    command.arg("config").env("HOME", "/home/me").env_remove("XDG_STATE_HOME").env_remove("GATEWAY_DATA_DIR");
    let output = command.output().unwrap();
    for line in String::from_utf8(output.stdout).unwrap().lines() {
        let (name, rest) = line.split_once(" = ").unwrap();
        let default = rest.split('#').next().unwrap().trim().trim_matches('"').replace("/home/me", "~");
        let row = readme.lines().find(|row| row.starts_with(&format!("| `{name}` |")));
        let row = row.unwrap_or_else(|| panic!("the README has no row for {name}"));
        let is_told = row.contains(&format!("| `{default}` |")) || row.contains(&format!("| {default} |"));
        assert!(is_told || name == "workers", "{name} is {default} by default: {row}");
    }
}

#[test]
fn one_module_has_all_that_is_unsafe() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let audited = source.join("protocol/scan/x86.rs");
    let with_unsafe: Vec<PathBuf> =
        sources(&source).into_iter().filter(|path| code(path).contains("unsafe ")).collect();
    assert_eq!(with_unsafe, [audited]);
}
