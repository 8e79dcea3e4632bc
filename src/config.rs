//! What the settings mean: flags over variables over the file over the defaults, each value checked,
//! wherever it came from and whether or not another one wins over it.
//!
//! Which settings there are stands in `table`, what one setting is in `setting`, its value in `value`, how flags are
//! typed in [`crate::cli`]. Nothing here touches the process: variables and the reader of files are
//! passed in.

mod directory;
mod exposure;
mod list;
mod origin;
mod proxies;
mod setting;
mod shard_count;
mod table;
#[cfg(test)]
mod tests;
mod tls;
mod token;
mod unix;
mod value;

use std::{
    collections::BTreeMap,
    fmt, io,
    path::{Path, PathBuf},
};

pub use self::origin::{AllowedHosts, AllowedOrigins, Authority, Host, Scheme, WebOrigin};
pub use self::proxies::TrustedProxies;
use self::setting::VARIABLE_PREFIX;
pub use self::shard_count::ShardCount;
pub use self::table::Config;
pub use self::token::BotToken;
pub use self::unix::{FileMode, UserList};
use self::value::Value;
pub(crate) use self::{setting::Setting, table::SETTINGS};

/// Everything that settings can come from.
pub struct Sources<'a> {
    /// What was typed after `--name`, by the setting's name (`heartbeat_ms`).
    pub flags: BTreeMap<&'static str, String>,
    /// `--config`
    pub file: Option<PathBuf>,
    /// The environment; of what doesn't start with `GATEWAY_`, only `XDG_STATE_HOME` and `HOME` count.
    pub variables: Vec<(String, String)>,
    pub read_file: &'a dyn Fn(&Path) -> io::Result<String>,
}

/// What is in force, and why.
#[derive(Debug, Clone)]
pub struct Loaded {
    pub config: Config,
    /// One line each, to be logged.
    pub warnings: Vec<String>,
    in_force: InForce,
}

impl Loaded {
    /// All settings as a TOML file, each with its source as a comment.
    pub fn to_toml(&self) -> String {
        use fmt::Write;

        let lines: Vec<_> = SETTINGS
            .iter()
            .map(|setting| {
                let (value, origin) = &self.in_force[setting.name];
                (format!("{} = {value}", setting.name), origin.of(setting))
            })
            .collect();
        let width = lines.iter().map(|(line, _)| line.len()).max().unwrap_or(0);
        let mut toml = String::new();
        for warning in &self.warnings {
            let _ = writeln!(toml, "# warning: {warning}");
        }
        for (line, origin) in lines {
            let _ = writeln!(toml, "{line:width$}  # {origin}");
        }
        toml
    }
}

/// One line each: what was wrong, what was expected, which setting, from where.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    #[error("cannot read the settings file `{path}`: {why} ({origin})")]
    Unreadable { path: String, why: String, origin: String },
    #[error("file {path}, line {line}: not a TOML file: {why}")]
    NotToml { path: String, line: usize, why: String },
    #[error("unknown setting `{key}` (file {path}){}", did_you_mean(.nearest.as_deref()))]
    UnknownKey { key: String, path: String, nearest: Option<String> },
    #[error("{setting}: expected {expected}, got {got} ({origin})")]
    Value { setting: &'static str, expected: String, got: String, origin: String },
    #[error("discord_token_file: cannot read `{path}`: {why} ({origin})")]
    TokenUnreadable { path: String, why: String, origin: String },
    #[error(
        "listen: other machines can reach {got}, and there are no credentials: anyone who can reach the \
         port would be able to use the gateway; expected a loopback address such as 127.0.0.1, or \
         --credentials, or --expose-without-credentials to accept that ({origin})"
    )]
    Exposed { got: String, origin: String },
    #[error(
        "trusted_proxies: whoever reaches such a proxy reaches the gateway, and there are no credentials; \
         expected none, or --credentials, or --expose-without-credentials to accept that ({origin})"
    )]
    ExposedByProxy { origin: String },
    #[error(
        "data_dir: there is no default: neither XDG_STATE_HOME nor HOME is set to an absolute path; expected \
         --data-dir to name a directory, or --data-dir=none to keep everything in memory"
    )]
    NoHome,
}

type InForce = BTreeMap<&'static str, (Value, Origin)>;

/// Where a value came from.
#[derive(Debug, Clone)]
enum Origin {
    Default,
    File(PathBuf),
    Variable,
    Flag,
}

impl Origin {
    fn of(&self, setting: &Setting) -> String {
        match self {
            Self::Default => "default".to_owned(),
            Self::File(path) => format!("file {}", shown(path)),
            Self::Variable => format!("variable {}", setting.variable()),
            Self::Flag => format!("flag --{}", setting.flag()),
        }
    }
}

impl Default for Config {
    fn default() -> Self {
        Self::from_values(|name| find(name).kind.default_value())
    }
}

impl Config {
    pub fn load(sources: Sources<'_>) -> Result<Loaded, ConfigError> {
        let mut in_force: InForce = SETTINGS
            .iter()
            .map(|setting| (setting.name, (setting.kind.default_value(), Origin::Default)))
            .collect();
        let Sources { flags, file, variables, read_file } = sources;
        let variables: BTreeMap<_, _> = variables.into_iter().collect();
        let data_dir = directory::default(&variables);
        let has_home = data_dir.is_some();
        in_force.extend(data_dir.map(|path| ("data_dir", (Value::Text(path), Origin::Default))));
        let variables: BTreeMap<_, _> =
            variables.into_iter().filter(|(name, _)| name.starts_with(VARIABLE_PREFIX)).collect();

        let from_flag = file.map(|path| (path, "flag --config"));
        let from_variable =
            || variables.get(CONFIG_VARIABLE).map(|path| (path.into(), "variable GATEWAY_CONFIG"));
        if let Some((path, origin)) = from_flag.or_else(from_variable) {
            apply_file(&mut in_force, &path, origin, read_file)?;
        }
        for setting in SETTINGS {
            if let Some(typed) = variables.get(&setting.variable()) {
                apply_typed(&mut in_force, setting, typed, Origin::Variable)?;
            }
        }
        for setting in SETTINGS {
            if let Some(typed) = flags.get(setting.name) {
                apply_typed(&mut in_force, setting, typed, Origin::Flag)?;
            }
        }

        if !has_home && matches!(in_force["data_dir"].1, Origin::Default) {
            return Err(ConfigError::NoHome);
        }
        let mut config = Self::from_values(|name| in_force[name].0.clone());
        check_together(&config, &in_force)?;
        let origin = in_force["discord_token_file"].1.of(find("discord_token_file"));
        token::read(&mut config, origin, read_file)?;
        let mut warnings = unknown_variables(&variables);
        warnings.extend(token::in_the_clear(&config));
        warnings.extend(permits_that_overlap(&config));
        warnings.extend(exposure::warnings(&config));
        Ok(Loaded { config, warnings, in_force })
    }
}

/// Two permits of one key may then be good at the same time.
fn permits_that_overlap(config: &Config) -> Option<String> {
    let (life, interval) = (config.permit_ttl.as_millis(), config.identify_interval.as_millis());
    (interval > 0 && life > interval).then(|| {
        format!(
            "permit_ttl_ms ({life}) is above identify_interval_ms ({interval}): a permit that is used late \
             may come less than that after the next one of its key"
        )
    })
}

const CONFIG_VARIABLE: &str = "GATEWAY_CONFIG";

fn find(name: &str) -> &'static Setting {
    SETTINGS.iter().find(|setting| setting.name == name).expect("the name stands in the table")
}

fn apply_file(
    in_force: &mut InForce,
    path: &Path,
    origin: &str,
    read_file: &dyn Fn(&Path) -> io::Result<String>,
) -> Result<(), ConfigError> {
    let text = read_file(path).map_err(|why| ConfigError::Unreadable {
        path: shown(path),
        why: why.to_string(),
        origin: origin.to_owned(),
    })?;
    for (key, value) in parse_toml(path, &text)? {
        let setting = SETTINGS.iter().find(|setting| setting.name == key).ok_or_else(|| {
            ConfigError::UnknownKey { key: one_line(&key), path: shown(path), nearest: nearest(&key) }
        })?;
        let origin = Origin::File(path.to_owned());
        let read = setting.kind.parse_toml(&value).ok_or_else(|| match &setting.kind {
            setting::Kind::Token => NOT_SHOWN.to_owned(),
            setting::Kind::List(list) => list.wrong_toml(&value),
            kind => describe_toml(&value) + value.as_str().map_or("", |text| kind.why_not(text)),
        });
        apply(in_force, setting, read, origin)?;
    }
    Ok(())
}

fn parse_toml(path: &Path, text: &str) -> Result<toml::Table, ConfigError> {
    toml::from_str(text).map_err(|error: toml::de::Error| {
        let before = error.span().map_or(0, |span| span.start);
        ConfigError::NotToml {
            path: shown(path),
            line: 1 + text.bytes().take(before).filter(|&byte| byte == b'\n').count(),
            why: one_line(&error.message().replace('\n', ", ")),
        }
    })
}

fn apply_typed(
    in_force: &mut InForce,
    setting: &'static Setting,
    typed: &str,
    origin: Origin,
) -> Result<(), ConfigError> {
    let read = setting.kind.parse(typed).ok_or_else(|| match &setting.kind {
        setting::Kind::Token => NOT_SHOWN.to_owned(),
        setting::Kind::List(list) => list.wrong(typed),
        kind => format!("`{}`{}", one_line(typed), kind.why_not(typed)),
    });
    apply(in_force, setting, read, origin)
}

/// `read` is the value, or what was there instead of one.
fn apply(
    in_force: &mut InForce,
    setting: &'static Setting,
    read: Result<Value, String>,
    origin: Origin,
) -> Result<(), ConfigError> {
    let value = read.map_err(|got| ConfigError::Value {
        setting: setting.name,
        expected: setting.kind.expected(),
        got,
        origin: origin.of(setting),
    })?;
    in_force.insert(setting.name, (value, origin));
    Ok(())
}

/// What settings demand of each other.
fn check_together(config: &Config, in_force: &InForce) -> Result<(), ConfigError> {
    let origin = |name| in_force[name].1.of(find(name));
    let at_least = |name, value: u64, floor_name, floor: u64| {
        if value >= floor {
            return Ok(());
        }
        Err(ConfigError::Value {
            setting: name,
            expected: format!("at least {floor_name} ({floor}, {})", origin(floor_name)),
            got: value.to_string(),
            origin: origin(name),
        })
    };
    at_least("mailbox_bytes", config.mailbox_bytes, "max_message_bytes", config.max_message_bytes as u64)?;
    at_least("mailbox_total_bytes", config.mailbox_total_bytes, "mailbox_bytes", config.mailbox_bytes)?;

    if config.discord_token.is_some() && config.discord_token_file.is_some() {
        return Err(ConfigError::Value {
            setting: "discord_token",
            expected: "none beside discord_token_file".to_owned(),
            got: "one".to_owned(),
            origin: origin("discord_token"),
        });
    }
    let has_token = config.discord_token.is_some() || config.discord_token_file.is_some();
    if config.shards == ShardCount::Auto && !has_token {
        return Err(ConfigError::Value {
            setting: "shards",
            expected:
                "a number, or discord_token_file or GATEWAY_DISCORD_TOKEN beside `auto`: it takes a bot's \
                       token to ask Discord"
                    .to_owned(),
            got: "`auto`".to_owned(),
            origin: origin("shards"),
        });
    }
    tls::check(config, in_force)?;
    exposure::check(config, in_force)
}

/// What a secret is instead of shown.
const NOT_SHOWN: &str = "something else, which is not shown";

/// Only warned of: other software may use the prefix (Kubernetes does, for a service that is called
/// `gateway`).
fn unknown_variables(variables: &BTreeMap<String, String>) -> Vec<String> {
    let is_known =
        |name: &str| name == CONFIG_VARIABLE || SETTINGS.iter().any(|setting| setting.variable() == name);
    variables
        .keys()
        .filter(|name| !is_known(name))
        .map(|name| {
            let nearest = nearest(&name[VARIABLE_PREFIX.len()..]);
            let nearest = nearest.map(|nearest| find(&nearest).variable());
            format!("unknown variable {} is ignored{}", one_line(name), did_you_mean(nearest.as_deref()))
        })
        .collect()
}

/// The setting that was probably meant.
fn nearest(typed: &str) -> Option<String> {
    const FAR: usize = 4;
    let typed = typed.to_lowercase().replace('-', "_");
    SETTINGS
        .iter()
        .map(|setting| (edits_between(&typed, setting.name), setting.name))
        .min()
        .filter(|(edits, name)| *edits < FAR.min(name.len() / 2 + 1))
        .map(|(_, name)| name.to_owned())
}

/// Levenshtein's distance.
fn edits_between(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, to) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(from != *to);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

fn did_you_mean(nearest: Option<&str>) -> String {
    nearest.map(|nearest| format!("; did you mean `{nearest}`?")).unwrap_or_default()
}

fn describe_toml(value: &toml::Value) -> String {
    match value {
        toml::Value::String(text) => format!("the string `{}`", one_line(text)),
        toml::Value::Integer(n) => format!("`{n}`"),
        toml::Value::Float(n) => format!("`{n:?}`"),
        toml::Value::Boolean(on) => format!("`{on}`"),
        toml::Value::Datetime(_) => "a date or time".to_owned(),
        toml::Value::Array(_) => "a list".to_owned(),
        toml::Value::Table(_) => "a table".to_owned(),
    }
}

fn shown(path: &Path) -> String {
    one_line(&path.display().to_string())
}

/// Errors and the comments of `gateway config` are lines: nothing in them may end one.
fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c }).collect()
}
