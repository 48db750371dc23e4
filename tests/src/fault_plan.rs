//! Which operations of a [`crate::FaultDisk`] meet which fault.

use std::path::Path;
use std::sync::{Condvar, Mutex, PoisonError};

use fuser::Errno;

/// What becomes of an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It fails with this error (`libc` number, [`rustix::io::Errno::raw_os_error`]).
    Fail(i32),
    /// It is not answered until the faults are lifted, and is done then.
    Silence,
    /// A read or write does a part of what was asked: at most this many bytes.
    Part(usize),
    /// Writes fail with `ENOSPC` once this many bytes were written.
    FullAfter(u64),
}

/// Where faults are.
#[derive(Clone, Debug)]
struct Rule {
    operations: Vec<&'static str>,
    path: String,
    fault: Fault,
}

/// The operations that change something.
pub const CHANGING: [&str; 10] =
    ["create", "write", "setattr", "mkdir", "mknod", "unlink", "rmdir", "rename", "link", "open-write"];
/// All that a disk does.
pub const EVERYTHING: [&str; 18] = [
    "create",
    "write",
    "setattr",
    "mkdir",
    "mknod",
    "unlink",
    "rmdir",
    "rename",
    "link",
    "open-write",
    "open",
    "read",
    "fsync",
    "fsyncdir",
    "statfs",
    "lookup",
    "getattr",
    "readdir",
];

#[derive(Debug, Default)]
struct Plan {
    rules: Vec<Rule>,
    hits: u64,
    written: u64,
}

/// The faults of a disk.
#[derive(Debug, Default)]
pub(crate) struct Faults {
    plan: Mutex<Plan>,
    lifted: Condvar,
}

impl Faults {
    /// Waits, fails, or says how much of it may be done.
    pub(crate) fn gate(&self, operation: &str, path: &Path, length: usize) -> Result<usize, Errno> {
        let mut plan = self.plan.lock().unwrap_or_else(PoisonError::into_inner);
        let mut silent = false;
        loop {
            let matching = |rule: &&Rule| {
                rule.operations.contains(&operation) && path.to_string_lossy().contains(rule.path.as_str())
            };
            let fault = plan.rules.iter().find(matching).map(|rule| rule.fault);
            plan.hits += u64::from(fault.is_some() && !silent);
            match fault {
                None => return Ok(length),
                Some(Fault::Fail(errno)) => return Err(Errno::from_i32(errno)),
                Some(Fault::Part(most)) => return Ok(length.min(most)),
                Some(Fault::FullAfter(most)) => {
                    if plan.written + length as u64 > most {
                        return Err(Errno::ENOSPC);
                    }
                    plan.written += length as u64;
                    return Ok(length);
                }
                Some(Fault::Silence) => {
                    silent = true;
                    plan = self.lifted.wait(plan).unwrap_or_else(PoisonError::into_inner);
                }
            }
        }
    }

    pub(crate) fn set(&self, operations: &[&'static str], path: &str, fault: Fault) {
        let mut plan = self.plan.lock().unwrap_or_else(PoisonError::into_inner);
        plan.rules.push(Rule { operations: operations.to_vec(), path: path.to_owned(), fault });
        (plan.hits, plan.written) = (0, 0);
    }

    pub(crate) fn lift(&self) -> u64 {
        let mut plan = self.plan.lock().unwrap_or_else(PoisonError::into_inner);
        plan.rules.clear();
        self.lifted.notify_all();
        plan.hits
    }
}
