//! What one setting is: its name in each place it can be given, and what may be typed for it.
//!
//! How that becomes a field is in [`value`](super::value), and which settings there are in
//! [`table`](super::table).

use std::{
    fmt,
    net::{Ipv4Addr, SocketAddr},
    ops::RangeInclusive,
    str::FromStr,
    thread,
};

use log::LevelFilter;

use super::directory::{self, NONE};
use super::list::List;
use super::token::BotToken;
use super::value::Value;

pub(super) const AUTO: &str = "auto";
pub(super) const STORED: &str = "stored";

pub(crate) const VARIABLE_PREFIX: &str = "GATEWAY_";

/// One entry of the table.
#[derive(Debug)]
pub(crate) struct Setting {
    /// As in the file: `heartbeat_ms`.
    pub(crate) name: &'static str,
    pub(super) help: &'static str,
    pub(super) kind: Kind,
}

impl Setting {
    /// `heartbeat-ms`, without the dashes in front.
    pub(crate) fn flag(&self) -> String {
        self.name.replace('_', "-")
    }

    /// `GATEWAY_HEARTBEAT_MS`
    pub(crate) fn variable(&self) -> String {
        format!("{VARIABLE_PREFIX}{}", self.name.to_uppercase())
    }

    /// A secret has none: whoever may list the machine's processes could read it.
    pub(crate) fn has_flag(&self) -> bool {
        !matches!(self.kind, Kind::Token)
    }

    pub(crate) fn is_switch(&self) -> bool {
        matches!(self.kind, Kind::Switch)
    }

    /// What stands for the value in `--help`.
    pub(crate) fn placeholder(&self) -> String {
        match &self.kind {
            Kind::Address { .. } => "IP:PORT".to_owned(),
            Kind::Number { unit, .. } => unit.to_uppercase(),
            Kind::Count { .. } => "NUMBER|stored|auto".to_owned(),
            Kind::Path => "PATH".to_owned(),
            Kind::Token => "TOKEN".to_owned(),
            Kind::Url { .. } => "URL".to_owned(),
            Kind::Switch => "BOOL".to_owned(),
            Kind::StateDirectory => "DIRECTORY".to_owned(),
            Kind::LogFilter { .. } => "FILTER".to_owned(),
            Kind::Form { placeholder, .. } => (*placeholder).to_owned(),
            Kind::List(list) => format!("{},…", list.placeholder),
        }
    }

    /// What it does, then its range, unit and default.
    pub(crate) fn help(&self) -> String {
        let help = self.help.trim().trim_end_matches('.');
        match &self.kind {
            Kind::Number { unit, range, default } => {
                format!("{help} [{} to {} {unit}; default: {default}]", range.start(), range.end())
            }
            Kind::Count { range } => {
                let (from, to) = (range.start(), range.end());
                format!("{help} [{from} to {to}, {STORED} or {AUTO}; default: {STORED}]")
            }
            Kind::Address { default }
            | Kind::LogFilter { default }
            | Kind::Url { default }
            | Kind::Form { default, .. } => {
                format!("{help} [default: {default}]")
            }
            Kind::StateDirectory => format!("{help} [default: {}]", directory::DEFAULT),
            Kind::Path | Kind::Token => format!("{help} [default: {NONE}]"),
            Kind::Switch => format!("{help} [default: false]"),
            Kind::List(list) => format!("{help} [default: {}]", list.shown_default()),
        }
    }
}

/// What may be typed for a setting, and what it is where nothing was.
#[derive(Debug)]
pub(crate) enum Kind {
    Address {
        default: &'static str,
    },
    Number {
        unit: &'static str,
        range: RangeInclusive<u64>,
        default: Amount,
    },
    /// A number, `stored` or `auto`.
    Count {
        range: RangeInclusive<u64>,
    },
    /// A file's path, or `none`.
    Path,
    /// A bot's token at Discord, or `none`.
    Token,
    /// The base of an HTTP API.
    Url {
        default: &'static str,
    },
    /// `true` or `false`; off unless given.
    Switch,
    /// A path, or `none`. The default is the environment's to say: see [`directory`].
    StateDirectory,
    LogFilter {
        default: &'static str,
    },
    /// Text of a form that a type of its own knows.
    Form {
        placeholder: &'static str,
        expected: &'static str,
        default: &'static str,
        is_formed: fn(&str) -> bool,
        /// In the file, an array of texts or numbers stands for them with commas between.
        may_be_array: bool,
    },
    List(List),
}

#[derive(Debug)]
pub(crate) enum Amount {
    Fixed(u64),
    Cores,
}

impl fmt::Display for Amount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fixed(n) => write!(f, "{n}"),
            Self::Cores => f.write_str("number of cores"),
        }
    }
}

impl Kind {
    pub(super) const fn number(unit: &'static str, range: RangeInclusive<u64>, default: u64) -> Self {
        Self::Number { unit, range, default: Amount::Fixed(default) }
    }

    pub(super) const fn one_per_core(unit: &'static str, range: RangeInclusive<u64>) -> Self {
        Self::Number { unit, range, default: Amount::Cores }
    }

    pub(super) fn default_value(&self) -> Value {
        match self {
            Self::Address { default } => {
                Value::Address(parse_address(default).expect("the table's addresses are well formed"))
            }
            Self::Number { default: Amount::Fixed(n), .. } => Value::Number(*n),
            Self::Number { range, default: Amount::Cores, .. } => {
                let cores = thread::available_parallelism().map_or(1, |n| n.get() as u64);
                Value::Number(cores.clamp(*range.start(), *range.end()))
            }
            Self::Switch => Value::Switch(false),
            Self::Count { .. } => Value::Text(STORED.to_owned()),
            Self::Path | Self::StateDirectory => Value::Text(NONE.to_owned()),
            Self::Token => Value::Token(None),
            Self::LogFilter { default } | Self::Url { default } | Self::Form { default, .. } => {
                Value::Text((*default).to_owned())
            }
            Self::List(list) => list.default_value(),
        }
    }

    /// A value given as text, by a flag or a variable.
    pub(super) fn parse(&self, typed: &str) -> Option<Value> {
        match self {
            Self::Address { .. } => parse_address(typed).map(Value::Address),
            Self::Number { range, .. } => number_within(range, typed.parse().ok()?),
            Self::Count { range } => match typed {
                STORED | AUTO => Some(Value::Text(typed.to_owned())),
                _ => number_within(range, typed.parse().ok()?),
            },
            Self::Path => (!typed.is_empty()).then(|| Value::Text(typed.to_owned())),
            Self::Token if typed == NONE => Some(Value::Token(None)),
            Self::Token => BotToken::parse(typed).map(|token| Value::Token(Some(token))),
            Self::Url { .. } => base_url(typed).map(Value::Text),
            Self::Switch => typed.parse().ok().map(Value::Switch),
            Self::StateDirectory => directory::is_path(typed).then(|| Value::Text(typed.to_owned())),
            Self::LogFilter { .. } => is_log_filter(typed).then(|| Value::Text(typed.to_owned())),
            Self::Form { is_formed, .. } => is_formed(typed).then(|| Value::Text(typed.to_owned())),
            Self::List(list) => list.parse(typed),
        }
    }

    /// A value given in the file, where it has a type.
    pub(super) fn parse_toml(&self, value: &toml::Value) -> Option<Value> {
        match (self, value) {
            (Self::Number { range, .. } | Self::Count { range }, toml::Value::Integer(n)) => {
                number_within(range, u64::try_from(*n).ok()?)
            }
            // A count is not written as a string there.
            (Self::Count { .. }, toml::Value::String(text)) if ![STORED, AUTO].contains(&&**text) => None,
            (Self::Switch, toml::Value::Boolean(on)) => Some(Value::Switch(*on)),
            (Self::List(list), value) => list.parse_toml(value),
            (Self::Number { .. } | Self::Switch, _) => None,
            (Self::Form { may_be_array: true, .. }, toml::Value::Array(items)) => self.parse(&joined(items)?),
            (_, toml::Value::String(text)) => self.parse(text),
            _ => None,
        }
    }

    /// Why what [`parse`](Self::parse) does not take is refused, where what was expected does not tell.
    pub(super) fn why_not(&self, typed: &str) -> &'static str {
        match self {
            Self::LogFilter { .. } if names_ureq(typed) => ": `ureq` would log the bot's token",
            Self::Url { .. } => why_no_base(typed),
            _ => "",
        }
    }

    /// Completes "expected …".
    pub(super) fn expected(&self) -> String {
        match self {
            Self::Address { .. } => "an IP address and a port such as `127.0.0.1:7117`".to_owned(),
            Self::Number { unit, range, .. } => {
                format!("a whole number of {unit} from {} to {}", range.start(), range.end())
            }
            Self::Count { range } => {
                let (from, to) = (range.start(), range.end());
                format!("a whole number of shards from {from} to {to}, `{STORED}` or `{AUTO}`")
            }
            Self::Path => format!("a file's path, or `{NONE}`"),
            Self::Token => {
                format!("a bot's token as Discord shows it (letters, digits, `.`, `_`, `-`), or `{NONE}`")
            }
            Self::Url { default } => format!("a URL such as `{default}`"),
            Self::Form { expected, .. } => (*expected).to_owned(),
            Self::Switch => "`true` or `false`".to_owned(),
            Self::StateDirectory => {
                "the path of a directory, or `none` to keep everything in memory".to_owned()
            }
            Self::LogFilter { .. } => {
                "a log filter such as `info` or `warn,gateway=debug`, its levels out of off, error, warn, \
                 info, debug and trace"
                    .to_owned()
            }
            Self::List(list) => list.expected(),
        }
    }
}

fn number_within(range: &RangeInclusive<u64>, n: u64) -> Option<Value> {
    range.contains(&n).then_some(Value::Number(n))
}

/// As a flag would have it.
fn joined(items: &[toml::Value]) -> Option<String> {
    let item = |value: &toml::Value| match value {
        toml::Value::Integer(number) => Some(number.to_string()),
        toml::Value::String(text) => Some(text.clone()),
        _ => None,
    };
    items.iter().map(item).collect::<Option<Vec<_>>>().map(|items| items.join(","))
}

/// Without the slash at its end.
fn base_url(typed: &str) -> Option<String> {
    let url: ureq::http::Uri = typed.parse().ok()?;
    let is_base = matches!(url.scheme_str(), Some("http" | "https"))
        && url.authority().is_some()
        && why_no_base(typed).is_empty();
    is_base.then(|| typed.trim_end_matches('/').to_owned())
}

/// What a URL has that the base of an API must not have, if anything: paths are written behind it.
fn why_no_base(typed: &str) -> &'static str {
    let Ok(url) = typed.parse::<ureq::http::Uri>() else { return "" };
    if url.authority().is_some_and(|authority| authority.as_str().contains('@')) {
        ": a user in it would not be used"
    } else if url.query().is_some() || typed.contains('#') {
        ": paths are written behind it, so it must end before `?` and `#`"
    } else {
        ""
    }
}

fn parse_address(typed: &str) -> Option<SocketAddr> {
    match typed.strip_prefix("localhost:") {
        Some(port) => Some((Ipv4Addr::LOCALHOST, port.parse().ok()?).into()),
        None => typed.parse().ok(),
    }
}

/// `env_logger` itself skips what it can't read, which would leave the log silent, and takes a word alone for
/// a module where it is no level: a level that is written wrong would be as silent. So a module needs its `=`.
fn is_log_filter(typed: &str) -> bool {
    let is_level = |level: &str| LevelFilter::from_str(level.trim()).is_ok();
    !typed.contains(char::is_control)
        && !names_ureq(typed)
        && directives(typed).split(',').all(|directive| match directive.split_once('=') {
            Some((_, level)) => level.is_empty() || is_level(level),
            None => is_level(directive),
        })
}

/// The client of Discord's API writes requests, and the token with them, where it is asked to.
fn names_ureq(filter: &str) -> bool {
    directives(filter).contains("ureq")
}

/// Without the pattern that a line is held against.
fn directives(filter: &str) -> &str {
    filter.split('/').next().unwrap_or_default()
}
