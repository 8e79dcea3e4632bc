//! `gateway bench` as it is typed.

use std::time::Duration;

use clap::{CommandFactory, Parser};

use super::*;

#[derive(Debug, Parser)]
struct Typed {
    #[command(subcommand)]
    bench: Bench,
}

fn parsed(line: &str) -> Bench {
    let typed = Typed::try_parse_from(line.split(' '));
    typed.unwrap_or_else(|error| panic!("{line}: {error}")).bench
}

fn refused(line: &str) -> String {
    let typed = Typed::try_parse_from(line.split(' '));
    typed.expect_err(line).to_string()
}

#[test]
fn each_example_is_what_it_is_an_example_of() {
    let command = Typed::command();
    let shown = || command.get_subcommands().filter(|bench| !bench.is_hide_set());
    assert_eq!(shown().count(), 8);
    for bench in shown() {
        let help = bench.get_after_help().unwrap_or_else(|| panic!("{bench} has no example")).to_string();
        let example = help.strip_prefix("Example: gateway ").expect("an example");
        assert!(example.starts_with(&format!("bench {} ", bench.get_name())), "{example}");
        parsed(example.split(" > ").next().unwrap());
    }
}

#[test]
fn pairs_have_their_defaults() {
    let Bench::Pairs(pairs) = parsed("bench pairs") else { panic!("pairs") };
    assert_eq!((pairs.pairs, pairs.window, pairs.rate, pairs.ack), (8, 1024, None, false));
    let seconds = Seconds(Duration::from_secs(5));
    assert_eq!(pairs.load, Load { size: 256, seconds, threads: 1, spin: false, json: false });
    let url = "ws://127.0.0.1:7117/gateway".to_owned();
    assert_eq!(pairs.target, Target { url, pid: None, spawn: false, workers: None, token: None });
}

#[test]
fn a_gateway_is_either_there_or_started() {
    for other in ["--pid 1", "--url ws://x/gateway"] {
        assert!(refused(&format!("bench idle --spawn {other}")).contains("cannot be used with"));
    }
    assert!(refused("bench idle --workers 2").contains("--spawn"));
    for other in ["--pid 1", "--url ws://x/gateway"] {
        assert!(refused(&format!("bench idle {other} --workers 2")).contains("cannot be used with"));
    }
}

#[test]
fn no_more_threads_are_asked_for_than_can_run() {
    for bench in ["pairs", "idle", "scaling"] {
        parsed(&format!("bench {bench} --threads 256"));
        assert!(refused(&format!("bench {bench} --threads 257")).contains("1..=256"), "{bench}");
    }
}

#[test]
fn no_bench_has_more_services_than_the_others_can_have() {
    for line in ["soak --spawn --services", "fan-in --services", "reconnect --services", "pairs --pairs"] {
        parsed(&format!("bench {line} 100000"));
        assert!(refused(&format!("bench {line} 100001")).contains("..=100000"), "{line}");
    }
    assert!(refused("bench soak --spawn --services 19").contains("20..=100000"));
}

#[test]
fn a_number_below_zero_is_a_wrong_value_and_no_unknown_flag() {
    let Bench::Latency(latency) = parsed("bench latency --rate -5 --size -1") else { panic!("latency") };
    assert!(latency.rate < 0.0 && latency.load.size == -1);
    for line in ["pairs -P -5", "fan-in --services -5", "idle --connections -5", "scaling --rounds -5"] {
        assert!(refused(&format!("bench {line}")).contains("-5 is not in 1..="), "{line}");
    }
    assert!(refused("bench reconnect --seconds -5").contains("a number of seconds from 0.001"));
    assert!(refused("bench soak --spawn --interval -5").contains("'-5'"));
}

#[test]
fn seconds_are_a_number_within_bounds() {
    let Bench::Latency(latency) = parsed("bench latency --seconds 0.25") else { panic!("latency") };
    assert_eq!(latency.load.seconds, Seconds(Duration::from_millis(250)));
    for wrong in ["0", "-1", "x", "NaN", "1e9"] {
        let error = refused(&format!("bench latency --seconds={wrong}"));
        assert!(error.contains("a number of seconds from 0.001 to 86400"), "{error}");
    }
}

#[test]
fn the_soak_has_its_defaults_and_needs_a_gateway() {
    let Bench::Soak(soak) = parsed("bench soak --spawn") else { panic!("soak") };
    assert!(soak.spawn && soak.pid.is_none() && soak.seed.is_none());
    assert_eq!((soak.services, soak.interval), (200, 10));
    assert!((soak.minutes - 15.0).abs() < f64::EPSILON && (soak.rate - 3000.0).abs() < f64::EPSILON);
    assert!(refused("bench soak").contains("<--pid <PID>|--spawn>"));
    assert!(refused("bench soak --spawn --pid 1").contains("cannot be used with"));
    assert!(refused("bench soak --spawn --url ws://x/").contains("cannot be used with"));
    assert!(refused("bench soak --pid 1 --workers 2").contains("cannot be used with"));
}
