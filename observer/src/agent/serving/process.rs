//! The process that serves HTTP: what it gives up, and what it then does.

use std::{
    io::{self, Read},
    net::TcpListener,
    os::{fd::AsFd, unix::net::UnixStream},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, Result, bail};
use tokio::{
    sync::{mpsc, oneshot},
    time::{MissedTickBehavior, interval, timeout},
};

use super::{
    MAX_TO_SERVING,
    asker::{Asker, Ways, tell},
    frame::{Frames, HEAD, Sort, head},
    messages::{Start, ToAgent, ToServing},
};
use crate::agent::{
    http::{self, Shared, Teller},
    kubernetes::Cluster,
    log,
    otlp::{self, Exporter},
    privileges, sandbox, webhook,
};

/// What it may allocate. When it is more, it ends, and another one is started.
const MEMORY: libc::rlim_t = 256 << 20;
/// Descriptors: connections, those it opens itself, and a few.
const DESCRIPTORS: libc::rlim_t = 256;
/// What it counts is told this often.
const COUNT: Duration = Duration::from_secs(1);
/// Threads that find hosts by their names.
const THREADS: usize = 2;

/// Serves until the agent ends.
///
/// # Errors
/// It was not started by the agent, or what it has to give up cannot be given up.
pub(crate) fn run() -> Result<()> {
    give_up().context("cannot give up what serving does not need")?;
    let not_the_agent = "`observer agent` starts this";
    // A socket each: reading or writing them as anything else fails.
    let socket = io::stdin().as_fd().try_clone_to_owned()?;
    let listener = io::stdout().as_fd().try_clone_to_owned()?;
    let mut socket = UnixStream::from(socket);
    socket.peer_addr().context(not_the_agent)?;
    let listener = TcpListener::from(listener);
    listener.local_addr().context(not_the_agent)?;
    privileges::drop_for_good().context("cannot drop capabilities")?;
    let start = first(&mut socket)?;
    let note = match &start.readable {
        Some(readable) => sandbox::serving(readable).context("cannot restrict this process")?,
        None => None,
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(THREADS)
        .build()?;
    runtime.block_on(serve(socket, listener, start, note))
}

/// The first that the agent says.
fn first(socket: &mut UnixStream) -> Result<Start> {
    let mut bytes = [0; HEAD];
    socket.read_exact(&mut bytes)?;
    let (length, sort) = head(bytes, MAX_TO_SERVING)?;
    let mut payload = Vec::new();
    socket.take(length as u64).read_to_end(&mut payload)?;
    match serde_json::from_slice(&payload) {
        Ok(ToServing::Start(start)) if sort == Sort::Message => Ok(*start),
        _ => bail!("the agent does not begin as it should"),
    }
}

async fn serve(
    socket: UnixStream,
    listener: TcpListener,
    start: Start,
    note: Option<&'static str>,
) -> Result<()> {
    let cluster = start.cluster.as_ref().map(Cluster::open).transpose()?;
    let (asker, to_say) = Asker::new();
    let settings = start.material.open()?;
    let shared = Arc::new(Shared::new(asker, settings, cluster.as_ref()));
    if let Some(note) = note {
        shared.note("sandbox", Some(note));
        log(note);
    }
    socket.set_nonblocking(true)?;
    listener.set_nonblocking(true)?;
    let listener = tokio::net::TcpListener::from_std(listener)?;
    let (read, write) = tokio::net::UnixStream::from_std(socket)?.into_split();
    let saying = tokio::spawn(tell(write, to_say));
    shared.asker.say(ToAgent::Serving).await;

    let (records, to_export) = mpsc::channel(start.records.max(1));
    let (incidents, to_tell) = mpsc::channel(webhook::QUEUE);
    let teller = Teller {
        shared: Arc::clone(&shared),
        cluster: cluster.clone().filter(|one| one.events),
    };
    tokio::spawn(teller.run(to_tell));
    if let Some(cluster) = cluster.filter(|one| one.workloads) {
        tokio::spawn(cluster.follow(Arc::clone(&shared)));
    }
    tokio::spawn(count(Arc::clone(&shared)));
    let accepting = tokio::spawn(http::accept(listener, Arc::clone(&shared)));
    let (end, ended) = oneshot::channel();
    let exporter = Exporter::new(Arc::clone(&shared), start.since_ns);
    let exporting = tokio::spawn(exporter.run(to_export, ended));
    let ways = Ways {
        shared: Arc::clone(&shared),
        records,
        incidents,
    };
    let ended = tokio::select! {
        listened = ways.listen(Frames::new(read, MAX_TO_SERVING)) => {
            listened.context("what the agent says is not understood")
        }
        // It is not to look as if it served: the agent starts another one, and the log says why.
        failed = accepting => Err(failed.map_or_else(Into::into, anyhow::Error::from))
            .context("no connection can be taken any more"),
    };
    shared.asker.end();
    let _ = end.send(());
    // A receiver that hangs does not hold up the end.
    let _ = timeout(otlp::END, exporting).await;
    saying.abort();
    ended
}

async fn count(shared: Arc<Shared>) {
    let mut ticks = interval(COUNT);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        // Though nothing is new: the agent hears that this process is not stuck.
        shared.asker.count(shared.tally()).await;
    }
}

/// Ends with the agent, whatever it is doing; has no file of the agent's, little memory, and leaves no image of it
/// behind, which would hold keys. What ends the agent, or has it read its configuration, is not for this process: it
/// sends first what is left.
fn give_up() -> io::Result<()> {
    let check = |result: libc::c_int| match result {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    };
    // All that the agent opens is closed by starting another program; this is for what it may have been given. Where
    // a container forbids the call, that has to do.
    // SAFETY: nothing here has opened a descriptor yet but the first three.
    unsafe { libc::syscall(libc::SYS_close_range, 3, u32::MAX, 0) };
    // SAFETY: the calls take integers, and a string that ends.
    unsafe {
        check(libc::prctl(libc::PR_SET_NAME, c"observer-http".as_ptr()))?;
        check(libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL))?;
        check(libc::prctl(libc::PR_SET_DUMPABLE, 0, 0, 0, 0))?;
        for signal in [libc::SIGHUP, libc::SIGINT, libc::SIGTERM, libc::SIGUSR1] {
            libc::signal(signal, libc::SIG_IGN);
        }
    }
    for (what, most) in [
        (libc::RLIMIT_DATA, MEMORY),
        (libc::RLIMIT_NOFILE, DESCRIPTORS),
        (libc::RLIMIT_CORE, 0),
    ] {
        let mut limit = libc::rlimit {
            rlim_cur: 0,
            rlim_max: 0,
        };
        // SAFETY: `limit` is valid for writes, and then for reads, during the calls.
        unsafe {
            check(libc::getrlimit(what, &raw mut limit))?;
            limit.rlim_max = limit.rlim_max.min(most);
            limit.rlim_cur = limit.rlim_max;
            check(libc::setrlimit(what, &raw const limit))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::{
        env, fs,
        os::fd::AsRawFd,
        process::{Command, Stdio},
        thread,
    };

    use super::*;
    use crate::agent::material::Material;

    const INSIDE: &str = "agent::serving::process::tests::inside";
    const READABLE: &str = "OBSERVER_TEST_READABLE";
    const AGENT: &str = "OBSERVER_TEST_AGENT";

    /// The process is started and restricted as the agent does it; what it then tries is in [`inside`].
    #[test]
    fn whoever_takes_over_the_process_that_serves_has_nothing() {
        let folder = env::temp_dir().join(format!("observer-serving-{}", std::process::id()));
        sandbox::make_folder(&folder).unwrap();
        fs::write(folder.join("a"), "a").unwrap();
        let readable = folder.clone();
        let out = thread::spawn(move || {
            privileges::drop_for_good().unwrap();
            sandbox::keeping(std::slice::from_ref(&readable)).unwrap();
            Command::new("/proc/self/exe")
                .args(["--exact", INSIDE, "--nocapture"])
                .env(READABLE, readable)
                .env(AGENT, std::process::id().to_string())
                .stdin(Stdio::inherit())
                .output()
                .unwrap()
        });
        let out = out.join().unwrap();
        let said = String::from_utf8_lossy(&out.stdout);
        let errors = String::from_utf8_lossy(&out.stderr);
        assert!(
            out.status.success() && said.contains("1 passed"),
            "{said}{errors}"
        );
        fs::remove_dir_all(folder).unwrap();
    }

    #[tokio::test]
    async fn a_listener_that_is_shut_down_ends_it() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        // SAFETY: the call takes integers.
        let done = unsafe { libc::shutdown(listener.as_raw_fd(), libc::SHUT_RDWR) };
        assert_eq!(done, 0);
        let listener = tokio::net::TcpListener::from_std(listener).unwrap();
        let material = r#"{"token":null,"tls":null,"incidents":"/i","webhook":null,"otlp":null}"#;
        let material: Material = serde_json::from_str(material).unwrap();
        let shared = Shared::new(Asker::new().0, material.open().unwrap(), None);
        let accepting = http::accept(listener, Arc::new(shared));
        let error = timeout(Duration::from_secs(10), accepting).await.unwrap();
        assert_eq!(error.raw_os_error(), Some(libc::EINVAL));
    }

    fn refused(call: libc::c_long, args: [libc::c_long; 4]) {
        let [a, b, c, d] = args;
        // SAFETY: no memory is given to any of the calls; each is refused before it does anything.
        let result = unsafe { libc::syscall(call, a, b, c, d, 0) };
        let error = io::Error::last_os_error().raw_os_error();
        assert_eq!((result, error), (-1, Some(libc::EPERM)), "call {call}");
    }

    #[test]
    fn inside() {
        // The test above runs it, in a process of its own.
        let Some(readable) = env::var_os(READABLE) else {
            return;
        };
        let readable = std::path::PathBuf::from(readable);
        give_up().unwrap();
        // They came with no capability, and cannot have one again.
        assert!(privileges::has_none().unwrap());
        privileges::drop_for_good().unwrap();
        let agent: u32 = env::var(AGENT).unwrap().parse().unwrap();
        let landlocked = sandbox::serving(std::slice::from_ref(&readable))
            .unwrap()
            .is_none();
        assert_eq!(fs::read_to_string(readable.join("a")).unwrap(), "a");
        let agents = libc::c_long::from(agent);
        refused(libc::SYS_ptrace, [libc::PTRACE_ATTACH.into(), agents, 0, 0]);
        refused(libc::SYS_ptrace, [libc::PTRACE_SEIZE.into(), agents, 0, 0]);
        refused(libc::SYS_process_vm_readv, [agents, 0, 0, 0]);
        refused(libc::SYS_process_vm_writev, [agents, 0, 0, 0]);
        refused(libc::SYS_pidfd_open, [agents, 0, 0, 0]);
        refused(libc::SYS_kill, [agents, 0, 0, 0]);
        for call in [
            libc::SYS_bpf,
            libc::SYS_perf_event_open,
            libc::SYS_execve,
            libc::SYS_setuid,
            libc::SYS_capset,
            libc::SYS_mount,
            libc::SYS_unshare,
            libc::SYS_init_module,
            libc::SYS_memfd_create,
        ] {
            refused(call, [0; 4]);
        }
        if landlocked {
            for path in [
                "/proc/1/mem".to_owned(),
                "/proc/1/environ".to_owned(),
                format!("/proc/{agent}/mem"),
                format!("/proc/{agent}/maps"),
                format!("/proc/{agent}/environ"),
                "/etc/shadow".to_owned(),
                "/sys/kernel/btf/vmlinux".to_owned(),
            ] {
                let error = fs::File::open(&path).unwrap_err();
                assert_eq!(error.raw_os_error(), Some(libc::EACCES), "{path}");
            }
            assert!(fs::write(readable.join("b"), "b").is_err());
        }
        // SAFETY: a mapping of its own, which is not touched.
        let much = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                MEMORY as usize + (1 << 20),
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
                -1,
                0,
            )
        };
        assert_eq!(much, libc::MAP_FAILED);
    }
}
