//! Prometheus's text format (version 0.0.4).
//!
//! A scrape walks over snapshots of what is counted where it happens: the
//! [accounts](crate::state::account) and the [tallies](crate::state::tally). There is nothing to register and nothing to
//! keep, so a library's registry would have to be filled anew for each scrape; the format itself is
//! three kinds of lines.

use std::fmt::{self, Display, Write};

use crate::state::account::{Amount, Balance, Row};

/// What a metric is.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Kind {
    Counter,
    Gauge,
}

/// What a part of a balance is called, what it is, and how to find it.
type Part = (&'static str, Kind, fn(&Balance) -> Amount);

/// What an amount is counted in: a metric's prefix, its words, and how to find it.
type Unit = (&'static str, &'static str, fn(Amount) -> u64);

/// An answer to a scrape, as it grows.
#[derive(Debug, Default)]
pub(crate) struct Exposition(String);

impl Exposition {
    /// A metric without labels.
    pub(crate) fn one(&mut self, name: &str, kind: Kind, help: &str, value: u64) {
        self.head(name, kind, help);
        self.line(name, &[], value);
    }

    /// A metric with one label.
    pub(crate) fn by_label<V: Display>(
        &mut self,
        name: &str,
        kind: Kind,
        help: &str,
        label: &str,
        values: impl IntoIterator<Item = (V, u64)>,
    ) {
        self.head(name, kind, help);
        for (value, count) in values {
            self.line(name, &[(label, &value)], count);
        }
    }

    /// The five counters of every source and target, as messages and as bytes.
    pub(crate) fn accounts(&mut self, rows: &[Row]) {
        let parts: [Part; 5] = [
            ("accepted", Kind::Counter, |balance| balance.accepted),
            ("delivered", Kind::Counter, |balance| balance.delivered),
            ("returned", Kind::Counter, |balance| balance.returned),
            ("dead", Kind::Counter, |balance| balance.dead),
            ("queued", Kind::Gauge, |balance| balance.queued),
        ];
        let units: [Unit; 2] = [
            ("gateway_messages", "Messages", |amount| amount.messages),
            ("gateway_message_bytes", "Bytes of messages", |amount| amount.bytes),
        ];
        for (prefix, what, unit) in units {
            for (part, kind, amount) in parts {
                let total = if matches!(kind, Kind::Counter) { "_total" } else { "" };
                let name = format!("{prefix}_{part}{total}");
                self.head(&name, kind, &format!("{what} {part}, by source and target."));
                for row in rows {
                    self.line(
                        &name,
                        &[("source", &row.source), ("target", &row.target)],
                        unit(amount(&row.balance)),
                    );
                }
            }
        }
    }

    pub(crate) fn into_text(self) -> String {
        self.0
    }

    fn head(&mut self, name: &str, kind: Kind, help: &str) {
        let kind = match kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
        };
        // Writing to a String cannot fail.
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    /// Written piece by piece: there are ten for each pair of services.
    fn line(&mut self, name: &str, labels: &[(&str, &dyn Display)], value: u64) {
        self.0.push_str(name);
        for (index, (label, value)) in labels.iter().enumerate() {
            self.0.push(if index == 0 { '{' } else { ',' });
            self.0.push_str(label);
            self.0.push_str("=\"");
            let _ = write!(Escaped(&mut self.0), "{value}");
            self.0.push('"');
        }
        self.0.push_str(if labels.is_empty() { " " } else { "} " });
        let _ = writeln!(self.0, "{value}");
    }
}

/// A label's value: backslashes, quotes and line feeds are escaped.
struct Escaped<'a>(&'a mut String);

impl Write for Escaped<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for piece in text.split_inclusive(['\\', '"', '\n']) {
            let special = piece.len() - 1;
            let (plain, escaped) = match piece.as_bytes()[special] {
                b'\\' => (&piece[..special], "\\\\"),
                b'"' => (&piece[..special], "\\\""),
                b'\n' => (&piece[..special], "\\n"),
                _ => (piece, ""),
            };
            self.0.push_str(plain);
            self.0.push_str(escaped);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::account::Place;

    #[test]
    fn accounts_are_shown_by_source_and_target() {
        let mut exposition = Exposition::default();
        let accepted = Amount { messages: 3, bytes: 30 };
        let queued = Amount { messages: 1, bytes: 10 };
        let delivered = Amount { messages: 2, bytes: 20 };
        let balance = Balance { accepted, delivered, queued, ..Balance::default() };
        exposition.accounts(&[Row {
            source: "a".into(),
            target: "b".into(),
            place: Place::default(),
            balance,
        }]);
        let text = exposition.into_text();
        for line in [
            "# TYPE gateway_messages_accepted_total counter",
            "gateway_messages_accepted_total{source=\"a\",target=\"b\"} 3",
            "gateway_message_bytes_delivered_total{source=\"a\",target=\"b\"} 20",
            "gateway_messages_dead_total{source=\"a\",target=\"b\"} 0",
            "# TYPE gateway_messages_queued gauge",
            "gateway_messages_queued{source=\"a\",target=\"b\"} 1",
            "gateway_message_bytes_queued{source=\"a\",target=\"b\"} 10",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
        }
    }

    #[test]
    fn label_values_are_escaped() {
        let mut exposition = Exposition::default();
        exposition.by_label("x", Kind::Gauge, "X.", "l", [("a\"b\\c\nd", 1)]);
        assert_eq!(exposition.into_text(), "# HELP x X.\n# TYPE x gauge\nx{l=\"a\\\"b\\\\c\\nd\"} 1\n");
    }
}
