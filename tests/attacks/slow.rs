//! Services that read slowly, or not at all, while others send to them.

use crate::attack::{Progress, endure, take_turn};
use crate::attacker::{Attacker, frame};
use crate::support::Gateway;

/// What a mailbox of these tests holds, in MiB.
const MAILBOX_MIB: u64 = 16;

fn start() -> Gateway {
    Gateway::start(&[
        "--mailbox-bytes=16777216",
        "--mailbox-total-bytes=33554432",
        "--stuck-ms=600000",
        "--heartbeat-ms=600000",
    ])
}

fn is_full(gateway: &Gateway) -> bool {
    gateway.metric("gateway_errors_sent_total", "mailbox_full") > 0
}

/// Sends to the slow service as fast as it can, and lets that read a little in between.
fn overwhelm(gateway: &Gateway, progress: &Progress, slow: &mut Attacker, reads: bool) {
    let text = format!(r#"{{"s":"sender","t":"gateway-proxy:slow:x","d":"{}"}}"#, "x".repeat(10_000));
    let messages = frame(0x81, text.as_bytes()).repeat(6);
    let mut sender = Attacker::identify(gateway.address(), "sender").unwrap();
    while progress.goes_on() {
        sender.send(&messages).and_then(|()| sender.drain()).expect("the sender stays");
        if reads {
            slow.drain().expect("the slow one stays");
        }
    }
}

fn endure_a_slow_service(reads: bool) {
    let _turn = take_turn();
    let gateway = start();
    let slow = Attacker::identify(gateway.address(), "slow").unwrap();
    let slow = std::sync::Mutex::new(slow);
    endure(&gateway, MAILBOX_MIB + 24, is_full, |gateway, progress| {
        overwhelm(gateway, progress, &mut slow.lock().unwrap(), reads);
    });
    assert!(gateway.metric("gateway_held_total", "mailbox_full") > 0, "its sender is held");
}

#[test]
fn a_service_that_does_not_read_costs_its_mailbox_and_its_sender_only() {
    endure_a_slow_service(false);
}

#[test]
fn a_service_that_reads_more_slowly_than_is_sent_to_it_delays_nobody_else() {
    endure_a_slow_service(true);
}
