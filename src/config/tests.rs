mod discord;
mod sockets;

use super::value::Field;
use super::*;

use std::time::Duration;

const PATH: &str = "/etc/gateway.toml";

/// What settings are loaded from in a test.
#[derive(Default)]
struct Given<'a> {
    flags: &'a [(&'static str, &'a str)],
    variables: &'a [(&'a str, &'a str)],
    /// The text of `PATH`, given by `--config`.
    file: Option<&'a str>,
}

impl Given<'_> {
    fn load(&self) -> Result<Loaded, ConfigError> {
        Config::load(Sources {
            flags: self.flags.iter().map(|(name, typed)| (*name, (*typed).to_owned())).collect(),
            file: self.file.map(|_| PATH.into()),
            variables: [("HOME", "/home/me")]
                .iter()
                .chain(self.variables)
                .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
                .collect(),
            read_file: &|path| match self.file {
                Some(text) if path == Path::new(PATH) => Ok(text.to_owned()),
                _ => Err(io::ErrorKind::NotFound.into()),
            },
        })
    }

    #[track_caller]
    fn loaded(&self) -> Loaded {
        self.load().unwrap_or_else(|error| panic!("refused: {error}"))
    }

    #[track_caller]
    fn error(&self) -> String {
        let error = self.load().expect_err("was loaded").to_string();
        assert!(!error.contains('\n'), "{error}");
        error
    }
}

fn flag<'a>(flags: &'a [(&'static str, &'a str)]) -> Given<'a> {
    Given { flags, ..Given::default() }
}

fn variable<'a>(variables: &'a [(&'a str, &'a str)]) -> Given<'a> {
    Given { variables, ..Given::default() }
}

fn file(text: &str) -> Given<'_> {
    Given { file: Some(text), ..Given::default() }
}

/// Where `HOME` is `/home/me`.
fn defaults() -> Config {
    Config { data_dir: Some("/home/me/.local/state/gateway".into()), ..Config::default() }
}

#[test]
fn the_defaults_are_the_protocols() {
    let config = defaults();
    let expected = Config {
        listen: "127.0.0.1:7117".parse().unwrap(),
        credentials: None,
        auth_failures_per_minute: 30,
        expose_without_credentials: false,
        tls_cert: None,
        tls_key: None,
        tls_client_ca: None,
        unix: None,
        unix_mode: FileMode(0o600),
        unix_uids: UserList::Own,
        allowed_origins: AllowedOrigins::from_value(Value::List(vec!["same-host".to_owned()])),
        allowed_hosts: AllowedHosts::from_value(Value::List(vec!["auto".to_owned()])),
        trusted_proxies: TrustedProxies::from_value(Value::List(Vec::new())),
        workers: std::thread::available_parallelism().unwrap().get(),
        shards: ShardCount::Stored,
        max_connections: 10_000,
        max_sessions: 20_000,
        max_tickets: 1_000,
        max_unidentified: 1_000,
        max_message_bytes: 1_048_576,
        max_topic_bytes: 256,
        max_depth: 128,
        max_frames_per_second: 4_000_000,
        max_bytes_per_second: 4_294_967_296,
        max_ops_per_second: 10_000,
        mailbox_messages: 65_536,
        mailbox_bytes: 67_108_864,
        mailbox_total_bytes: 1_073_741_824,
        max_account_names: 20_000,
        hold: Duration::from_millis(250),
        handshake_timeout: Duration::from_secs(5),
        identify_timeout: Duration::from_secs(10),
        heartbeat: Duration::from_secs(5),
        stuck: Duration::from_secs(30),
        min_drain_bytes: 65_536,
        resume_window: Duration::from_secs(30),
        deadline: Duration::from_secs(10),
        stop: Duration::from_secs(5),
        max_unacked: 1_024,
        identify_interval: Duration::from_millis(5_500),
        permit_ttl: Duration::from_secs(5),
        max_concurrency: 1,
        discord_token_file: None,
        discord_token: None,
        discord_api: "https://discord.com/api/v10".to_owned(),
        data_dir: Some("/home/me/.local/state/gateway".into()),
        log: "info".to_owned(),
    };
    assert_eq!(config, expected);
    assert_eq!(Given::default().loaded().config, expected);
}

#[test]
fn every_default_is_a_value_that_may_be_given() {
    let toml: toml::Table = toml::from_str(&Given::default().loaded().to_toml()).unwrap();
    for setting in SETTINGS {
        assert!(setting.kind.parse_toml(&toml[setting.name]).is_some(), "{}", setting.name);
        assert!(setting.help().ends_with(']'), "{}", setting.help());
    }
    assert_eq!(toml.len(), SETTINGS.len(), "no name stands twice");
}

#[test]
fn every_end_of_every_range_has_room_in_its_field() {
    for setting in SETTINGS {
        if let setting::Kind::Number { range, .. } = &setting.kind {
            for end in [range.start(), range.end()] {
                Config::from_values(|name| {
                    if name == setting.name { Value::Number(*end) } else { find(name).kind.default_value() }
                });
            }
        }
    }
}

#[test]
fn flags_win_over_variables_and_variables_over_the_file() {
    let given = Given {
        flags: &[("hold_ms", "1")],
        variables: &[("GATEWAY_HOLD_MS", "2"), ("GATEWAY_STOP_MS", "2"), ("PATH", "/bin")],
        file: Some("hold_ms = 3\nstop_ms = 3\ndeadline_ms = 3\n"),
    };
    let Loaded { config, warnings, .. } = given.loaded();
    let millis = [config.hold, config.stop, config.deadline, config.heartbeat].map(|time| time.as_millis());
    assert_eq!(millis, [1, 2, 3, 5_000]);
    assert_eq!(warnings, Vec::<String>::new());
}

#[test]
fn the_file_may_be_named_by_a_variable_which_the_flag_wins_over() {
    let load = |flag: Option<&str>| {
        Config::load(Sources {
            flags: BTreeMap::new(),
            file: flag.map(PathBuf::from),
            variables: [("GATEWAY_CONFIG", "variable.toml"), ("HOME", "/home/me")]
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .into(),
            read_file: &|path| Ok(format!("shards = {}", if path == Path::new("flag.toml") { 7 } else { 8 })),
        })
        .map(|loaded| (loaded.config.shards, loaded.warnings))
    };
    assert_eq!(load(Some("flag.toml")), Ok((ShardCount::Fixed(7), vec![])));
    assert_eq!(load(None), Ok((ShardCount::Fixed(8), vec![])));
}

#[test]
fn what_config_prints_loads_as_the_same_settings() {
    let given = Given {
        flags: &[
            ("listen", "[::]:0"),
            ("expose_without_credentials", "true"),
            ("log", "warn,gateway=debug/a\"b\\c # é"),
        ],
        variables: &[("GATEWAY_WORKERS", "3"), ("GATEWAY_ODD\n= 1", "")],
        file: Some("mailbox_bytes = 0x200_0000\n"),
    };
    let loaded = given.loaded();
    let printed = loaded.to_toml();
    assert_eq!(file(&printed).loaded().config, loaded.config, "{printed}");
    assert_eq!(printed.lines().count(), SETTINGS.len() + 2, "one line for each, and two warnings\n{printed}");
}

#[test]
fn config_prints_where_each_value_came_from() {
    let given = Given {
        flags: &[("hold_ms", "1")],
        variables: &[("GATEWAY_LOG", "debug")],
        file: Some("shards = 3"),
    };
    let printed = given.loaded().to_toml();
    for (start, end) in [
        ("hold_ms = 1 ", " # flag --hold-ms"),
        ("log = \"debug\" ", " # variable GATEWAY_LOG"),
        ("shards = 3 ", " # file /etc/gateway.toml"),
        ("listen = \"127.0.0.1:7117\" ", " # default"),
        ("data_dir = \"/home/me/.local/state/gateway\" ", " # default"),
    ] {
        let found = printed.lines().any(|line| line.starts_with(start) && line.ends_with(end));
        assert!(found, "no `{start}…{end}` in\n{printed}");
    }
}

#[test]
fn a_wrong_value_is_named_with_what_was_expected_and_its_source() {
    const HEARTBEAT: &str = "heartbeat_ms: expected a whole number of milliseconds from 100 to 3600000, got";
    for wrong in ["abc", "99", "3600001", "-1", "5.5", "", " 500", "99999999999999999999"] {
        assert_eq!(
            variable(&[("GATEWAY_HEARTBEAT_MS", wrong)]).error(),
            format!("{HEARTBEAT} `{wrong}` (variable GATEWAY_HEARTBEAT_MS)")
        );
    }
    assert_eq!(
        flag(&[("heartbeat_ms", "a\nb")]).error(),
        format!("{HEARTBEAT} `a\u{fffd}b` (flag --heartbeat-ms)")
    );
    for (wrong, got) in [
        ("\"5000\"", "the string `5000`"),
        ("-5", "`-5`"),
        ("5000.0", "`5000.0`"),
        ("true", "`true`"),
        ("[5000]", "a list"),
        ("{ n = 1 }", "a table"),
        ("2020-01-01", "a date or time"),
    ] {
        assert_eq!(
            file(&format!("heartbeat_ms = {wrong}")).error(),
            format!("{HEARTBEAT} {got} (file /etc/gateway.toml)")
        );
    }
}

#[test]
fn a_wrong_value_is_named_even_where_another_wins_over_it() {
    let given = Given { flags: &[("shards", "2")], file: Some("shards = 0"), ..Given::default() };
    assert_eq!(
        given.error(),
        "shards: expected a whole number of shards from 1 to 65536, `stored` or `auto`, got `0` (file \
         /etc/gateway.toml)"
    );
}

#[test]
fn the_directory_is_where_xdg_keeps_state_unless_it_is_named() {
    let data_dir = |given: Given<'_>| given.loaded().config.data_dir;
    assert_eq!(data_dir(variable(&[])), Some("/home/me/.local/state/gateway".into()));
    assert_eq!(data_dir(variable(&[("XDG_STATE_HOME", "/state")])), Some("/state/gateway".into()));
    // A relative path is invalid and ignored.
    assert_eq!(data_dir(variable(&[("XDG_STATE_HOME", "state")])), defaults().data_dir);
    assert_eq!(data_dir(variable(&[("XDG_STATE_HOME", "")])), defaults().data_dir);
    assert_eq!(data_dir(flag(&[("data_dir", "here")])), Some("here".into()));
    assert_eq!(data_dir(file("data_dir = \"none\"")), None);
    for wrong in ["", "~/state", "a\nb"] {
        let error = flag(&[("data_dir", wrong)]).error();
        let expected =
            "data_dir: expected the path of a directory, or `none` to keep everything in memory, got";
        assert!(error.starts_with(expected), "{error}");
    }
}

#[test]
fn without_a_home_the_directory_must_be_named() {
    for home in ["", "relative"] {
        let error = variable(&[("HOME", home)]).error();
        assert!(error.contains("neither XDG_STATE_HOME nor HOME is set"), "{error}");
        assert!(error.contains("--data-dir=none"), "{error}");
        let variables = [("HOME", home), ("GATEWAY_DATA_DIR", "none")];
        assert_eq!(variable(&variables).loaded().config.data_dir, None);
        let variables = [("HOME", home), ("XDG_STATE_HOME", "/state")];
        assert_eq!(variable(&variables).loaded().config.data_dir, Some("/state/gateway".into()));
    }
}

#[test]
fn permits_that_may_overlap_are_warned_of() {
    let warnings = |interval| flag(&[("identify_interval_ms", interval)]).loaded().warnings;
    assert!(warnings("4999")[0].starts_with("permit_ttl_ms (5000) is above identify_interval_ms (4999)"));
    for fine in ["5000", "0"] {
        assert_eq!(warnings(fine), Vec::<String>::new(), "{fine}");
    }
}

#[test]
fn a_number_of_shards_is_set_or_the_stored_one() {
    assert_eq!(flag(&[("shards", "16")]).loaded().config.shards, ShardCount::Fixed(16));
    assert_eq!(flag(&[("shards", "stored")]).loaded().config.shards, ShardCount::Stored);
    let given = Given { flags: &[("shards", "stored")], file: Some("shards = 3"), ..Given::default() };
    assert_eq!(given.loaded().config.shards, ShardCount::Stored);
    assert_eq!(file("shards = \"stored\"").loaded().config.shards, ShardCount::Stored);
    for wrong in ["65537", "many", ""] {
        assert!(flag(&[("shards", wrong)]).error().contains("`stored` or `auto`, got"), "{wrong}");
    }
    assert!(file("shards = \"3\"").error().contains("got the string `3`"));
}

#[test]
fn a_switch_is_true_or_false() {
    const VARIABLE: &str = "GATEWAY_EXPOSE_WITHOUT_CREDENTIALS";
    assert!(variable(&[(VARIABLE, "true")]).loaded().config.expose_without_credentials);
    assert!(file("expose_without_credentials = true").loaded().config.expose_without_credentials);
    assert_eq!(
        variable(&[(VARIABLE, "1")]).error(),
        "expose_without_credentials: expected `true` or `false`, got `1` (variable \
         GATEWAY_EXPOSE_WITHOUT_CREDENTIALS)"
    );
    assert_eq!(
        file("expose_without_credentials = \"true\"").error(),
        "expose_without_credentials: expected `true` or `false`, got the string `true` (file \
         /etc/gateway.toml)"
    );
}

#[test]
fn a_list_is_separated_by_commas_and_an_array_in_the_file() {
    let typed = flag(&[("allowed_origins", "same-host, https://bots.example:8443")]).loaded();
    let written = file("allowed_origins = [\"same-host\", \"https://bots.example:8443\"]").loaded();
    assert_eq!(typed.config, written.config);
    assert_ne!(typed.config, defaults());
    let printed = typed.to_toml();
    assert!(printed.contains(r#"allowed_origins = ["same-host","https://bots.example:8443"] "#), "{printed}");
    assert_eq!(file(&printed).loaded().config, typed.config);
    let none = flag(&[("allowed_origins", "none")]).loaded().config;
    assert_eq!(file("allowed_origins = []").loaded().config, none);
    assert_ne!(none, defaults());
}

#[test]
fn what_is_wrong_in_a_list_is_named() {
    const ORIGINS: &str = "allowed_origins: expected origins such as `https://bots.example:8443` (scheme http or \
                           https, host, port, and nothing after it) and `same-host`, or `none`, got ";
    const HOSTS: &str = "allowed_hosts: expected hosts such as `bots.example` or `10.0.0.1` (without scheme and \
                         port), `auto` or `any`, got ";
    const PROXIES: &str = "trusted_proxies: expected IP addresses such as `10.0.0.7` and networks such as \
                           `10.0.0.0/8`, or `none`, got ";
    for (setting, expected, typed, wrong) in [
        ("allowed_origins", ORIGINS, "same-host,bots.example", "bots.example"),
        ("allowed_origins", ORIGINS, "https://a/,https://b", "https://a/"),
        ("allowed_origins", ORIGINS, "null", "null"),
        ("allowed_origins", ORIGINS, "*", "*"),
        ("allowed_origins", ORIGINS, "", ""),
        ("allowed_hosts", HOSTS, "a,b:80", "b:80"),
        ("allowed_hosts", HOSTS, "https://a", "https://a"),
        ("allowed_hosts", HOSTS, "a,,b", ""),
        ("allowed_hosts", HOSTS, "none", "none"),
        ("trusted_proxies", PROXIES, "10.0.0.1,10.0.0.0/33", "10.0.0.0/33"),
        ("trusted_proxies", PROXIES, "proxy.example", "proxy.example"),
    ] {
        let flag_name = setting.replace('_', "-");
        assert_eq!(flag(&[(setting, typed)]).error(), format!("{expected}`{wrong}` (flag --{flag_name})"));
    }
    for (line, got) in [
        ("allowed_origins = [\"same-host\", \"x\"]", format!("{ORIGINS}the string `x`")),
        ("allowed_origins = \"same-host\"", format!("{ORIGINS}the string `same-host`")),
        ("allowed_hosts = []", format!("{HOSTS}an empty list")),
        ("trusted_proxies = [10]", format!("{PROXIES}`10`")),
    ] {
        assert_eq!(file(line).error(), format!("{got} (file /etc/gateway.toml)"));
    }
}

#[test]
fn a_log_filter_must_be_one() {
    for filter in
        ["info", "off", "warn,gateway=debug", "gateway::state=trace/shard", "actix_http=", "a=,INFO"]
    {
        assert_eq!(flag(&[("log", filter)]).loaded().config.log, filter);
    }
    for wrong in ["", "gateway=loud", "info,a=b=c", "inof", "gateway", "info,gateway::state", "info,"] {
        assert_eq!(
            flag(&[("log", wrong)]).error(),
            format!(
                "log: expected a log filter such as `info` or `warn,gateway=debug`, its levels out of off, \
                 error, warn, info, debug and trace, got `{wrong}` (flag --log)"
            )
        );
    }
    assert!(file("log = 3").error().ends_with("got `3` (file /etc/gateway.toml)"));
    let why = ": `ureq` would log the bot's token (";
    assert!(flag(&[("log", "ureq=trace")]).error().contains(&format!("got `ureq=trace`{why}")));
    assert!(file("log = \"ureq=trace\"").error().contains(&format!("got the string `ureq=trace`{why}")));
}

#[test]
fn listen_takes_an_address_and_a_port_and_localhost() {
    let listen = |typed: &str| flag(&[("listen", typed)]).loaded().config.listen.to_string();
    assert_eq!(listen("127.0.0.1:0"), "127.0.0.1:0");
    assert_eq!(listen("localhost:7118"), "127.0.0.1:7118");
    assert_eq!(listen("[::1]:7117"), "[::1]:7117");
    assert_eq!(listen("127.1.2.3:7117"), "127.1.2.3:7117");
    for wrong in ["7117", ":7117", "127.0.0.1", "example.org:7117", "localhost", "localhost:70000", ""] {
        assert_eq!(
            flag(&[("listen", wrong)]).error(),
            format!(
                "listen: expected an IP address and a port such as `127.0.0.1:7117`, got `{wrong}` (flag \
                 --listen)"
            )
        );
    }
}

#[test]
fn a_proxy_whose_clients_reach_an_open_gateway_is_refused_unless_asked_for() {
    let proxied = ("trusted_proxies", "127.0.0.1");
    assert_eq!(
        flag(&[proxied]).error(),
        "trusted_proxies: whoever reaches such a proxy reaches the gateway, and there are no credentials; \
         expected none, or --credentials, or --expose-without-credentials to accept that (flag \
         --trusted-proxies)"
    );
    let accepted = flag(&[proxied, ("expose_without_credentials", "true")]).loaded();
    assert!(accepted.warnings[0].starts_with("expose_without_credentials: whoever reaches"), "{accepted:?}");
    assert!(flag(&[proxied, ("credentials", "c.toml")]).loaded().warnings.is_empty());
    let reachable = flag(&[("listen", "10.0.0.1:7117"), ("credentials", "c.toml")]).loaded();
    assert!(reachable.warnings[0].contains("10.0.0.1:7117 in the clear"), "{reachable:?}");
}

#[test]
fn an_address_that_others_reach_is_refused_unless_asked_for() {
    assert_eq!(
        variable(&[("GATEWAY_LISTEN", "0.0.0.0:7117")]).error(),
        "listen: other machines can reach 0.0.0.0:7117, and there are no credentials: anyone who can \
         reach the port would be able to use the gateway; expected a loopback address such as 127.0.0.1, or \
         --credentials, or --expose-without-credentials to accept that (variable GATEWAY_LISTEN)"
    );
    for reachable in ["10.0.0.1:7117", "[::]:7117", "[::ffff:10.0.0.1]:7117"] {
        assert!(flag(&[("listen", reachable)]).error().contains("there are no credentials:"), "{reachable}");
        let exposed = [("listen", reachable), ("expose_without_credentials", "true")];
        assert_eq!(flag(&exposed).loaded().config.listen.to_string(), reachable);
    }
    flag(&[("listen", "[::ffff:127.0.0.1]:7117")]).loaded();
}

#[test]
fn a_mailbox_holds_at_least_one_message_and_all_together_at_least_one_mailbox() {
    assert_eq!(
        flag(&[("mailbox_bytes", "1048575")]).error(),
        "mailbox_bytes: expected at least max_message_bytes (1048576, default), got 1048575 (flag \
         --mailbox-bytes)"
    );
    assert_eq!(
        file("mailbox_total_bytes = 67108863").error(),
        "mailbox_total_bytes: expected at least mailbox_bytes (67108864, default), got 67108863 (file \
         /etc/gateway.toml)"
    );
    flag(&[("mailbox_bytes", "1048576"), ("mailbox_total_bytes", "1048576")]).loaded();
}

#[test]
fn an_unknown_key_in_the_file_is_an_error_with_the_nearest_name() {
    for (typed, meant) in [
        ("heartbeet_ms", "heartbeat_ms"),
        ("heartbeat-ms", "heartbeat_ms"),
        ("Listen", "listen"),
        ("logs", "log"),
    ] {
        assert_eq!(
            file(&format!("{typed} = 1")).error(),
            format!("unknown setting `{typed}` (file /etc/gateway.toml); did you mean `{meant}`?")
        );
    }
    assert_eq!(file("[colours]\nred = 1").error(), "unknown setting `colours` (file /etc/gateway.toml)");
}

#[test]
fn an_unknown_variable_with_our_prefix_is_a_warning() {
    let given = variable(&[
        ("GATEWAY_HEARTBEET_MS", "1"),
        ("GATEWAY_PORT_7117_TCP", "tcp://10.0.0.1:7117"),
        ("OTHER", "1"),
    ]);
    let loaded = given.loaded();
    assert_eq!(loaded.config, defaults());
    assert_eq!(
        loaded.warnings,
        [
            "unknown variable GATEWAY_HEARTBEET_MS is ignored; did you mean `GATEWAY_HEARTBEAT_MS`?",
            "unknown variable GATEWAY_PORT_7117_TCP is ignored"
        ]
    );
}

#[test]
fn a_file_that_cannot_be_read_is_named_with_who_named_it() {
    let missing = variable(&[("GATEWAY_CONFIG", "/nowhere.toml")]);
    assert_eq!(
        missing.error(),
        "cannot read the settings file `/nowhere.toml`: entity not found (variable GATEWAY_CONFIG)"
    );
}

#[test]
fn a_file_that_is_not_toml_is_named_with_the_line() {
    let error = file("shards = 1\nhold_ms = = 2\n").error();
    assert!(error.starts_with("file /etc/gateway.toml, line 2: not a TOML file: "), "{error}");
    let error = file("shards = 1\nshards = 2\n").error();
    assert!(error.starts_with("file /etc/gateway.toml, line 2: not a TOML file: "), "{error}");
}
