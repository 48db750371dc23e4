//! What a confined process can still do: tried, not assumed.

use std::fs::{self, File};
use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::unix::net::UnixStream;
use std::process::Command;
use std::time::Duration;

use rustix::fs::{CWD, FileType, Mode, mknodat};
use rustix::io::Errno;
use rustix::mount::{MountFlags, mount};
use rustix::net::{AddressFamily, SocketType};
use rustix::process::{Pid, Signal, chroot, kill_process};
use serde::Serialize;

use crate::config::Config;

/// One thing that was tried.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Attempt {
    /// What, in words.
    pub what: String,
    /// Whether the server needs it.
    pub needed: bool,
    /// Whether it worked.
    pub worked: bool,
    /// What the system said, where it did not.
    pub error: Option<String>,
}

impl Attempt {
    /// Whether it ended as it should.
    pub fn is_right(&self) -> bool {
        self.needed == self.worked
    }
}

/// Tries, from inside the process, what an intruder would and what the server has to. Call it after [`super::confine`].
pub fn probe(config: &Config) -> Vec<Attempt> {
    let mut attempts = Vec::new();
    files(config, &mut attempts);
    network(config, &mut attempts);
    processes(&mut attempts);
    kernel(config, &mut attempts);
    attempts
}

fn attempt(attempts: &mut Vec<Attempt>, needed: bool, what: impl Into<String>, tried: io::Result<()>) {
    let error = tried.err().map(|error| error.to_string());
    attempts.push(Attempt { what: what.into(), needed, worked: error.is_none(), error });
}

fn files(config: &Config, to: &mut Vec<Attempt>) {
    let data = &config.data_dir;
    let own = data.join("sandbox-probe");
    attempt(to, true, "write a file in the data directory", fs::write(&own, b"probe"));
    attempt(to, true, "read it", fs::read(&own).map(drop));
    attempt(to, true, "rename it", fs::rename(&own, data.join("sandbox-probe.2")));
    attempt(to, true, "remove it", fs::remove_file(data.join("sandbox-probe.2")));
    attempt(to, true, "read random numbers", File::open("/dev/urandom").map(drop));
    for file in ["/etc/passwd", "/etc/shadow", "/proc/self/environ", "/proc/1/cmdline", "/etc/hostname"] {
        attempt(to, false, format!("read {file}"), File::open(file).map(drop));
    }
    attempt(to, false, "list /", fs::read_dir("/").map(drop));
    let outside = std::env::temp_dir().join(format!("portcullis-probe-{}", std::process::id()));
    attempt(to, false, "write to the directory for temporary files", fs::write(&outside, b"probe"));
    let _ = fs::remove_file(&outside);
    let link = data.join("sandbox-probe.link");
    let through = std::os::unix::fs::symlink("/etc/passwd", &link).and_then(|()| File::open(&link).map(drop));
    let _ = fs::remove_file(&link);
    attempt(to, false, "read a file outside through a symbolic link", through);
}

fn network(config: &Config, to: &mut Vec<Attempt>) {
    let free = SocketAddr::from(([127, 0, 0, 1], 0));
    let main = config.server.listen;
    if main.port() == 0 {
        attempt(to, true, "listen on a free port", TcpListener::bind(main).map(drop));
    } else {
        attempt(to, false, "listen on another port", TcpListener::bind(free).map(drop));
    }
    attempt(to, false, "listen on port 47", TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 47))).map(drop));
    // Nothing listens there: whoever may connect is told so.
    let refused = |error: io::Error| match error.kind() {
        io::ErrorKind::ConnectionRefused | io::ErrorKind::TimedOut => Ok(()),
        _ => Err(error),
    };
    let connect = |address| TcpStream::connect_timeout(&address, Duration::from_millis(200)).map(drop).or_else(refused);
    attempt(to, false, "connect to this machine", connect(SocketAddr::from(([127, 0, 0, 1], 9))));
    let packet = rustix::net::socket(AddressFamily::PACKET, SocketType::RAW, None);
    attempt(to, false, "open a socket for packets", packet.map(drop).map_err(io::Error::from));
    let netlink = rustix::net::socket(AddressFamily::NETLINK, SocketType::DGRAM, None);
    attempt(to, false, "talk to the kernel's own services", netlink.map(drop).map_err(io::Error::from));
    let raw = rustix::net::socket(AddressFamily::INET, SocketType::RAW, None);
    attempt(to, false, "open a raw socket", raw.map(drop).map_err(io::Error::from));
    attempt(to, false, "open a socket of UDP", UdpSocket::bind(free).map(drop));
    attempt(to, true, "open a socket with a path", UnixStream::pair().map(drop));
}

fn processes(to: &mut Vec<Attempt>) {
    attempt(to, false, "run a program", Command::new("/bin/true").status().map(drop));
    let thread = std::thread::Builder::new().spawn(|| Command::new("/bin/true").status().map(drop));
    let ran = thread.and_then(|thread| thread.join().unwrap_or_else(|_| Err(io::Error::other("it panicked"))));
    attempt(to, false, "run a program from a new thread", ran);
    attempt(to, true, "start a thread", std::thread::Builder::new().spawn(|| ()).map(drop));
    let parent = rustix::process::getppid().unwrap_or(Pid::INIT);
    attempt(to, false, "signal another process", kill_process(parent, Signal::CONT).map_err(io::Error::from));
    attempt(to, false, "trace a process", call(libc::SYS_ptrace, [0x7fff, parent.as_raw_nonzero().get().into(), 0, 0]));
}

fn kernel(config: &Config, to: &mut Vec<Attempt>) {
    let ok = |result: rustix::io::Result<()>| result.map_err(io::Error::from);
    let data = config.data_dir.as_path();
    attempt(to, false, "mount a file system", ok(mount("none", data, "tmpfs", MountFlags::empty(), None)));
    attempt(to, false, "change the root", ok(chroot(data)));
    attempt(to, false, "make a namespace of users", call(libc::SYS_unshare, [i64::from(libc::CLONE_NEWUSER), 0, 0, 0]));
    let device = mknodat(CWD, data.join("sandbox-probe.device"), FileType::CharacterDevice, Mode::RUSR, 0x103);
    attempt(to, false, "make a device", ok(device));
    let _ = fs::remove_file(data.join("sandbox-probe.device"));
    for (what, number, arguments) in [
        ("load a program into the kernel", libc::SYS_bpf, [0, 0, 0, 0]),
        ("use io_uring", libc::SYS_io_uring_setup, [0, 0, 0, 0]),
        ("use userfaultfd", libc::SYS_userfaultfd, [0, 0, 0, 0]),
        ("use the kernel's keys", libc::SYS_keyctl, [0, 0, 0, 0]),
        ("watch the processor", libc::SYS_perf_event_open, [0, 0, 0, 0]),
        ("change who it is", libc::SYS_setuid, [1, 0, 0, 0]),
    ] {
        attempt(to, false, what, call(number, arguments));
    }
    #[cfg(target_arch = "x86_64")]
    attempt(to, false, "make a call by its number in x32", call(0x4000_0000 | libc::SYS_getpid, [0, 0, 0, 0]));
    attempt(to, false, "map memory that is written and run", writable_and_executable());
}

/// A system call. Only one that is refused with `EPERM` counts as denied: another error says that the kernel looked at it.
#[allow(unsafe_code, reason = "the point is to make calls for which there is no safe function")]
fn call(number: libc::c_long, [a, b, c, d]: [i64; 4]) -> io::Result<()> {
    // SAFETY: where the call is not denied, these arguments are invalid for it or change nothing that this program uses.
    let result = unsafe { libc::syscall(number, a, b, c, d) };
    match (result, io::Error::last_os_error()) {
        (-1, error) if Errno::from_io_error(&error) == Some(Errno::PERM) => Err(error),
        _ => Ok(()),
    }
}

#[allow(unsafe_code, reason = "mapping memory is the point")]
fn writable_and_executable() -> io::Result<()> {
    let protection = libc::PROT_READ | libc::PROT_WRITE | libc::PROT_EXEC;
    // SAFETY: a new anonymous mapping of one page, which nothing refers to.
    let page = unsafe { libc::mmap(std::ptr::null_mut(), 4096, protection, libc::MAP_PRIVATE | libc::MAP_ANON, -1, 0) };
    if page == libc::MAP_FAILED { Err(io::Error::last_os_error()) } else { Ok(()) }
}
