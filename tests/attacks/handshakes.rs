//! Attacks before a connection is a service: requests that never end, IDENTIFYs that never come,
//! and too many of them.

use std::sync::Mutex;

use crate::attack::{endure, raise_descriptor_limit, take_turn};
use crate::attacker::{Attacker, frame, handshake};
use crate::support::{Gateway, eventually};

/// How many connections a crowd has; more than may wait, less than this process may open.
const CROWD: usize = 10_000;

/// Opens connections by `open` until there is a crowd of them, and keeps them while it lasts.
fn crowd(
    gateway: &Gateway,
    memory_mib: u64,
    open: impl Fn(&Gateway) -> Option<Attacker> + Sync,
    poke: impl Fn(&mut Attacker) + Sync,
) {
    let _turn = take_turn();
    raise_descriptor_limit(CROWD);
    let crowd: Mutex<Vec<Attacker>> = Mutex::default();
    endure(
        gateway,
        memory_mib,
        |_| true,
        |gateway, progress| {
            let mut crowd = crowd.lock().unwrap();
            let mut next = 0;
            while progress.goes_on() {
                if crowd.len() < CROWD {
                    crowd.extend(open(gateway));
                } else {
                    next = (next + 1) % CROWD;
                    poke(&mut crowd[next]);
                }
            }
        },
    );
    // The attack of each round goes on where the last one ended; now the crowd is made whole.
    let mut crowd = crowd.into_inner().unwrap();
    while crowd.len() < CROWD {
        crowd.extend(open(gateway));
    }
    gateway.service("late").expect_nothing();
    // Nobody has to leave before two seconds; then all leave that are too many.
    eventually("those who are too many have left", || {
        (gateway.descriptors() < 2 * 1_000 + 200).then_some(())
    });
    // So many at once may also be more than `max_connections`.
    let turned = ["displaced", "at_capacity"].map(|why| gateway.metric("gateway_turned_away_total", why));
    assert!(turned[0] > 0, "{turned:?}");
    drop(crowd);
    eventually("all have left", || (gateway.descriptors() < 200).then_some(()));
}

#[test]
fn ten_thousand_connections_that_never_identify_displace_each_other() {
    let gateway = Gateway::start(&["--identify-timeout-ms=600000"]);
    crowd(
        &gateway,
        128,
        |gateway| Attacker::websocket(gateway.address()).ok(),
        |attacker| {
            let _ = attacker.send(&frame(0x89, b""));
        },
    );
}

#[test]
fn ten_thousand_connections_that_say_nothing_displace_each_other() {
    let gateway = Gateway::start(&["--handshake-timeout-ms=600000"]);
    crowd(&gateway, 128, |gateway| Attacker::connect(gateway.address()).ok(), |_| ());
}

#[test]
fn ten_thousand_requests_that_come_byte_by_byte_displace_each_other() {
    let gateway = Gateway::start(&["--handshake-timeout-ms=600000"]);
    let open = |gateway: &Gateway| {
        let mut attacker = Attacker::connect(gateway.address()).ok()?;
        attacker.send(b"GET /gateway HTTP/1.1\r\nHost: 127.0.0.1\r\nX: ").ok()?;
        Some(attacker)
    };
    crowd(&gateway, 128, open, |attacker| {
        let _ = attacker.send(b"x");
    });
}

#[test]
fn a_request_that_does_not_come_in_time_is_ended_and_counted() {
    let gateway = Gateway::start(&["--handshake-timeout-ms=1000"]);
    let head = "POST /gateway HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n";
    let no_body = format!("{head}Content-Length: 100\r\n\r\n{{");
    for (bytes, why, answer) in
        [(b"GET /gateway HT".to_vec(), "no_request", "408"), (no_body.into_bytes(), "slow_body", "408")]
    {
        let mut attacker = Attacker::connect(gateway.address()).unwrap();
        attacker.send(&bytes).unwrap();
        let came = String::from_utf8(attacker.read_to_end()).unwrap();
        assert!(came.starts_with(&format!("HTTP/1.1 {answer}")), "{came:?}");
        eventually("it is counted", || (gateway.metric("gateway_turned_away_total", why) == 1).then_some(()));
    }
}

#[test]
fn heads_that_are_too_large_are_refused() {
    let _turn = take_turn();
    let gateway = Gateway::start(&[]);
    let large = format!("GET /gateway HTTP/1.1\r\nHost: localhost\r\nX: {}", "x".repeat(200_000));
    let mut once = Attacker::connect(gateway.address()).unwrap();
    while once.send(large.as_bytes()).is_ok() && !once.has_sent_all() {}
    let came = String::from_utf8(once.read_to_end()).unwrap();
    assert!(came.starts_with("HTTP/1.1 4") || came.is_empty(), "{came}");
    eventually("it is counted", || {
        (gateway.metric("gateway_turned_away_total", "no_request") > 0).then_some(())
    });
    endure(
        &gateway,
        24,
        |_| true,
        |gateway, progress| {
            while progress.goes_on() {
                let Ok(mut attacker) = Attacker::connect(gateway.address()) else { continue };
                while progress.goes_on()
                    && attacker.send(large.as_bytes()).and_then(|()| attacker.drain()).is_ok()
                {
                }
            }
        },
    );
}

#[test]
fn a_flood_of_identifies_for_a_taken_name_is_rejected() {
    let _turn = take_turn();
    let gateway = Gateway::start(&[]);
    let mut owner = gateway.service("taken");
    let has_begun = |gateway: &Gateway| gateway.metric("gateway_closes_total", "4003") > 0;
    endure(&gateway, 48, has_begun, |gateway, progress| {
        let mut open = std::collections::VecDeque::new();
        while progress.goes_on() {
            open.extend(Attacker::identify(gateway.address(), "taken"));
            if open.len() > 50 {
                open.pop_front();
            }
        }
    });
    owner.expect_nothing();
}

#[test]
fn a_connection_carries_one_request() {
    let gateway = Gateway::start(&[]);
    let mut attacker = Attacker::connect(gateway.address()).unwrap();
    let request = "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n";
    attacker.send(request.as_bytes()).unwrap();
    let came = String::from_utf8(attacker.read_to_end()).unwrap();
    assert!(came.starts_with("HTTP/1.1 200") && came.contains("connection: close"), "{came}");
}

#[test]
fn a_build_for_users_cannot_be_made_to_panic() {
    let gateway = Gateway::start(&[]);
    let mut service = gateway.service("a");
    for part in ["connection", "session", "gateway", "allocator", "account"] {
        service.send_op(&serde_json::json!({"panic": part}));
        service.expect_error("malformed");
    }
    assert_eq!(gateway.metric("gateway_panics_total", ""), 0);
}

#[test]
fn offers_of_compression_are_not_taken() {
    let gateway = Gateway::start(&[]);
    for offer in [
        "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n".to_owned(),
        format!("Sec-WebSocket-Extensions: {}x\r\n", "x;y=z, ".repeat(2_000)),
    ] {
        let mut attacker = Attacker::connect(gateway.address()).unwrap();
        attacker.send(handshake(gateway.address(), &offer).as_bytes()).unwrap();
        // A frame with RSV1 set, which only an accepted extension allows.
        attacker.send(&frame(0xC1, b"\x00")).unwrap();
        let came = attacker.read_to_end();
        let text = String::from_utf8_lossy(&came).to_lowercase();
        assert!(text.starts_with("http/1.1 101") && !text.contains("sec-websocket-extensions"), "{text}");
        assert!(
            came.windows(4).any(|bytes| bytes[0] == 0x88 && bytes[2..] == 1002_u16.to_be_bytes()),
            "{text}"
        );
    }
}
