use super::*;

fn environment(pairs: &[(&str, &str)]) -> Environment {
    Environment(pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect())
}

/// With a file of this content, and nothing from outside.
fn from_file(text: &str, variables: &[(&str, &str)], flags: Flags) -> Result<Config, Vec<Problem>> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("p.toml");
    std::fs::write(&path, text).unwrap();
    Raw::gather(&Flags { config: Some(path), ..flags }, &environment(variables)).check()
}

fn problems(text: &str) -> Vec<String> {
    from_file(text, &[], Flags::default())
        .unwrap_err()
        .into_iter()
        .map(|p| format!("{} {} {}", p.key, p.origin.rsplit('/').next().unwrap(), p.message))
        .collect()
}

fn setting<'a>(config: &'a Config, key: &str) -> (&'a str, &'a str) {
    config.settings().iter().find(|s| s.key == key).map(|s| (s.value.as_str(), s.origin.as_str())).unwrap()
}

#[test]
fn the_defaults_of_the_table_are_valid_and_are_those_of_the_interface() {
    let dir = tempfile::tempdir().unwrap();
    let flags = Flags { data_dir: Some(dir.path().join("data")), ..Flags::default() };
    let config = load(&flags, &Environment::default()).unwrap();
    assert_eq!(config.server.listen.to_string(), "127.0.0.1:5000");
    assert_eq!(config.admin.listen.unwrap().to_string(), "127.0.0.1:5001");
    assert_eq!(config.ops.listen, None);
    assert_eq!(config.limits.manifest, ByteSize(4 << 20));
    assert_eq!(config.limits.progress, ByteSize(1 << 10));
    assert_eq!(config.gc.grace, Duration::from_secs(86_400));
    assert_eq!(config.auth.token_lifetime, Duration::from_secs(900));
    let urls: Vec<_> = config.server.urls().iter().map(ToString::to_string).collect();
    assert_eq!(urls, ["http://localhost:5000", "http://127.0.0.1:5000", "http://[::1]:5000"]);
}

#[test]
fn the_names_of_the_registry() {
    let tls = "[server.tls]\ncertificate = 'c'\nkey = 'k'\n";
    for (listen, public, all) in [
        ("10.0.0.5:5000", "", "https://10.0.0.5:5000"),
        ("[fd00::1]:443", "", "https://[fd00::1]"),
        ("0.0.0.0:7", "", "https://localhost:7 https://127.0.0.1:7 https://[::1]:7"),
        ("10.0.0.5:5000", "https://r.example", "https://r.example https://10.0.0.5:5000"),
    ] {
        let variables = [("PORTCULLIS_SERVER__LISTEN", listen), ("PORTCULLIS_SERVER__PUBLIC_URLS", public)];
        let urls = from_file(tls, &variables, Flags::default()).unwrap().server.urls();
        assert_eq!(urls.iter().map(ToString::to_string).collect::<Vec<_>>().join(" "), all);
    }
}

#[test]
fn flags_beat_environment_beats_file_beats_default() {
    let text =
        "[server]\nlisten = '127.0.0.1:1'\npublic_urls = ['https://a.example']\n[gc]\ngrace = '1h'\ninterval = '1s'\n";
    let variables = [("PORTCULLIS_SERVER__LISTEN", "127.0.0.1:2"), ("PORTCULLIS_GC__GRACE", "2h")];
    let flags = Flags { listen: Some("127.0.0.1:3".to_owned()), ..Flags::default() };
    let config = from_file(text, &variables, flags).unwrap();
    assert_eq!(setting(&config, "server.listen"), ("\"127.0.0.1:3\"", "--listen"));
    assert_eq!(setting(&config, "gc.grace"), ("\"2h\"", "PORTCULLIS_GC__GRACE"));
    assert!(setting(&config, "gc.interval").1.ends_with("p.toml:6"));
    assert_eq!(setting(&config, "limits.idle"), ("\"120s\"", "default"));
    assert_eq!(config.gc.grace, Duration::from_secs(7200));
    assert_eq!(config.server.public_urls[0].to_string(), "https://a.example");
}

// security: B-18
#[test]
fn all_problems_are_reported_with_their_places() {
    let text = "dat_dir = 'x'\n[server]\nlisten = 'nowhere'\nplain_from = ['10.0.0.0/33']\nlsten = 'x'\n[server.tls]\nkey = 'k'\n\
                [limits]\nheader = '1B'\nidle = 'soon'\nconnections = 1.5\n[log]\nformat = 'xml'\n[nonsense]\n";
    assert_eq!(
        problems(text),
        [
            "dat_dir p.toml:1 is not a setting; did you mean `data_dir`?",
            "limits.connections p.toml:11 cannot be a float",
            "limits.header p.toml:9 1B is not between 8KiB and 1MiB",
            "limits.idle p.toml:10 `soon` is not a duration such as 90s, 15m, 24h or 30d",
            "log.format p.toml:13 `xml` is none of `auto`, `pretty`, `json`",
            "nonsense p.toml:14 is not a setting",
            "server.listen p.toml:3 `nowhere` is not an address and a port such as 127.0.0.1:5000 or [::1]:5000",
            "server.lsten p.toml:5 is not a setting; did you mean `server.listen`?",
            "server.plain_from p.toml:4 `10.0.0.0/33` is not a network such as 10.0.0.0/8 or an address",
            "server.tls.key p.toml:7 needs server.tls.certificate beside it",
        ]
    );
    assert!(problems("a = [\n")[0].starts_with(" p.toml:"));
}

#[test]
fn a_missing_file_is_a_problem_only_if_it_was_named() {
    let flags = Flags { config: Some("/nonexistent/p.toml".into()), ..Flags::default() };
    let problems = Raw::gather(&flags, &Environment::default()).check().unwrap_err();
    assert!(problems[0].to_string().starts_with("/nonexistent/p.toml: cannot be read"), "{}", problems[0]);
}

#[test]
fn the_file_beside_the_data_directory_is_found_and_its_paths_are_taken_from_there() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join(FILE_NAME), "[server.tls]\ncertificate = 'c.pem'\nkey = '/k.pem'\n").unwrap();
    let data_dir = dir.path().join("data").to_string_lossy().into_owned();
    let config = load(&Flags::default(), &environment(&[("PORTCULLIS_DATA_DIR", &data_dir)])).unwrap();
    let tls = config.server.tls.unwrap();
    assert_eq!(tls.certificate, dir.path().join("c.pem"));
    assert_eq!(tls.key, PathBuf::from("/k.pem"));
}

#[test]
fn file_keys_and_foreign_variables() {
    let dir = tempfile::tempdir().unwrap();
    let level = dir.path().join("level");
    std::fs::write(&level, "debug\n").unwrap();
    let config = from_file(&format!("[log]\nlevel_file = '{}'\n", level.display()), &[], Flags::default()).unwrap();
    assert_eq!(config.log.level, "debug");
    let both = [("PORTCULLIS_LOG__LEVEL", "info"), ("PORTCULLIS_LOG__LEVEL_FILE", level.to_str().unwrap())];
    assert!(from_file("", &both, Flags::default()).unwrap_err()[0].message.contains("set twice"));
    // What Kubernetes sets for a service called portcullis, and what belongs to the client commands.
    let foreign = [
        ("PORTCULLIS_PORT", "tcp://10.0.0.1:5000"),
        ("PORTCULLIS_SERVICE_HOST", "x"),
        ("PORTCULLIS_SERVER", "http://x"),
    ];
    from_file("", &foreign, Flags::default()).unwrap();
    let typo = from_file("", &[("PORTCULLIS_GC__GRAZE", "1h")], Flags::default()).unwrap_err();
    assert_eq!(typo[0].to_string(), "gc.graze (PORTCULLIS_GC__GRAZE): is not a setting; did you mean `gc.grace`?");
}

// security: M-02
#[test]
fn m02_secrets_are_shown_neither_in_settings_nor_in_problems() {
    let wrong = "postgres://u:canary@db/x?sslmode=never";
    let problems = from_file("", &[("PORTCULLIS_DATABASE__URL", wrong)], Flags::default()).unwrap_err();
    assert!(!problems[0].to_string().contains("canary"));
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("url");
    std::fs::write(&file, "postgres://u:canary@db/x\n").unwrap();
    let variables = [("PORTCULLIS_DATABASE__URL_FILE", file.to_str().unwrap())];
    let config = from_file("", &variables, Flags::default()).unwrap();
    assert_eq!(config.database.url.to_string(), "postgres://u@db:5432/x?sslmode=verify-full");
    assert_eq!(setting(&config, "database.url").0, "\"(not shown)\"");
    assert!(!format!("{config:?}{}", config.show()).contains("canary"));
}

#[test]
fn lists_from_the_environment_are_separated_by_commas() {
    let variables =
        [("PORTCULLIS_SERVER__PLAIN_FROM", "10.0.0.7, 172.17.0.1/16,"), ("PORTCULLIS_ADMIN__LISTEN", "off")];
    let config = from_file("", &variables, Flags::default()).unwrap();
    assert!(config.server.may_speak_plain("172.17.9.9".parse().unwrap()));
    assert!(config.server.may_speak_plain("::ffff:10.0.0.7".parse().unwrap()));
    assert!(!config.server.may_speak_plain("10.0.0.8".parse().unwrap()));
    assert_eq!(config.admin.listen, None);
}

// security: A-02
#[test]
fn beyond_loopback_without_tls_is_refused() {
    for (text, refused) in [
        ("", None),
        ("[server]\nlisten = '0.0.0.0:5000'", Some("server.listen")),
        ("[server]\nlisten = '[::]:5000'", Some("server.listen")),
        ("[server]\nlisten = '127.9.9.9:5000'", None),
        ("[server]\nlisten = '[::1]:5000'", None),
        ("[admin]\nlisten = '10.0.0.1:1'", Some("admin.listen")),
        ("[ops]\nlisten = '10.0.0.1:1'", Some("ops.listen")),
        ("[server]\nlisten = '0.0.0.0:5000'\nplain_from = ['10.0.0.0/8']", None),
        ("[server]\nlisten = '0.0.0.0:5000'\n[server.tls]\ncertificate = 'c'\nkey = 'k'", None),
    ] {
        let result = from_file(text, &[], Flags::default()).unwrap().refuse_unsafe();
        match (refused, result) {
            (None, Ok(())) => {}
            (Some(key), Err(error)) => {
                assert!(error.exit_code() == 6 && error.to_string().starts_with(key), "{text}: {error}");
                assert!(error.help().unwrap().contains("server.tls"));
            }
            (_, result) => panic!("{text}: {result:?}"),
        }
    }
}

#[test]
fn the_reference_has_every_key() {
    let page = reference();
    for key in KEYS {
        assert!(page.contains(&format!("### `{}`", key.name)) && page.contains(&key.variable()));
    }
}

#[test]
fn a_token_lives_a_minute_at_least_and_the_reserve_has_a_size() {
    let wrong = problems("[auth]\ntoken_lifetime = '59s'\n[storage]\nreserve = 'much'\n");
    assert_eq!(wrong.len(), 2, "{wrong:?}");
    assert!(
        wrong[0].starts_with("auth.token_lifetime") && wrong[0].contains("59s is not between 1m and 1d"),
        "{wrong:?}"
    );
    let config = from_file("auth.token_lifetime = '60s'\nstorage.reserve = '1GiB'", &[], Flags::default()).unwrap();
    assert_eq!(config.storage.reserve, ByteSize(1 << 30));
}

#[test]
fn what_is_shown_can_be_read_again() {
    let variables = [
        ("PORTCULLIS_LIMITS__CONNECTIONS", " 007\t"),
        ("PORTCULLIS_CONTENT__SPARSE_IMAGES", "true\u{b}"),
        ("PORTCULLIS_GC__GRACE", " 2h"),
    ];
    let config = from_file("", &variables, Flags::default()).unwrap();
    let again = from_file(&config.show(), &[], Flags::default()).unwrap();
    assert_eq!((again.limits.connections, again.content.sparse_images), (7, true));
    assert_eq!(again.gc.grace, config.gc.grace);
}
