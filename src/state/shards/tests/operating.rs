//! What operators do and see.

use super::*;

#[test]
fn a_released_id_is_revoked_and_granted_when_its_holder_must_have_noticed() {
    let mut table = Table::of(2);
    table.ask("a");
    let release = Command::Release { shard_id: ShardId(0), shard_count: None };
    let (answer, told) = table.operate(release);
    assert_eq!(answer, Ok(Done::Released { holder: name("a"), free_in_ms: 45_000 }));
    assert_eq!(told, ["0 free", "a: revoked 0/2"]);
    assert_eq!(table.view(0).deaths, 0, "it did not die");
    assert_eq!(table.ask("b"), ["1 to b", "#2 b: has 1 epoch 1"]);
    assert_eq!(table.operate(release).0, Ok(Done::Freed { free_in_ms: 43_000 }), "not before that");
    table.ask("c");
    assert_eq!(table.wait(42 * SECOND), ["0 to c", "#3 c: has 0 epoch 2"]);
}

#[test]
fn an_id_in_a_crash_loop_can_be_freed() {
    let mut table = Table::of(1);
    for _ in 0..6 {
        table.ask("a");
        table.death("a", None);
    }
    assert_eq!(table.view(0).standing, Standing::HeldBack);
    let release = Command::Release { shard_id: ShardId(0), shard_count: None };
    assert_eq!(table.operate(release).0, Ok(Done::Freed { free_in_ms: 0 }));
    assert_eq!(table.ask("a"), ["0 to a", "#13 a: has 0 epoch 7"]);
    assert_eq!(table.death("a", None), ["0 free"], "one death more is no loop");
}

#[test]
fn what_cannot_be_released_is_told() {
    let mut table = Table::of(1);
    let mut release = |id, shard_count| {
        table
            .operate(Command::Release { shard_id: ShardId(id), shard_count })
            .0
            .expect_err("refused")
            .to_string()
    };
    assert_eq!(release(0, None), "shard 0/1 has no holder and is not held back");
    assert_eq!(release(1, None), "there is no shard 1 of 1");
    assert_eq!(release(0, Some(7)), "there is no shard 0 of 7");
}

#[test]
fn a_frozen_pool_grants_nothing_and_says_so_to_all_who_wait() {
    let mut table = Table::paced(2);
    table.ask("a");
    table.ask("b");
    let (answer, told) = table.operate(Command::Freeze);
    assert_eq!((answer, told), (Ok(Done::Frozen), vec!["#2 b: waits at 1 frozen".to_owned()]));
    assert_eq!(table.wait(MINUTE), [""; 0]);
    assert_eq!(table.operate(Command::Thaw).1, ["1 to b", "#2 b: has 1 epoch 1"]);
}

#[test]
fn the_report_counts_permits_deaths_and_waits() {
    let mut table = Table::paced(2);
    table.ask("a");
    table.die("a", op::ShardDeath { close_code: Some(4009), ..Default::default() });
    table.die("a", op::ShardDeath { close_code: Some(4009), ..Default::default() });
    table.ask("b");
    table.claim_connected("c", 1);
    table.vanish("c");
    let report = table.pool.report(table.now);
    assert_eq!((report.permits, report.max_concurrency, report.reshard), (1, 1, None));
    assert_eq!(report.deaths, BTreeMap::from([(Some(4009), 1), (None, 1)]), "a refused one is none");
    assert_eq!(report.waiting, BTreeMap::from([(op::WaitReason::IdentifyRateLimit, 1)]));
    assert_eq!(table.view(0).awaits, Some(Awaits::Permit { in_ms: 500 }));
    table.away("b");
    assert_eq!(table.view(0).awaits, Some(Awaits::Request));
}

#[test]
fn positions_are_told_again_at_most_once_a_second() {
    let mut table = Table::of(1);
    for service in ["a", "b", "c", "d"] {
        table.ask(service);
    }
    table.pass(2 * SECOND);
    let gone = |service| Input::Away { service: name(service), last_frame: None };
    let mut told = Vec::new();
    for service in ["b", "c"] {
        let actions = table.pool.step(gone(service), table.now);
        told.push(table.note(&actions));
    }
    assert_eq!(told, [vec!["#3 c: waits at 1", "#4 d: waits at 2"], vec![]]);
    assert_eq!(table.wait(999), [""; 0]);
    assert_eq!(table.wait(1), ["#4 d: waits at 1"]);
}
