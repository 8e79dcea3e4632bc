//! Services that are there, and do nothing.

use crate::attack::{raise_descriptor_limit, take_turn};
use crate::attacker::{Attacker, frame};
use crate::support::{Gateway, eventually};

/// So many that what the process keeps for a burst, a few MiB, weighs little in the share of each.
const SERVICES: usize = 5_000;

/// What each may cost, in KiB of resident memory.
const BOUND_KIB: u64 = 14;

/// As many as in two hours.
const PONGS: usize = 1_440;

/// More would be a burst, whose memory the allocator keeps for the next.
const PONGS_AT_ONCE: usize = 80;

#[test]
fn an_idle_service_costs_little_however_long_it_is_there() {
    let _turn = take_turn();
    raise_descriptor_limit(SERVICES);
    let gateway = Gateway::start(&["--heartbeat-ms=600000"]);
    let before = gateway.memory_kib("VmRSS");
    let identified = (0..SERVICES).map(|index| {
        let mut service = Attacker::identify(gateway.address(), &format!("service-{index}")).unwrap();
        assert!(service.has_sent_all());
        service.drain().unwrap();
        service
    });
    let mut services: Vec<_> = identified.collect();
    eventually("all are up", || (gateway.metric("gateway_sessions", "up") == SERVICES as u64).then_some(()));
    assert_cost(&gateway, before, "just identified");
    // What comes behind pongs is answered when they have been read.
    let mut some = frame(0x8A, b"").repeat(PONGS_AT_ONCE);
    some.extend(frame(0x81, br#"{"s":"x","t":"x","d":0}"#));
    for round in 1..=(PONGS / PONGS_AT_ONCE) as u64 {
        for service in &mut services {
            service.send(&some).unwrap();
        }
        eventually("all was read", || {
            let answers = gateway.metric("gateway_errors_sent_total", "source_mismatch");
            (answers == SERVICES as u64 * round).then_some(())
        });
    }
    assert!(services.iter().all(Attacker::has_sent_all));
    assert_cost(&gateway, before, "after two hours of heartbeats");
}

fn assert_cost(gateway: &Gateway, before_kib: u64, when: &str) {
    let each = (gateway.memory_kib("VmRSS") - before_kib) / SERVICES as u64;
    assert!(each <= BOUND_KIB, "an idle service costs {each} KiB {when}");
}
