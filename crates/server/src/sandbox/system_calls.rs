//! seccomp: system calls that a registry never makes, answered `EPERM`.
//!
//! A list of what is denied, not of what is allowed: allocators and C libraries change what they call, and a filter that
//! kills on what it does not know has broken servers at upgrades. Denied is what starts programs, changes the system or the
//! process's own confines, reaches into other processes, or has been the way into the kernel most often.

use std::collections::BTreeMap;

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
    TargetArch, apply_filter, sock_filter,
};

use super::Level;

type Rules = BTreeMap<i64, Vec<SeccompRule>>;

/// Denied whatever their arguments.
const DENIED: &[i64] = &[
    // Programs.
    libc::SYS_execve,
    libc::SYS_execveat,
    libc::SYS_personality,
    // Other processes.
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_process_madvise,
    libc::SYS_pidfd_getfd,
    libc::SYS_kcmp,
    libc::SYS_migrate_pages,
    libc::SYS_move_pages,
    // Mounts and roots.
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    libc::SYS_move_mount,
    libc::SYS_open_tree,
    libc::SYS_fsopen,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fspick,
    libc::SYS_mount_setattr,
    libc::SYS_open_by_handle_at,
    libc::SYS_quotactl,
    // Namespaces.
    libc::SYS_unshare,
    libc::SYS_setns,
    // Who it is.
    libc::SYS_setuid,
    libc::SYS_setgid,
    libc::SYS_setreuid,
    libc::SYS_setregid,
    libc::SYS_setresuid,
    libc::SYS_setresgid,
    libc::SYS_setgroups,
    libc::SYS_setfsuid,
    libc::SYS_setfsgid,
    libc::SYS_capset,
    // The kernel.
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_userfaultfd,
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_kexec_load,
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_keyctl,
    libc::SYS_syslog,
    libc::SYS_acct,
    libc::SYS_lookup_dcookie,
    libc::SYS_nfsservctl,
    libc::SYS_fanotify_init,
    libc::SYS_vhangup,
    // The machine.
    libc::SYS_reboot,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_sethostname,
    libc::SYS_setdomainname,
    libc::SYS_settimeofday,
    libc::SYS_clock_settime,
    libc::SYS_clock_adjtime,
    libc::SYS_adjtimex,
];

#[cfg(target_arch = "x86_64")]
const DENIED_HERE: &[i64] = &[
    libc::SYS_fork,
    libc::SYS_vfork,
    libc::SYS_kexec_file_load,
    libc::SYS_iopl,
    libc::SYS_ioperm,
    libc::SYS_modify_ldt,
    libc::SYS_uselib,
    libc::SYS_ustat,
    libc::SYS_sysfs,
    libc::SYS_mknod,
];
#[cfg(not(target_arch = "x86_64"))]
const DENIED_HERE: &[i64] = &[];

/// Filters the system calls of this thread and of those that it makes. `lookups`: names are looked up, which takes datagrams.
pub(super) fn restrict(lookups: bool) -> Level {
    match build(lookups)
        .and_then(|filters| filters.iter().try_for_each(|filter| apply_filter(filter)).map_err(|e| e.to_string()))
    {
        Ok(()) => Level::Full,
        Err(why) => Level::None(why),
    }
}

fn build(lookups: bool) -> Result<Vec<BpfProgram>, String> {
    let failed = |error: seccompiler::BackendError| error.to_string();
    let permission = SeccompAction::Errno(libc::EPERM as u32);
    let denied = program(denied(lookups).map_err(failed)?, permission)?;
    // Its flags are in memory, where a filter cannot look; told that there is no such call, C libraries use `clone`.
    let clone3 = program([(libc::SYS_clone3, Vec::new())].into(), SeccompAction::Errno(libc::ENOSYS as u32))?;
    Ok(std::iter::once(denied).chain([clone3]).chain(other_numbers()).collect())
}

/// The calls of x32 are those of x86-64 under other numbers, which no list of numbers denies.
#[cfg(target_arch = "x86_64")]
fn other_numbers() -> Option<BpfProgram> {
    /// The bit that all of them have.
    const X32: u32 = 0x4000_0000;
    let instruction = |code: u32, jt, jf, k| sock_filter { code: code as u16, jt, jf, k };
    Some(vec![
        // The number of the call is the first field of what a filter sees.
        instruction(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, 0),
        instruction(libc::BPF_JMP | libc::BPF_JSET | libc::BPF_K, 0, 1, X32),
        instruction(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ERRNO | libc::EPERM as u32),
        instruction(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ALLOW),
    ])
}

#[cfg(not(target_arch = "x86_64"))]
fn other_numbers() -> Option<BpfProgram> {
    None
}

fn program(rules: Rules, action: SeccompAction) -> Result<BpfProgram, String> {
    let architecture = TargetArch::try_from(std::env::consts::ARCH).map_err(|error| error.to_string())?;
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, action, architecture).map_err(|e| e.to_string())?;
    filter.try_into().map_err(|error: seccompiler::BackendError| error.to_string())
}

fn denied(lookups: bool) -> Result<Rules, seccompiler::BackendError> {
    let mut rules: Rules = DENIED.iter().chain(DENIED_HERE).map(|call| (*call, Vec::new())).collect();
    let masked = |argument, mask: u64, value: u64| {
        SeccompCondition::new(argument, SeccompCmpArgLen::Qword, SeccompCmpOp::MaskedEq(mask), value)
    };
    // A thread, and nothing else: a process of its own, or one in other namespaces, is denied.
    let thread = libc::CLONE_THREAD as u64;
    rules.insert(libc::SYS_clone, vec![SeccompRule::new(vec![masked(0, thread, 0)?])?]);
    // IP, and sockets with a path: no packets, no talk with the kernel's own services.
    let not = |family: libc::c_int| {
        SeccompCondition::new(0, SeccompCmpArgLen::Dword, SeccompCmpOp::Ne, u64::from(family.unsigned_abs()))
    };
    let families = vec![not(libc::AF_INET)?, not(libc::AF_INET6)?, not(libc::AF_UNIX)?];
    let is = |family: libc::c_int| {
        SeccompCondition::new(0, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, u64::from(family.unsigned_abs()))
    };
    let kind = |kind: libc::c_int| masked(1, 0xf, u64::from(kind.unsigned_abs()));
    let mut sockets = vec![SeccompRule::new(families)?, SeccompRule::new(vec![kind(libc::SOCK_RAW)?])?];
    // Landlock does not know of UDP, by which data could leave.
    for family in [libc::AF_INET, libc::AF_INET6].into_iter().filter(|_| !lookups) {
        sockets.push(SeccompRule::new(vec![is(family)?, kind(libc::SOCK_DGRAM)?])?);
    }
    rules.insert(libc::SYS_socket, sockets);
    // Devices.
    let file_type = u64::from(libc::S_IFMT);
    let devices = [libc::S_IFCHR, libc::S_IFBLK].map(|kind| masked(2, file_type, u64::from(kind)));
    let devices = devices.into_iter().map(|device| SeccompRule::new(vec![device?])).collect::<Result<_, _>>()?;
    rules.insert(libc::SYS_mknodat, devices);
    // Memory that is written and run.
    let both = u64::from((libc::PROT_WRITE | libc::PROT_EXEC).unsigned_abs());
    rules.insert(libc::SYS_mmap, vec![SeccompRule::new(vec![masked(2, both, both)?])?]);
    let run = u64::from(libc::PROT_EXEC.unsigned_abs());
    rules.insert(libc::SYS_mprotect, vec![SeccompRule::new(vec![masked(2, run, run)?])?]);
    rules.insert(libc::SYS_pkey_mprotect, vec![SeccompRule::new(vec![masked(2, run, run)?])?]);
    // Input pushed into a terminal is run by the shell behind it.
    let push = SeccompCondition::new(1, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, libc::TIOCSTI)?;
    rules.insert(libc::SYS_ioctl, vec![SeccompRule::new(vec![push])?]);
    Ok(rules)
}
