//! `GET /api/v1/accounting`: what became of every message, by target and source.
//!
//! The sums of a target are of one moment, so they balance; those of all targets are the sums of
//! these.

use std::collections::BTreeMap;

use actix_web::HttpResponse;
use actix_web::web::Data;
use serde_json::{Map, Value, json};

use super::report::turn;
use crate::networker::entrance::Entrance;
use crate::state::account::{Amount, Balance, Row};

pub(super) async fn accounting(entrance: Data<Entrance>) -> HttpResponse {
    match turn(&entrance).await {
        Ok(turn) => turn.json(&shown(&entrance.routes.shared().accounts.snapshot())),
        Err(busy) => busy,
    }
}

fn shown(rows: &[Row]) -> Value {
    let mut total = Balance::default();
    let mut targets: BTreeMap<&str, (Balance, Map<String, Value>)> = BTreeMap::new();
    for row in rows {
        total += row.balance;
        let (sum, sources) = targets.entry(&row.target).or_default();
        *sum += row.balance;
        sources.insert(row.source.to_string(), balance(&row.balance));
    }
    let targets: Map<String, Value> = targets
        .into_iter()
        .map(|(target, (sum, sources))| {
            (target.to_owned(), json!({"sum": balance(&sum), "sources": sources}))
        })
        .collect();
    json!({"sum": balance(&total), "balanced": rows.iter().all(|row| row.balance.balances()), "targets": targets})
}

fn balance(balance: &Balance) -> Value {
    let amount = |amount: Amount| json!({"messages": amount.messages, "bytes": amount.bytes});
    json!({
        "accepted": amount(balance.accepted),
        "delivered": amount(balance.delivered),
        "returned": amount(balance.returned),
        "dead": amount(balance.dead),
        "queued": amount(balance.queued),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::account::Place;

    #[test]
    fn rows_are_summed_by_target_and_in_all() {
        let row = |source: &str, target: &str, messages| {
            let amount = Amount { messages, bytes: messages * 10 };
            let balance = Balance { accepted: amount, queued: amount, ..Balance::default() };
            Row { source: source.into(), target: target.into(), place: Place::default(), balance }
        };
        let shown = shown(&[row("a", "c", 1), row("b", "c", 2), row("a", "d", 4)]);
        assert_eq!(shown["balanced"], true);
        assert_eq!(shown["sum"]["accepted"], json!({"messages": 7, "bytes": 70}));
        assert_eq!(shown["targets"]["c"]["sum"]["queued"]["messages"], 3);
        assert_eq!(shown["targets"]["c"]["sources"]["b"]["accepted"]["messages"], 2);
        assert_eq!(shown["targets"]["d"]["sources"]["a"]["dead"]["messages"], 0);
    }
}
