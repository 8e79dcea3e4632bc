//! Messages that wait for services that are away.

use serde_json::json;

use crate::attack::take_turn;
use crate::support::{Gateway, Service};

/// Mailboxes. In one alone the queue would grow by megabytes, and the allocator gives back the old ones when
/// it likes.
const TARGETS: usize = 48;

/// For each target: what fills three quarters of the queue that has grown for it.
const MESSAGES: usize = 768;

/// Of the message as its target will get it.
const BYTES: usize = 256;

/// What each may take beside its own bytes, in bytes of resident memory, in a parcel of its own and in one with
/// 63 others; beside a quarter of its bytes, as the allocator has few sizes.
const BOUNDS: [(usize, u64); 2] = [(1, 130), (64, 10)];

#[test]
fn a_queued_message_costs_little_beside_its_bytes() {
    let _turn = take_turn();
    for (at_once, bound) in BOUNDS {
        let gateway = Gateway::start(&["--resume-window-ms=600000"]);
        for target in 0..=TARGETS {
            gateway.service(&name(target)).vanish();
            gateway.wait_for_log(&format!("{} is away", name(target)));
        }
        let mut source = gateway.connect();
        source.identify_with("a", json!({"receipts": true}));
        // What the sender keeps for any number.
        fill(&mut source, TARGETS, at_once);
        let before = gateway.memory_kib("VmRSS");
        (0..TARGETS).for_each(|target| fill(&mut source, target, at_once));
        let took = (gateway.memory_kib("VmRSS") - before) * 1024;
        let each = took / (TARGETS * MESSAGES) as u64;
        println!("{at_once} at once: {each} bytes for each, of which {BYTES} are its own");
        assert!(each <= BYTES as u64 * 5 / 4 + bound, "one of {at_once} at once costs {each} bytes");
        assert_eq!(gateway.account(&name(0))[4], MESSAGES as u64, "all are queued");
    }
}

/// All of the same length.
fn name(target: usize) -> String {
    format!("target-{target:02}")
}

/// Sends so many at once, and waits until they are queued, until all are.
fn fill(source: &mut Service, target: usize, at_once: usize) {
    for _ in 0..MESSAGES / at_once {
        source.texts((0..at_once).map(|n| text(target, n)));
        for n in 0..at_once {
            assert_eq!(source.expect_op(21)["n"], n);
        }
    }
}

/// A message that is of [`BYTES`] once the prefix is cut.
fn text(target: usize, n: usize) -> String {
    let prefix = format!("gateway-proxy:{}:", name(target));
    let text = |data: &str| format!(r#"{{"s":"a","t":"{prefix}x","n":{n},"d":"{data}"}}"#);
    let rest = text("").len() - prefix.len();
    text(&"x".repeat(BYTES - rest))
}
