//! A gateway that is killed, and goes on with what was stored.

use super::*;

#[test]
fn leases_stand_over_a_restart_and_are_unclaimed_until_their_holders_ask() {
    let mut table = Table::of(3);
    table.claim("a", 0);
    table.claim("b", 2);
    table.restart_after(SECOND);
    assert_eq!((table.shards_of("a"), table.shards_of("b")), (vec![0], vec![2]));
    assert_eq!(table.view(2).standing, Standing::Away);
    table.resumed("b");
    assert_eq!(table.ask("b"), ["#3 b: has 2 epoch 1"], "the same lease");
    assert_eq!(table.claim_connected("a", 0), ["#4 a: has 0 epoch 1"]);
    assert_eq!(table.ask("b"), ["1 to b", "#5 b: has 1 epoch 1"]);
}

#[test]
fn what_nobody_came_for_returns_to_the_pool_and_is_granted_when_its_holder_must_have_noticed() {
    let mut table = Table::of(2);
    table.ask("a");
    table.ask("b");
    table.restart_after(SECOND);
    table.resumed("b");
    table.ask("c");
    let warning = "! a did not come back within resume_window_ms after the restart: its 1 shard ids go back to \
                   the pool";
    assert_eq!(table.wait(30 * SECOND), ["0 free", warning]);
    assert_eq!(table.wait(12_999), [""; 0], "45 s after the restart");
    assert_eq!(table.wait(1), ["0 to c", "#3 c: has 0 epoch 2"]);
    assert_eq!(table.shards_of("b"), [1], "it came, and keeps what it has");
}

/// It came and went while the pool stood still: then only that it is away is told.
#[test]
fn who_is_away_after_a_restart_came_since_and_has_a_whole_window() {
    let mut table = Table::of(1);
    table.ask("a");
    table.restart_after(SECOND);
    table.wait(28 * SECOND);
    assert_eq!(table.away("a"), [""; 0]);
    assert_eq!(table.wait(29 * SECOND), [""; 0], "the window since the restart is over");
    assert_eq!(table.vanish("a"), ["0 free"]);
    assert_eq!(table.ask("b"), ["#2 b: waits at 1 for 14000 ms"], "45 s after it went away");
}

#[test]
fn who_heard_since_the_restart_that_its_ids_stand_goes_by_that_for_another_window() {
    let mut table = Table::of(2);
    table.ask("a");
    table.ask("b");
    table.restart_after(SECOND);
    table.wait(24 * SECOND);
    table.heard("b");
    table.wait(6 * SECOND);
    let held = [0, 1].map(|id| table.view(id).awaits);
    let noticed = |seconds| Some(Awaits::Notice { in_ms: seconds * SECOND });
    assert_eq!(held, [noticed(14), noticed(39)], "45 s after the restart, and after it heard");
    assert!(!table.pool.knows(&name("b")));
}

#[test]
fn who_is_back_keeps_its_ids_where_that_is_taken_in_behind_others_and_past_the_window() {
    let mut table = Table::of(3);
    table.ask("a");
    table.ask("b");
    table.restart_after(SECOND);
    table.pass(31 * SECOND);
    table.ask("c");
    assert_eq!(table.operate(Command::Freeze).0, Ok(Done::Frozen));
    assert_eq!(table.step(Input::Wake), [""; 0], "it may have been sent before");
    table.resumed("a");
    assert!(table.wait(0).concat().contains("! b did not come back"));
    assert_eq!((table.shards_of("a"), table.shards_of("b")), (vec![0], vec![]));
}

/// Its holder goes by the window that it was told.
#[test]
fn a_window_that_is_lowered_over_a_restart_shortens_no_hold_of_the_earlier_run() {
    let lower = |table: &mut Table| {
        table.settings.resume_window = Duration::from_secs(1);
        table.settings.heartbeat = Duration::from_secs(1);
    };
    let mut table = Table::of(2);
    table.ask("a");
    table.ask("b");
    table.vanish("a");
    lower(&mut table);
    table.restart_after(SECOND);
    assert_eq!(table.view(0).awaits, Some(Awaits::Notice { in_ms: 44 * SECOND }), "what was held back");
    table.restart_after(5 * SECOND);
    assert_eq!(table.view(0).awaits, Some(Awaits::Notice { in_ms: 39 * SECOND }), "over restarts in a row");
    assert_eq!(table.claim("c", 1), ["#3 c: waits at 1"]);
    assert_eq!(table.wait(28_999), [""; 0], "its holder is waited for as long as it goes by");
    assert_eq!(table.wait(1)[0], "1 free");
    assert_eq!(table.wait(14_999), ["0 free"; 0]);
    assert_eq!(table.wait(1), ["1 to c", "#3 c: has 1 epoch 2"], "45 s after the restart");
    table.vanish("c");
    assert_eq!(table.claim("d", 1), ["#4 d: waits at 1 for 3000 ms"], "then the lower one holds");
    assert_eq!(table.stored.pool.as_ref().unwrap().notice.notice_ms, 4 * SECOND);
}

#[test]
fn the_id_of_another_is_not_to_be_had_by_a_claim_after_a_restart() {
    let mut table = Table::of(1);
    table.ask("a");
    table.restart_after(SECOND);
    assert_eq!(table.claim_connected("b", 0), ["#2 b: waits at 1"]);
    table.resumed("a");
    assert_eq!(table.claim_connected("a", 0), ["#3 a: has 0 epoch 1"]);
}

#[test]
fn epochs_permits_and_holds_go_on() {
    let mut table = Table::paced(2);
    table.ask("a");
    table.death("a", None);
    table.restart_after(SECOND);
    assert_eq!(table.ask("b"), ["#3 b: waits at 1 identify_rate_limit for 2500 ms"]);
    assert_eq!(table.wait(2_500), ["0 to b", "#3 b: has 0 epoch 2"]);
    table.vanish("b");
    table.restart_after(SECOND);
    assert_eq!(table.claim("c", 0), ["#4 c: waits at 1 for 43000 ms"]);
}

#[test]
fn a_frozen_pool_stays_frozen() {
    let mut table = Table::of(1);
    table.operate(Command::Freeze).0.unwrap();
    table.restart_after(MINUTE);
    assert_eq!(table.ask("a"), ["#1 a: waits at 1 frozen"]);
    assert_eq!(table.view(0).awaits, Some(Awaits::Thaw));
}

#[test]
fn a_budget_is_not_forgotten_and_neither_is_discords_max_concurrency() {
    let mut table = Table::paced(4);
    let limit = SessionStartLimit {
        shards: 4,
        max_concurrency: 2,
        total: 10,
        remaining: 2,
        reset_after_ms: 60 * MINUTE,
    };
    table.limit(limit);
    table.ask("a");
    table.restart_after(MINUTE);
    assert_eq!(table.pool.report(table.now).budget.unwrap().remaining, 1);
    assert_eq!(table.pool.report(table.now).max_concurrency, 2);
    table.ask("b");
    assert_eq!(table.ask("c"), ["#3 c: waits at 1 budget_exhausted for 3537000 ms"]);
}

/// A pool of a large bot, of whose budget half is left, goes on where Discord is not asked.
fn without_a_token() -> Table {
    let mut table = Table::paced(4);
    table.limit(SessionStartLimit {
        shards: 4,
        max_concurrency: 2,
        total: 2,
        remaining: 2,
        reset_after_ms: 60 * MINUTE,
    });
    table.ask("a");
    table.settings.asks_discord = false;
    table.restart_after(SECOND);
    table
}

#[test]
fn without_a_token_what_discord_told_an_earlier_run_is_forgotten() {
    let mut table = without_a_token();
    assert_eq!((table.pool.budget.remaining(), &table.stored.budget), (None, &None));
    assert_eq!(table.pool.report(table.now).max_concurrency, 1, "the setting's");
    assert_eq!(
        table.ask("b"),
        ["#2 b: waits at 1 identify_rate_limit for 3500 ms"],
        "other keys are no more"
    );
    assert_eq!(table.wait(3_500), ["1 to b", "#2 b: has 1 epoch 1"]);
    table.ask("c");
    assert_eq!(table.wait(4_500), ["2 to c", "#3 c: has 2 epoch 1"], "session starts are not counted");
    let command = Command::Reshard { shard_count: 3, mode: Mode::Rolling, dry_run: false };
    assert!(table.operate(command).0.is_ok(), "no multiple of anything is demanded");
    table.settings.asks_discord = true;
    table.restart_after(SECOND);
    assert_eq!(table.pool.budget.remaining(), None, "nobody knows by now");
}

#[test]
fn what_was_granted_before_a_limit_was_forgotten_counts_when_discord_tells_one_again() {
    let restarts: [fn(&mut Table); 2] = [|_| {}, |table| table.restart_after(SECOND)];
    for restart in restarts {
        let mut table = without_a_token();
        table.settings.asks_discord = true;
        restart(&mut table);
        let limit = SessionStartLimit {
            shards: 4,
            max_concurrency: 1,
            total: 9,
            remaining: 9,
            reset_after_ms: MINUTE,
        };
        table.limit(limit);
        assert_eq!(table.pool.budget.remaining(), Some(8), "Discord may not have seen that one");
    }
}

#[test]
fn a_clock_that_was_set_back_holds_nothing_back_for_longer_than_usual() {
    let mut table = Table::paced(2);
    table.ask("a");
    table.vanish("a");
    table.now.unix_ms -= 24 * 60 * MINUTE;
    table.pool = ShardPool::restore(table.stored.clone(), table.settings, table.now).unwrap();
    assert_eq!(table.view(0).awaits, Some(Awaits::Notice { in_ms: 45_000 }));
    let opens = table.pool.pacing.next_opening().unwrap() - table.now.unix_ms;
    assert_eq!(opens, 5_500);
}

#[test]
fn a_clock_that_was_set_back_keeps_no_reshard_waiting_and_no_crash_loop_alive() {
    let mut table = Table::of(1);
    for _ in 0..6 {
        table.ask("a");
        table.death("a", None);
        table.wait(10 * SECOND);
    }
    table.operate(Command::Reshard { shard_count: 2, mode: Mode::Rolling, dry_run: false }).0.unwrap();
    table.ask("x");
    table.ask("y");
    table.now.unix_ms -= 24 * 60 * MINUTE;
    table.restart_after(0);
    let mut crashes = table.stored.shards[&Shard { shard_count: 1, shard_id: ShardId(0) }].crashes.clone();
    assert_eq!(crashes.note(table.now.unix_ms + 21 * MINUTE), None, "it lived for long enough");
    table.resumed("x");
    table.resumed("y");
    table.wait(MINUTE);
    assert_eq!(table.pool.shard_count(), 2, "who never tells is ready after its permit");
    assert!(table.view(0).since_ms.unwrap() <= table.now.unix_ms);
}

#[test]
fn a_clock_that_is_set_forward_before_a_restart_shortens_nothing() {
    for hours in [1, -1] {
        let mut table = Table::paced(2);
        table.ask("a");
        table.vanish("a");
        table.now.unix_ms = table.now.unix_ms.saturating_add_signed(hours * 60 * 60 * 1_000);
        assert!(table.pool.is_clock_off(table.now), "the driver has to look");
        table.step(Input::Wake);
        assert!(!table.pool.is_clock_off(table.now));
        table.restart_after(SECOND);
        let opens = table.pool.pacing.next_opening().unwrap() - table.now.unix_ms;
        assert_eq!(opens, 2_500, "3 s after the permit");
        assert_eq!(table.view(0).awaits, Some(Awaits::Notice { in_ms: 43 * SECOND }));
    }
}

#[test]
fn a_setting_that_differs_from_what_is_stored_is_refused_and_told_how_to_mend_it() {
    let mut table = Table::of(4);
    table.ask("a");
    let restore = |table: &Table, shard_count| {
        let settings = Settings { shard_count, ..table.settings };
        ShardPool::<u32>::restore(table.stored.clone(), settings, table.now).map(|pool| pool.shard_count())
    };
    let error = RestoreError::ShardCountDiffers { stored: 4, next: None, configured: 8 };
    assert_eq!(restore(&table, Some(8)), Err(error.clone()));
    assert!(error.to_string().contains(r#"POST /api/v1/shards/reshard {"shard_count": 8}"#), "{error}");
    assert_eq!(restore(&table, None), Ok(4), "the store is followed where nothing is set");
    table.operate(Command::Reshard { shard_count: 8, mode: Mode::Rolling, dry_run: false }).0.unwrap();
    assert_eq!(restore(&table, Some(8)), Ok(4), "either will do in the middle of a reshard");
    assert_eq!(restore(&table, Some(4)), Ok(4));
}

#[test]
fn what_contradicts_itself_is_damaged_and_never_a_fresh_start() {
    let mut table = Table::of(2);
    table.claim("a", 1);
    let refused = |change: fn(&mut Snapshot)| {
        let mut stored = table.stored.clone();
        change(&mut stored);
        let settings = Settings { shard_count: None, ..table.settings };
        let restored = ShardPool::<u32>::restore(stored, settings, table.now);
        restored.map(|_| ()).expect_err("it is damaged").to_string()
    };
    assert!(refused(|stored| stored.pool = None).contains("how many shards"));
    assert!(
        refused(|stored| stored.pool.as_mut().unwrap().shard_count = 1)
            .contains("no place for its shard 1/2")
    );
    assert!(refused(|stored| stored.pool.as_mut().unwrap().shard_count = 0).contains("0 shards"));
}

#[test]
fn a_new_pool_keeps_the_number_of_ids_that_it_was_given_before_anybody_asks() {
    let mut table = Table::of(3);
    table.restart_after(SECOND);
    table.settings.shard_count = Some(4);
    let other = ShardPool::<u32>::restore(table.stored.clone(), table.settings, table.now);
    let differs = RestoreError::ShardCountDiffers { stored: 3, next: None, configured: 4 };
    assert_eq!(other.err(), Some(differs));
    table.settings.shard_count = None;
    table.restart_after(SECOND);
    assert_eq!(table.pool.shard_count(), 3);
}

/// Nobody has set how many ids there are; Discord told its limit, services came and went, and somebody set the
/// clock.
fn nobody_has_asked() -> Table {
    let mut table = Table::with(1, |settings| settings.shard_count = None);
    table.resumed("a");
    table.limit(SessionStartLimit {
        shards: 16,
        max_concurrency: 1,
        total: 10,
        remaining: 9,
        reset_after_ms: 60 * MINUTE,
    });
    table.now.unix_ms += 60 * MINUTE;
    table.step(Input::Wake);
    table.down("a");
    assert_eq!(table.stored.pool, None);
    assert!(table.stored.budget.is_some());
    table
}

#[test]
fn the_number_of_a_new_pool_may_be_set_until_somebody_asks_where_it_was_not() {
    let mut table = nobody_has_asked();
    table.restart_after(SECOND);
    assert_eq!((table.pool.shard_count(), &table.stored.pool), (1, &None), "over restarts too");
    table.settings.shard_count = Some(16);
    table.restart_after(SECOND);
    assert_eq!(table.pool.shard_count(), 16);
    assert_eq!(table.pool.budget.remaining(), Some(9), "what Discord told counts");
}

#[test]
fn a_number_that_nobody_set_is_kept_from_the_first_lease_freeze_or_reshard_on() {
    let reshard = |mode| Command::Reshard { shard_count: 2, mode, dry_run: false };
    let commands = [Command::Freeze, reshard(Mode::Rolling), reshard(Mode::Immediate)].map(Some);
    for (command, stored) in [None].into_iter().chain(commands).zip([1, 1, 1, 2]) {
        let mut table = nobody_has_asked();
        match command {
            None => assert_eq!(table.ask("a")[0], "0 to a"),
            Some(command) => assert!(table.operate(command).0.is_ok()),
        }
        assert_eq!(table.stored.pool.as_ref().map(|pool| pool.shard_count), Some(stored), "at once");
        let settings = Settings { shard_count: Some(16), ..table.settings };
        let restored = ShardPool::<u32>::restore(table.stored.clone(), settings, table.now);
        assert!(matches!(restored.err(), Some(RestoreError::ShardCountDiffers { configured: 16, .. })));
    }
}

#[test]
fn a_pool_that_was_frozen_and_thawed_before_anybody_asked_is_not_found_frozen() {
    let mut table = nobody_has_asked();
    table.operate(Command::Freeze).0.unwrap();
    table.operate(Command::Thaw).0.unwrap();
    table.restart_after(SECOND);
    assert_eq!(table.ask("a"), ["0 to a", "#1 a: has 0 epoch 1"]);
}
