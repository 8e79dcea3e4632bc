//! A Discord on loopback, until it is killed. What it can be asked for is in `control`.
//!
//!     fake-discord [--listen 127.0.0.1:0] [--token T] [--shards N] [--max-concurrency N]
//!                  [--interval-ms N] [--total N] [--remaining N]

use std::process::ExitCode;
use std::time::Duration;

use gateway_discord_tests::{Fake, Settings};

#[tokio::main]
async fn main() -> ExitCode {
    let (mut settings, mut listen) = (Settings::default(), "127.0.0.1:0".to_owned());
    let mut words = std::env::args().skip(1);
    while let (Some(flag), Some(value)) = (words.next(), words.next()) {
        let number = value.parse::<u32>();
        match (flag.as_str(), number) {
            ("--listen", _) => listen = value,
            ("--token", _) => settings.token = value,
            ("--shards", Ok(n)) => settings.shards = n,
            ("--max-concurrency", Ok(n @ 1..)) => settings.max_concurrency = n,
            ("--interval-ms", Ok(n)) => settings.identify_interval = Duration::from_millis(n.into()),
            ("--total", Ok(n)) => settings.total = n.into(),
            ("--remaining", Ok(n)) => settings.remaining = n.into(),
            _ => {
                eprintln!("fake-discord: what is {flag} {value}?");
                return ExitCode::from(2);
            }
        }
    }
    let fake = match Fake::start(&listen, settings).await {
        Ok(fake) => fake,
        Err(error) => {
            eprintln!("fake-discord: cannot listen on {listen}: {error}");
            return ExitCode::FAILURE;
        }
    };
    println!("listening on {}", fake.address());
    std::future::pending().await
}
