//! How ids are lost: holders that vanish, shards that crash in a loop, fatal close codes, and what is
//! left to the next holder.

use super::*;
use crate::state::backlog::Backlog;

#[test]
fn the_id_of_a_holder_that_vanished_is_granted_when_it_must_have_noticed() {
    let mut table = Table::of(1);
    table.ask("a");
    table.away("a");
    table.wait(29 * SECOND);
    assert_eq!(table.vanish("a"), ["0 free"]);
    assert_eq!(table.ask("b"), ["#2 b: waits at 1 for 14000 ms"], "45 s after its last frame");
    assert_eq!(table.view(0).awaits, Some(Awaits::Notice { in_ms: 14_000 }));
    assert_eq!(table.wait(13_999), [""; 0]);
    assert_eq!(table.wait(1), ["0 to b", "#2 b: has 0 epoch 2"]);
}

#[test]
fn the_last_frame_counts_and_not_when_its_end_was_noticed() {
    let mut table = Table::of(1);
    table.ask("a");
    let last_frame = Some(table.now.instant);
    table.pass(14 * SECOND);
    table.step(Input::Away { service: name("a"), last_frame });
    table.vanish("a");
    assert_eq!(table.ask("b"), ["#2 b: waits at 1 for 28000 ms"], "17 of 45 s are over");
}

/// What waits for the pool comes in at once when it goes on, with what is void dropped.
fn go_on_with(table: &mut Table, waiting: Vec<Input<u32>>) -> Vec<String> {
    let mut backlog = Backlog::default();
    for input in waiting {
        backlog.push(input, (), |_| true);
    }
    std::iter::from_fn(|| backlog.pop()).flat_map(|(input, ())| table.step(input)).collect()
}

#[test]
fn a_holder_that_came_back_while_the_pool_stood_still_is_not_away_since_before() {
    let away = || Input::Away { service: name("a"), last_frame: None };
    let vanished = || Input::Down { service: name("a"), departure: Departure::Vanished { last_frame: None } };
    let came = || Input::Resumed { service: name("a") };
    for (waiting, over) in [(vec![came(), vanished()], 1), (vec![came(), away(), vanished()], 2)] {
        let mut table = Table::of(1);
        table.ask("a");
        table.away("a");
        table.wait(29 * SECOND);
        assert_eq!(go_on_with(&mut table, waiting), ["0 free"]);
        let left = (45 - over) * SECOND;
        assert_eq!(table.ask("b"), [format!("#2 b: waits at 1 for {left} ms")], "of 45 s {over} are over");
    }
}

#[test]
fn who_heard_while_it_was_away_that_its_ids_stand_goes_by_that_for_another_window() {
    let mut table = Table::of(1);
    table.ask("a");
    table.away("a");
    table.wait(20 * SECOND);
    assert_eq!(table.heard("a"), [""; 0]);
    table.wait(8 * SECOND);
    table.vanish("a");
    assert_eq!(table.ask("b"), ["#2 b: waits at 1 for 35000 ms"], "45 s after it heard");
}

#[test]
fn what_was_heard_before_a_connection_counts_no_more_after_it() {
    let mut table = Table::of(1);
    table.ask("a");
    table.heard("a");
    table.resumed("a");
    let last_frame = table.now.instant.checked_sub(Duration::from_millis(SECOND));
    table.wait(10 * SECOND);
    table.step(Input::Away { service: name("a"), last_frame });
    table.vanish("a");
    assert_eq!(
        table.view(0).awaits,
        Some(Awaits::Notice { in_ms: 32 * SECOND }),
        "45 s after its last frame"
    );
    assert!(table.pool.heard.is_empty());
}

/// That its session is over, and what it is told meanwhile, cross each other.
#[test]
fn who_is_told_of_ids_that_it_has_just_lost_goes_by_that_too() {
    let mut table = Table::of(3);
    for id in 0..3 {
        table.claim(if id < 2 { "a" } else { "other" }, id);
    }
    table.away("a");
    table.away("other");
    table.wait(27 * SECOND);
    table.vanish("a");
    table.vanish("other");
    table.heard("a");
    let held = [0, 1, 2].map(|id| table.view(id).awaits.and_then(Awaits::in_ms));
    assert_eq!(held, [Some(45 * SECOND), Some(45 * SECOND), Some(15 * SECOND)]);
    table.restart_after(SECOND);
    assert_eq!(table.view(1).awaits, Some(Awaits::Notice { in_ms: 44 * SECOND }), "that is stored");
    assert_eq!(table.ask("b"), ["#4 b: waits at 1 for 13000 ms"], "that of the other");
    assert!(!table.pool.knows(&name("a")), "nothing is kept of whom nobody will tell the end");
}

#[test]
fn the_same_name_waits_too_for_what_it_lost() {
    let mut table = Table::of(2);
    table.claim("a", 1);
    table.vanish("a");
    table.resumed("a");
    assert_eq!(table.ask("a"), ["0 to a", "#2 a: has 0 epoch 1"], "another process of it may live still");
    assert_eq!(table.claim("a", 1), ["#3 a: waits at 1 for 42000 ms"]);
}

#[test]
fn who_leaves_for_good_or_tells_of_the_death_frees_its_id_at_once() {
    for lose in [|table: &mut Table| table.down("a"), |table: &mut Table| table.death("a", None)] {
        let mut table = Table::of(1);
        table.ask("a");
        assert_eq!(lose(&mut table), ["0 free"]);
        assert_eq!(table.ask("b").first().map(String::as_str), Some("0 to b"));
    }
}

#[test]
fn an_id_that_dies_too_often_is_held_back_twice_as_long_each_time() {
    let mut table = Table::of(2);
    table.claim("other", 1);
    for _ in 0..5 {
        table.ask("a");
        assert_eq!(table.death("a", None), ["0 free"]);
    }
    table.ask("a");
    let warning = "! shard 0/2 died too often (6 times in all): it is held back for 10 s";
    assert_eq!(table.death("a", None), [warning, "0 free"]);
    assert_eq!(table.ask("b"), ["#14 b: waits at 1 crash_loop for 9000 ms"]);
    assert_eq!(table.wait(9 * SECOND), ["0 to b", "#14 b: has 0 epoch 7"]);
    table.death("b", None);
    assert_eq!(table.ask("b"), ["#16 b: waits at 1 crash_loop for 19000 ms"]);
    assert_eq!(table.view(0).awaits, Some(Awaits::CrashLoop { in_ms: 19 * SECOND }));
}

/// Discord may refuse its shard's sessions one after the other, or the permits come too late: that is no
/// reason to take the id from a service that is there.
#[test]
fn who_asks_for_one_permit_after_the_other_keeps_its_id() {
    let mut table = Table::paced(1);
    table.ask("a");
    for _ in 0..20 {
        table.wait(6 * SECOND);
        let granted = table.claim("a", 0);
        assert!(granted.iter().any(|line| line.ends_with("a: has 0 epoch 1")), "{granted:?}");
    }
    for _ in 0..9 {
        table.resumed("a");
        table.claim_connected("a", 0);
    }
    assert_eq!((table.shards_of("a"), table.view(0).deaths), (vec![0], 0));
}

#[test]
fn a_fatal_close_code_freezes_the_pool_until_it_is_thawed() {
    for code in [4004, 4010, 4011, 4012, 4013, 4014] {
        let mut table = Table::of(3);
        table.ask("a");
        table.ask("b");
        let told = table.die("a", op::ShardDeath { close_code: Some(code), ..Default::default() });
        let warning = format!(
            "! Discord closed shard 0/3 with {code}, which reconnecting does not mend: no shard id is granted \
             until POST /api/v1/shards/thaw"
        );
        assert_eq!(told, [&warning, "0 free"]);
        assert_eq!(table.ask("c"), ["#4 c: waits at 1 frozen"]);
        assert_eq!(table.claim_connected("d", 2), ["#5 d: waits at 2 frozen"]);
        assert_eq!(table.claim_connected("b", 1), ["#6 b: has 1 epoch 1"], "it stands as it is");
        let told = ["2 to d", "#5 d: has 2 epoch 1", "0 to c", "#4 c: has 0 epoch 2"];
        assert_eq!(table.operate(Command::Thaw), (Ok(Done::Thawed), told.map(str::to_owned).to_vec()));
    }
    let mut table = Table::of(1);
    table.ask("a");
    table.die("a", op::ShardDeath { close_code: Some(4009), ..Default::default() });
    assert_eq!(table.ask("b"), ["0 to b", "#3 b: has 0 epoch 2"], "others do not");
}

fn resume() -> Option<op::Resume> {
    op::Resume::new(r#"{"seq":7}"#)
}

#[test]
fn resume_data_left_at_death_is_handed_to_the_next_holder_once() {
    let mut table = Table::of(1);
    table.ask("a");
    table.die("a", op::ShardDeath { resume: resume(), ..Default::default() });
    assert_eq!(table.ask("b"), ["0 to b", r#"#3 b: has 0 epoch 2 resumes {"seq":7}"#]);
    table.death("b", None);
    assert_eq!(table.ask("c"), ["0 to c", "#5 c: has 0 epoch 3"]);
}

#[test]
fn resume_data_told_with_a_state_outlives_a_holder_that_vanishes() {
    let mut table = Table::of(1);
    table.ask("a");
    let told = op::ShardState { shard_id: 0, shard_count: None, state: LeaseState::Ready, resume: resume() };
    table.tell_with("a", told);
    table.vanish("a");
    table.ask("b");
    let told = table.wait(MINUTE);
    assert_eq!(told, ["0 to b", r#"#3 b: has 0 epoch 2 resumes {"seq":7}"#]);
}

#[test]
fn resume_data_is_for_a_process_that_comes_back_and_not_for_one_that_could_not_resume() {
    let mut table = Table::of(1);
    table.ask("a");
    let told = op::ShardState { shard_id: 0, shard_count: None, state: LeaseState::Ready, resume: resume() };
    table.tell_with("a", told);
    assert_eq!(table.claim("a", 0), ["#3 a: has 0 epoch 1"], "it wants to IDENTIFY");
    table.away("a");
    table.resumed("a");
    assert_eq!(table.ask("a"), [r#"#4 a: has 0 epoch 1 resumes {"seq":7}"#]);
}

#[test]
fn who_identifies_anew_leaves_nothing_of_the_session_before() {
    for (state, resumes) in [(LeaseState::Identifying, false), (LeaseState::Resumed, true)] {
        let mut table = Table::of(1);
        table.ask("a");
        let told =
            op::ShardState { shard_id: 0, shard_count: None, state: LeaseState::Ready, resume: resume() };
        table.tell_with("a", told);
        table.claim("a", 0);
        table.tell("a", 0, state);
        table.death("a", None);
        assert_eq!(table.ask("b")[1].ends_with(r#"resumes {"seq":7}"#), resumes, "after {state:?}");
    }
}

#[test]
fn resume_data_tells_for_how_long_it_is_good() {
    let mut table = Table::of(1);
    table.ask("a");
    table.die("a", op::ShardDeath { resume: resume(), ..Default::default() });
    table.wait(MINUTE);
    let input = Input::Connect { service: name("b"), request: 9, connect: op::ShardConnect::default() };
    let actions = table.pool.step(input, table.now);
    let left = actions.iter().find_map(|action| match action {
        Action::Accept { resume_for, .. } => Some(*resume_for),
        _ => None,
    });
    assert_eq!(left, Some(Duration::from_mins(2)));
}

#[test]
fn resume_data_is_stale_after_three_minutes() {
    for (after, resumes) in [(3 * MINUTE - 1, true), (3 * MINUTE, false)] {
        let mut table = Table::of(1);
        table.ask("a");
        table.die("a", op::ShardDeath { resume: resume(), ..Default::default() });
        table.wait(after - SECOND);
        assert_eq!(table.ask("b")[1].ends_with("resumes {\"seq\":7}"), resumes, "{after} ms later");
    }
}

#[test]
fn resume_data_grows_stale_while_the_pool_stands_still_and_while_no_gateway_runs() {
    let left = |table: &mut Table| {
        table.ask("a");
        table.die("a", op::ShardDeath { resume: resume(), ..Default::default() });
    };
    let resumes = |table: &mut Table| table.ask("b")[1].ends_with(r#"resumes {"seq":7}"#);
    for (ms, expected) in [(2 * MINUTE, true), (3 * MINUTE, false)] {
        let mut stood = Table::of(1);
        left(&mut stood);
        stood.now.stood_still += Duration::from_millis(ms);
        stood.now.unix_ms += ms;
        assert_eq!(resumes(&mut stood), expected, "stood still for {ms} ms");
        let mut killed = Table::of(1);
        left(&mut killed);
        killed.restart_after(ms);
        assert_eq!(resumes(&mut killed), expected, "killed for {ms} ms");
    }
    let mut set_back = Table::of(1);
    left(&mut set_back);
    set_back.now.unix_ms -= MINUTE;
    set_back.restart_after(0);
    assert!(!resumes(&mut set_back), "nobody knows its age");
}

#[test]
fn a_state_of_an_id_that_is_not_held_has_no_effect() {
    let mut table = Table::of(2);
    table.ask("a");
    let expected = "#2 b: not_shard_holder: this service does not hold the shard id 0";
    assert_eq!(table.tell("b", 0, LeaseState::Ready), [expected]);
    assert_eq!(table.view(0).standing, Standing::Leased);
    table.tell("a", 0, LeaseState::Identifying);
    assert_eq!(table.view(0).standing, Standing::Identifying);
    table.tell("a", 0, LeaseState::Resumed);
    assert_eq!(table.view(0).standing, Standing::Resumed);
}
