//! The generated page of the settings.

use server::config::{KEYS, reference};

/// `docs/reference/configuration.md` is what `portcullis config reference` prints.
#[test]
fn the_page_that_is_checked_in_is_the_one_that_is_generated() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/reference/configuration.md");
    let page = std::fs::read_to_string(path).unwrap();
    assert!(
        page == reference(),
        "docs/reference/configuration.md is out of date: cargo run -- config reference > docs/reference/configuration.md"
    );
}

/// Names that scripts rely on.
#[test]
fn the_settings_of_the_interface_are_there() {
    for (key, default) in [
        ("data_dir", "./portcullis-data"),
        ("server.listen", "127.0.0.1:5000"),
        ("admin.listen", "127.0.0.1:5001"),
        ("ops.listen", "off"),
        ("server.public_urls", ""),
        ("server.plain_from", ""),
        ("server.tls.certificate", ""),
        ("server.tls.key", ""),
        ("server.tls.client_ca", ""),
        ("server.drain_timeout", "30s"),
        ("database.url", "sqlite"),
        ("auth.token_lifetime", "15m"),
        ("auth.backoff", "1s"),
        ("content.sparse_images", "false"),
        ("limits.manifest", "4MiB"),
        ("limits.connections", "10000"),
        ("limits.uploads_per_subject", "100"),
        ("limits.header", "32KiB"),
        ("limits.header_time", "30s"),
        ("limits.idle", "120s"),
        ("limits.progress", "1KiB"),
        ("limits.failed_logins", "10"),
        ("upload.idle", "24h"),
        ("gc.interval", "1h"),
        ("gc.grace", "24h"),
        ("log.format", "auto"),
        ("log.level", "info"),
        ("bootstrap.password_file", ""),
    ] {
        let found = KEYS.iter().find(|known| known.name == key).unwrap_or_else(|| panic!("{key} is missing"));
        assert_eq!(found.default, default, "{key}");
    }
    let flags: Vec<_> = KEYS.iter().filter_map(server::config::Key::flag_name).collect();
    assert_eq!(flags, ["--data-dir", "--listen", "--public-url", "--admin-listen", "--ops-listen"]);
}
