//! What is said about help and about wrong usage.

use std::io::Read;
use std::process::Stdio;

use crate::harness::Sandbox;

#[test]
fn without_arguments_it_prints_help() {
    let sandbox = Sandbox::new();
    let outcome = sandbox.run(&[]).succeeded();
    for command in
        ["serve", "init", "user", "robot", "grant", "event", "repo", "tag", "gc", "backup", "restore", "fsck"]
    {
        assert!(outcome.stdout.contains(&format!("\n  {command}")), "{command}: {}", outcome.stdout);
    }
    assert!(outcome.stdout.contains("Examples:"), "{}", outcome.stdout);
    assert_eq!(outcome.stderr, "");
    assert_eq!(sandbox.run(&["--help"]).succeeded().stdout, outcome.stdout);
}

#[test]
fn a_group_without_a_command_prints_its_help_and_is_wrong_usage() {
    let outcome = Sandbox::new().run(&["user"]).exited(2);
    assert!(outcome.stderr.contains("Commands:") && outcome.stderr.contains("passwd"), "{outcome:?}");
}

#[test]
fn wrong_usage_ends_with_2_and_names_the_next_step() {
    let sandbox = Sandbox::new();
    let outcome = sandbox.run(&["usr", "list"]).exited(2);
    let (message, help) = outcome.error();
    assert!(message.contains("usr") && help.contains("user"), "{outcome:?}");
    for arguments in [
        &["user", "add"] as &[&str],
        &["grant", "remove"],
        &["grant", "remove", "1", "--subject", "user:alice"],
        &["robot", "add", "a", "b", "--expires", "soon"],
        &["tag", "list", "a", "--limit", "0"],
        &["serve", "--server", "https://registry.example.com"],
        &["--server", "ftp://registry.example.com", "user", "list"],
        &["--server", "https://registry.example.com/api", "user", "list"],
        &["man", "nothing"],
        &["completions", "tcsh-of-old"],
    ] {
        let outcome = sandbox.run(arguments).exited(2);
        assert!(!outcome.error().0.is_empty(), "{outcome:?}");
        assert_eq!(outcome.stdout, "");
        let mut json = arguments.to_vec();
        json.push("--json");
        assert_eq!(sandbox.run(&json).exited(2).code(), "usage");
    }
}

#[test]
fn version_is_the_same_everywhere() {
    let sandbox = Sandbox::new();
    let version = env!("CARGO_PKG_VERSION");
    assert_eq!(sandbox.run(&["version"]).succeeded().stdout, format!("portcullis {version}\n"));
    assert_eq!(sandbox.run(&["--version"]).succeeded().stdout, format!("portcullis {version}\n"));
    assert_eq!(sandbox.json(&["version"])["version"], version);
}

#[test]
fn completions_and_manual_pages() {
    let sandbox = Sandbox::new();
    for (shell, word) in [("bash", "complete"), ("zsh", "#compdef"), ("fish", "complete -c")] {
        assert!(sandbox.run(&["completions", shell]).succeeded().stdout.contains(word), "{shell}");
    }
    assert!(sandbox.run(&["man"]).succeeded().stdout.contains(".TH"));
    assert!(sandbox.run(&["man", "grant", "add"]).succeeded().stdout.contains("payments/**"));
    sandbox.run(&["man", "--dir", "pages"]).succeeded();
    assert!(sandbox.path("pages/portcullis.1").exists() && sandbox.path("pages/portcullis-grant-add.1").exists());
}

#[test]
fn without_a_server_the_error_says_how_to_get_one() {
    let sandbox = Sandbox::new();
    for arguments in [&["user", "list"] as &[&str], &["gc", "plan"], &["event", "list"], &["backup", "there"]] {
        let outcome = sandbox.run(arguments).exited(1);
        let (message, help) = outcome.error();
        assert!(message.contains("admin.sock") && help.contains("portcullis serve"), "{outcome:?}");
    }
    assert_eq!(sandbox.run(&["user", "list", "--json"]).exited(1).code(), "no_server");
    let outcome = sandbox.run(&["user", "list", "--server", "http://127.0.0.1:1"]).exited(1);
    assert!(outcome.error().0.contains("http://127.0.0.1:1: "), "{outcome:?}");
}

#[test]
fn credentials_are_not_sent_in_the_clear() {
    let sandbox = Sandbox::new();
    let outcome = sandbox.run(&["user", "list", "--server", "http://192.0.2.1:5001"]).exited(6);
    assert!(outcome.error().1.contains("https://"), "{outcome:?}");
}

#[test]
fn a_reader_who_goes_away_is_no_error() {
    let sandbox = Sandbox::new();
    let mut child = sandbox.command(&["man", "--markdown"]).stdout(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let mut stderr = String::new();
    child.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
    assert_eq!((child.wait().unwrap().code(), stderr.as_str()), (Some(0), ""));
}
