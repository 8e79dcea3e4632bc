//! Floods on connections that are open: frames, fragments, pings, ops, violations.

use crate::attack::{Progress, endure, take_turn};
use crate::attacker::{Attacker, Ended, frame};
use crate::support::Gateway;

/// Sends the bytes again and again, reading what comes where `reads`; connects anew where it is
/// thrown out.
fn flood(gateway: &Gateway, progress: &Progress, bytes: &[u8], reads: bool) {
    let mut attacker: Result<Attacker, Ended> = Err(Ended);
    while progress.goes_on() {
        attacker = match attacker {
            Ok(mut attacker) => {
                let sent = attacker.send(bytes).and_then(|()| if reads { attacker.drain() } else { Ok(()) });
                sent.map(|()| attacker)
            }
            Err(Ended) => Attacker::identify(gateway.address(), "attacker"),
        };
    }
}

/// Floods a gateway with the bytes until `metric` has counted it, and shows what that costs.
fn endure_flood(flags: &[&str], memory_mib: u64, bytes: &[u8], reads: bool, metric: (&str, &str)) {
    let gateway = Gateway::start(flags);
    let counted = |gateway: &Gateway| gateway.metric(metric.0, metric.1) > 0;
    endure(&gateway, memory_mib, counted, |gateway, progress| flood(gateway, progress, bytes, reads));
}

fn repeated(frame: &[u8]) -> Vec<u8> {
    frame.repeat((64 * 1024 / frame.len()).max(1))
}

fn text(text: &str) -> Vec<u8> {
    frame(0x81, text.as_bytes())
}

#[test]
fn floods_of_pings_and_pongs_are_held_to_the_rate_of_ops() {
    let _turn = take_turn();
    for first in [0x89, 0x8A] {
        let frames = repeated(&frame(first, b"x"));
        endure_flood(&[], 16, &frames, false, ("gateway_held_total", "ops"));
    }
}

#[test]
fn a_flood_of_control_frames_before_identify_is_held_to_the_rate_of_ops() {
    let _turn = take_turn();
    let gateway = Gateway::start(&[]);
    let pings = repeated(&frame(0x89, b"x"));
    let is_held = |gateway: &Gateway| gateway.metric("gateway_held_total", "ops") > 0;
    endure(&gateway, 16, is_held, |gateway, progress| {
        let mut attacker: Result<Attacker, Ended> = Err(Ended);
        while progress.goes_on() {
            attacker = match attacker {
                Ok(mut attacker) => attacker.send(&pings).map(|()| attacker),
                Err(Ended) => Attacker::websocket(gateway.address()),
            };
        }
    });
}

#[test]
fn a_flood_of_empty_fragments_is_held_to_the_rate_of_frames() {
    let _turn = take_turn();
    // Each write is one message.
    let fragments = [frame(0x01, b"\""), frame(0x00, b"").repeat(10_000), frame(0x80, b"\"")].concat();
    let flags = ["--max-frames-per-second=50000"];
    endure_flood(&flags, 16, &fragments, true, ("gateway_held_total", "frames"));
}

#[test]
fn endless_fragments_are_refused_at_the_size_of_a_message() {
    let _turn = take_turn();
    // A message that begins and never ends: the second write of it is a fragment too many.
    let pieces = [frame(0x01, b"\""), frame(0x00, &vec![b'x'; 60_000]).repeat(20)].concat();
    endure_flood(&[], 48, &pieces, true, ("gateway_closes_total", "1009"));
}

#[test]
fn a_flood_of_tiny_messages_is_held_to_the_rate_of_ops() {
    let _turn = take_turn();
    let tiny = repeated(&text(""));
    let flags = ["--max-ops-per-second=5000"];
    endure_flood(&flags, 16, &tiny, true, ("gateway_held_total", "ops"));
}

#[test]
fn a_flood_whose_answers_are_not_read_is_not_read_either() {
    let _turn = take_turn();
    let tiny = repeated(&text(""));
    // Its connection stands still, until it is cut off.
    let flags = ["--max-ops-per-second=1000000000", "--stuck-ms=1000"];
    endure_flood(&flags, 16, &tiny, false, ("gateway_closes_total", "4008"));
}

#[test]
fn floods_of_ops_are_held_to_their_rate() {
    let _turn = take_turn();
    for data in [
        r#"{"opcode":0}"#,
        r#"{"opcode":10}"#,
        r#"{"opcode":12,"shard_id":0}"#,
        r#"{"opcode":22,"i":1}"#,
        r#"{"opcode":23,"services":"*"}"#,
    ] {
        println!("{data}");
        let ops = repeated(&text(&format!(r#"{{"s":"attacker","t":"gateway:opcode","d":{data}}}"#)));
        let flags = ["--max-ops-per-second=5000", "--shards=64"];
        endure_flood(&flags, 24, &ops, true, ("gateway_held_total", "ops"));
    }
}

#[test]
fn bytes_are_held_to_their_rate() {
    let _turn = take_turn();
    let message =
        text(&format!(r#"{{"s":"attacker","t":"gateway-proxy:attacker:x","d":"{}"}}"#, "x".repeat(50_000)));
    let flags = ["--max-bytes-per-second=2000000"];
    endure_flood(&flags, 16, &message, true, ("gateway_held_total", "bytes"));
}

#[test]
fn a_flood_to_names_that_nobody_has_costs_only_its_sender() {
    let _turn = take_turn();
    let gateway = Gateway::start(&["--mailbox-messages=2000"]);
    let nobody: Vec<u8> = (0..400)
        .flat_map(|n| text(&format!(r#"{{"s":"attacker","t":"gateway-proxy:nobody-{n}:x","n":{n}}}"#)))
        .collect();
    let has_begun = |gateway: &Gateway| gateway.metric("gateway_errors_sent_total", "no_such_service") > 0;
    endure(&gateway, 24, has_begun, |gateway, progress| flood(gateway, progress, &nobody, false));
    let [accepted, _, _, dead, queued] = gateway.account("other");
    assert_eq!((accepted, queued), (dead, 0), "an ERROR without room makes its message dead");
}

#[test]
fn what_comes_after_a_close_frame_is_thrown_away_at_no_cost_for_others() {
    let _turn = take_turn();
    let gateway = Gateway::start(&[]);
    let (close, junk) = (frame(0x88, &1000_u16.to_be_bytes()), vec![b'x'; 64 * 1024]);
    endure(
        &gateway,
        16,
        |_| true,
        |gateway, progress| {
            while progress.goes_on() {
                let Ok(mut attacker) = Attacker::identify(gateway.address(), "attacker") else { continue };
                let mut sent = attacker.send(&close);
                while sent.is_ok() && progress.goes_on() {
                    sent = attacker.send(&junk);
                }
            }
        },
    );
}

/// The rates that are there without a setting are far above what a service sends: below them a flood
/// has the share of a busy service, and no more: others wait for a turn of it.
#[test]
fn floods_that_the_defaults_allow_leave_others_their_share() {
    let _turn = take_turn();
    let to_itself =
        text(&format!(r#"{{"s":"attacker","t":"gateway-proxy:attacker:x","d":"{}"}}"#, "x".repeat(200)));
    let floods = [
        ("empty messages", text(""), true),
        ("acknowledgements", text(r#"{"s":"attacker","t":"gateway:opcode","d":{"opcode":22,"i":1}}"#), true),
        ("messages for nobody", text(r#"{"s":"attacker","t":"gateway-proxy:nobody:x","n":1}"#), true),
        ("messages for itself", to_itself, true),
    ];
    for (what, frame, reads) in floods {
        println!("{what}");
        let gateway = Gateway::start(&[]);
        let bytes = repeated(&frame);
        endure(&gateway, 48, |_| true, |gateway, progress| flood(gateway, progress, &bytes, reads));
    }
}

#[test]
fn violations_are_closed_each_with_its_code() {
    let _turn = take_turn();
    let unmasked = vec![0x81, 2, b'{', b'}'];
    let gibibyte = [&[0x81, 0xFF, 0, 0, 0, 0, 0x40, 0, 0, 0, 0, 0, 0, 0][..], &vec![b'x'; 30_000]].concat();
    let compressed = frame(0xC1, b"\x00");
    for (bytes, code) in [(unmasked, "1002"), (gibibyte, "1009"), (compressed, "1002")] {
        endure_flood(&[], 24, &bytes, true, ("gateway_closes_total", code));
    }
}
