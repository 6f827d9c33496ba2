//! containerd with files of its own.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use crate::{
    agent::{Daemon, needs},
    harness::{OBSERVER, Skip, TempDir, poll},
};

/// It, and what runs in it; ended when dropped.
pub(crate) struct Containerd {
    folder: TempDir,
    /// containerd's namespace, which is the name of the control groups above its containers too.
    namespace: &'static str,
    _daemon: Daemon,
}

impl Containerd {
    /// Starts it. `config`: more of its configuration, where `{DIR}` is its folder.
    pub(crate) fn start(namespace: &'static str, config: &str) -> Result<Containerd, Skip> {
        for program in ["containerd", "ctr", "runc", "curl"] {
            needs(program)?;
        }
        let folder = TempDir::new();
        let path = |name: &str| folder.path().join(name).display().to_string();
        let text = format!(
            "version = 2\nroot = \"{}\"\nstate = \"{}\"\n{config}[grpc]\naddress = \"{}\"\n",
            path("root"),
            path("state"),
            path("socket"),
        );
        fs::write(path("config.toml"), text).unwrap();
        let mut command = Command::new("containerd");
        command.args(["--config", &path("config.toml")]);
        let daemon = Daemon::start(&mut command, Path::new(&path("log")));
        let containerd = Containerd {
            folder,
            namespace,
            _daemon: daemon,
        };
        poll("containerd answers", || {
            containerd.ctr(&["version"]).status.success().then_some(())
        });
        Ok(containerd)
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn ctr(&self, args: &[&str]) -> Output {
        Command::new("ctr")
            .args(args)
            .env("CONTAINERD_ADDRESS", self.path("socket"))
            .env("CONTAINERD_NAMESPACE", self.namespace)
            .output()
            .unwrap()
    }

    #[track_caller]
    pub(crate) fn must(&self, args: &[&str]) {
        let out = self.ctr(args);
        assert!(
            out.status.success(),
            "ctr {args:?}: {}",
            String::from_utf8_lossy(&out.stderr)
        );
    }

    /// Imports an image that the project's script makes of a program, as `docker.io/library/NAME`: the program is
    /// `/usr/bin/observer` there.
    pub(crate) fn import(&self, program: &Path, name: &str) {
        let archive = self.path("image.tar");
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/image.sh");
        let out = Command::new(script)
            .arg(program)
            .arg(&archive)
            .arg(name)
            .env("LEVEL", "1")
            .output()
            .unwrap();
        assert!(
            out.status.success(),
            "{}",
            String::from_utf8_lossy(&out.stderr)
        );
        let archive = archive.to_str().unwrap();
        self.must(&["images", "import", "--snapshotter", "native", archive]);
    }
}

/// The program that waits.
pub(crate) fn workload() -> PathBuf {
    let folder = Path::new(OBSERVER).parent().unwrap();
    folder.join("examples/workload")
}

impl Drop for Containerd {
    fn drop(&mut self) {
        let listed = self.ctr(&["containers", "list", "--quiet"]).stdout;
        for id in String::from_utf8_lossy(&listed).lines() {
            self.ctr(&["task", "kill", "--signal", "SIGKILL", id]);
            self.ctr(&["task", "delete", "--force", id]);
            self.ctr(&["containers", "delete", id]);
        }
        // The groups of the containers are gone, and those above them are left empty.
        let hierarchies = fs::read_dir("/sys/fs/cgroup").into_iter().flatten();
        let hierarchies = hierarchies.flatten().map(|entry| entry.path());
        for root in hierarchies.chain([PathBuf::from("/sys/fs/cgroup")]) {
            let top = root.join(self.namespace);
            for below in fs::read_dir(&top).into_iter().flatten().flatten() {
                let _ = fs::remove_dir(below.path());
            }
            let _ = fs::remove_dir(top);
        }
    }
}
