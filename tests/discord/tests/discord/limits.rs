//! What the gateway makes of Discord's `/gateway/bot`.

use gateway::client::{Client, Event, Identify, Lease};
use gateway::protocol::op::Opcode;
use gateway_discord_tests::{Http, Settings};
use serde_json::Value;

use crate::processes::{Gateway, eventually, fake};

async fn service(gateway: &Gateway) -> Client {
    Client::connect(&gateway.url().await, &Identify::named("a")).await.unwrap().0
}

/// The next op of the gateway.
async fn op(service: &mut Client) -> (u64, Value) {
    match service.next().await.unwrap() {
        Some(Event::Op(op)) => (op.opcode, serde_json::from_str(op.data.get()).unwrap()),
        other => panic!("{other:?}"),
    }
}

async fn lease(service: &mut Client) -> Lease {
    service.shard_connect().await.unwrap();
    match service.next().await.unwrap() {
        Some(Event::Op(op)) if op.is(Opcode::ShardAccept) => op.read().unwrap(),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn auto_takes_discords_numbers_and_the_token_is_told_nobody() {
    let fake = fake(Settings { shards: 5, max_concurrency: 2, ..Settings::default() }).await;
    let path = std::env::temp_dir().join(format!("gateway-token-{}", std::process::id()));
    std::fs::write(&path, format!("{}\n", Settings::default().token)).unwrap();
    let token_file = format!("--discord-token-file={}", path.display());
    // Whatever its libraries log, too.
    let gateway = Gateway::spawn(&fake, &["--shards=auto", &token_file, "--log=trace"]);
    let lease = lease(&mut service(&gateway).await).await;
    assert_eq!((lease.shard_id, lease.shard_count, lease.max_concurrency), (0, 5, 2));
    gateway.wait_for_log("Discord answers: 5 shards recommended, max_concurrency 2, 1000 of 1000").await;
    // The client would write its requests, in pieces: it writes nothing.
    let log = gateway.log();
    assert!(log.contains("TRACE") && !log.contains("ureq") && !log.contains(&Settings::default().token));
    assert_eq!(fake.asked().len(), 1);
    std::fs::remove_file(path).unwrap();
}

#[tokio::test]
async fn auto_waits_until_discord_answers() {
    let fake = fake(Settings { shards: 3, ..Settings::default() }).await;
    fake.set_http(Http::Status(503));
    let gateway = Gateway::spawn(&fake, &["--shards=auto"]);
    gateway.wait_for_log("Discord cannot be asked: expected status 200, got 503 with \"<html>\"").await;
    fake.set_http(Http::Garbage);
    gateway.wait_for_log("as JSON, got \"{\\\"shards\\\": \"").await;
    assert!(!gateway.log().contains("listening on"));
    fake.set_http(Http::Answer);
    assert_eq!(lease(&mut service(&gateway).await).await.shard_count, 3);
}

#[tokio::test]
async fn auto_with_a_wrong_token_does_not_start() {
    let fake = fake(Settings::default()).await;
    fake.change(|settings| settings.token = "another".to_owned());
    let mut gateway = Gateway::spawn(&fake, &["--shards=auto"]);
    assert_eq!(gateway.ended().await.code(), Some(2));
    let expected = format!(
        "gateway: shards: `auto` asks Discord, which does not take the bot's token (401 from {}): expected a \
         valid one in discord_token, or a number of shards",
        fake.api()
    );
    gateway.wait_for_log(&expected).await;
    assert_eq!(fake.asked().len(), 1);
}

#[tokio::test]
async fn a_number_of_shards_with_a_wrong_token_starts_and_says_what_is_missing() {
    let fake = fake(Settings::default()).await;
    fake.change(|settings| settings.token = "another".to_owned());
    let gateway = Gateway::spawn(&fake, &["--shards=2"]);
    assert_eq!(lease(&mut service(&gateway).await).await.shard_count, 2);
    gateway.wait_for_log("a valid one in discord_token and a restart mend that").await;
    assert_eq!(fake.asked().len(), 1);
}

#[tokio::test]
async fn a_number_of_shards_starts_without_discord_too() {
    let fake = fake(Settings::default()).await;
    fake.set_http(Http::Hang);
    let gateway = Gateway::spawn(&fake, &["--shards=2"]);
    assert_eq!(lease(&mut service(&gateway).await).await.shard_count, 2);
    gateway.wait_for_log("cannot be reached: timeout").await;
    fake.set_http(Http::Answer);
    gateway.wait_for_log("Discord answers: ").await;
}

#[tokio::test]
async fn a_rate_limit_is_waited_for() {
    let fake = fake(Settings::default()).await;
    fake.set_http(Http::RateLimited(1.5));
    let gateway = Gateway::spawn(&fake, &["--shards=auto"]);
    eventually("it asks three times", || (fake.asked().len() >= 3).then_some(())).await;
    fake.set_http(Http::Answer);
    gateway.url().await;
    assert_eq!(fake.violations(), Vec::<String>::new());
    assert!(gateway.log().contains("Discord limits how often it is asked (429)"));
}

#[tokio::test]
async fn a_used_up_budget_is_waited_for_and_warned_of() {
    let fake = fake(Settings { shards: 3, total: 10, remaining: 3, ..Settings::default() }).await;
    let gateway = Gateway::spawn(&fake, &["--shards=auto", "--identify-interval-ms=0"]);
    let mut service = service(&gateway).await;
    fake.change(|settings| settings.remaining = 1);
    lease(&mut service).await;
    gateway.wait_for_log("only 2 of Discord's 10 session starts are left for the next 240 min").await;
    lease(&mut service).await;
    let last = lease(&mut service).await;
    gateway.wait_for_log("all 10 of Discord's session starts are used up").await;
    let death = gateway::client::Death { shard_id: Some(last.shard_id), ..Default::default() };
    service.shard_death(&death).await.unwrap();
    service.shard_connect().await.unwrap();
    let (opcode, wait) = op(&mut service).await;
    assert_eq!((opcode, &wait["reason"]), (30, &Value::from("budget_exhausted")), "{wait}");
    let left_ms = wait["retry_after_ms"].as_u64().unwrap();
    assert!((14_000_000..=14_400_000).contains(&left_ms), "{left_ms}");
}

#[tokio::test]
async fn more_shards_are_recommended_and_not_made() {
    let fake = fake(Settings { shards: 5, ..Settings::default() }).await;
    let gateway = Gateway::spawn(&fake, &["--shards=2"]);
    assert_eq!(lease(&mut service(&gateway).await).await.shard_count, 2);
    gateway
        .wait_for_log(
            "Discord recommends 5 shards, and there are 2: POST /api/v1/shards/reshard changes that",
        )
        .await;
}
