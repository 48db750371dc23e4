//! `strace`, which makes system calls of a running server fail or end it.

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use testkit::Server;

/// Attaches `strace` to the server, to inject this at these calls (see `--inject` in strace(1)), and returns when it has.
pub fn inject(server: &Server, calls: &str, what: &str) -> Result<Child> {
    let (trace, inject) = (format!("trace={calls}"), format!("inject={calls}:{what}"));
    let child = Command::new("strace")
        .args(["-f", "-q", "-o", "/dev/null", "-e", &trace, "-e", &inject, "-p", &server.id().to_string()])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .context("cannot start strace")?;
    // strace says nothing when it has attached itself; the kernel does.
    let (status, start) = (format!("/proc/{}/status", server.id()), Instant::now());
    while start.elapsed() < Duration::from_secs(2) {
        let text = std::fs::read_to_string(&status).unwrap_or_default();
        if text.lines().any(|line| line.starts_with("TracerPid:") && !line.ends_with("\t0")) {
            break;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    Ok(child)
}
