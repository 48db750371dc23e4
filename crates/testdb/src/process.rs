//! Child processes that refuse to run as root.

use std::fs;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Signal, geteuid, kill_process};

/// The user under whom the servers run: `postgres` of the Debian package when this is root, else whoever this is.
#[derive(Clone, Copy, Debug)]
pub struct Account(Option<(u32, u32)>);

impl Account {
    pub fn find() -> Result<Self> {
        if !geteuid().is_root() {
            return Ok(Self(None));
        }
        let users = fs::read_to_string("/etc/passwd")?;
        for name in ["postgres", "nobody"] {
            let fields = users.lines().map(|line| line.split(':').collect::<Vec<_>>());
            if let Some(user) = fields.into_iter().find(|fields| fields.first() == Some(&name) && fields.len() > 3) {
                return Ok(Self(Some((user[2].parse()?, user[3].parse()?))));
            }
        }
        bail!("neither postgres nor nobody is a user here, and PostgreSQL does not run as root")
    }

    /// A command that runs as this user, without input.
    pub fn command(self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new(program);
        // What lies in the home of root is nothing to this user.
        command.stdin(Stdio::null()).current_dir("/").env("HOME", "/nonexistent");
        if let Some((user, group)) = self.0 {
            // The other groups of root are dropped with it.
            command.uid(user).gid(group);
        }
        command
    }

    /// Makes a file or a folder this user's.
    pub fn own(self, path: &Path) -> Result<()> {
        match self.0 {
            Some((user, group)) => std::os::unix::fs::chown(path, Some(user), Some(group))
                .with_context(|| format!("cannot give {} away", path.display())),
            None => Ok(()),
        }
    }
}

/// Runs a command that must succeed; what it printed.
pub fn output(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| format!("cannot start {command:?}"))?;
    ensure!(
        output.status.success(),
        "{command:?}: {}\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// A port that nobody listens on at present.
pub fn free_port() -> Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

/// Waits until somebody accepts connections there; fails when the process ends before, with the end of its log.
pub fn wait_until_listening(child: &mut Child, address: SocketAddr, log: &Path) -> Result<()> {
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(30) {
        if TcpStream::connect_timeout(&address, Duration::from_secs(1)).is_ok() {
            return Ok(());
        }
        if let Some(status) = child.try_wait()? {
            bail!("a server of the tests ended: {status}\n{}", tail(log));
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    bail!("nobody listens on {address}\n{}", tail(log))
}

/// The last lines of a log.
pub fn tail(log: &Path) -> String {
    let text = fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(20)..].join("\n")
}

/// Sends a signal; a process that is gone already is fine.
pub fn signal(id: u32, signal: Signal) -> Result<()> {
    let pid = i32::try_from(id).ok().and_then(Pid::from_raw).context("process id")?;
    match kill_process(pid, signal) {
        Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Waits at most so long for the end of a process.
pub fn wait(child: &mut Child, time: Duration) -> Result<Option<ExitStatus>> {
    let start = Instant::now();
    loop {
        match child.try_wait()? {
            None if start.elapsed() < time => std::thread::sleep(Duration::from_millis(5)),
            ended => return Ok(ended),
        }
    }
}
