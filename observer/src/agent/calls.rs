//! Which system calls the agent's threads and processes may make, and with which arguments: seccomp.
//!
//! A call that is not allowed fails, and nothing else: libraries try what is there, as that which finds hosts by their
//! names does with sockets of the kernel's.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use seccompiler::{
    SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
    TargetArch, apply_filter,
};

type Rules = BTreeMap<i64, Vec<SeccompRule>>;

/// Calls that observing does not need, and that whoever took it over would want: programs, signals, the memory and
/// the descriptors of others, modules, mounts, namespaces, the clock, and ways around these filters.
const NEVER: &[libc::c_long] = &[
    libc::SYS_execve,
    libc::SYS_execveat,
    libc::SYS_ptrace,
    libc::SYS_process_vm_writev,
    libc::SYS_process_madvise,
    libc::SYS_pidfd_getfd,
    libc::SYS_pidfd_send_signal,
    libc::SYS_kill,
    libc::SYS_tkill,
    libc::SYS_rt_sigqueueinfo,
    libc::SYS_rt_tgsigqueueinfo,
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_kexec_load,
    libc::SYS_kexec_file_load,
    libc::SYS_reboot,
    libc::SYS_listen,
    libc::SYS_accept,
    libc::SYS_accept4,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    libc::SYS_move_mount,
    libc::SYS_open_tree,
    libc::SYS_fsopen,
    libc::SYS_fsmount,
    libc::SYS_fsconfig,
    libc::SYS_mount_setattr,
    libc::SYS_setns,
    libc::SYS_unshare,
    libc::SYS_settimeofday,
    libc::SYS_clock_settime,
    libc::SYS_sethostname,
    libc::SYS_setdomainname,
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_keyctl,
    libc::SYS_userfaultfd,
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    libc::SYS_acct,
    libc::SYS_quotactl,
    libc::SYS_mknodat,
    libc::SYS_setuid,
    libc::SYS_setgid,
    libc::SYS_setreuid,
    libc::SYS_setregid,
    libc::SYS_setresuid,
    libc::SYS_setresgid,
    libc::SYS_setgroups,
];

/// What serving takes: sockets, waiting, memory, threads of its own (names are looked up in one), reading files.
const SERVING: &[libc::c_long] = &[
    libc::SYS_accept4,
    libc::SYS_bind,
    libc::SYS_brk,
    libc::SYS_capget,
    libc::SYS_clock_gettime,
    libc::SYS_clock_nanosleep,
    libc::SYS_clone,
    libc::SYS_clone3,
    libc::SYS_close,
    libc::SYS_connect,
    libc::SYS_dup,
    libc::SYS_epoll_create1,
    libc::SYS_epoll_ctl,
    libc::SYS_epoll_pwait,
    libc::SYS_eventfd2,
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_faccessat,
    libc::SYS_faccessat2,
    libc::SYS_fcntl,
    libc::SYS_fstat,
    libc::SYS_futex,
    libc::SYS_getcwd,
    libc::SYS_getdents64,
    libc::SYS_geteuid,
    libc::SYS_getpeername,
    libc::SYS_getpid,
    libc::SYS_getrandom,
    libc::SYS_getsockname,
    libc::SYS_getsockopt,
    libc::SYS_gettid,
    libc::SYS_getuid,
    libc::SYS_ioctl,
    libc::SYS_lseek,
    libc::SYS_madvise,
    libc::SYS_membarrier,
    libc::SYS_mmap,
    libc::SYS_mprotect,
    libc::SYS_mremap,
    libc::SYS_munmap,
    libc::SYS_nanosleep,
    libc::SYS_newfstatat,
    libc::SYS_openat,
    libc::SYS_ppoll,
    libc::SYS_prctl,
    libc::SYS_pread64,
    libc::SYS_prlimit64,
    libc::SYS_read,
    libc::SYS_readlinkat,
    libc::SYS_readv,
    libc::SYS_recvfrom,
    libc::SYS_recvmmsg,
    libc::SYS_recvmsg,
    libc::SYS_restart_syscall,
    libc::SYS_rseq,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sched_getaffinity,
    libc::SYS_sched_yield,
    libc::SYS_sendmmsg,
    libc::SYS_sendmsg,
    libc::SYS_sendto,
    libc::SYS_set_robust_list,
    libc::SYS_setsockopt,
    libc::SYS_shutdown,
    libc::SYS_sigaltstack,
    libc::SYS_socket,
    libc::SYS_socketpair,
    libc::SYS_statx,
    libc::SYS_uname,
    libc::SYS_write,
    libc::SYS_writev,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_access,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_arch_prctl,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_epoll_wait,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_open,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_poll,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_readlink,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_stat,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_lstat,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_time,
];

/// What starting a process takes beside that, and what that process then needs to give the rest up.
const STARTING: &[libc::c_long] = &[
    libc::SYS_capset,
    libc::SYS_close_range,
    libc::SYS_dup3,
    libc::SYS_execve,
    libc::SYS_kill,
    libc::SYS_landlock_add_rule,
    libc::SYS_landlock_create_ruleset,
    libc::SYS_landlock_restrict_self,
    libc::SYS_listen,
    libc::SYS_pidfd_open,
    libc::SYS_pidfd_send_signal,
    libc::SYS_pipe2,
    libc::SYS_seccomp,
    libc::SYS_set_tid_address,
    libc::SYS_tgkill,
    libc::SYS_wait4,
    libc::SYS_waitid,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_dup2,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_fork,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_vfork,
];

/// What `prctl` is for where HTTP is served. Not among it: outliving the agent, an image of the process's memory.
const SERVING_PRCTL: &[libc::c_int] = &[libc::PR_SET_NAME, libc::PR_GET_NAME];

/// What else it is for before that.
const STARTING_PRCTL: &[libc::c_int] = &[
    libc::PR_SET_PDEATHSIG,
    libc::PR_SET_DUMPABLE,
    libc::PR_SET_NO_NEW_PRIVS,
    libc::PR_CAPBSET_DROP,
];

/// What `fcntl` is for. Not among it: who is sent signals for a descriptor, and which.
const FCNTL: &[libc::c_int] = &[
    libc::F_DUPFD,
    libc::F_DUPFD_CLOEXEC,
    libc::F_GETFD,
    libc::F_SETFD,
    libc::F_GETFL,
    libc::F_SETFL,
];

/// What `ioctl` is for: waiting or not, what there is to read, whether the log is a terminal, and the number of the
/// interface that an address belongs to. Not among it: typing into a terminal, signals.
const IOCTL: &[u32] = &[
    libc::FIONBIO as u32,
    libc::FIOCLEX as u32,
    libc::FIONREAD as u32,
    libc::TCGETS as u32,
    libc::SIOCGIFINDEX as u32,
];

/// The type of a socket, without the flags that come with it (`SOCK_TYPE_MASK`, include/linux/net.h).
const SOCKET_TYPE: u64 = 0xf;

/// Whoever makes such a namespace is root in it.
const NAMESPACES: u32 = (libc::CLONE_NEWNS
    | libc::CLONE_NEWCGROUP
    | libc::CLONE_NEWUTS
    | libc::CLONE_NEWIPC
    | libc::CLONE_NEWUSER
    | libc::CLONE_NEWPID
    | libc::CLONE_NEWNET)
    .cast_unsigned();

/// Takes from this thread, and from those that it starts, what observing never needs.
///
/// # Errors
/// The kernel does not take the filter.
pub(super) fn observing() -> Result<()> {
    let mut rules: Rules = NEVER.iter().map(|call| (*call, Vec::new())).collect();
    // The service manager is told by a local socket; sockets of others are listed by a socket of the kernel's.
    let network = [libc::AF_UNIX, libc::AF_NETLINK]
        .into_iter()
        .map(|family| argument(0, SeccompCmpOp::Ne, family.cast_unsigned().into()));
    let network = SeccompRule::new(network.collect::<Result<_>>()?)?;
    rules.insert(libc::SYS_socket, vec![network]);
    rules.insert(libc::SYS_tgkill, only(own(SeccompCmpOp::Ne)?)?);
    // Limits of others, with their user's right.
    rules.insert(
        libc::SYS_prlimit64,
        only(argument(0, SeccompCmpOp::Ne, 0)?)?,
    );
    let namespaces = (0..u32::BITS)
        .map(|at| 1 << at)
        .filter(|bit| NAMESPACES & bit != 0)
        .map(|bit| argument(0, SeccompCmpOp::MaskedEq(bit.into()), bit.into()));
    rules.insert(libc::SYS_clone, each(namespaces)?);
    hide_clone3()?;
    apply(rules, SeccompAction::Allow, failing(libc::EPERM))
}

/// Leaves this thread, and what it starts, the calls that serving and starting this program take.
///
/// # Errors
/// The kernel does not take the filter.
pub(super) fn keeping() -> Result<()> {
    let mut rules = served()?;
    rules.extend(STARTING.iter().map(|call| (*call, Vec::new())));
    let prctl = SERVING_PRCTL.iter().chain(STARTING_PRCTL);
    rules.insert(libc::SYS_prctl, one_of(0, prctl)?);
    // Its own limits, which what it starts lowers.
    rules.insert(
        libc::SYS_prlimit64,
        only(argument(0, SeccompCmpOp::Eq, 0)?)?,
    );
    let plain = argument(0, SeccompCmpOp::MaskedEq(NAMESPACES.into()), 0)?;
    rules.insert(libc::SYS_clone, only(plain)?);
    hide_clone3()?;
    apply(rules, failing(libc::EPERM), SeccompAction::Allow)
}

/// Leaves this thread, and those that it starts, the calls that serving takes.
///
/// # Errors
/// The kernel does not take the filter.
pub(super) fn serving() -> Result<()> {
    hide_clone3()?;
    apply(served()?, failing(libc::EPERM), SeccompAction::Allow)
}

/// What serving takes, with the arguments that it takes it with.
fn served() -> Result<Rules> {
    let mut rules: Rules = SERVING.iter().map(|call| (*call, Vec::new())).collect();
    rules.insert(libc::SYS_socket, sockets()?);
    // A pair of datagram sockets could be sent from to any socket in the file system.
    let local = argument(0, SeccompCmpOp::Eq, libc::AF_UNIX.cast_unsigned().into())?;
    let pair = SeccompRule::new(vec![local, of_type(libc::SOCK_STREAM)?])?;
    rules.insert(libc::SYS_socketpair, vec![pair]);
    rules.insert(libc::SYS_prctl, one_of(0, SERVING_PRCTL)?);
    rules.insert(libc::SYS_fcntl, one_of(1, FCNTL)?);
    let requests = IOCTL
        .iter()
        .map(|request| argument(1, SeccompCmpOp::Eq, u64::from(*request)));
    rules.insert(libc::SYS_ioctl, each(requests)?);
    // Its own limits, to be read.
    let none = SeccompCondition::new(2, SeccompCmpArgLen::Qword, SeccompCmpOp::Eq, 0)?;
    let limits = SeccompRule::new(vec![argument(0, SeccompCmpOp::Eq, 0)?, none])?;
    rules.insert(libc::SYS_prlimit64, vec![limits]);
    let thread = libc::CLONE_THREAD.cast_unsigned();
    let thread = argument(
        0,
        SeccompCmpOp::MaskedEq((thread | NAMESPACES).into()),
        thread.into(),
    )?;
    rules.insert(libc::SYS_clone, only(thread)?);
    rules.insert(libc::SYS_tgkill, only(own(SeccompCmpOp::Eq)?)?);
    Ok(rules)
}

/// Connections over the network, and datagrams, which names are asked for with. Local sockets are not among it: those
/// of others believe root, which this process may be.
fn sockets() -> Result<Vec<SeccompRule>> {
    let mut rules = Vec::new();
    for family in [libc::AF_INET, libc::AF_INET6] {
        for what in [libc::SOCK_STREAM, libc::SOCK_DGRAM] {
            let family = argument(0, SeccompCmpOp::Eq, family.cast_unsigned().into())?;
            rules.push(SeccompRule::new(vec![family, of_type(what)?])?);
        }
    }
    Ok(rules)
}

fn of_type(what: libc::c_int) -> Result<SeccompCondition> {
    let what = what.cast_unsigned().into();
    argument(1, SeccompCmpOp::MaskedEq(SOCKET_TYPE), what)
}

/// An argument of 32 bits.
fn argument(index: u8, operator: SeccompCmpOp, value: u64) -> Result<SeccompCondition> {
    let length = SeccompCmpArgLen::Dword;
    Ok(SeccompCondition::new(index, length, operator, value)?)
}

fn only(condition: SeccompCondition) -> Result<Vec<SeccompRule>> {
    Ok(vec![SeccompRule::new(vec![condition])?])
}

/// Any of the conditions holds.
fn each(conditions: impl Iterator<Item = Result<SeccompCondition>>) -> Result<Vec<SeccompRule>> {
    conditions
        .map(|condition| Ok(SeccompRule::new(vec![condition?])?))
        .collect()
}

fn one_of<'a>(
    index: u8,
    values: impl IntoIterator<Item = &'a libc::c_int>,
) -> Result<Vec<SeccompRule>> {
    let values = values.into_iter();
    each(values.map(|value| argument(index, SeccompCmpOp::Eq, value.cast_unsigned().into())))
}

/// The first argument is this process (or is not): what ends a program that is broken beyond repair signals itself.
fn own(operator: SeccompCmpOp) -> Result<SeccompCondition> {
    argument(0, operator, std::process::id().into())
}

/// The flags of `clone3` are in memory, where no filter sees them. The C library takes `clone` where there is no such
/// call.
fn hide_clone3() -> Result<()> {
    let rules = [(libc::SYS_clone3, Vec::new())].into();
    apply(rules, SeccompAction::Allow, failing(libc::ENOSYS))
}

fn failing(errno: libc::c_int) -> SeccompAction {
    SeccompAction::Errno(errno.cast_unsigned())
}

/// `others`: what becomes of calls that no rule is about.
fn apply(rules: Rules, others: SeccompAction, matching: SeccompAction) -> Result<()> {
    let arch = TargetArch::try_from(std::env::consts::ARCH)?;
    let filter = SeccompFilter::new(rules, others, matching, arch)?;
    let program: seccompiler::BpfProgram = filter.try_into()?;
    apply_filter(&program).context("seccomp")
}

#[cfg(test)]
mod tests {
    use std::{
        io,
        net::{ToSocketAddrs, UdpSocket},
        os::unix::net::{UnixDatagram, UnixStream},
        thread,
    };

    use super::*;

    /// Runs something in a thread that is thrown away.
    fn apart<T: Send + 'static>(body: impl FnOnce() -> T + Send + 'static) -> T {
        thread::spawn(body).join().unwrap()
    }

    #[track_caller]
    fn fails(errno: libc::c_int, call: libc::c_long, arguments: [libc::c_int; 4]) {
        let [a, b, c, d] = arguments.map(libc::c_long::from);
        // SAFETY: no memory is given to any of the calls; each fails before it does anything.
        let result = unsafe { libc::syscall(call, a, b, c, d, 0) };
        let error = io::Error::last_os_error().raw_os_error();
        assert_eq!((result, error), (-1, Some(errno)), "{call} {arguments:?}");
    }

    #[track_caller]
    fn no_namespaces() {
        for flag in [libc::CLONE_NEWUSER, libc::CLONE_NEWPID, libc::CLONE_NEWNET] {
            let flags = flag | libc::SIGCHLD;
            fails(libc::EPERM, libc::SYS_clone, [flags, 0, 0, 0]);
        }
        fails(libc::ENOSYS, libc::SYS_clone3, [0; 4]);
    }

    #[test]
    fn who_serves_makes_calls_for_serving_only() {
        apart(|| {
            serving().unwrap();
            for (family, what) in [
                (libc::AF_UNIX, libc::SOCK_STREAM),
                (libc::AF_UNIX, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC),
                (libc::AF_NETLINK, libc::SOCK_RAW),
                (libc::AF_VSOCK, libc::SOCK_STREAM),
                (libc::AF_ALG, libc::SOCK_SEQPACKET),
                (libc::AF_INET, libc::SOCK_RAW),
                (libc::AF_INET6, libc::SOCK_RAW),
            ] {
                fails(libc::EPERM, libc::SYS_socket, [family, what, 0, 0]);
            }
            assert!(UnixDatagram::pair().is_err());
            assert!(UnixStream::pair().is_ok());
            no_namespaces();
            fails(libc::EPERM, libc::SYS_clone, [libc::SIGCHLD, 0, 0, 0]);
            let files = libc::RLIMIT_NOFILE as libc::c_int;
            fails(libc::EPERM, libc::SYS_prlimit64, [1, files, 0, 0]);
            fails(libc::EPERM, libc::SYS_prlimit64, [0, files, 1, 0]);
            for option in [
                libc::PR_SET_PDEATHSIG,
                libc::PR_SET_DUMPABLE,
                libc::PR_SET_PTRACER,
                libc::PR_SET_MM,
            ] {
                fails(libc::EPERM, libc::SYS_prctl, [option, 0, 0, 0]);
            }
            // F_SETSIG and F_SETOWN_EX (include/uapi/asm-generic/fcntl.h).
            for command in [libc::F_SETOWN, 10, 15] {
                fails(libc::EPERM, libc::SYS_fcntl, [0, command, 0, 0]);
            }
            fails(
                libc::EPERM,
                libc::SYS_ioctl,
                [0, libc::TIOCSTI as libc::c_int, 0, 0],
            );
            // What it needs is left: finding a host by its name, in a thread; datagrams; its own limits.
            let named = thread::Builder::new().name("finds".into()).spawn(|| {
                ("localhost", 1).to_socket_addrs().unwrap();
                UdpSocket::bind("127.0.0.1:0").unwrap();
            });
            named.unwrap().join().unwrap();
            let mut limit = libc::rlimit {
                rlim_cur: 0,
                rlim_max: 0,
            };
            // SAFETY: `limit` is valid for writes during the call.
            let read = unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) };
            assert_eq!(read, 0);
        });
    }

    #[test]
    fn who_starts_it_and_who_observes_make_no_namespaces_and_no_limits_of_others() {
        for filter in [keeping, observing] {
            apart(move || {
                filter().unwrap();
                no_namespaces();
                let files = libc::RLIMIT_NOFILE as libc::c_int;
                fails(libc::EPERM, libc::SYS_prlimit64, [1, files, 0, 0]);
                thread::spawn(|| ()).join().unwrap();
            });
        }
        apart(|| {
            keeping().unwrap();
            fails(
                libc::EPERM,
                libc::SYS_socket,
                [libc::AF_UNIX, libc::SOCK_STREAM, 0, 0],
            );
        });
    }
}
