//! Settings and `init`.

use serde_json::json;

use crate::harness::{Outcome, Sandbox, mode, read};

#[test]
fn every_problem_of_a_configuration_is_listed() {
    let sandbox = Sandbox::new();
    sandbox.write(
        "portcullis.toml",
        "[server]\nlisten_on = \"127.0.0.1:5000\"\ndrain_timeout = \"soon\"\n[gcc]\ngrace = \"1h\"\n",
    );
    for arguments in [&["config", "check"] as &[&str], &["config", "show"], &["serve"]] {
        let outcome = sandbox.run(arguments).exited(2);
        for word in ["server.listen_on", "`server.listen`", "portcullis.toml:2", "server.drain_timeout", "gcc"] {
            assert!(outcome.stderr.contains(word), "{word}: {outcome:?}");
        }
    }
    let outcome = sandbox.run(&["config", "check", "--json"]).exited(2);
    assert_eq!(outcome.code(), "config_invalid");
    let error: serde_json::Value = serde_json::from_str(&outcome.stderr).unwrap();
    let problems = error["error"]["details"]["problems"].as_array().unwrap();
    assert_eq!(problems.len(), 3, "{error}");
    assert!(problems.iter().all(|p| p["key"].is_string() && p["origin"].is_string() && p["message"].is_string()));
    assert!(!sandbox.data().exists());

    let mut command = sandbox.command(&["config", "check", "--config", "absent.toml"]);
    let outcome = Outcome::of(command.env("PORTCULLIS_SERVER__LISTENN", "x"), "").exited(2);
    for word in ["absent.toml", "PORTCULLIS_SERVER__LISTENN"] {
        assert!(outcome.stderr.contains(word), "{word}: {outcome:?}");
    }
}

#[test]
fn what_is_in_force_and_where_it_comes_from() {
    let sandbox = Sandbox::new();
    sandbox.write("portcullis.toml", "[gc]\ngrace = \"48h\"\n");
    let mut command = sandbox.command(&["config", "show", "--json"]);
    let shown = Outcome::of(command.env("PORTCULLIS_LIMITS__MANIFEST", "1MiB"), "").succeeded().json();
    let items = shown["items"].as_array().unwrap();
    let origin = |key: &str| items.iter().find(|i| i["key"] == key).unwrap()["origin"].as_str().unwrap().to_owned();
    assert!(origin("gc.grace").ends_with("portcullis.toml:2"));
    assert_eq!(
        (origin("limits.manifest").as_str(), origin("upload.idle").as_str()),
        ("PORTCULLIS_LIMITS__MANIFEST", "default")
    );
    assert!(sandbox.run(&["config", "show"]).succeeded().stdout.contains("gc.grace = "));
    assert!(sandbox.run(&["config", "check"]).succeeded().stderr.contains("valid"));
    assert_eq!(sandbox.json(&["config", "check"])["problems"], json!([]));
    assert!(sandbox.run(&["config", "reference"]).succeeded().stdout.contains("PORTCULLIS_GC__GRACE"));
    assert_eq!(sandbox.json(&["config", "reference"])["items"][0]["key"], "data_dir");
}

#[test]
fn an_unsafe_configuration_is_refused_by_check_too() {
    let sandbox = Sandbox::new();
    sandbox.write("portcullis.toml", "[server]\nlisten = \"0.0.0.0:5000\"\n");
    assert_eq!(sandbox.run(&["config", "check", "--json"]).exited(6).code(), "unsafe");
}

#[test]
fn init_makes_what_serve_needs_for_tls() {
    let sandbox = Sandbox::new();
    let outcome = sandbox.run(&["init", "--hostname", "registry.example.com", "--hostname", "localhost"]).succeeded();
    for client in ["docker", "podman", "registry.example.com", "/etc/docker/certs.d"] {
        assert!(outcome.stdout.contains(client), "{client}: {outcome:?}");
    }
    let configuration = read(&sandbox.path("portcullis.toml"));
    assert!(configuration.contains("registry.example.com") && configuration.contains('#'), "{configuration}");
    sandbox.run(&["config", "check"]).succeeded();
    let made = sandbox.json(&["config", "show"]);
    let of = |key: &str| {
        let item = made["items"].as_array().unwrap().iter().find(|i| i["key"] == key).unwrap().clone();
        item["value"].as_str().unwrap().trim_matches('"').to_owned()
    };
    assert_eq!(mode(std::path::Path::new(&of("server.tls.key"))), 0o600);

    // Again: what is there is not overwritten.
    sandbox.run(&["init", "--hostname", "registry.example.com"]).exited(6);
    assert_eq!(read(&sandbox.path("portcullis.toml")), configuration);

    // It serves with that, and a client that trusts the authority gets through.
    let server = sandbox.serve();
    let port = server.address("main").rsplit_once(':').unwrap().1.to_owned();
    let url = format!("https://localhost:{port}");
    let ca = ca_file(&sandbox);
    sandbox.run(&["health", "--server", &url]).exited(1);
    sandbox.run(&["health", "--server", &url, "--ca-file", ca.to_str().unwrap()]).succeeded();
    let mut command = sandbox.command(&["health", "--server", &url]);
    Outcome::of(command.env("SSL_CERT_FILE", &ca), "").succeeded();
    let other = format!("https://127.0.0.1:{port}");
    let mut command = sandbox.command(&["health", "--server", &other, "--ca-file", "portcullis.toml"]);
    Outcome::of(&mut command, "").exited(2);
}

fn ca_file(sandbox: &Sandbox) -> std::path::PathBuf {
    let mut open = vec![sandbox.path("")];
    while let Some(directory) = open.pop() {
        for entry in std::fs::read_dir(directory).unwrap().map(Result::unwrap) {
            let path = entry.path();
            if path.is_dir() {
                open.push(path);
            } else if path.file_name().is_some_and(|name| name == "ca.crt") {
                return path;
            }
        }
    }
    panic!("init made no ca.crt");
}
