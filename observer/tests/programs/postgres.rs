//! A PostgreSQL server of a test's own.

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    os::unix::fs::chown,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
};

use crate::harness::{Skip, TempDir};

/// A server of this test's own; stopped when dropped.
pub(crate) struct Server {
    folder: TempDir,
    programs: PathBuf,
    user: (u32, u32),
}

/// The server's programs, and the user that may run them: not root.
fn installed() -> Result<(PathBuf, (u32, u32)), Skip> {
    let skip = |what: &str| Skip(format!("{what}: no PostgreSQL to test with"));
    let programs = fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .filter_map(|version| Some(version.ok()?.path().join("bin")))
        .find(|bin| bin.join("initdb").exists())
        .ok_or_else(|| skip("nothing below /usr/lib/postgresql"))?;
    let users = fs::read_to_string("/etc/passwd").unwrap_or_default();
    let user = users.lines().find_map(|line| {
        let fields: Vec<&str> = line.split(':').collect();
        (fields[0] == "postgres").then(|| (fields[2].parse().unwrap(), fields[3].parse().unwrap()))
    });
    Ok((programs, user.ok_or_else(|| skip("no user postgres"))?))
}

impl Server {
    /// Makes a cluster and starts it. `settings`: of its configuration.
    pub(crate) fn start(settings: &[&str]) -> Result<Server, Skip> {
        let (programs, user) = installed()?;
        let server = Server {
            folder: TempDir::new(),
            programs,
            user,
        };
        chown(server.folder.path(), Some(user.0), Some(user.1)).unwrap();
        let mut options = format!("-k {} -c listen_addresses=", server.path("").display());
        for setting in settings {
            options.push_str(" -c ");
            options.push_str(setting);
        }
        let (data, log) = (server.path("data"), server.path("log"));
        for (program, args) in [
            ("initdb", vec!["-A", "trust", "--no-sync"]),
            (
                "pg_ctl",
                vec!["-w", "-o", &options, "-l", log.to_str().unwrap(), "start"],
            ),
        ] {
            let status = server
                .command(program)
                .args(["-D", data.to_str().unwrap()])
                .args(args)
                .stdout(Stdio::null())
                .status()
                .unwrap();
            assert!(status.success(), "{program}: {status}");
        }
        Ok(server)
    }

    /// The postmaster.
    pub(crate) fn pid(&self) -> u32 {
        let file = fs::read_to_string(self.path("data/postmaster.pid")).unwrap();
        file.lines().next().unwrap().parse().unwrap()
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn command(&self, program: &str) -> Command {
        let mut command = Command::new(self.programs.join(program));
        command
            .uid(self.user.0)
            .gid(self.user.1)
            .current_dir(Path::new("/"))
            .env_clear();
        command
    }

    /// A client that is connected.
    pub(crate) fn session(&self) -> Session {
        let mut child = self
            .command("psql")
            .args(["-X", "-A", "-t", "-q", "-d", "postgres", "-h"])
            .arg(self.path(""))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        Session {
            input: child.stdin.take().unwrap(),
            output: BufReader::new(child.stdout.take().unwrap()),
            child,
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let data = self.path("data");
        let _ = self
            .command("pg_ctl")
            .args([
                "-D",
                data.to_str().unwrap_or_default(),
                "-m",
                "immediate",
                "stop",
            ])
            .stdout(Stdio::null())
            .status();
    }
}

/// One client.
pub(crate) struct Session {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Session {
    /// Sends statements.
    pub(crate) fn send(&mut self, sql: &str) {
        writeln!(self.input, "{sql}").unwrap();
    }

    /// Sends a query, and reads the one number that it answers.
    pub(crate) fn number(&mut self, sql: &str) -> u64 {
        self.send(sql);
        self.answer()
    }

    /// Reads the one number that a query answers.
    pub(crate) fn answer(&mut self) -> u64 {
        let mut line = String::new();
        self.output.read_line(&mut line).unwrap();
        line.trim().parse().unwrap_or_else(|_| panic!("{line:?}"))
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
