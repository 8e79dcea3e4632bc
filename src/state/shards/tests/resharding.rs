//! Two generations of ids, and how one takes the other's place.

use super::*;

fn reshard(table: &mut Table, shard_count: u32, mode: Mode) -> Vec<String> {
    let (answer, told) = table.operate(Command::Reshard { shard_count, mode, dry_run: false });
    assert!(matches!(answer, Ok(Done::Resharding(_))), "{answer:?}");
    told
}

fn claim(shard_id: u32, shard_count: u32) -> op::ShardConnect {
    op::ShardConnect { shard_id: Some(shard_id), shard_count: Some(shard_count), identify: None }
}

/// `a` holds 0 and `b` 1 of two shards, and a reshard to three is under way.
fn under_way() -> Table {
    let mut table = Table::of(2);
    // A restart goes on with either count.
    table.settings.shard_count = None;
    table.ask("a");
    table.ask("b");
    assert_eq!(reshard(&mut table, 3, Mode::Rolling), [""; 0]);
    table
}

fn fill(table: &mut Table) {
    for (service, id) in [("x", 0), ("y", 1), ("a", 2)] {
        assert_eq!(table.ask(service)[0], format!("{id} to {service}"));
        let state = LeaseState::Ready;
        table.tell_with(service, op::ShardState { shard_id: id, shard_count: Some(3), state, resume: None });
    }
}

#[test]
fn new_requests_are_served_from_the_new_generation_and_the_old_one_keeps_running() {
    let mut table = under_way();
    assert_eq!(table.ask("x"), ["0 to x", "#3 x: has 0 epoch 2"]);
    assert_eq!(table.pool.holders(), [Some(name("a")), Some(name("b"))], "targets follow the old one");
    table.death("b", None);
    assert_eq!(table.connect("c", claim(1, 2)), ["1 to c", "#5 c: has 1 epoch 2"], "a claim of the old one");
    let told = table.connect("c", claim(1, 5));
    assert_eq!(told, ["#6 c: stale_shard: `d.shard_count` must be 2 or 3, not 5"]);
}

#[test]
fn when_every_new_id_is_ready_all_switches_in_one_step() {
    let mut table = under_way();
    table.ask("x");
    table.tell("x", 0, LeaseState::Ready);
    table.ask("y");
    table.tell("y", 1, LeaseState::Resumed);
    table.ask("a");
    let state = LeaseState::Ready;
    let told = table.tell_with("a", op::ShardState { shard_id: 2, shard_count: None, state, resume: None });
    let expected = [
        "now 3: x y a",
        "x: live 0/3",
        "y: live 1/3",
        "a: live 2/3",
        "a: revoked 0/2",
        "b: revoked 1/2",
        "b: shutdown",
    ];
    assert_eq!(told, expected, "a has an id in the new generation too");
    let told = table.connect("c", claim(1, 2));
    assert_eq!(told, ["#9 c: stale_shard: `d.shard_count` must be 3, not 2"]);
}

#[test]
fn who_never_tells_its_state_is_taken_for_ready_when_its_permit_has_run_out() {
    let mut table = under_way();
    table.ask("x");
    table.ask("y");
    table.ask("z");
    assert_eq!(table.wait(4_999), [""; 0]);
    assert_eq!(table.wait(1).first().map(String::as_str), Some("now 3: x y z"));
}

#[test]
fn who_never_tells_its_state_is_taken_for_ready_whoever_else_waits_for_its_id() {
    let mut table = under_way();
    table.ask("x");
    table.ask("y");
    table.ask("z");
    assert_eq!(table.connect("other", claim(2, 3)), ["#6 other: waits at 1"]);
    assert_eq!(table.wait(5 * SECOND).first().map(String::as_str), Some("now 3: x y z"));
}

#[test]
fn nothing_switches_while_a_new_holder_is_away() {
    let mut table = under_way();
    fill_but_the_last(&mut table);
    table.away("x");
    let told = table.tell_with("a", ready(2));
    assert_eq!(told, [""; 0]);
    assert_eq!(table.resumed("x"), [""; 0], "another process of it may have come");
    assert_eq!(table.tell_with("x", ready(0)).first().map(String::as_str), Some("now 3: x y a"));
}

#[test]
fn who_came_back_and_never_tells_its_state_is_taken_for_ready_when_its_next_permit_has_run_out() {
    let mut table = Table::paced(1);
    table.settings.shard_count = None;
    table.ask("a");
    reshard(&mut table, 2, Mode::Rolling);
    table.wait(MINUTE);
    table.ask("x");
    table.wait(MINUTE);
    table.resumed("x");
    table.connect("b", claim(0, 1));
    table.death("a", None);
    assert_eq!(table.ask("x"), ["#5 x: waits at 1 identify_rate_limit for 4500 ms"]);
    assert_eq!(table.ask("y"), ["#6 y: waits at 2 identify_rate_limit for 9000 ms"]);
    assert_eq!(table.wait(3_500)[0], "#5 x: has 0 epoch 2", "its permit, and it lives for 5 s");
    assert_eq!(table.wait(5_500)[..2], ["1 to y", "#6 y: has 1 epoch 1"]);
    assert_eq!(table.wait(4_999), [""; 0]);
    assert_eq!(table.wait(1).first().map(String::as_str), Some("now 2: x y"));
}

#[test]
fn nothing_switches_while_who_came_back_waits_for_its_permit() {
    let mut table = Table::paced(1);
    reshard(&mut table, 2, Mode::Rolling);
    table.ask("x");
    table.tell_with(
        "x",
        op::ShardState { shard_id: 0, shard_count: None, state: LeaseState::Identifying, resume: None },
    );
    table.wait(MINUTE);
    table.ask("y");
    table.wait(4 * SECOND);
    table.operate(Command::Freeze).0.unwrap();
    table.resumed("y");
    assert_eq!(table.ask("y"), ["#4 y: waits at 1 frozen"]);
    table.tell_with(
        "x",
        op::ShardState { shard_id: 0, shard_count: None, state: LeaseState::Ready, resume: None },
    );
    assert_eq!(table.wait(MINUTE), [""; 0], "y is not connected");
    table.operate(Command::Thaw).0.unwrap();
    assert_eq!(table.wait(5_000).first().map(String::as_str), Some("now 2: x y"));
}

fn ready(shard_id: u32) -> op::ShardState {
    op::ShardState { shard_id, shard_count: Some(3), state: LeaseState::Ready, resume: None }
}

fn fill_but_the_last(table: &mut Table) {
    for (service, id) in [("x", 0), ("y", 1)] {
        table.ask(service);
        table.tell_with(service, ready(id));
    }
    table.ask("a");
}

#[test]
fn a_new_holder_that_dies_takes_its_readiness_with_it() {
    let mut table = under_way();
    fill_but_the_last(&mut table);
    table.death("x", None);
    assert_eq!(table.tell_with("a", ready(2)), [""; 0]);
    table.ask("z");
    assert_eq!(table.tell_with("z", ready(0)).first().map(String::as_str), Some("now 3: z y a"));
}

#[test]
fn a_reshard_survives_a_restart_in_the_middle() {
    let mut table = under_way();
    fill_but_the_last(&mut table);
    table.restart_after(SECOND);
    assert_eq!(table.pool.holders(), [Some(name("a")), Some(name("b"))]);
    for (service, id) in [("b", None), ("x", Some(0)), ("y", Some(1))] {
        assert_eq!(table.resumed(service), [""; 0]);
        if let Some(id) = id {
            assert_eq!(table.tell_with(service, ready(id)), [""; 0]);
        }
    }
    assert_eq!(table.wait(10 * SECOND), [""; 0], "a has not come back");
    assert_eq!(table.resumed("a"), [""; 0], "and says that it is ready");
    assert_eq!(table.tell_with("a", ready(2)).first().map(String::as_str), Some("now 3: x y a"));
}

#[test]
fn a_reshard_can_be_aborted_until_it_switches() {
    let mut table = under_way();
    table.ask("x");
    table.connect("y", claim(0, 3));
    let (answer, told) = table.operate(Command::AbortReshard);
    assert_eq!(answer, Ok(Done::Aborted));
    let refused = "#4 y: stale_shard: the shards of `d.shard_count` 3 are gone: the reshard was aborted";
    assert_eq!(told, ["0 free", "x: revoked 0/3", refused]);
    assert_eq!(table.shards_of("x"), [0; 0]);
    assert_eq!(table.operate(Command::AbortReshard).0, Err(CommandError::NoReshard));
    let mut table = under_way();
    fill(&mut table);
    assert_eq!(table.operate(Command::AbortReshard).0, Err(CommandError::NoReshard), "it is done");
}

#[test]
fn mode_immediate_voids_the_old_leases_first_and_reboots_their_holders() {
    let mut table = Table::of(2);
    table.ask("a");
    table.ask("a");
    table.ask("b");
    let told = reshard(&mut table, 3, Mode::Immediate);
    let expected =
        ["now 3: b - -", "a: revoked 0/2", "a: revoked 1/2", "a: reboot", "0 to b", "#3 b: has 0 epoch 2"];
    assert_eq!(told[0], "now 3: - - -");
    assert_eq!(told[1..], expected[1..]);
    let told = table.tell("b", 0, LeaseState::Ready);
    assert_eq!(told, [""; 0], "nobody waits for SHARD_LIVE");
}

#[test]
fn a_dry_run_tells_what_it_takes_and_changes_nothing() {
    let mut table = Table::with(2, |settings| settings.max_concurrency = 16);
    let (answer, told) =
        table.operate(Command::Reshard { shard_count: 33, mode: Mode::Rolling, dry_run: true });
    let plan =
        Plan { shard_count: 33, identifies: 33, duration_ms: 11_000, remaining: None, resets_in_ms: None };
    assert_eq!((answer, told.len()), (Ok(Done::Planned(plan)), 0));
    assert_eq!(table.operate(Command::AbortReshard).0, Err(CommandError::NoReshard));
}

fn told_limit(table: &mut Table, max_concurrency: u32, remaining: u64) {
    table.limit(SessionStartLimit {
        shards: 32,
        max_concurrency,
        total: 1_000,
        remaining,
        reset_after_ms: MINUTE,
    });
}

#[test]
fn a_reshard_that_the_budget_does_not_cover_is_refused() {
    let mut table = Table::of(2);
    told_limit(&mut table, 1, 7);
    let command = |dry_run| Command::Reshard { shard_count: 8, mode: Mode::Rolling, dry_run };
    let error = CommandError::BudgetTooSmall { needed: 8, remaining: 7, resets_in_ms: 59_000 };
    assert_eq!(table.operate(command(false)).0, Err(error));
    let (answer, _) = table.operate(command(true));
    assert!(matches!(answer, Ok(Done::Planned(plan)) if !plan.is_covered()), "{answer:?}");
}

#[test]
fn a_large_bot_is_resharded_to_a_multiple_of_what_discord_demands() {
    let mut table = Table::of(16);
    told_limit(&mut table, 16, 1_000);
    let mut plan =
        |shard_count| table.operate(Command::Reshard { shard_count, mode: Mode::Rolling, dry_run: true }).0;
    assert_eq!(plan(40), Err(CommandError::NotAMultiple { shard_count: 40, of: 16 }));
    assert!(plan(48).is_ok());
}

#[test]
fn a_reshard_that_makes_no_sense_is_refused() {
    let mut table = under_way();
    let mut refused = |shard_count| {
        let command = Command::Reshard { shard_count, mode: Mode::Rolling, dry_run: true };
        table.operate(command).0.expect_err("it is refused")
    };
    assert_eq!(refused(0), CommandError::OutOfRange { shard_count: 0 });
    assert_eq!(refused(65_537), CommandError::OutOfRange { shard_count: 65_537 });
    assert_eq!(refused(4), CommandError::ReshardUnderWay { shard_count: 3 });
    let mut table = Table::of(2);
    let command = Command::Reshard { shard_count: 2, mode: Mode::Rolling, dry_run: false };
    assert_eq!(table.operate(command).0, Err(CommandError::SameCount { shard_count: 2 }));
}

#[test]
fn a_count_is_not_taken_up_again_before_its_last_holders_must_have_noticed() {
    let mut table = under_way();
    table.ask("x");
    table.operate(Command::AbortReshard).0.unwrap();
    let command = Command::Reshard { shard_count: 3, mode: Mode::Rolling, dry_run: false };
    let error = CommandError::RecentlyEnded { shard_count: 3, retry_after_ms: 44_000 };
    assert_eq!(table.operate(command).0, Err(error));
    table.wait(43 * SECOND);
    assert!(table.operate(command).0.is_ok());
}

/// ACCEPT lists ids without their count.
#[test]
fn who_cannot_know_of_which_count_it_lost_an_id_goes_by_what_it_heard_of_the_other() {
    let mut table = under_way();
    table.ask("a");
    table.away("a");
    assert_eq!(table.pool.shards_of("a"), [ShardId(0)], "of both counts");
    table.operate(Command::AbortReshard).0.unwrap();
    table.wait(20 * SECOND);
    table.heard("a");
    let command = Command::Reshard { shard_count: 3, mode: Mode::Rolling, dry_run: false };
    let error = CommandError::RecentlyEnded { shard_count: 3, retry_after_ms: 44_000 };
    assert_eq!(table.operate(command).0, Err(error));
}

/// Whether the gateway is killed in between.
const RESTARTS: [fn(&mut Table); 2] = [|_| {}, |table| table.restart_after(SECOND)];

#[test]
fn who_held_no_id_of_a_reshard_that_was_aborted_is_told_of_none() {
    for restart in RESTARTS {
        let mut table = under_way();
        table.ask("x");
        assert_eq!(table.connect("b", claim(1, 3))[0], "1 to b");
        table.operate(Command::AbortReshard).0.unwrap();
        restart(&mut table);
        assert_eq!(table.resumed("a"), [""; 0], "it held 0 of 2 alone");
        assert_eq!(table.resumed("x"), [""; 0], "ACCEPT lists nothing for it");
        assert_eq!(table.resumed("b"), ["b: revoked 1/3"], "it may think that it has 1 of 3 still");
    }
}

#[test]
fn who_came_with_the_new_shards_is_told_of_no_old_one_after_a_switch() {
    for restart in RESTARTS {
        let mut table = under_way();
        for (service, id) in [("x", 0), ("a", 1), ("z", 2)] {
            table.ask(service);
            table.tell_with(service, ready(id));
        }
        assert_eq!(table.pool.shard_count(), 3);
        restart(&mut table);
        assert_eq!(table.resumed("x"), [""; 0], "0 of 2 was a's");
        assert_eq!(table.resumed("a"), [""; 0], "ACCEPT does not list its 0 of 2");
        table.wait(MINUTE);
        reshard(&mut table, 4, Mode::Immediate);
        assert!(table.stored.pool.as_ref().unwrap().lost.keys().eq([&3]), "what is over is forgotten");
    }
}

#[test]
fn who_missed_the_switch_is_told_of_an_id_that_accept_lists_for_the_new_generation() {
    let mut table = under_way();
    table.ask("a");
    table.tell_with("a", ready(0));
    for (service, id) in [("x", 1), ("y", 2)] {
        table.ask(service);
        table.tell_with(service, ready(id));
    }
    assert_eq!(table.resumed("a"), ["a: revoked 0/2"], "it may think that it has 0 of 2 still");
    table.restart_after(SECOND);
    assert_eq!(table.resumed("a"), ["a: revoked 0/2"], "after a restart too");
    table.wait(MINUTE);
    assert_eq!(table.resumed("a"), [""; 0]);
}
