//! A running agent.

use std::{
    fs,
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicU16, Ordering},
};

use serde_json::Value;

use crate::harness::{OBSERVER, Skip, TempDir, poll, signal};

/// The token of all agents here.
pub(crate) const TOKEN: &str = "a-token-for-tests-only";

/// A program that has to be there.
pub(crate) fn needs(program: &str) -> Result<(), Skip> {
    let found = std::env::var_os("PATH").is_some_and(|path| {
        std::env::split_paths(&path).any(|folder| folder.join(program).is_file())
    });
    let reason = || Skip(format!("no {program}: `cargo xtask test` installs it"));
    found.then_some(()).ok_or_else(reason)
}

/// A port that nobody listens on: below those that connections of others are given.
pub(crate) fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let base = 20_000 + (std::process::id() % 100) as u16 * 100;
    (0..100)
        .map(|_| base + NEXT.fetch_add(1, Ordering::Relaxed) % 100)
        .find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok())
        .expect("a port that is free")
}

/// What curl got: the status, and the body.
pub(crate) fn curl(args: &[&str]) -> (u16, String) {
    let out = Command::new("curl")
        .args(["--silent", "--insecure", "--max-time", "20"])
        .args(["--write-out", "\n%{http_code}"])
        .args(args)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    let (body, status) = text.rsplit_once('\n').unwrap_or_default();
    (status.parse().unwrap_or(0), body.to_owned())
}

/// Starts the agent whose files are in a folder.
fn spawn(folder: &TempDir, environment: &[(&str, PathBuf)]) -> Child {
    let log = fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(folder.path().join("log"))
        .unwrap();
    Command::new(OBSERVER)
        .args(["agent", "--config"])
        .arg(folder.path().join("agent.toml"))
        .envs(environment.iter().map(|(name, value)| (name, value)))
        .stdin(Stdio::null())
        .stderr(log)
        .spawn()
        .unwrap()
}

/// An agent; killed when dropped.
pub(crate) struct Agent {
    child: Child,
    pub(crate) folder: TempDir,
    pub(crate) port: u16,
    scheme: &'static str,
}

impl Agent {
    /// Starts one and waits until it observes. `{DIR}` in `config` is a folder of its own.
    pub(crate) fn start(config: &str) -> Result<Agent, Skip> {
        Agent::start_in(config, &[])
    }

    /// The same, with more in its environment.
    pub(crate) fn start_in(config: &str, environment: &[(&str, PathBuf)]) -> Result<Agent, Skip> {
        needs("curl")?;
        let folder = TempDir::new();
        let port = free_port();
        let token = folder.path().join("token");
        fs::write(&token, format!("{TOKEN}\n")).unwrap();
        let scheme = if config.contains("[tls]") {
            "https"
        } else {
            "http"
        };
        let file = folder.path().join("agent.toml");
        let text = format!(
            "listen = \"127.0.0.1:{port}\"\ntoken_file = \"{}\"\n",
            token.display()
        );
        let config = config.replace("{DIR}", folder.path().to_str().unwrap());
        fs::write(&file, text + &config).unwrap();
        let mut agent = Agent {
            child: spawn(&folder, environment),
            folder,
            port,
            scheme,
        };
        agent.wait();
        Ok(agent)
    }

    fn wait(&mut self) {
        poll("the agent is ready", || {
            let ended = self.child.try_wait().unwrap();
            assert!(ended.is_none(), "the agent ended: {}", self.log());
            (self.open("/readyz").0 == 200).then_some(())
        });
    }

    /// Ends it, and starts it again after `meanwhile`.
    pub(crate) fn restart(mut self, meanwhile: impl FnOnce()) -> Agent {
        signal(self.child.id(), libc::SIGTERM);
        self.child.wait().unwrap();
        meanwhile();
        self.child = spawn(&self.folder, &[]);
        self.wait();
        self
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The process that serves HTTP, if there is one now.
    pub(crate) fn serving(&self) -> Option<u32> {
        let processes = fs::read_dir("/proc").unwrap().flatten();
        let pids = processes.filter_map(|one| one.file_name().to_str()?.parse::<u32>().ok());
        let own = |pid: &u32| {
            let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
            let parent = status.lines().find_map(|line| line.strip_prefix("PPid:"));
            parent.is_some_and(|parent| parent.trim() == self.pid().to_string())
                && !status.contains("State:\tZ")
        };
        pids.into_iter().find(own)
    }

    /// Ends it as nobody can prepare for.
    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.path("log")).unwrap()
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("{}://127.0.0.1:{}{path}", self.scheme, self.port)
    }

    /// Asks without a token.
    pub(crate) fn open(&self, path: &str) -> (u16, String) {
        curl(&[&self.url(path)])
    }

    /// Asks with it.
    pub(crate) fn ask(&self, args: &[&str], path: &str) -> (u16, String) {
        let header = format!("Authorization: Bearer {TOKEN}");
        curl(&[&["--header", &header], args, &[&self.url(path)]].concat())
    }

    /// The JSON of a path.
    #[track_caller]
    pub(crate) fn json(&self, path: &str) -> Value {
        let (status, body) = self.ask(&[], path);
        assert_eq!(status, 200, "{path}: {body}");
        serde_json::from_str(&body).unwrap()
    }

    /// Ends it as a service manager does, and hands back its log.
    pub(crate) fn stop(mut self) -> String {
        signal(self.child.id(), libc::SIGTERM);
        let status = self.child.wait().unwrap();
        assert!(status.success(), "{status}: {}", self.log());
        self.log()
    }
}

/// `/proc/…/status`.
pub(crate) struct Status(String);

impl Status {
    pub(crate) fn read(process: &Path) -> Status {
        Status(fs::read_to_string(process.join("status")).unwrap())
    }

    pub(crate) fn field(&self, name: &str) -> &str {
        let line = self.0.lines().find_map(|line| line.strip_prefix(name));
        line.unwrap().trim_start_matches(':').trim()
    }

    pub(crate) fn capabilities(&self, set: &str) -> u64 {
        u64::from_str_radix(self.field(set), 16).unwrap()
    }

    /// It has no more capabilities than these, cannot get others, and its calls are filtered.
    #[track_caller]
    pub(crate) fn is_restricted(&self, most: u64) {
        for set in ["CapEff", "CapPrm", "CapInh", "CapAmb"] {
            assert_eq!(self.capabilities(set) & !most, 0, "{set} of {}", self.0);
        }
        assert_eq!(self.field("NoNewPrivs"), "1");
        assert_eq!(self.field("Seccomp"), "2");
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A program that is not observer and not a workload; killed when dropped.
pub(crate) struct Daemon(pub(crate) Child);

impl Daemon {
    /// Starts it, with what it says in a file.
    pub(crate) fn start(command: &mut Command, log: &Path) -> Daemon {
        let log = fs::File::create(log).unwrap();
        let both = log.try_clone().unwrap();
        let child = command
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(both)
            .spawn();
        Daemon(child.unwrap())
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // SAFETY: the call takes two integers; the process is a child that was not waited for.
        unsafe { libc::kill(self.0.id() as libc::pid_t, libc::SIGTERM) };
        let _ = self.0.wait();
    }
}
