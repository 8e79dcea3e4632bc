//! How the gateway is at one moment, as it tells itself and as its process shows.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde::Deserialize;

use crate::bench::BenchError;
use crate::bench::http::{Http, metric};
use crate::bench::process::{descriptors, resident_kib};

/// One line of the soak.
#[derive(Debug, Clone, Default)]
pub struct Sample {
    /// Since the services had come.
    pub elapsed: Duration,
    pub resident_kib: u64,
    pub descriptors: usize,
    pub connections: u64,
    /// Those away included.
    pub sessions: u64,
    /// ERRORs and RECEIPTs included, which stand in no account.
    pub mailbox_messages: u64,
    pub mailbox_bytes: u64,
    /// The sum of all accounts, in messages.
    pub sum: Balance,
    /// Targets whose account does not balance, in messages or in bytes.
    pub unbalanced: Vec<String>,
}

/// The five counters of an account.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Balance {
    pub accepted: u64,
    pub delivered: u64,
    pub returned: u64,
    pub dead: u64,
    pub queued: u64,
}

#[derive(Deserialize)]
struct Accounting {
    sum: Sums,
    targets: BTreeMap<String, Account>,
}

#[derive(Deserialize)]
struct Account {
    sum: Sums,
}

#[derive(Deserialize)]
struct Sums {
    accepted: Amount,
    delivered: Amount,
    returned: Amount,
    dead: Amount,
    queued: Amount,
}

#[derive(Deserialize)]
struct Amount {
    messages: u64,
    bytes: u64,
}

#[derive(Deserialize)]
struct Services {
    services: Vec<Service>,
}

#[derive(Deserialize)]
struct Service {
    queued: Amount,
}

impl Sample {
    /// Asks the gateway, and looks at its process.
    pub(super) async fn take(http: &Http, pid: u32, elapsed: Duration) -> Result<Self, BenchError> {
        // Before it is asked: the questions take memory and descriptors too.
        let (resident_kib, descriptors) = (resident_kib(pid)?, descriptors(pid)?);
        let accounting: Accounting = http.get_json("/api/v1/accounting").await?;
        let Services { services } = http.get_json("/api/v1/services").await?;
        let metrics = http.get("/metrics").await?;
        Ok(Self {
            elapsed,
            resident_kib,
            descriptors,
            connections: metric(&metrics, "gateway_connections"),
            sessions: metric(&metrics, "gateway_sessions"),
            mailbox_messages: services.iter().map(|service| service.queued.messages).sum(),
            mailbox_bytes: metric(&metrics, "gateway_mailbox_bytes"),
            sum: accounting.sum.balance(|amount| amount.messages),
            unbalanced: accounting.unbalanced(),
        })
    }

    /// What stands above the columns.
    pub const HEAD: &'static str = "elapsed  resident KiB    fds  conns  sessions  mailbox msgs      KiB    accepted   \
                                    delivered  returned    dead  queued  account";
}

impl Accounting {
    fn unbalanced(&self) -> Vec<String> {
        let sums = self.targets.iter().map(|(target, account)| (target.as_str(), &account.sum));
        let wrong = sums.chain([("all targets", &self.sum)]).filter(|(_, sums)| {
            let is_balanced = |of: fn(&Amount) -> u64| sums.balance(of).balances();
            !(is_balanced(|amount| amount.messages) && is_balanced(|amount| amount.bytes))
        });
        wrong.map(|(target, _)| target.to_owned()).collect()
    }
}

impl Sums {
    fn balance(&self, of: impl Fn(&Amount) -> u64) -> Balance {
        Balance {
            accepted: of(&self.accepted),
            delivered: of(&self.delivered),
            returned: of(&self.returned),
            dead: of(&self.dead),
            queued: of(&self.queued),
        }
    }
}

impl Balance {
    fn balances(self) -> bool {
        self.accepted == self.delivered + self.returned + self.dead + self.queued
    }
}

impl fmt::Display for Sample {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Balance { accepted, delivered, returned, dead, queued } = self.sum;
        let seconds = self.elapsed.as_secs();
        write!(
            formatter,
            "{:>4}:{:02}  {:>12}  {:>5}  {:>5}  {:>8}  {:>12}  {:>7}  {accepted:>10}  {delivered:>10}  \
             {returned:>8}  {dead:>6}  {queued:>6}  {}",
            seconds / 60,
            seconds % 60,
            self.resident_kib,
            self.descriptors,
            self.connections,
            self.sessions,
            self.mailbox_messages,
            self.mailbox_bytes / 1024,
            if self.unbalanced.is_empty() { "balanced" } else { "UNBALANCED" },
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accounting(delivered: u64, bytes: u64) -> Accounting {
        let text = r#"{"balanced":true,"sum":SUM,"targets":{"b":{"sum":SUM,"sources":{}}}}"#;
        let sum = format!(
            r#"{{"accepted":{{"messages":9,"bytes":90}},"delivered":{{"messages":{delivered},"bytes":{bytes}}},
               "returned":{{"messages":1,"bytes":10}},"dead":{{"messages":1,"bytes":10}},
               "queued":{{"messages":2,"bytes":20}}}}"#
        );
        serde_json::from_str(&text.replace("SUM", &sum)).unwrap()
    }

    #[test]
    fn an_account_is_added_up_and_not_believed() {
        assert!(accounting(5, 50).unbalanced().is_empty());
        assert_eq!(accounting(4, 50).unbalanced(), ["b", "all targets"]);
        assert_eq!(accounting(5, 51).unbalanced(), ["b", "all targets"]);
    }

    #[test]
    fn a_line_stands_below_its_head() {
        let sum = Balance { accepted: 1_234_567_890, delivered: 1_234_567_890, ..Balance::default() };
        let unbalanced = vec!["b".to_owned()];
        let sample = Sample { elapsed: Duration::from_secs(905), sum, unbalanced, ..Sample::default() };
        let line = sample.to_string();
        assert!(line.starts_with("  15:05 ") && line.ends_with("  UNBALANCED"), "{line}");
        assert_eq!(line.find("UNBALANCED"), Sample::HEAD.find("account"), "{}\n{line}", Sample::HEAD);
        let end = |text: &str, word: &str| text.find(word).map(|at| at + word.len());
        assert_eq!(end(&line, "1234567890"), end(Sample::HEAD, "accepted"), "{}\n{line}", Sample::HEAD);
    }
}
