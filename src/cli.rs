//! What was typed. What it means is [`crate::config`]'s: the flags of the settings are made from its
//! table and handed on as text, so that a wrong value reads the same wherever it was given.

mod bench;
mod token;

use std::io::{self, Write};
use std::{collections::BTreeMap, ffi::OsString, fs, path::Path, path::PathBuf, process};

use clap::{Arg, ArgAction, ArgMatches, Args, FromArgMatches, Parser, Subcommand, value_parser};

pub use self::bench::{
    Bench, BenchFanIn, BenchGateway, BenchIdle, BenchLatency, BenchPairs, BenchPlot, BenchReconnect,
    BenchScaling, BenchSoak, Load, Target,
};
pub use self::token::{ApiWord, NewToken, NoToken, OpsWord, new_token};
use crate::config::{Config, ConfigError, Loaded, SETTINGS, Setting, Sources};

/// What the gateway was started for.
#[derive(Debug)]
pub enum Command {
    Serve(Box<Loaded>),
    /// The settings in force, to be printed.
    PrintConfig(String),
    NewToken(NewToken),
    Bench(Bench),
}

/// Why there is nothing to run: a mistake, or `--help` or `--version`, which have said it all.
#[derive(Debug, thiserror::Error)]
pub enum Stop {
    #[error(transparent)]
    Usage(#[from] clap::Error),
    #[error(transparent)]
    Config(#[from] ConfigError),
}

impl Stop {
    /// 2 for what was typed wrong, 0 after `--help` or `--version`.
    pub fn exit_code(&self) -> i32 {
        match self {
            Self::Usage(error) => error.exit_code(),
            Self::Config(_) => 2,
        }
    }

    /// Prints it where it belongs and ends the process.
    pub fn exit(&self) -> ! {
        match self {
            Self::Usage(error) => error.exit(),
            Self::Config(error) => {
                // Where stderr is gone there is nobody to tell.
                let _ = writeln!(io::stderr(), "gateway: {error}");
            }
        }
        process::exit(self.exit_code())
    }
}

/// [`parse`] with what this process was given.
pub fn parse_process() -> Result<Command, Stop> {
    // `env::vars` would panic at any variable that is not Unicode, whoever it is meant for.
    let lossy = |text: OsString| text.to_string_lossy().into_owned();
    let variables = std::env::vars_os().map(|(name, value)| (lossy(name), lossy(value))).collect();
    parse(std::env::args_os(), variables, &|path| fs::read_to_string(path))
}

/// `args` starts with the program's name.
pub fn parse(
    args: impl IntoIterator<Item = impl Into<OsString> + Clone>,
    variables: Vec<(String, String)>,
    read_file: &dyn Fn(&Path) -> io::Result<String>,
) -> Result<Command, Stop> {
    let typed = Typed::try_parse_from(args)?;
    let load = |flags: SettingFlags| {
        let SettingFlags { flags, file } = flags;
        Config::load(Sources { flags, file, variables, read_file })
    };
    Ok(match typed.action {
        None => Command::Serve(load(typed.settings)?.into()),
        Some(Action::Serve(settings)) => Command::Serve(load(settings)?.into()),
        Some(Action::Config(settings)) => Command::PrintConfig(load(settings)?.to_toml()),
        Some(Action::Token(Token::New(wish))) => Command::NewToken(wish),
        Some(Action::Bench(bench)) => Command::Bench(bench),
    })
}

#[derive(Debug, Parser)]
#[command(
    name = "gateway",
    version,
    about,
    args_conflicts_with_subcommands = true,
    disable_help_subcommand = true
)]
struct Typed {
    #[command(subcommand)]
    action: Option<Action>,
    #[command(flatten)]
    settings: SettingFlags,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Run the gateway; the same as no command.
    Serve(SettingFlags),
    /// Print the settings in force as a settings file, and where each came from.
    Config(SettingFlags),
    /// Tokens for services and operators.
    #[command(subcommand)]
    Token(Token),
    /// Measure a running gateway.
    #[command(subcommand)]
    Bench(Bench),
}

/// `gateway token`
#[derive(Debug, Clone, PartialEq, Subcommand)]
enum Token {
    /// Make a token, and print it with the entry for the file of credentials, which has only its hash.
    New(NewToken),
}

/// The flags that the table of settings makes, as typed.
#[derive(Debug, Default)]
struct SettingFlags {
    flags: BTreeMap<&'static str, String>,
    file: Option<PathBuf>,
}

impl Args for SettingFlags {
    fn augment_args(command: clap::Command) -> clap::Command {
        let file =
            Arg::new("config").long("config").value_name("PATH").value_parser(value_parser!(PathBuf)).help(
                "TOML file of settings, its keys named as the flags are, with `_` for `-` [default: none]",
            );
        let flags = SETTINGS.iter().filter(|setting| setting.has_flag()).map(flag_of);
        command.next_help_heading("Settings").arg(file).args(flags).after_help(format!(
            "{}Each setting can also be given by a variable (GATEWAY_HEARTBEAT_MS=5000, GATEWAY_CONFIG=PATH) \
             or in the settings file (heartbeat_ms = 5000). Flags win over variables, variables over the \
             file. `gateway config` prints what is in force and where it came from.",
            help_without_flag()
        ))
    }

    fn augment_args_for_update(command: clap::Command) -> clap::Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for SettingFlags {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let typed = |setting: &Setting| {
            let flag = setting.has_flag().then_some(setting.name)?;
            matches.get_one::<String>(flag).cloned()
        };
        Ok(Self {
            flags: SETTINGS.iter().filter_map(|setting| Some((setting.name, typed(setting)?))).collect(),
            file: matches.get_one("config").cloned(),
        })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

/// Of the settings that have no flag.
fn help_without_flag() -> String {
    let without = SETTINGS.iter().filter(|setting| !setting.has_flag());
    without
        .fold(String::new(), |text, it| text + &format!("{} ({}): {}\n\n", it.name, it.variable(), it.help()))
}

fn flag_of(setting: &'static Setting) -> Arg {
    let flag = Arg::new(setting.name)
        .long(setting.flag())
        .value_name(setting.placeholder())
        .help(setting.help())
        .action(ArgAction::Set)
        // `--stop-ms -5` is a wrong value, not an unknown flag.
        .allow_negative_numbers(true);
    if setting.is_switch() {
        flag.num_args(0..=1).require_equals(true).default_missing_value("true")
    } else {
        flag
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn run(args: &[&str], variables: &[(&str, &str)]) -> Result<Command, Stop> {
        let args = ["gateway"].iter().chain(args).map(OsString::from);
        let variables = [("HOME", "/home/me")].iter().chain(variables);
        let variables = variables.map(|(name, value)| ((*name).into(), (*value).into())).collect();
        parse(args, variables, &|path| match path.to_str() {
            Some("/etc/gateway.toml") => Ok("stop_ms = 7\nshards = 3\n".to_owned()),
            _ => Err(io::ErrorKind::NotFound.into()),
        })
    }

    fn served(args: &[&str]) -> Config {
        match run(args, &[]) {
            Ok(Command::Serve(loaded)) => loaded.config,
            other => panic!("{args:?} did not serve but gave {other:?}"),
        }
    }

    fn defaults() -> Config {
        Config { data_dir: Some("/home/me/.local/state/gateway".into()), ..Config::default() }
    }

    fn refused(args: &[&str]) -> String {
        match run(args, &[]) {
            Err(stop) => {
                assert_eq!(stop.exit_code(), 2, "{stop}");
                stop.to_string()
            }
            Ok(command) => panic!("{args:?} was taken as {command:?}"),
        }
    }

    fn help(args: &[&str]) -> String {
        let stop = run(args, &[]).expect_err("help was printed");
        assert_eq!(stop.exit_code(), 0);
        stop.to_string().split_whitespace().collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn the_commands_are_well_formed() {
        Typed::command().debug_assert();
    }

    #[test]
    fn no_command_serves() {
        assert_eq!(served(&[]), defaults());
        assert_eq!(served(&["serve"]), defaults());
    }

    #[test]
    fn settings_are_taken_with_and_without_the_command() {
        let expected = Config { shards: crate::config::ShardCount::Fixed(16), ..defaults() };
        assert_eq!(served(&["--shards", "16"]), expected);
        assert_eq!(served(&["serve", "--shards=16"]), expected);
    }

    #[test]
    fn settings_before_a_command_are_refused_rather_than_dropped() {
        let error = refused(&["--shards", "16", "config"]);
        assert!(error.contains("cannot be used with"), "{error}");
    }

    #[test]
    fn flags_win_over_variables_and_variables_over_the_file() {
        let args = ["config", "--config", "/etc/gateway.toml", "--hold-ms", "1"];
        let Ok(Command::PrintConfig(printed)) =
            run(&args, &[("GATEWAY_HOLD_MS", "2"), ("GATEWAY_SHARDS", "4")])
        else {
            panic!("config prints")
        };
        let lines: Vec<String> =
            printed.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
        for expected in [
            "hold_ms = 1 # flag --hold-ms",
            "shards = 4 # variable GATEWAY_SHARDS",
            "stop_ms = 7 # file /etc/gateway.toml",
            "heartbeat_ms = 5000 # default",
        ] {
            assert!(lines.iter().any(|line| line == expected), "no line `{expected}` in\n{printed}");
        }
    }

    #[test]
    fn the_switch_needs_no_value_but_takes_one() {
        assert!(served(&["--expose-without-credentials"]).expose_without_credentials);
        assert!(
            served(&["--expose-without-credentials", "--listen", "0.0.0.0:1"]).expose_without_credentials
        );
        assert!(!served(&["--expose-without-credentials=false"]).expose_without_credentials);
    }

    #[test]
    fn a_bad_value_is_one_line_and_exit_code_2() {
        assert_eq!(
            refused(&["--heartbeat-ms", "-5"]),
            "heartbeat_ms: expected a whole number of milliseconds from 100 to 3600000, got `-5` (flag \
             --heartbeat-ms)"
        );
    }

    #[test]
    fn an_unknown_flag_names_its_neighbour() {
        let error = refused(&["--heartbeet-ms", "5"]);
        assert!(error.contains("'--heartbeet-ms'") && error.contains("'--heartbeat-ms'"), "{error}");
    }

    #[test]
    fn help_tells_each_setting_with_its_unit_and_default() {
        for args in [&["--help"][..], &["-h"], &["serve", "--help"], &["config", "--help"]] {
            let help = help(args);
            for setting in SETTINGS.iter().filter(|setting| setting.has_flag()) {
                assert!(help.contains(&format!("--{}", setting.flag())), "{} in {help}", setting.name);
                assert!(help.contains(&setting.help()), "{} in {help}", setting.name);
            }
            assert!(help.contains("discord_token (GATEWAY_DISCORD_TOKEN): The token itself"), "{help}");
        }
        let help = help(&["--help"]);
        assert!(help.contains("--heartbeat-ms <MILLISECONDS>"), "{help}");
        assert!(help.contains("[100 to 3600000 milliseconds; default: 5000]"), "{help}");
        assert!(help.contains("[1 to 1024 threads; default: number of cores]"), "{help}");
        assert!(help.contains("[default: 127.0.0.1:7117]"), "{help}");
        assert!(help.contains("--config <PATH>"), "{help}");
    }

    #[test]
    fn the_version_is_the_packages() {
        assert_eq!(help(&["--version"]), concat!("gateway ", env!("CARGO_PKG_VERSION")));
    }
}
