//! What the server gives up before it serves, tried from inside.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, chown, symlink};
use std::os::unix::process::CommandExt as _;

use serde_json::Value;

use crate::harness::{Outcome, Sandbox};

/// Somebody who is neither root nor anybody else.
const SOMEBODY: u32 = 65532;

fn wrong(report: &Value) -> Vec<&str> {
    let attempts = report["attempts"].as_array().unwrap();
    let wrong = attempts.iter().filter(|attempt| attempt["needed"] != attempt["worked"]);
    wrong.map(|attempt| attempt["what"].as_str().unwrap()).collect()
}

// security: M-05
#[test]
fn an_intruder_is_left_with_the_data_directory() {
    let sandbox = Sandbox::new();
    let report = sandbox.json(&["sandbox-probe"]);
    assert_eq!((wrong(&report), &report["files"], &report["system_calls"]), (vec![], &"full".into(), &"full".into()));
    let attempts = report["attempts"].as_array().unwrap();
    assert!(attempts.len() > 30 && attempts.iter().any(|attempt| attempt["needed"] == true), "{report}");

    // The probe can tell: without the sandbox it finds what works then.
    let outcome = sandbox.run(&["sandbox-probe", "--json", "--config", &config(&sandbox, "mode = 'off'")]).exited(3);
    let found = outcome.json();
    for what in ["read /etc/passwd", "run a program", "connect to this machine", "use io_uring"] {
        assert!(wrong(&found).contains(&what), "{what}: {found}");
    }
}

fn config(sandbox: &Sandbox, lines: &str) -> String {
    sandbox.write("portcullis.toml", &format!("[sandbox]\n{lines}\n")).display().to_string()
}

#[test]
fn root_becomes_the_owner_of_the_data_directory() {
    if !rustix::process::getuid().is_root() {
        panic!("this test has to start the server as root");
    }
    let sandbox = Sandbox::new();
    fs::set_permissions(sandbox.path("."), fs::Permissions::from_mode(0o755)).unwrap();
    fs::create_dir(sandbox.data()).unwrap();
    fs::set_permissions(sandbox.data(), fs::Permissions::from_mode(0o700)).unwrap();
    chown(sandbox.data(), Some(SOMEBODY), Some(SOMEBODY)).unwrap();
    let server = sandbox.serve();
    let status = fs::read_to_string(format!("/proc/{}/status", server.child.id())).unwrap();
    let line = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        line.split_whitespace().map(str::to_owned).collect::<Vec<_>>()
    };
    let ids = vec![SOMEBODY.to_string(); 4];
    assert_eq!((line("Uid:"), line("Gid:"), line("Groups:")), (ids.clone(), ids, vec![]));
    for set in ["CapInh:", "CapPrm:", "CapEff:", "CapBnd:", "CapAmb:"] {
        assert_eq!(line(set), ["0000000000000000"], "{set}");
    }
    assert_eq!((line("NoNewPrivs:"), line("Seccomp:")), (vec!["1".to_owned()], vec!["2".to_owned()]));
    let limits = fs::read_to_string(format!("/proc/{}/limits", server.child.id())).unwrap();
    assert!(limits.lines().any(|line| line.starts_with("Max core file size        0 ")), "{limits}");
    server.push("team/app", "v1", b"layer");
    assert_eq!(server.stop(), 0);
}

#[test]
fn anybody_else_is_confined_just_as_much() {
    let sandbox = Sandbox::new();
    fs::set_permissions(sandbox.path("."), fs::Permissions::from_mode(0o777)).unwrap();
    let mut command = sandbox.command(&["sandbox-probe", "--json"]);
    command.uid(SOMEBODY).gid(SOMEBODY);
    let report = Outcome::of(&mut command, "").succeeded().json();
    assert_eq!((wrong(&report), report["user"].as_str()), (vec![], Some("65532")));
}

#[test]
fn a_renewed_certificate_is_read_through_its_link() {
    let sandbox = Sandbox::new();
    // As Kubernetes mounts a secret: server.crt → ..data/server.crt, ..data → a directory that changes.
    for (place, host) in [("one", "localhost"), ("two", "registry.example.com")] {
        let file = sandbox.path(place).join("portcullis.toml").display().to_string();
        fs::create_dir(sandbox.path(place)).unwrap();
        let data = sandbox.path(&format!("{place}-data")).display().to_string();
        sandbox.run(&["init", "--hostname", host, "--config", &file, "--data-dir", &data]).succeeded();
    }
    let found = |place: &str, name: &str| {
        let mut folders = vec![sandbox.path(place), sandbox.path(&format!("{place}-data"))];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
                match entry.path() {
                    path if path.is_dir() => folders.push(path),
                    path if path.file_name().is_some_and(|file| file == name) => return path,
                    _ => {}
                }
            }
        }
        panic!("{place} has no {name}");
    };
    let mount = sandbox.path("mount");
    for place in ["one", "two"] {
        fs::create_dir_all(mount.join(format!("..{place}"))).unwrap();
        for name in ["server.crt", "server.key"] {
            fs::copy(found(place, name), mount.join(format!("..{place}/{name}"))).unwrap();
        }
    }
    symlink("..one", mount.join("..data")).unwrap();
    for name in ["server.crt", "server.key"] {
        symlink(format!("..data/{name}"), mount.join(name)).unwrap();
    }
    let text = format!(
        "[server.tls]\ncertificate = '{0}/server.crt'\nkey = '{0}/server.key'\n[sandbox]\nmode = 'required'\n",
        mount.display()
    );
    let config = sandbox.write("portcullis.toml", &text).display().to_string();
    let server = sandbox.serve_with(&["--config", &config]);
    symlink("..two", mount.join("..next")).unwrap();
    fs::rename(mount.join("..next"), mount.join("..data")).unwrap();
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
    while !server.log().contains("certificate") || !server.log().contains("took up") {
        assert!(std::time::Instant::now() < deadline, "{}", server.log());
        assert!(!server.log().contains("cannot be"), "{}", server.log());
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
}

#[test]
fn a_backup_over_the_network_goes_where_the_server_may_write() {
    let sandbox = Sandbox::new();
    let allowed = sandbox.path("backups");
    fs::create_dir(&allowed).unwrap();
    let file = config(&sandbox, &format!("write = ['{}']", allowed.display()));
    let server = sandbox.serve_with(&["--config", &file]);
    server.push("team/app", "v1", &vec![1; 50_000]);
    let url = format!("http://{}", server.address("admin"));
    let login = sandbox.run_with_stdin(
        &["login", &url, "--username", "admin", "--password-stdin"],
        &format!("{}\n", crate::harness::PASSWORD),
    );
    login.succeeded();
    let over_network = |directory: &std::path::Path| {
        sandbox.run(&["backup", &directory.display().to_string(), "--verify", "--json", "--server", &url])
    };
    assert_eq!(over_network(&sandbox.path("elsewhere")).exited(2).code(), "invalid_directory");
    assert_eq!(over_network(&allowed.join("one")).succeeded().json()["verified"], true);
    assert!(allowed.join("one/backup.json").exists());
    // On the same machine the command takes it anywhere, and nothing is left in the data directory.
    sandbox.run(&["backup", "elsewhere", "--verify"]).succeeded();
    assert_eq!(fs::read_dir(sandbox.data().join("staging")).unwrap().count(), 0);
}
