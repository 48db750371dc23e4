//! Client commands over TCP: stored logins and tokens of the environment.

use serde_json::Value;

use crate::harness::{PASSWORD, Sandbox, mode, read};

const FILE: &str = "home/.config/portcullis/login.json";

#[test]
fn login_is_stored_and_used() {
    let sandbox = Sandbox::new();
    let server = sandbox.serve();
    let url = format!("http://{}", server.address("admin"));
    let arguments = ["login", &url, "--username", "admin", "--password-stdin"];
    let outcome = sandbox.run_with_stdin(&arguments, "wrong").exited(4);
    assert!(outcome.error().0.contains("password"), "{outcome:?}");
    assert!(!sandbox.path(FILE).exists());
    let outcome = sandbox.run_with_stdin(&arguments, PASSWORD).succeeded();
    assert_eq!(outcome.stdout, "");
    assert_eq!(mode(&sandbox.path(FILE)), 0o600);
    assert!(!read(&sandbox.path(FILE)).contains(PASSWORD));

    // Elsewhere, without a data directory, the stored login is what commands use.
    let elsewhere = |arguments: &[&str]| {
        crate::harness::Outcome::of(sandbox.command(arguments).env_remove("PORTCULLIS_DATA_DIR"), "")
    };
    let list = elsewhere(&["user", "list", "--json"]).succeeded().json();
    assert_eq!(list["items"][0]["name"], "admin");
    sandbox.run(&["user", "list", "--server", &url]).succeeded();

    // A new password ends the login.
    sandbox.run(&["user", "passwd", "admin"]).succeeded();
    let outcome = elsewhere(&["user", "list"]).exited(4);
    assert!(outcome.error().1.contains("portcullis login"), "{outcome:?}");
    elsewhere(&["logout"]).succeeded();
    elsewhere(&["user", "list"]).exited(1);
    elsewhere(&["logout"]).succeeded();
}

#[test]
fn without_a_login_the_server_says_no() {
    let sandbox = Sandbox::new();
    let server = sandbox.serve();
    let url = format!("http://{}", server.address("admin"));
    let outcome = sandbox.run(&["user", "list", "--server", &url]).exited(4);
    assert_eq!(outcome.error().1, format!("portcullis login {url}"));
    assert_eq!(sandbox.run(&["user", "list", "--server", &url, "--json"]).exited(4).code(), "not_logged_in");
    let mut command = sandbox.command(&["user", "list", "--server", &url]);
    crate::harness::Outcome::of(command.env("PORTCULLIS_TOKEN", "no.such.token"), "").exited(4);
    // The main listener is not the admin API.
    let main = format!("http://{}", server.address("main"));
    let outcome = sandbox.run(&["user", "list", "--server", &main]).exited(1);
    assert!(outcome.error().1.contains("admin"), "{outcome:?}");
}

#[test]
fn a_user_who_is_no_administrator_is_denied() {
    let sandbox = Sandbox::new();
    let server = sandbox.serve();
    let url = format!("http://{}", server.address("admin"));
    sandbox.run_with_stdin(&["user", "add", "alice", "--password-stdin"], "alice's own secret").succeeded();
    let arguments = ["login", &url, "--username", "alice", "--password-stdin", "--json"];
    assert_eq!(sandbox.run_with_stdin(&arguments, "alice's own secret").exited(4).code(), "denied");
}

#[test]
fn a_token_comes_from_the_environment_or_a_file() {
    let sandbox = Sandbox::new();
    let server = sandbox.serve();
    let url = format!("http://{}", server.address("admin"));
    let good = sandbox.write("good", &format!("{}\n", server.session_token()));
    let mut command = sandbox.command(&["user", "list", "--server", &url]);
    crate::harness::Outcome::of(command.env("PORTCULLIS_TOKEN_FILE", &good), "").succeeded();
    let mut command = sandbox.command(&["user", "list", "--server", &url]);
    crate::harness::Outcome::of(command.env("PORTCULLIS_TOKEN", server.session_token()), "").succeeded();

    sandbox.run_with_stdin(&["login", &url, "-u", "admin", "--password-stdin"], PASSWORD).succeeded();
    let stored: Value = serde_json::from_str(&read(&sandbox.path(FILE))).unwrap();
    // A refresh token is not a token: it opens nothing but a session.
    let refresh = stored["logins"][0]["refresh_token"].as_str().unwrap();
    let file = sandbox.write("token", refresh);
    let mut command = sandbox.command(&["user", "list", "--server", &url]);
    crate::harness::Outcome::of(command.env("PORTCULLIS_TOKEN_FILE", &file), "").exited(4);
    let mut command = sandbox.command(&["user", "list", "--server", &url]);
    let outcome = crate::harness::Outcome::of(command.env("PORTCULLIS_TOKEN_FILE", "absent"), "").exited(1);
    assert!(outcome.error().0.contains("absent"), "{outcome:?}");
}

#[test]
fn a_login_file_that_others_can_read_is_refused() {
    use std::os::unix::fs::PermissionsExt;

    let sandbox = Sandbox::new();
    let server = sandbox.serve();
    let url = format!("http://{}", server.address("admin"));
    sandbox.run_with_stdin(&["login", &url, "-u", "admin", "--password-stdin"], PASSWORD).succeeded();
    std::fs::set_permissions(sandbox.path(FILE), std::fs::Permissions::from_mode(0o644)).unwrap();
    let outcome = sandbox.run(&["user", "list", "--server", &url]).exited(6);
    assert!(outcome.error().1.starts_with("chmod 600 "), "{outcome:?}");
}
