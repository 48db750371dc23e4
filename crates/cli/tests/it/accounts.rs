//! Users, robots, grants and the audit trail.

use serde_json::{Value, json};

use crate::harness::{PASSWORD, Sandbox};

fn keys(value: &Value) -> Vec<&str> {
    value.as_object().unwrap().keys().map(String::as_str).collect()
}

#[test]
fn users() {
    let sandbox = Sandbox::new();
    let _server = sandbox.serve();
    let outcome = sandbox.run(&["user", "add", "alice"]).succeeded();
    let password = outcome.stdout.strip_prefix("password for alice: ").unwrap().trim_end();
    assert!(password.len() >= 16, "{outcome:?}");
    let bob =
        sandbox.run_with_stdin(&["user", "add", "bob", "--admin", "--password-stdin", "--json"], "secret of bob\n");
    let bob = bob.succeeded().json();
    assert_eq!((&bob["name"], &bob["administrator"], &bob["password"]), (&json!("bob"), &json!(true), &Value::Null));

    let list = sandbox.json(&["user", "list"]);
    assert_eq!(keys(&list), ["items", "next"]);
    let names: Vec<_> = list["items"].as_array().unwrap().iter().map(|u| u["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["admin", "alice", "bob"]);
    assert_eq!(keys(&list["items"][0]), ["name", "administrator", "disabled", "created_at", "last_login_at"]);
    let table = sandbox.run(&["user", "list"]).succeeded().stdout;
    assert!(table.starts_with("NAME") && table.lines().count() == 4, "{table}");

    let page = sandbox.json(&["user", "list", "--limit", "2"]);
    assert_eq!(page["items"].as_array().unwrap().len(), 2);
    let cursor = page["next"].as_str().unwrap();
    let rest = sandbox.json(&["user", "list", "--cursor", cursor]);
    assert_eq!((&rest["items"][0]["name"], &rest["next"]), (&json!("bob"), &Value::Null));
    assert_eq!(sandbox.json(&["user", "list", "--limit", "1", "--all"])["items"].as_array().unwrap().len(), 3);

    assert_eq!(sandbox.json(&["user", "disable", "alice"])["disabled"], true);
    assert!(sandbox.run(&["user", "show", "alice"]).succeeded().stdout.contains("disabled       yes"));
    sandbox.run(&["user", "enable", "alice"]).succeeded();
    assert_eq!(sandbox.json(&["user", "show", "alice"])["disabled"], false);
    assert_ne!(sandbox.run(&["user", "passwd", "alice", "--quiet"]).succeeded().stdout.trim(), password);
    let set = sandbox.run_with_stdin(&["user", "passwd", "alice", "--password-stdin"], "another secret").succeeded();
    assert_eq!(set.stdout, "");

    let outcome = sandbox.run(&["user", "remove", "alice"]).exited(2);
    assert!(outcome.error().1.contains("--yes"), "{outcome:?}");
    sandbox.run(&["user", "remove", "alice", "--yes"]).succeeded();
    assert_eq!(sandbox.run(&["user", "show", "alice", "--json"]).exited(1).code(), "user_not_found");
}

#[test]
fn what_users_cannot_be() {
    let sandbox = Sandbox::new();
    let _server = sandbox.serve();
    assert_eq!(sandbox.run(&["user", "add", "Alice", "--json"]).exited(2).code(), "invalid_name");
    assert_eq!(sandbox.run(&["user", "add", "admin", "--json"]).exited(1).code(), "name_taken");
    assert_eq!(sandbox.run(&["user", "remove", "admin", "--yes", "--json"]).exited(1).code(), "last_administrator");
    for stdin in ["", "\n"] {
        let outcome = sandbox.run_with_stdin(&["user", "add", "carol", "--password-stdin", "--json"], stdin).exited(6);
        assert_eq!(outcome.code(), "empty_password");
    }
    sandbox.run(&["user", "show", "carol"]).exited(1);
}

#[test]
fn robots() {
    let sandbox = Sandbox::new();
    let _server = sandbox.serve();
    let robot = sandbox.json(&["robot", "add", "payments/api", "deploy", "--expires", "30d"]);
    assert_eq!(keys(&robot), ["name", "namespace", "secret", "expires_at"]);
    assert_eq!(robot["name"], "payments.api.deploy");
    let secret = robot["secret"].as_str().unwrap();

    let shown = sandbox.json(&["robot", "show", "payments.api.deploy"]);
    assert_eq!((&shown["namespace"], &shown["expires_at"]), (&json!("payments/api"), &robot["expires_at"]));
    assert_eq!(keys(&shown["secrets"][0]), ["id", "created_at", "expires_at"]);
    assert!(!shown.to_string().contains(secret));

    let second = sandbox.run(&["robot", "rotate", "payments.api.deploy"]).succeeded().stdout;
    assert!(second.starts_with("secret for payments.api.deploy: ") && !second.contains(secret), "{second}");
    assert_eq!(sandbox.json(&["robot", "show", "payments.api.deploy"])["secrets"].as_array().unwrap().len(), 2);
    sandbox.run(&["robot", "rotate", "payments.api.deploy", "--revoke-old"]).succeeded();
    assert_eq!(sandbox.json(&["robot", "show", "payments.api.deploy"])["secrets"].as_array().unwrap().len(), 1);
    assert!(sandbox.run(&["robot", "list"]).succeeded().stdout.contains("payments/api"));

    assert_eq!(sandbox.json(&["robot", "disable", "payments.api.deploy"])["disabled"], true);
    sandbox.run(&["robot", "enable", "payments.api.deploy"]).succeeded();

    sandbox.run(&["robot", "remove", "payments.api.deploy"]).exited(2);
    sandbox.run(&["robot", "remove", "payments.api.deploy", "-y"]).succeeded();
    assert_eq!(sandbox.json(&["robot", "list"]), json!({"items": [], "next": null}));
    assert_eq!(sandbox.run(&["robot", "rotate", "payments.api.deploy", "--json"]).exited(1).code(), "robot_not_found");
    let outcome = sandbox.run(&["robot", "add", "a", "b", "--expires", "1000d", "--json"]).exited(2);
    assert_eq!(outcome.code(), "invalid_expiry");
}

#[test]
fn grants() {
    let sandbox = Sandbox::new();
    let _server = sandbox.serve();
    sandbox.run(&["user", "add", "alice"]).succeeded();
    let outcome =
        sandbox.run(&["grant", "add", "user:alice", "reader", "payments/**", "--reason", "on call"]).succeeded();
    assert!(outcome.stdout.contains("user:alice may pull, list in payments/**"), "{outcome:?}");
    assert!(outcome.stderr.contains("`payments` itself"), "{outcome:?}");
    let grant = sandbox.json(&[
        "grant",
        "add",
        "user:alice",
        "push,tag-create",
        "payments/api",
        "--tags",
        "v1.*",
        "--tags",
        "v2.*",
        "--expires",
        "90d",
    ]);
    let fields = ["id", "subject", "role", "verbs", "repository", "tags", "expires_at", "reason", "created_by"];
    assert!(fields.iter().all(|field| grant.get(field).is_some()), "{grant}");
    assert_eq!((&grant["role"], &grant["verbs"]), (&Value::Null, &json!(["push", "tag-create"])));
    assert_eq!(grant["tags"], json!(["v1.*", "v2.*"]));

    let all = sandbox.json(&["grant", "list"]);
    assert_eq!(all["items"][0]["repository"], "**", "the first administrator's own grant: {all}");
    let of_alice = sandbox.json(&["grant", "list", "--subject", "user:alice"]);
    assert_eq!(of_alice["items"].as_array().unwrap().len(), 2);
    assert!(sandbox.run(&["grant", "list"]).succeeded().stdout.contains("on call"));

    sandbox.run(&["grant", "remove", &grant["id"].to_string()]).succeeded();
    assert_eq!(sandbox.run(&["grant", "remove", "4711", "--json"]).exited(1).code(), "grant_not_found");
    assert_eq!(sandbox.json(&["grant", "remove", "--subject", "user:alice"]), json!({"removed": 1}));
    for (arguments, code) in [
        (["user:nobody", "reader", "a"], "subject_not_found"),
        (["alice", "reader", "a"], "invalid_subject"),
        (["user:alice", "king", "a"], "invalid_verbs"),
        (["anonymous", "writer", "a"], "invalid_verbs"),
        (["user:alice", "reader", "a/**/b"], "invalid_pattern"),
    ] {
        let [subject, role, pattern] = arguments;
        let outcome = sandbox.run(&["grant", "add", subject, role, pattern, "--json"]);
        assert_eq!(outcome.code(), code, "{outcome:?}");
        assert_eq!(outcome.exit, if code == "subject_not_found" { 1 } else { 2 });
    }
}

#[test]
fn events() {
    let sandbox = Sandbox::new();
    let _server = sandbox.serve();
    sandbox.run(&["user", "add", "alice"]).succeeded();
    sandbox.run(&["grant", "add", "user:alice", "reader", "team/app"]).succeeded();
    let list = sandbox.json(&["event", "list", "--since", "1h"]);
    let first = &list["items"][0];
    let fields = [
        "id",
        "time",
        "action",
        "outcome",
        "subject",
        "credential",
        "source",
        "request_id",
        "repository",
        "reference",
        "digest",
        "detail",
    ];
    assert_eq!(keys(first), fields);
    let only = sandbox.json(&["event", "list", "--action", "user.add"]);
    let items = only["items"].as_array().unwrap();
    assert!(!items.is_empty() && items.iter().all(|e| e["action"] == "user.add"), "{only}");
    assert!(sandbox.run(&["event", "list"]).succeeded().stdout.starts_with("TIME"));
    let outcome = sandbox.run(&["event", "list", "--action", "user.create"]).exited(2);
    assert!(outcome.error().0.contains("user.add"), "{outcome:?}");
    assert_eq!(sandbox.json(&["event", "list", "--since", "2100-01-01T00:00:00Z"])["items"], json!([]));
}

#[test]
fn events_are_followed() {
    use std::io::{BufRead, BufReader};

    let sandbox = Sandbox::new();
    let _server = sandbox.serve();
    let mut child = sandbox.command(&["event", "list", "--follow", "--json"]).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    // The first question is under way or answered; whatever happens from now on is to be seen.
    std::thread::sleep(std::time::Duration::from_millis(500));
    sandbox.run(&["user", "add", "alice"]).succeeded();
    sandbox.run(&["user", "disable", "alice"]).succeeded();
    let mut next = || serde_json::from_str::<Value>(&lines.next().unwrap().unwrap()).unwrap();
    let (event, next) = (next(), next());
    assert!(event["id"].as_i64() < next["id"].as_i64(), "{event} {next}");
    assert_eq!((&event["action"], &next["action"]), (&json!("user.add"), &json!("user.disable")), "{event} {next}");
    assert_eq!(event["reference"], "alice", "{event}");
    child.kill().unwrap();
    child.wait().unwrap();
}

/// What comes for these bytes until the connection has nothing more to say for a while.
fn exchange(host: &str, request: &str) -> String {
    use std::io::{Read as _, Write as _};
    let mut stream = std::net::TcpStream::connect(host).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

// security: M-02
#[test]
fn secrets_are_in_no_argument_and_no_log() {
    let sandbox = Sandbox::new();
    let config = sandbox.data().with_file_name("debug.toml");
    std::fs::write(&config, "[log]\nlevel = \"debug\"\n").unwrap();
    let server = sandbox.serve_with(&["--config", config.to_str().unwrap()]);
    let secret = "a secret from standard input";
    sandbox.run_with_stdin(&["user", "add", "alice", "--password-stdin"], secret).succeeded();
    sandbox.run(&["user", "add", "bob", "--password", "x"]).exited(2);
    // Right and wrong, where they belong and where they do not: as `Authorization`, in a form, in a query.
    let basic = "YWxpY2U6YSBzZWNyZXQgZnJvbSBzdGFuZGFyZCBpbnB1dA==";
    let form = "grant_type=password&service=x&username=alice&password=a+secret+from+standard+input";
    let host = server.address("main");
    let asked = [
        format!("GET /token?scope=repository:a:pull HTTP/1.1\r\nHost: {host}\r\nAuthorization: Basic {basic}\r\n\r\n"),
        format!("GET /token HTTP/1.1\r\nHost: {host}\r\nAuthorization: Basic x{basic}\r\n\r\n"),
        format!("GET /v2/ HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {basic}\r\n\r\n"),
        format!("GET /token?password=canary-in-the-query HTTP/1.1\r\nHost: {host}\r\n\r\n"),
        format!("POST /token HTTP/1.1\r\nHost: {host}\r\nContent-Length: {}\r\n\r\n{form}", form.len()),
        format!("GET / HTTP/1.1\r\nHost: {host}\r\nAuthorization: Basic {basic}\nX: y\r\n\r\n"),
    ];
    let answers: Vec<String> = asked.iter().map(|request| exchange(host, request)).collect();
    let tokens: Vec<&str> = answers.iter().filter_map(|answer| answer.split("\"token\":\"").nth(1)).collect();
    let token = tokens.first().and_then(|rest| rest.split('"').next()).expect("a token was given");
    let log = server.log();
    assert!(log.contains("/token"), "{log}");
    for secret in [basic, "a+secret", "canary-in-the-query", token] {
        assert!(!log.contains(secret), "{secret} in {log}");
    }
    assert!(!log.contains(secret) && !log.contains(PASSWORD), "{log}");
}

#[test]
fn what_was_mistyped_is_answered_with_what_there_is() {
    let sandbox = Sandbox::new();
    let _server = sandbox.serve();
    let outcome = sandbox.run(&["grant", "add", "user:admin", "readr", "team/**"]).exited(2);
    for word in ["'readr'", "reader", "maintainer", "tag-create"] {
        assert!(outcome.error().0.contains(word), "{outcome:?}");
    }
    let long = "x".repeat((64 << 10) + 1);
    for (stdin, what) in [(long.as_str(), "longer than 64 KiB"), ("one\ntwo\n", "more than one line")] {
        let outcome = sandbox.run_with_stdin(&["user", "add", "carol", "--password-stdin"], stdin).exited(2);
        let (message, help) = outcome.error();
        assert!(message.contains(what) && help.contains("single line"), "{outcome:?}");
    }
    sandbox.run(&["user", "show", "carol"]).exited(1);
}
