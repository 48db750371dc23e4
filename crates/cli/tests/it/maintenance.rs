//! Collection, backup, restore, checks.

use std::fs;
use std::path::PathBuf;

use serde_json::Value;

use crate::harness::{Outcome, Sandbox, mode};

fn blob_files(sandbox: &Sandbox) -> Vec<PathBuf> {
    let folders = fs::read_dir(sandbox.data().join("blobs")).unwrap().map(|e| e.unwrap().path());
    folders.flat_map(|f| fs::read_dir(f).unwrap().map(|e| e.unwrap().path())).collect()
}

#[test]
fn collection() {
    let sandbox = Sandbox::new();
    let server = sandbox.serve();
    let digest = server.push("team/app", "v1", &vec![1; 50_000]);
    server.push("team/app", "v2", &vec![2; 60_000]);
    assert_eq!(server.request("DELETE", &format!("/v2/team/app/manifests/{digest}"), "text/plain", b""), 202);

    let fields = ["uploads", "manifests", "links", "blobs", "files", "bytes"];
    let plan = sandbox.json(&["gc", "plan"]);
    assert_eq!(plan.as_object().unwrap().keys().collect::<Vec<_>>(), fields);
    assert_eq!(plan["blobs"], 0, "within its grace nothing goes: {plan}");
    assert_eq!(sandbox.json(&["gc", "plan", "--grace", "0"])["manifests"], 1);
    sandbox.run(&["repo", "delete", "team/app", "--yes"]).succeeded();
    assert_eq!(blob_files(&sandbox).len(), 2);

    // What is in the deleted repository is planned, and goes in one run.
    let planned = sandbox.json(&["gc", "plan", "--grace", "0"]);
    assert!(planned["bytes"].as_u64().unwrap() >= 110_000, "{planned}");

    let job = sandbox.json(&["gc", "run"]);
    assert_eq!(job["kind"], "gc");
    // The run before may still be at work: this one waits for it.
    let report = sandbox.json(&["gc", "run", "--wait", "--grace", "0"]);
    assert!(report["bytes"].as_u64().unwrap() >= 110_000 && report["duration_ms"].is_u64(), "{report}");
    assert_eq!(blob_files(&sandbox).len(), 0);
    let outcome = sandbox.run(&["gc", "run", "--wait", "--grace", "0s"]).succeeded();
    assert!(outcome.stdout.contains("took"), "{outcome:?}");
}

#[test]
fn backup_and_restore() {
    let sandbox = Sandbox::new();
    let server = sandbox.serve();
    let digest = server.push("team/app", "v1", &vec![1; 50_000]);
    sandbox.run(&["user", "add", "alice"]).succeeded();
    let report = sandbox.json(&["backup", "copy", "--verify"]);
    assert_eq!((&report["verified"], report["findings"].as_array().unwrap().len()), (&true.into(), 0), "{report}");
    assert_eq!(mode(&sandbox.path("copy")), 0o700);
    // Taken already.
    assert_eq!(sandbox.run(&["backup", "copy", "--json"]).exited(2).code(), "invalid_directory");

    // A copy in what is copied.
    for inside in ["data", "data/copy", "data/blobs/copy", "copy/../data/copy"] {
        let outcome = sandbox.run(&["backup", inside, "--json"]).exited(2);
        assert_eq!(outcome.code(), "invalid_directory", "{inside}");
    }
    let mut from_inside = sandbox.command(&["backup", "copy"]);
    let outcome = Outcome::of(from_inside.current_dir(sandbox.data()), "").exited(2);
    assert!(outcome.error().0.contains("data directory"), "{outcome:?}");
    assert!(!sandbox.data().join("copy").exists());

    // Where it runs, or where something is, nothing is restored.
    sandbox.run(&["restore", "copy"]).exited(7);
    server.stop();
    sandbox.run(&["restore", "copy"]).exited(1);
    let _old = sandbox.another_database();
    let elsewhere = sandbox.path("elsewhere").display().to_string();
    sandbox.run(&["restore", "absent", "--data-dir", &elsewhere]).exited(1);
    sandbox.run(&["restore", "copy", "--data-dir", &elsewhere]).succeeded();
    fs::rename(sandbox.data(), sandbox.path("old")).unwrap();
    fs::rename(&elsewhere, sandbox.data()).unwrap();
    let _server = sandbox.serve();
    assert_eq!(sandbox.json(&["tag", "list", "team/app"])["items"][0]["digest"], digest.as_str());
    assert_eq!(sandbox.json(&["user", "show", "alice"])["name"], "alice");
    assert_eq!(sandbox.json(&["fsck"])["findings"], serde_json::json!([]));
}

#[test]
fn a_damaged_backup_is_found() {
    let sandbox = Sandbox::new();
    let server = sandbox.serve();
    server.push("team/app", "v1", &vec![1; 50_000]);
    sandbox.run(&["backup", "copy"]).succeeded();
    server.stop();
    // The copy may be a hard link: damage a file of its own in the same place.
    let mut open = vec![sandbox.path("copy")];
    while let Some(directory) = open.pop() {
        for entry in fs::read_dir(directory).unwrap().map(Result::unwrap) {
            if entry.path().is_dir() {
                open.push(entry.path());
            } else if entry.metadata().unwrap().len() == 50_000 {
                fs::remove_file(entry.path()).unwrap();
                fs::write(entry.path(), vec![2; 50_000]).unwrap();
            }
        }
    }
    let _old = sandbox.another_database();
    let elsewhere = sandbox.path("elsewhere").display().to_string();
    let outcome = sandbox.run(&["restore", "copy", "--data-dir", &elsewhere]);
    assert!(outcome.exit == 1 || outcome.exit == 3, "{outcome:?}");
    assert!(!PathBuf::from(&elsewhere).exists(), "a restore that failed removes what it made");
}

#[test]
fn checks_with_the_server_running_and_stopped() {
    let sandbox = Sandbox::new();
    let server = sandbox.serve();
    server.push("team/app", "v1", &vec![1; 50_000]);
    let shape = |report: &Value| {
        assert_eq!(
            report.as_object().unwrap().keys().collect::<Vec<_>>(),
            ["checked", "findings", "omitted", "duration_ms"]
        );
        let checked = report["checked"].as_object().unwrap();
        assert_eq!(checked.keys().collect::<Vec<_>>(), ["blobs", "manifests", "tags", "links"]);
        assert_eq!((&checked["blobs"], &checked["tags"]), (&2.into(), &1.into()), "{report}");
    };
    let report = sandbox.run(&["fsck", "--json"]).succeeded().json();
    shape(&report);
    assert_eq!(report["findings"], serde_json::json!([]));

    fs::write(&blob_files(&sandbox)[0], vec![2; 50_000]).unwrap();
    let running = sandbox.run(&["fsck", "--json"]).exited(3).json();
    server.stop();
    let stopped = sandbox.run(&["fsck", "--json"]).exited(3).json();
    for report in [running, stopped] {
        shape(&report);
        let finding = &report["findings"][0];
        assert_eq!((finding["severity"].as_str(), finding["code"].is_string()), (Some("error"), true), "{report}");
    }
    let outcome = sandbox.run(&["fsck"]).exited(3);
    assert!(outcome.stdout.starts_with("error: "), "{outcome:?}");
    // What no row knows is a note, and no reason for 3.
    let clean = Sandbox::new();
    clean.serve().stop();
    fs::write(clean.data().join("notes.txt"), "mine").unwrap();
    let outcome = clean.run(&["fsck", "--json"]).succeeded();
    assert_eq!(outcome.json()["findings"][0]["severity"], "note", "{outcome:?}");
    assert_eq!(Sandbox::new().run(&["fsck", "--json"]).exited(1).stdout, "");
}
