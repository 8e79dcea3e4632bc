//! A process of a bot's shards, until its standard input ends or says `leave`.
//!
//!     shards <gateway's URL> <Discord's gateway URL> <token> <name> <number of shards>

use std::process::ExitCode;

use gateway_discord_tests::shards::{Bot, run};
use tokio::io::AsyncReadExt;
use tokio::sync::watch;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [gateway, discord, token, service, shards] = &words[..] else {
        eprintln!("shards: expected 5 arguments, got {}", words.len());
        return ExitCode::from(2);
    };
    let Ok(shards) = shards.parse() else {
        eprintln!("shards: expected a number of shards, got {shards}");
        return ExitCode::from(2);
    };
    let own = |text: &String| text.clone();
    let bot = Bot {
        gateway: own(gateway),
        discord: own(discord),
        token: own(token),
        service: own(service),
        shards,
    };
    let (leave, leaves) = watch::channel(false);
    tokio::spawn(async move {
        // Any byte, or the end.
        let _ = tokio::io::stdin().read_u8().await;
        let _ = leave.send(true);
        std::future::pending::<()>().await;
    });
    run(bot, leaves).await;
    // The thread that reads standard input would be waited for.
    std::process::exit(0)
}
