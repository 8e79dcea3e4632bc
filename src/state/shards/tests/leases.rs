//! Who gets which id, and who waits; without pacing.

use super::*;

#[test]
fn a_grant_tells_the_lease_and_the_pool_and_is_stored_first() {
    let mut table = Table::with(4, |settings| settings.max_concurrency = 16);
    let input = Input::Connect { service: name("a"), request: 0, connect: op::ShardConnect::default() };
    let actions = table.pool.step(input, table.now);
    let [Action::Persist(_), Action::Holder { .. }, Action::Accept { accept, permit: true, .. }] =
        &actions[..]
    else {
        panic!("{actions:?}")
    };
    let expected = op::ShardAccept {
        shard_id: ShardId(0),
        shard_count: 4,
        epoch: Epoch(1),
        max_concurrency: 16,
        resume: None,
    };
    assert_eq!(*accept, expected);
}

#[test]
fn ids_are_granted_lowest_first_and_a_service_may_hold_several() {
    let mut table = Table::of(3);
    assert_eq!(table.ask("a"), ["0 to a", "#1 a: has 0 epoch 1"]);
    assert_eq!(table.ask("b"), ["1 to b", "#2 b: has 1 epoch 1"]);
    assert_eq!(table.ask("a"), ["2 to a", "#3 a: has 2 epoch 1"]);
    assert_eq!(table.shards_of("a"), [0, 2]);
    assert_eq!(table.shards_of("nobody"), [0; 0]);
}

#[test]
fn shard_0_comes_first_then_the_id_held_last_then_the_lowest() {
    let mut table = Table::of(4);
    table.claim("a", 0);
    table.claim("b", 2);
    table.down("b");
    assert_eq!(table.ask("b"), ["2 to b", "#3 b: has 2 epoch 2"], "1 is lower, but 2 was its own");
    table.down("b");
    table.down("a");
    assert_eq!(table.ask("b"), ["0 to b", "#4 b: has 0 epoch 2"]);
    assert_eq!(table.ask("b"), ["2 to b", "#5 b: has 2 epoch 3"]);
    assert_eq!(table.ask("b"), ["1 to b", "#6 b: has 1 epoch 1"]);
}

#[test]
fn of_several_ids_lost_at_once_the_lowest_was_held_last() {
    let mut table = Table::of(4);
    table.claim("a", 0);
    table.claim("b", 3);
    table.claim("b", 2);
    assert_eq!(table.down("b"), ["3 free", "2 free"]);
    assert_eq!(table.ask("b"), ["2 to b", "#4 b: has 2 epoch 2"]);
}

#[test]
fn who_finds_no_free_id_waits_and_is_told_its_place() {
    let mut table = Table::of(1);
    table.ask("a");
    assert_eq!(table.ask("b"), ["#2 b: waits at 1"]);
    assert_eq!(table.ask("c"), ["#3 c: waits at 2"]);
    assert_eq!(table.pool.report(table.now).waiting, BTreeMap::from([(op::WaitReason::NoFreeShard, 2)]));
}

#[test]
fn a_freed_id_goes_to_the_first_who_waits_and_the_others_move_up() {
    let mut table = Table::of(1);
    for service in ["a", "b", "c", "d"] {
        table.ask(service);
    }
    let told = table.death("a", None);
    assert_eq!(told, ["0 free", "0 to b", "#2 b: has 0 epoch 2", "#3 c: waits at 1", "#4 d: waits at 2"]);
}

#[test]
fn only_those_behind_a_place_that_was_left_are_told() {
    let mut table = Table::of(1);
    for service in ["a", "b", "c", "d"] {
        table.ask(service);
    }
    assert_eq!(table.away("c"), ["#4 d: waits at 2"]);
    assert_eq!(table.away("d"), [""; 0]);
}

#[test]
fn a_waiting_service_that_goes_away_resumes_or_is_down_loses_its_places() {
    for leave in [Table::away, Table::resumed, Table::down] {
        let mut table = Table::of(1);
        table.ask("a");
        table.ask("b");
        table.claim("b", 0);
        table.ask("c");
        assert_eq!(leave(&mut table, "b"), ["#4 c: waits at 1"]);
        assert_eq!(table.death("a", None), ["0 free", "0 to c", "#4 c: has 0 epoch 2"]);
    }
}

#[test]
fn no_more_requests_of_one_service_wait_than_there_are_ids() {
    let mut table = Table::of(2);
    table.ask("a");
    table.ask("a");
    table.ask("b");
    table.claim("b", 1);
    let expected = "#5 b: malformed: 2 requests of this service wait already, and there are 2 shards; \
                    wait for their SHARD_ACCEPT";
    assert_eq!(table.ask("b"), [expected]);
    assert_eq!(table.ask("c"), ["#6 c: waits at 3"]);
}

#[test]
fn all_services_together_have_so_many_requests_waiting_and_one_each() {
    let mut table = Table::of(MAX_SHARDS);
    table.operate(Command::Freeze).0.unwrap();
    let mut ask = |service: &str| {
        table.requests += 1;
        let connect = op::ShardConnect::default();
        let input = Input::Connect { service: name(service), request: table.requests, connect };
        table.pool.step(input, table.now)
    };
    for _ in 0..MAX_SHARDS {
        ask("greedy");
    }
    let actions = ask("b");
    assert!(matches!(actions[..], [Action::Wait { .. }]), "each may have one: {actions:?}");
    for service in ["b", "greedy"] {
        let actions = ask(service);
        let [Action::Refuse { error, .. }] = &actions[..] else { panic!("{actions:?}") };
        assert_eq!(error.code.as_str(), "at_capacity");
        assert!(error.message.contains("65537 requests for shard ids wait already"), "{}", error.message);
    }
    table.down("greedy");
    assert!(table.ask("b")[0].contains("waits at 2 frozen"));
}

#[test]
fn leases_stand_while_their_service_is_away() {
    let mut table = Table::of(1);
    table.ask("a");
    table.ask("b");
    assert_eq!(table.away("a"), [""; 0]);
    assert_eq!(table.shards_of("a"), [0]);
    assert_eq!(table.down("a"), ["0 free", "0 to b", "#2 b: has 0 epoch 2"]);
}

#[test]
fn nothing_is_granted_to_a_service_that_is_away() {
    let mut table = Table::of(2);
    table.away("a");
    assert_eq!(table.ask("a"), [""; 0]);
    table.resumed("a");
    assert_eq!(table.ask("a"), ["0 to a", "#2 a: has 0 epoch 1"]);
}

#[test]
fn after_a_resume_asking_gives_the_own_leases_back_lowest_first() {
    let mut table = Table::of(4);
    table.claim("a", 3);
    table.claim("a", 1);
    table.away("a");
    table.resumed("a");
    assert_eq!(table.ask("a"), ["#3 a: has 1 epoch 1"]);
    assert_eq!(table.ask("a"), ["#4 a: has 3 epoch 1"]);
    assert_eq!(table.ask("a"), ["0 to a", "#5 a: has 0 epoch 1"], "none is unclaimed any more");
}

#[test]
fn a_takeover_makes_leases_unclaimed_too() {
    let mut table = Table::of(2);
    table.ask("a");
    table.resumed("a");
    assert_eq!(table.ask("a"), ["#2 a: has 0 epoch 1"]);
}

#[test]
fn a_claim_of_an_own_id_is_accepted_again_and_claims_the_lease() {
    let mut table = Table::of(2);
    table.claim("a", 0);
    assert_eq!(table.claim("a", 0), ["#2 a: has 0 epoch 1"]);
    table.resumed("a");
    assert_eq!(table.claim("a", 0), ["#3 a: has 0 epoch 1"]);
    assert_eq!(table.ask("a"), ["1 to a", "#4 a: has 1 epoch 1"]);
}

#[test]
fn a_claim_waits_for_its_id_alone() {
    let mut table = Table::of(3);
    table.claim("a", 0);
    table.claim("a", 1);
    assert_eq!(table.claim("b", 1), ["#3 b: waits at 1"]);
    assert_eq!(table.death("a", Some(0)), ["0 free"]);
    assert_eq!(table.death("a", Some(1)), ["1 free", "1 to b", "#3 b: has 1 epoch 2"]);
}

#[test]
fn a_request_does_not_get_the_id_of_an_earlier_claim_nor_a_claim_that_of_an_earlier_request() {
    let mut table = Table::of(2);
    table.claim("a", 0);
    table.claim("a", 1);
    table.claim("claims-1", 1);
    table.ask("asks");
    table.claim("claims-0", 0);
    let told = table.death("a", Some(1));
    assert_eq!(
        told,
        [
            "1 free",
            "1 to claims-1",
            "#3 claims-1: has 1 epoch 2",
            "#4 asks: waits at 1",
            "#5 claims-0: waits at 2"
        ]
    );
    let told = table.death("a", Some(0));
    assert_eq!(told, ["0 free", "0 to asks", "#4 asks: has 0 epoch 2", "#5 claims-0: waits at 1"]);
}

#[test]
fn further_claims_of_an_id_are_accepted_with_the_first() {
    let mut table = Table::of(2);
    table.ask("a");
    table.ask("a");
    table.ask("b");
    table.ask("c");
    table.claim("b", 0);
    let told = table.death("a", Some(0));
    assert_eq!(
        told,
        ["0 free", "0 to b", "#3 b: has 0 epoch 2", "#5 b: has 0 epoch 2", "#4 c: waits at 1"],
        "else its own claim would take the id back when it gives it up"
    );
}

#[test]
fn a_claim_out_of_range_is_malformed() {
    let mut table = Table::of(4);
    assert_eq!(table.claim("a", 4), ["#1 a: malformed: `d.shard_id` must be in 0 to 3 (of 4 shards), not 4"]);
}

#[test]
fn a_claim_with_another_shard_count_is_stale() {
    let mut table = Table::of(4);
    let claim = |id, count| op::ShardConnect { shard_id: Some(id), shard_count: Some(count), identify: None };
    let stale = "stale_shard: `d.shard_count` must be 4, not 8";
    assert_eq!(table.connect("a", claim(2, 8)), [format!("#1 a: {stale}")]);
    assert_eq!(table.connect("a", claim(7, 8)), [format!("#2 a: {stale}")]);
    assert_eq!(table.connect("a", claim(2, 4)), ["2 to a", "#3 a: has 2 epoch 1"]);
}

#[test]
fn a_death_needs_no_id_from_the_holder_of_one() {
    let mut table = Table::of(2);
    assert_eq!(table.death("a", None), ["#1 a: not_shard_holder: this service holds no shard id"]);
    table.ask("a");
    table.ask("a");
    let expected = "#4 a: malformed: `d.shard_id` is needed: this service holds 2 shard ids";
    assert_eq!(table.death("a", None), [expected]);
    assert_eq!(table.death("a", Some(0)), ["0 free"]);
    assert_eq!(table.death("a", None), ["1 free"]);
}

#[test]
fn a_death_of_an_id_that_is_not_held_has_no_effect() {
    let mut table = Table::of(2);
    table.ask("a");
    for id in [0, 1, 9] {
        let told = table.death("b", Some(id));
        assert_eq!(told.len(), 1);
        assert!(
            told[0].ends_with(&format!("not_shard_holder: this service does not hold the shard id {id}"))
        );
    }
    assert_eq!(table.shards_of("a"), [0]);
}

#[test]
fn a_death_counts_while_its_service_is_away() {
    let mut table = Table::of(1);
    table.ask("a");
    table.away("a");
    assert_eq!(table.death("a", None), ["0 free"]);
}

#[test]
fn each_new_lease_of_an_id_has_the_next_epoch() {
    let mut table = Table::of(2);
    for epoch in 1..=3 {
        assert!(table.ask("a").contains(&format!("#{} a: has 0 epoch {epoch}", table.requests)));
        table.death("a", None);
    }
    assert_eq!(table.claim("b", 1), ["1 to b", "#7 b: has 1 epoch 1"], "each id has its own");
}

#[test]
fn the_view_shows_every_id() {
    let mut table = Table::of(2);
    table.claim("a", 1);
    table.ask("b");
    table.death("b", None);
    let views: Vec<_> = table
        .pool
        .report(table.now)
        .shards
        .into_iter()
        .map(|it| (it.shard.shard_id.0, it.standing.as_str(), it.holder, it.epoch.0, it.since_ms, it.deaths))
        .collect();
    let expected =
        [(0, "free", None, 1, None, 1), (1, "leased", Some(name("a")), 1, Some(START + SECOND), 0)];
    assert_eq!(views, expected);
}

#[test]
fn a_large_pool_is_handed_from_one_service_to_hundreds_in_one_step() {
    let mut table = Table::of(4096);
    for _ in 0..4096 {
        table.requests += 1;
        let connect = op::ShardConnect::default();
        let input = Input::Connect { service: name("a"), request: table.requests, connect };
        let actions = table.pool.step(input, table.now);
        table.note_stored(&actions);
    }
    for service in 0..500 {
        table.requests += 1;
        let connect = op::ShardConnect::default();
        let input =
            Input::Connect { service: name(&format!("s{service}")), request: table.requests, connect };
        let actions = table.pool.step(input, table.now);
        table.note_stored(&actions);
    }
    let told = table.down("a");
    assert_eq!(told.len(), 4096 + 2 * 500);
    assert_eq!(table.shards_of("s499"), [499]);
    assert_eq!(table.pool.report(table.now).waiting, BTreeMap::new());
}
