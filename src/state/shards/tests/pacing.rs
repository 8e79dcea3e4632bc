//! Permits and the budget.

use super::*;

#[test]
fn one_key_gets_its_permits_an_interval_apart_and_who_waits_is_told_how_long() {
    let mut table = Table::paced(3);
    assert_eq!(table.ask("a"), ["0 to a", "#1 a: has 0 epoch 1"]);
    assert_eq!(table.ask("b"), ["#2 b: waits at 1 identify_rate_limit for 4500 ms"]);
    assert_eq!(table.ask("c"), ["#3 c: waits at 2 identify_rate_limit for 9000 ms"]);
    assert_eq!(table.wait(3_499), [""; 0]);
    let told = ["1 to b", "#2 b: has 1 epoch 1", "#3 c: waits at 1 identify_rate_limit for 5500 ms"];
    assert_eq!(table.wait(1), told);
    assert_eq!(table.wait(5_499), [""; 0]);
    assert_eq!(table.wait(1), ["2 to c", "#3 c: has 2 epoch 1"]);
}

#[test]
fn a_permit_is_never_given_to_a_service_that_went_away_while_it_waited() {
    let mut table = Table::paced(2);
    table.ask("a");
    table.ask("b");
    table.away("b");
    assert_eq!(table.wait(MINUTE), [""; 0]);
    table.resumed("b");
    assert_eq!(table.ask("b"), ["1 to b", "#3 b: has 1 epoch 1"]);
}

#[test]
fn a_claim_of_what_is_connected_already_waits_for_no_permit_and_uses_none() {
    let mut table = Table::paced(3);
    table.ask("a");
    assert_eq!(table.claim_connected("b", 2), ["2 to b", "#2 b: has 2 epoch 1"]);
    assert_eq!(table.ask("c"), ["#3 c: waits at 1 identify_rate_limit for 3500 ms"]);
    assert_eq!(table.wait(3_500), ["1 to c", "#3 c: has 1 epoch 1"]);
}

#[test]
fn the_next_permit_comes_an_interval_after_the_holder_identifies() {
    let mut table = Table::paced(3);
    table.ask("a");
    table.tell("a", 0, LeaseState::Identifying);
    table.ask("b");
    assert_eq!(table.wait(4_499), [""; 0]);
    assert_eq!(table.wait(1), ["1 to b", "#3 b: has 1 epoch 1"], "5,500 ms after it was told");
}

#[test]
fn who_tells_its_states_but_not_that_it_identifies_costs_the_life_of_its_permit_too() {
    let mut table = Table::paced(3);
    table.ask("a");
    table.tell("a", 0, LeaseState::Ready);
    table.wait(MINUTE);
    table.claim("a", 0);
    table.ask("b");
    assert_eq!(table.wait(9_499), [""; 0]);
    assert_eq!(table.wait(1), ["1 to b", "#4 b: has 1 epoch 1"], "10,500 ms after the permit");
}

#[test]
fn a_fresh_permit_for_an_own_id_waits_for_its_key_and_keeps_the_epoch() {
    let mut table = Table::paced(2);
    table.ask("a");
    assert_eq!(table.claim("a", 0), ["#2 a: waits at 1 identify_rate_limit for 4500 ms"]);
    assert_eq!(table.wait(4_500), ["#2 a: has 0 epoch 1"]);
}

#[test]
fn of_the_keys_that_are_free_at_once_the_lowest_id_goes_first() {
    let mut table = Table::with(8, |settings| settings.max_concurrency = 4);
    for service in ["a", "b", "c", "d", "e", "f"] {
        table.ask(service);
    }
    assert_eq!(table.pool.holders().iter().flatten().count(), 4, "one for each key");
    assert_eq!(table.shards_of("d"), [3]);
    table.wait(5_500);
    assert_eq!((table.shards_of("e"), table.shards_of("f")), (vec![4], vec![5]));
}

#[test]
fn a_claim_waits_for_its_own_key_while_others_go_on() {
    let mut table = Table::with(8, |settings| settings.max_concurrency = 4);
    table.ask("a");
    assert_eq!(table.claim("b", 4), ["#2 b: waits at 1 identify_rate_limit for 4500 ms"]);
    assert_eq!(table.ask("c"), ["1 to c", "#3 c: has 1 epoch 1"]);
    assert_eq!(table.wait(3_500), ["4 to b", "#2 b: has 4 epoch 1"]);
}

fn limit(remaining: u64) -> SessionStartLimit {
    let total = 10;
    SessionStartLimit { shards: 1, max_concurrency: 1, total, remaining, reset_after_ms: 10 * MINUTE }
}

#[test]
fn when_the_budget_is_used_up_everybody_waits_for_its_reset() {
    let mut table = Table::paced(4);
    table.limit(limit(1));
    let told = table.ask("a");
    assert_eq!(
        told[..2],
        ["0 to a", "! all 10 of Discord's session starts are used up: no shard can IDENTIFY for 10 min"]
    );
    assert_eq!(table.ask("b"), ["#2 b: waits at 1 budget_exhausted for 598000 ms"]);
    assert_eq!(table.claim_connected("c", 3), ["3 to c", "#3 c: has 3 epoch 1"], "needs none");
    assert_eq!(table.wait(10 * MINUTE - 3_001), [""; 0]);
    assert_eq!(table.wait(1), ["1 to b", "#2 b: has 1 epoch 1"]);
}

#[test]
fn an_answer_of_discords_is_judged_by_when_it_was_asked_whatever_went_by_since() {
    for stood_still in [Duration::ZERO, Duration::from_hours(1)] {
        let mut table = Table::of(4);
        let asked = table.now.instant + stood_still;
        table.ask("a");
        table.now.stood_still = stood_still;
        table.wait(9 * SECOND);
        table.step(Input::SessionStartLimit { limit: limit(1), asked_at: asked });
        assert_eq!(table.pool.report(table.now).budget.unwrap().remaining, 0, "{stood_still:?}");
        table.limit(limit(1));
        assert_eq!(table.pool.report(table.now).budget.unwrap().remaining, 1, "its permit has run out");
    }
}

#[test]
fn who_finds_the_budget_promised_to_those_before_it_is_told_so() {
    let mut table = Table::paced(4);
    table.limit(limit(2));
    table.ask("a");
    assert_eq!(table.ask("b"), ["#2 b: waits at 1 identify_rate_limit for 4500 ms"]);
    assert_eq!(table.ask("c"), ["#3 c: waits at 2 budget_exhausted for 597000 ms"]);
}

#[test]
fn discords_max_concurrency_takes_the_place_of_the_setting() {
    let mut table = Table::paced(32);
    let limit = SessionStartLimit {
        shards: 64,
        max_concurrency: 16,
        total: 1_000,
        remaining: 1_000,
        reset_after_ms: MINUTE,
    };
    let warning =
        "! Discord recommends 64 shards, and there are 32: POST /api/v1/shards/reshard changes that";
    assert_eq!(table.limit(limit), [warning]);
    assert_eq!(table.limit(limit), [""; 0], "said once");
    table.restart_after(SECOND);
    assert_eq!(table.limit(limit), [warning], "for each run");
    for index in 0..20 {
        table.pass(1);
        table.requests += 1;
        let input = Input::Connect {
            service: name(&format!("s{index}")),
            request: index,
            connect: op::ShardConnect::default(),
        };
        let actions = table.pool.step(input, table.now);
        table.note(&actions);
    }
    assert_eq!(table.pool.holders().iter().flatten().count(), 16);
}

#[test]
fn a_jump_of_the_wall_clock_moves_no_permit() {
    for (forward, back) in [(3_600_000, 0), (0, 3_600_000)] {
        let mut table = Table::paced(2);
        table.ask("a");
        table.ask("b");
        table.now.unix_ms = table.now.unix_ms + forward - back;
        assert_eq!(table.wait(4_499), [""; 0]);
        table.pass(1);
        let actions = table.pool.step(Input::Wake, table.now);
        let Some(Action::Persist(changes)) = actions.first() else { panic!("{actions:?}") };
        let granted = changes.iter().find_map(|change| match change {
            Change::Permit { record, .. } => Some(record.granted_ms),
            _ => None,
        });
        assert_eq!(granted, Some(table.now.unix_ms), "what is stored goes by the wall clock");
        assert_eq!(table.shards_of("b"), [1]);
    }
}

#[test]
fn discords_day_goes_on_while_the_pool_stands_still() {
    let mut table = Table::of(2);
    let reset_after_ms = 10 * MINUTE;
    table.limit(SessionStartLimit { shards: 2, max_concurrency: 1, total: 10, remaining: 0, reset_after_ms });
    let resets_in = |table: &Table| table.pool.report(table.now).budget.unwrap().resets_in_ms;
    assert_eq!(resets_in(&table), 10 * MINUTE);
    table.now.stood_still += Duration::from_mins(4);
    table.now.unix_ms += 4 * MINUTE;
    table.step(Input::Wake);
    assert_eq!(resets_in(&table), 6 * MINUTE - SECOND);
    assert_eq!(table.stored.budget.as_ref().unwrap().resets_ms, START + SECOND + 10 * MINUTE);
    let wait = format!("#1 a: waits at 1 budget_exhausted for {} ms", 6 * MINUTE - 2 * SECOND);
    assert_eq!(table.ask("a"), [wait]);
    assert_eq!(table.wait(6 * MINUTE - 2 * SECOND)[0], "0 to a");
}

#[test]
fn a_step_that_waits_for_the_disk_does_not_move_discords_reset() {
    let mut table = Table::of(2);
    let reset_after_ms = 10 * MINUTE;
    table.limit(SessionStartLimit { shards: 2, max_concurrency: 1, total: 10, remaining: 9, reset_after_ms });
    let record = table.stored.budget.clone().unwrap();
    let mut change = Change::Budget(BudgetRecord { recent: vec![(START, 1)], ..record.clone() });
    change.shift(1_000);
    let expected = BudgetRecord { recent: vec![(START + 1_000, 1)], ..record };
    assert_eq!(change, Change::Budget(expected));
}
