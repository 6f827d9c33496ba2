//! A private PostgreSQL: a cluster of its own, reached through a Unix socket only, gone at the end.

use std::env;
use std::fs;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use super::child::{self, Background};
use super::events;
use super::room::{self, Room};
use crate::cmd;

/// Where Debian keeps the programs of each version.
const VERSIONS: &str = "/usr/lib/postgresql";
/// Those that are needed.
const PROGRAMS: [&str; 4] = ["initdb", "postgres", "pg_isready", "pgbench"];
/// The server refuses to run as root: these users may be there, the first one with the package.
const USERS: [&str; 2] = ["postgres", "nobody"];
/// How long the server may take until it answers.
const READY_WITHIN: Duration = Duration::from_secs(30);
/// No disk in the measurement, and nothing that runs now and then.
const SETTINGS: &str = "listen_addresses = ''
fsync = off
autovacuum = off
jit = off
max_connections = 20
shared_buffers = 256MB
checkpoint_timeout = 1h
";

/// The folder with the programs of the newest version, if there is one that has all.
pub(crate) fn bin_dir() -> Option<PathBuf> {
    let mut versions: Vec<(u32, PathBuf)> = fs::read_dir(VERSIONS)
        .into_iter()
        .flatten()
        .filter_map(|entry| {
            let entry = entry.ok()?;
            let version = entry.file_name().to_str()?.parse().ok()?;
            Some((version, entry.path().join("bin")))
        })
        .collect();
    versions.sort();
    let path = env::var_os("PATH").unwrap_or_default();
    let versions = versions.into_iter().rev().map(|(_, dir)| dir);
    versions
        .chain(env::split_paths(&path))
        .find(|dir| PROGRAMS.iter().all(|name| cmd::is_program(&dir.join(name))))
}

/// What the clients do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Load {
    /// Four read.
    Read,
    /// Eight update one row, and others.
    OneRow,
}

impl Load {
    fn args(self) -> &'static [&'static str] {
        match self {
            Self::Read => &["--select-only", "--client", "4"],
            Self::OneRow => &["--client", "8"],
        }
    }
}

/// A running server with the tables of pgbench in it.
pub(super) struct Cluster {
    bin: PathBuf,
    dir: PathBuf,
    // Ended when the cluster is dropped, before the room goes with the files.
    _server: Background,
}

impl Cluster {
    /// Makes the cluster, in a folder of this name, and fills it.
    pub(super) fn start(room: &Room, name: &str, scale: u32) -> Result<Self> {
        let bin = bin_dir().context("PostgreSQL and pgbench are not installed")?;
        let user = User::find()?;
        let dir = room.path(name);
        fs::create_dir(&dir)
            .and_then(|()| chown(&dir, Some(user.uid), Some(user.gid)))
            .and_then(|()| fs::set_permissions(&dir, fs::Permissions::from_mode(0o700)))
            .with_context(|| format!("cannot make the folder {}", dir.display()))?;
        let data = dir.join("data");
        let mut initdb = user.command(&bin.join("initdb"), &dir);
        initdb.args([
            "--username",
            "bench",
            "--auth",
            "trust",
            "--no-sync",
            "--no-locale",
        ]);
        cmd::output(initdb.arg("--pgdata").arg(&data))?;
        append(&data.join("postgresql.conf"), SETTINGS)?;

        let mut postgres = user.command(&bin.join("postgres"), &dir);
        postgres
            .arg("-D")
            .arg(&data)
            .arg("-k")
            .arg(&dir)
            .args(["-p", "5432"]);
        postgres.stdin(Stdio::null()).stdout(Stdio::null());
        let mut server = Background::start(&mut postgres, &room.path(&format!("{name}.log")))?;
        wait_until_ready(&bin, &dir, &mut server)?;
        let cluster = Self {
            bin,
            dir,
            _server: server,
        };
        let scale = scale.to_string();
        let mut pgbench = cluster.client("pgbench");
        pgbench.args(["--initialize", "--quiet", "--scale", &scale, "postgres"]);
        cmd::output(&mut pgbench)?;
        Ok(cluster)
    }

    /// Clients that write to few rows, so that they wait for each other, until they are stopped.
    pub(super) fn update_forever(&self) -> Command {
        let mut pgbench = self.client("pgbench");
        pgbench.args([
            "--no-vacuum",
            "--client",
            "16",
            "--time",
            "3600",
            "postgres",
        ]);
        pgbench
    }

    fn client(&self, program: &str) -> Command {
        client(&self.bin, &self.dir, program)
    }

    /// Transactions a second.
    pub(super) fn pgbench(&self, load: Load, seconds: u32) -> Result<f64> {
        let mut pgbench = self.client("pgbench");
        let seconds = seconds.to_string();
        pgbench.args(load.args());
        pgbench.args(["--no-vacuum", "--time", &seconds]);
        let output = child::measured(pgbench.arg("postgres"))?;
        events::tps(&output).with_context(|| format!("pgbench told no speed:\n{output}"))
    }
}

/// A client program that reaches this cluster and no other.
fn client(bin: &Path, dir: &Path, program: &str) -> Command {
    let mut command = Command::new(bin.join(program));
    command
        .arg("-h")
        .arg(dir)
        .args(["-p", "5432", "-U", "bench"])
        .current_dir("/")
        .env_remove("PGSERVICE")
        .env_remove("PGOPTIONS");
    command
}

fn wait_until_ready(bin: &Path, dir: &Path, server: &mut Background) -> Result<()> {
    let asked = Instant::now();
    while cmd::output(client(bin, dir, "pg_isready").args(["-d", "postgres"])).is_err() {
        server.must_run()?;
        if asked.elapsed() > READY_WITHIN {
            bail!(
                "PostgreSQL did not answer within {} s",
                READY_WITHIN.as_secs()
            );
        }
        thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}

fn append(path: &Path, text: &str) -> Result<()> {
    let old =
        fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    room::write(path, &format!("{old}\n{text}"))
}

/// Whom the server runs as.
#[derive(Debug, PartialEq, Eq)]
struct User {
    uid: u32,
    gid: u32,
}

impl User {
    fn find() -> Result<Self> {
        let path = "/etc/passwd";
        let passwd = fs::read_to_string(path).with_context(|| format!("cannot read {path}"))?;
        USERS
            .iter()
            .find_map(|name| parse_user(&passwd, name))
            .with_context(|| format!("there is no user {}", USERS.join(" and no user ")))
    }

    /// A program as this user, who may not look into the folder that this process is in.
    fn command(&self, program: &Path, dir: &Path) -> Command {
        let mut command = Command::new(program);
        command.uid(self.uid).gid(self.gid).current_dir(dir);
        command
    }
}

fn parse_user(passwd: &str, name: &str) -> Option<User> {
    passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        if fields.next()? != name {
            return None;
        }
        let uid = fields.nth(1)?.parse().ok()?;
        let gid = fields.next()?.parse().ok()?;
        Some(User { uid, gid })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_are_found_by_their_whole_name() {
        let passwd = "root:x:0:0:root:/root:/bin/bash\npostgres2:x:9:9::/:/bin/sh\n\
                      postgres:x:101:104:PostgreSQL,,,:/var/lib/postgresql:/bin/bash\n";
        let user = User { uid: 101, gid: 104 };
        assert_eq!(parse_user(passwd, "postgres"), Some(user));
        assert_eq!(parse_user(passwd, "nobody"), None);
    }
}
