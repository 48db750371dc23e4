//! What is different on a terminal: the first password, questions, passwords that are typed.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use rustix::fs::OFlags;
use rustix::process::Signal;
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};

use crate::harness::{PASSWORD, Sandbox, read, signal, wait};

/// A process on a terminal of its own, and what the terminal shows.
struct Terminal {
    child: Child,
    keyboard: File,
    screen: mpsc::Receiver<Vec<u8>>,
    shown: String,
}

impl Terminal {
    fn start(command: &mut Command) -> Self {
        let controller = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&controller).unwrap();
        unlockpt(&controller).unwrap();
        let name = ptsname(&controller, Vec::new()).unwrap();
        let end = || -> OwnedFd {
            rustix::fs::open(&name, OFlags::RDWR | OFlags::NOCTTY, rustix::fs::Mode::empty()).unwrap()
        };
        let child = command.stdin(Stdio::from(end())).stdout(Stdio::from(end())).stderr(Stdio::from(end()));
        let child = child.spawn().unwrap();
        // The command keeps its copies of the terminal open; it is done with when the child is.
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let keyboard = File::from(controller);
        let mut source = keyboard.try_clone().unwrap();
        let (sender, screen) = mpsc::channel();
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(count @ 1..) = source.read(&mut buffer) {
                _ = sender.send(buffer[..count].to_vec());
            }
        });
        Self { child, keyboard, screen, shown: String::new() }
    }

    fn wait_for(&mut self, text: &str) {
        let deadline = Instant::now() + Duration::from_secs(60);
        while !self.shown.contains(text) {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.screen.recv_timeout(left) {
                Ok(bytes) => self.shown.push_str(&String::from_utf8_lossy(&bytes)),
                Err(_) => panic!("{text} is not in {}", self.shown),
            }
        }
    }

    fn enter(&mut self, text: &str) {
        self.keyboard.write_all(format!("{text}\n").as_bytes()).unwrap();
    }

    fn exit(&mut self) -> i32 {
        let exit = wait(&mut self.child, Duration::from_secs(30));
        while let Ok(bytes) = self.screen.recv_timeout(Duration::from_millis(200)) {
            self.shown.push_str(&String::from_utf8_lossy(&bytes));
        }
        exit
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        _ = self.child.kill();
        _ = self.child.wait();
    }
}

#[test]
fn the_first_start_prints_the_password_once() {
    let sandbox = Sandbox::new();
    let arguments = ["serve", "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"];
    let mut terminal = Terminal::start(&mut sandbox.command(&arguments));
    terminal.wait_for("ready");
    let line = terminal.shown.lines().find(|l| l.starts_with("password for admin: ")).unwrap().trim_end().to_owned();
    let password = line.strip_prefix("password for admin: ").unwrap();
    assert!(password.len() >= 16 && !password.contains(' '), "{}", terminal.shown);
    assert!(terminal.shown.contains("docker login localhost:"), "{}", terminal.shown);
    assert!(!sandbox.data().join("initial-password").exists());
    let addresses: serde_json::Value = serde_json::from_str(&read(&sandbox.data().join("addresses.json"))).unwrap();
    let url = format!("http://{}", addresses["admin"].as_str().unwrap());
    sandbox.run_with_stdin(&["login", &url, "-u", "admin", "--password-stdin"], password).succeeded();
    signal(&terminal.child, Signal::TERM);
    assert_eq!(terminal.exit(), 0, "{}", terminal.shown);

    let mut again = Terminal::start(&mut sandbox.command(&arguments));
    again.wait_for("ready");
    assert!(!again.shown.contains("password for"), "{}", again.shown);
}

#[test]
fn a_destructive_command_asks() {
    let sandbox = Sandbox::new();
    let _server = sandbox.serve();
    sandbox.run(&["user", "add", "alice"]).succeeded();
    let arguments = ["user", "remove", "alice"];
    let mut terminal = Terminal::start(&mut sandbox.command(&arguments));
    terminal.wait_for("Remove user alice");
    terminal.enter("n");
    assert_eq!(terminal.exit(), 1);
    sandbox.run(&["user", "show", "alice"]).succeeded();
    let mut terminal = Terminal::start(&mut sandbox.command(&arguments));
    terminal.wait_for("[y/N]");
    terminal.enter("y");
    assert_eq!(terminal.exit(), 0);
    sandbox.run(&["user", "show", "alice"]).exited(1);
}

#[test]
fn a_typed_password_is_not_shown() {
    let sandbox = Sandbox::new();
    let server = sandbox.serve();
    let url = format!("http://{}", server.address("admin"));
    let mut terminal = Terminal::start(&mut sandbox.command(&["login", &url]));
    terminal.wait_for("username: ");
    terminal.enter("admin");
    terminal.wait_for("password: ");
    terminal.enter(PASSWORD);
    assert_eq!(terminal.exit(), 0, "{}", terminal.shown);
    assert!(terminal.shown.contains("admin") && !terminal.shown.contains(PASSWORD), "{}", terminal.shown);
    sandbox.run(&["user", "list", "--server", &url]).succeeded();
}

#[test]
fn colours_are_for_terminals_that_want_them() {
    let sandbox = Sandbox::new();
    let arguments = ["user", "list"];
    let mut terminal = Terminal::start(&mut sandbox.command(&arguments));
    assert_eq!(terminal.exit(), 1);
    assert!(terminal.shown.contains("\x1b[1;31merror:"), "{}", terminal.shown);
    let mut terminal = Terminal::start(&mut sandbox.command(&["user", "list", "--no-color"]));
    assert_eq!(terminal.exit(), 1);
    assert!(terminal.shown.contains("error:") && !terminal.shown.contains('\x1b'), "{}", terminal.shown);
    let mut terminal = Terminal::start(sandbox.command(&arguments).env("NO_COLOR", "1"));
    assert_eq!(terminal.exit(), 1);
    assert!(!terminal.shown.contains('\x1b'), "{}", terminal.shown);
    assert!(!sandbox.run(&arguments).stderr.contains('\x1b'));
}
