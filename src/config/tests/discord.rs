//! The bot's token, where it may come from and where it must not be seen; the number of shards.

use super::*;

const TOKEN: &str = "MTk4.Cl2F-M_Q";

/// Loads the settings where `/run/token` holds that text.
fn with_token_file(text: &str, flags: &[(&'static str, &str)]) -> Result<Loaded, ConfigError> {
    let typed = flags.iter().map(|(name, typed)| (*name, (*typed).to_owned()));
    Config::load(Sources {
        flags: typed.chain([("discord_token_file", "/run/token".to_owned())]).collect(),
        file: None,
        variables: vec![("HOME".to_owned(), "/home/me".to_owned())],
        read_file: &|path| {
            assert_eq!(path, Path::new("/run/token"));
            Ok(text.to_owned())
        },
    })
}

#[test]
fn a_token_comes_from_its_file_or_its_variable_and_is_shown_nowhere() {
    let loaded = [
        with_token_file(&format!("{TOKEN}\n"), &[]).unwrap(),
        variable(&[("GATEWAY_DISCORD_TOKEN", TOKEN)]).loaded(),
        file(&format!("discord_token = \"Bot {TOKEN}\"")).loaded(),
    ];
    for loaded in loaded {
        assert_eq!(loaded.config.discord_token, BotToken::parse(TOKEN));
        let shown = format!("{loaded:?}{}{:?}", loaded.to_toml(), loaded.warnings);
        assert!(!shown.contains("MTk4"), "{shown}");
    }
    let printed = variable(&[("GATEWAY_DISCORD_TOKEN", TOKEN)]).loaded().to_toml();
    assert!(printed.contains("discord_token = \"(hidden)\""), "{printed}");
    assert!(file("discord_token = \"(hidden)\"").error().contains("discord_token: expected a bot's token"));
}

#[test]
fn what_is_no_token_is_refused_without_being_shown() {
    let expected = "expected a bot's token as Discord shows it (letters, digits, `.`, `_`, `-`), or `none`, \
                    got something else, which is not shown";
    assert_eq!(
        variable(&[("GATEWAY_DISCORD_TOKEN", "se cret")]).error(),
        format!("discord_token: {expected} (variable GATEWAY_DISCORD_TOKEN)")
    );
    assert_eq!(
        file("discord_token = 5").error(),
        format!("discord_token: {expected} (file /etc/gateway.toml)")
    );
    assert_eq!(
        with_token_file("se cret", &[]).unwrap_err().to_string(),
        "discord_token_file: expected the file /run/token to hold a bot's token as Discord shows it, and \
         nothing else, got something else, which is not shown (flag --discord-token-file)"
    );
    assert_eq!(
        flag(&[("discord_token_file", "/nowhere")]).error(),
        "discord_token_file: cannot read `/nowhere`: entity not found (flag --discord-token-file)"
    );
}

#[test]
fn a_token_is_given_once() {
    let both = Given {
        flags: &[("discord_token_file", "/run/token")],
        variables: &[("GATEWAY_DISCORD_TOKEN", TOKEN)],
        ..Given::default()
    };
    assert_eq!(
        both.error(),
        "discord_token: expected none beside discord_token_file, got one (variable GATEWAY_DISCORD_TOKEN)"
    );
}

#[test]
fn a_number_of_shards_or_auto_which_needs_a_token() {
    assert_eq!(flag(&[("shards", "4")]).loaded().config.shards, ShardCount::Fixed(4));
    assert_eq!(
        flag(&[("shards", "auto")]).error(),
        "shards: expected a number, or discord_token_file or GATEWAY_DISCORD_TOKEN beside `auto`: it takes a bot's \
         token to ask Discord, got `auto` (flag --shards)"
    );
    assert!(file("shards = \"4\"").error().contains("or `auto`, got the string `4`"));
    let auto = with_token_file(TOKEN, &[("shards", "auto")]).unwrap();
    assert_eq!(auto.config.shards, ShardCount::Auto);
    assert!(auto.to_toml().contains("shards = \"auto\""));
}

#[test]
fn discords_api_is_a_base_url_and_a_token_in_the_clear_is_warned_of() {
    let api = |url: &str| with_token_file(TOKEN, &[("discord_api", url)]);
    for (typed, warned) in [
        ("https://discord.com/api/v10/", false),
        ("http://127.0.0.1:8080", false),
        ("http://[::1]:8080/api", false),
        ("http://proxy:3000/api/v10", true),
    ] {
        let loaded = api(typed).unwrap();
        assert_eq!(loaded.config.discord_api, typed.trim_end_matches('/'));
        assert_eq!(loaded.warnings.len(), usize::from(warned), "{typed}: {:?}", loaded.warnings);
    }
    for wrong in ["discord.com", "ftp://discord.com", "https://", "https://a@b.org", "https://b.org/?a=b", ""]
    {
        let error = api(wrong).expect_err(wrong).to_string();
        let expected = "discord_api: expected a URL such as `https://discord.com/api/v10`, got `";
        assert!(error.starts_with(expected), "{error}");
    }
    for (wrong, why) in [
        ("https://a@b.org", "`https://a@b.org`: a user in it would not be used (flag --discord-api)"),
        (
            "https://b.org/?a=b",
            "`https://b.org/?a=b`: paths are written behind it, so it must end before `?` and `#` ",
        ),
    ] {
        let error = flag(&[("discord_api", wrong)]).error();
        assert!(error.contains(why), "{error}");
    }
}
