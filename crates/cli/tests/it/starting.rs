//! Starting, being refused, stopping.

use std::net::TcpListener;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::Value;

use crate::harness::{PASSWORD, Sandbox, mode, read, signal, wait};

const LOOPBACK: [&str; 5] = ["serve", "--listen", "127.0.0.1:0", "--admin-listen", "off"];

#[test]
fn the_first_start_makes_a_private_data_directory() {
    let sandbox = Sandbox::new();
    let server = sandbox.serve();
    assert_eq!(mode(&sandbox.data()), 0o700);
    let database = (testdb::engine() == testdb::Engine::Sqlite).then_some("meta.db");
    for file in
        ["portcullis.lock", "format.json", "keys/kek", "admin.sock", "addresses.json"].into_iter().chain(database)
    {
        assert_eq!(mode(&sandbox.data().join(file)), 0o600, "{file}");
    }
    let format: Value = serde_json::from_str(&read(&sandbox.data().join("format.json"))).unwrap();
    assert_eq!(format["format"], 3);
    assert_eq!(format["store"].as_str().unwrap().len(), 36);
    // The password was given: there is none to print.
    assert!(!sandbox.data().join("initial-password").exists());
    assert!(!server.log().contains(PASSWORD));
    assert_eq!(sandbox.run(&["health"]).succeeded().stdout, "ready\n");
}

#[test]
fn without_a_terminal_the_first_password_goes_to_a_file() {
    let sandbox = Sandbox::new();
    let log = sandbox.path("log");
    let mut command = sandbox.command(&LOOPBACK);
    let mut child = command.stderr(std::fs::File::create(&log).unwrap()).spawn().unwrap();
    let file = sandbox.data().join("initial-password");
    wait_for(|| read(&log).contains("ready"));
    let password = read(&file);
    assert_eq!(mode(&file), 0o600);
    assert!(password.trim_end().len() >= 16);
    let text = read(&log);
    assert!(text.contains("initial-password") && !text.contains(password.trim_end()), "{text}");
    sandbox.run(&["user", "passwd", "admin"]).succeeded();
    assert!(!file.exists(), "removed at the first change of that password");
    signal(&child, Signal::TERM);
    assert_eq!(wait(&mut child, Duration::from_secs(20)), 0);
    let mut out = String::new();
    std::io::Read::read_to_string(&mut child.stdout.take().unwrap(), &mut out).unwrap();
    assert!(!out.contains("password for"), "{out}");
}

#[test]
fn a_signal_stops_it_with_0_and_the_next_start_finds_everything() {
    let sandbox = Sandbox::new();
    let server = sandbox.serve();
    server.push("team/app", "v1", b"layer");
    assert_eq!(server.stop(), 0);
    assert!(!sandbox.data().join("admin.sock").exists());
    sandbox.run(&["health"]).exited(1);

    let mut server = sandbox.serve();
    assert_eq!(sandbox.json(&["tag", "list", "team/app"])["items"][0]["name"], "v1");
    signal(&server.child, Signal::INT);
    assert_eq!(wait(&mut server.child, Duration::from_secs(20)), 0);
}

#[test]
fn a_killed_server_leaves_nothing_in_the_way() {
    let sandbox = Sandbox::new();
    let mut server = sandbox.serve();
    server.child.kill().unwrap();
    server.child.wait().unwrap();
    // The socket is still there and nobody listens.
    assert!(sandbox.data().join("admin.sock").exists());
    assert_eq!(sandbox.run(&["user", "list", "--json"]).exited(1).code(), "unreachable");
    sandbox.run(&["health"]).exited(1);
    drop(server);
    let _server = sandbox.serve();
    sandbox.run(&["user", "list"]).succeeded();
}

// security: P-06
#[test]
fn a_second_server_on_one_directory_ends_with_7() {
    let sandbox = Sandbox::new();
    let server = sandbox.serve();
    let begun = Instant::now();
    let outcome = sandbox.run(&LOOPBACK).exited(7);
    assert!(begun.elapsed() < Duration::from_secs(5));
    let (message, help) = outcome.error();
    assert!(message.contains(&server.child.id().to_string()) && help.contains("--data-dir"), "{outcome:?}");
    let mut json = LOOPBACK.to_vec();
    json.push("--json");
    assert_eq!(sandbox.run(&json).exited(7).code(), "data_dir_locked");
    sandbox.run(&["health"]).succeeded();
}

// security: Q-05
#[test]
fn a_newer_format_ends_with_7() {
    let sandbox = Sandbox::new();
    sandbox.serve().stop();
    let file = sandbox.data().join("format.json");
    let mut format: Value = serde_json::from_str(&read(&file)).unwrap();
    format["format"] = 99.into();
    format["min_reader"] = 99.into();
    std::fs::write(&file, format.to_string()).unwrap();
    let outcome = sandbox.run(&LOOPBACK).exited(7);
    assert!(outcome.error().0.contains("99"), "{outcome:?}");
}

#[test]
fn beyond_loopback_without_tls_ends_with_6() {
    let sandbox = Sandbox::new();
    for arguments in [
        &["serve", "--listen", "0.0.0.0:0"] as &[&str],
        &["serve", "--listen", "[::]:0"],
        &["serve", "--listen", "127.0.0.1:0", "--admin-listen", "0.0.0.0:0"],
        &["serve", "--listen", "127.0.0.1:0", "--ops-listen", "0.0.0.0:0"],
        &["serve", "--listen", "192.0.2.1:5000"],
    ] {
        let outcome = sandbox.run(arguments).exited(6);
        let (message, help) = outcome.error();
        assert!(message.contains("loopback") && help.contains("server.tls"), "{outcome:?}");
    }
    assert!(!sandbox.data().exists(), "refused before anything is made");
}

#[test]
fn a_directory_or_key_that_others_can_read_ends_with_6() {
    use std::os::unix::fs::PermissionsExt;

    let sandbox = Sandbox::new();
    sandbox.serve().stop();
    let open = |name: &str, mode: u32| {
        std::fs::set_permissions(sandbox.data().join(name), std::fs::Permissions::from_mode(mode)).unwrap();
    };
    open("", 0o755);
    let outcome = sandbox.run(&LOOPBACK).exited(6);
    assert!(outcome.error().1.contains("chmod"), "{outcome:?}");
    open("", 0o700);
    open("keys/kek", 0o640);
    sandbox.run(&LOOPBACK).exited(6);
    open("keys/kek", 0o600);
    let _server = sandbox.serve();
}

#[test]
fn an_empty_bootstrap_password_ends_with_6() {
    let sandbox = Sandbox::new();
    let file = sandbox.write("password", "\n");
    let mut command = sandbox.command(&LOOPBACK);
    command.env("PORTCULLIS_BOOTSTRAP__PASSWORD_FILE", file);
    crate::harness::Outcome::of(&mut command, "").exited(6);
}

#[test]
fn an_address_in_use_is_named() {
    let sandbox = Sandbox::new();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let outcome = sandbox.run(&["serve", "--listen", &address, "--admin-listen", "off"]).exited(1);
    let (message, help) = outcome.error();
    assert!(message.contains(&address) && help.contains("server.listen"), "{outcome:?}");
}

#[test]
fn health_by_url_and_by_directory() {
    let sandbox = Sandbox::new();
    let server = sandbox.serve_with(&["--ops-listen", "127.0.0.1:0"]);
    for listener in ["main", "admin", "ops"] {
        let url = format!("http://{}", server.address(listener));
        sandbox.run(&["health", "--server", &url]).succeeded();
    }
    let ready = sandbox.json(&["health"]);
    assert_eq!((&ready["ready"], &ready["checks"]["database"]), (&true.into(), &"ok".into()), "{ready}");
    assert_eq!(sandbox.run(&["health", "--quiet"]).succeeded().stdout, "");
    // A container's probe may run as somebody who cannot open the socket.
    std::fs::remove_file(sandbox.data().join("admin.sock")).unwrap();
    sandbox.run(&["health"]).succeeded();
    server.stop();
    let outcome = sandbox.run(&["health"]).exited(1);
    assert!(outcome.stderr.starts_with("error: "), "{outcome:?}");
    sandbox.run(&["health", "--server", "http://127.0.0.1:1"]).exited(1);
}

fn wait_for(done: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !done() {
        assert!(Instant::now() < deadline);
        std::thread::sleep(Duration::from_millis(10));
    }
}
