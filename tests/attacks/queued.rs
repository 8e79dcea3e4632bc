//! Messages that wait for a service that is away.

use serde_json::json;

use crate::attack::take_turn;
use crate::support::Gateway;

const MESSAGES: usize = 49_152;

/// Of the message as its target will get it.
const BYTES: usize = 256;

/// What each may take beside its own bytes, in bytes of resident memory, in a parcel of its own and in one with
/// 63 others; beside a quarter of its bytes, as the allocator has few sizes.
const BOUNDS: [(usize, u64); 2] = [(1, 140), (64, 10)];

#[test]
fn a_queued_message_costs_little_beside_its_bytes() {
    let _turn = take_turn();
    for (at_once, bound) in BOUNDS {
        let bounds = ["--mailbox-messages=100000", "--mailbox-bytes=50000000"];
        let gateway = Gateway::start(&[&bounds[..], &["--resume-window-ms=600000"]].concat());
        gateway.service("b").vanish();
        gateway.wait_for_log("b is away");
        let mut source = gateway.connect();
        source.identify_with("a", json!({"receipts": true}));
        let mut send = |count: usize| {
            for _ in 0..count / at_once {
                source.texts((0..at_once).map(text));
                for n in 0..at_once {
                    assert_eq!(source.expect_op(21)["n"], n);
                }
            }
        };
        // What sender and mailbox keep for any number.
        send(MESSAGES / 16);
        let before = gateway.memory_kib("VmRSS");
        send(MESSAGES);
        let took = (gateway.memory_kib("VmRSS") - before) * 1024;
        let each = took / MESSAGES as u64;
        println!("{at_once} at once: {each} bytes for each, of which {BYTES} are its own");
        assert!(each <= BYTES as u64 * 5 / 4 + bound, "one of {at_once} at once costs {each} bytes");
        assert_eq!(gateway.account("b")[4], (MESSAGES + MESSAGES / 16) as u64, "all are queued");
    }
}

/// A message that is of [`BYTES`] once the prefix is cut.
fn text(n: usize) -> String {
    let text = |data: &str| format!(r#"{{"s":"a","t":"gateway-proxy:b:x","n":{n},"d":"{data}"}}"#);
    let rest = text("").len() - "gateway-proxy:b:".len();
    text(&"x".repeat(BYTES - rest))
}
