use super::*;

const URL: &str = "ws://127.0.0.1:1";
const SECOND: Duration = Duration::from_secs(1);

/// Discord, and what the time is there.
struct Scene {
    rules: Rules,
    now: Instant,
    connections: u64,
}

impl Scene {
    fn new(settings: Settings) -> Self {
        Self { rules: Rules::new(settings), now: Instant::now(), connections: 0 }
    }

    /// IDENTIFYs on a new connection, so many ms later.
    fn identify(&mut self, later_ms: u64, shard: Shard) -> Verdict {
        self.identify_with(
            later_ms,
            &json!({"token": "fake.bot-token", "intents": 1, "shard": [shard.0, shard.1]}),
        )
    }

    fn identify_with(&mut self, later_ms: u64, data: &Value) -> Verdict {
        self.now += Duration::from_millis(later_ms);
        self.connections += 1;
        self.rules.identify(self.connections, data, URL, self.now)
    }

    fn resume(&mut self, session: &str, seq: u64) -> Verdict {
        self.connections += 1;
        let data = json!({"token": "fake.bot-token", "session_id": session, "seq": seq});
        self.rules.resume(self.connections, &data, self.now)
    }

    #[track_caller]
    fn violations(&self) -> String {
        self.rules.violations().iter().map(|violation| violation.0.as_str()).collect::<Vec<_>>().join("; ")
    }
}

fn session(verdict: &Verdict) -> String {
    match verdict {
        Verdict::Ready { session } | Verdict::Resumed { session, .. } => session.clone(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn one_key_identifies_once_in_five_seconds_and_others_meanwhile() {
    let mut scene = Scene::new(Settings { max_concurrency: 2, ..Settings::default() });
    for (later_ms, id) in [(0, 0), (0, 1), (5_000, 2), (0, 3)] {
        session(&scene.identify(later_ms, (id, 8)));
    }
    assert_eq!(scene.violations(), "");
    assert_eq!(scene.identify(4_999, (4, 8)), Verdict::InvalidSession);
    assert_eq!(scene.violations(), "shard (4, 8) IDENTIFYs 4999 ms after shard (2, 8), of the same key 0");
}

#[test]
fn the_daily_limit_is_counted_and_told() {
    let mut scene = Scene::new(Settings { remaining: 1, ..Settings::default() });
    assert_eq!(scene.rules.gateway_bot(URL)["session_start_limit"]["remaining"], 1);
    session(&scene.identify(0, (0, 2)));
    assert_eq!(scene.rules.gateway_bot(URL)["session_start_limit"]["remaining"], 0);
    assert!(matches!(scene.identify(5_000, (1, 2)), Verdict::Close { code: 4004, .. }));
    assert_eq!(scene.violations(), "shard (1, 2) IDENTIFYs, and no session start is left");
}

#[test]
fn one_shard_is_not_connected_twice() {
    let mut scene = Scene::new(Settings::default());
    let first = session(&scene.identify(0, (0, 1)));
    session(&scene.identify(5_000, (0, 1)));
    assert_eq!(scene.violations(), format!("shard (0, 1) IDENTIFYs while its session {first} is connected"));
    scene.resume(&first, 1);
    assert!(scene.violations().ends_with("shard (0, 1) resumes a session that is connected"));
}

#[test]
fn a_resumed_session_is_sent_what_it_missed() {
    let mut scene = Scene::new(Settings::default());
    let id = session(&scene.identify(0, (0, 1)));
    scene.rules.disconnect(scene.connections, &id, scene.now);
    assert_eq!(scene.rules.connected(), []);
    scene.rules.dispatch(&id, "FAKE_SAYS", &json!("missed"));
    let Verdict::Resumed { replay, .. } = scene.resume(&id, 1) else { panic!("not resumed") };
    assert_eq!(replay, [json!({"op": 0, "s": 2, "t": "FAKE_SAYS", "d": "missed"})]);
    assert_eq!((scene.rules.connected(), scene.rules.counts()), (vec![(0, 1)], (1, 1)));
    assert_eq!(scene.violations(), "");
}

#[test]
fn a_session_that_is_over_is_not_resumed() {
    let mut scene = Scene::new(Settings { session_life: SECOND, ..Settings::default() });
    assert_eq!(scene.resume("unknown", 1), Verdict::InvalidSession);
    let id = session(&scene.identify(0, (0, 1)));
    scene.rules.disconnect(scene.connections, &id, scene.now);
    scene.now += SECOND;
    assert_eq!(scene.resume(&id, 1), Verdict::InvalidSession, "too late");
    let id = session(&scene.identify(5_000, (0, 1)));
    scene.rules.disconnect(scene.connections, &id, scene.now);
    assert!(matches!(scene.resume(&id, 9), Verdict::Close { code: 4007, .. }), "ahead of its events");
    scene.rules.end(&id);
    assert_eq!(scene.resume(&id, 1), Verdict::InvalidSession, "closed with 1000");
}

#[test]
fn what_no_reconnect_mends_is_closed_with_discords_codes() {
    let settings =
        Settings { shards_multiple: 4, least_shards: 8, disallowed_intents: 2, ..Settings::default() };
    let mut scene = Scene::new(settings);
    for (code, data) in [
        (4004, json!({"token": "other", "intents": 1, "shard": [0, 8]})),
        (4010, json!({"token": "fake.bot-token", "intents": 1, "shard": [8, 8]})),
        (4010, json!({"token": "fake.bot-token", "intents": 1, "shard": [0, 9]})),
        (4010, json!({"token": "fake.bot-token", "intents": 1, "shard": 0})),
        (4011, json!({"token": "fake.bot-token", "intents": 1, "shard": [0, 4]})),
        (4013, json!({"token": "fake.bot-token", "shard": [0, 8]})),
        (4014, json!({"token": "fake.bot-token", "intents": 3, "shard": [0, 8]})),
    ] {
        let verdict = scene.identify_with(5_000, &data);
        assert!(matches!(verdict, Verdict::Close { code: got, .. } if got == code), "{data}: {verdict:?}");
    }
}
