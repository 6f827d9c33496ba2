//! A holder that its control group's quota keeps off the CPUs.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use crate::{
    harness::{Skip, alone, name},
    programs::Build,
    scene::Scene,
    table::watch,
};

/// Files of a control group, and what is written there.
type Settings = &'static [(&'static str, &'static str)];

/// A control group with a quota; removed when dropped.
pub(crate) struct Quota(PathBuf);

impl Quota {
    /// 1 ms in 100 ms: as good as never on a CPU.
    fn new() -> Result<Quota, Skip> {
        let skip = |why: String| Skip(format!("no quota of CPU time can be set: {why}"));
        let (root, files) = Self::root().map_err(skip)?;
        let path = root.join(format!("observer-truth-{}", std::process::id()));
        fs::create_dir(&path).map_err(|error| skip(format!("{}: {error}", path.display())))?;
        let quota = Quota(path);
        for (file, value) in files {
            let set = fs::write(quota.0.join(file), value);
            set.map_err(|error| skip(format!("{file}: {error}")))?;
        }
        Ok(quota)
    }

    /// Where groups with a quota can be made, by either version, and what is to be written there.
    fn root() -> Result<(PathBuf, Settings), String> {
        for version_1 in ["/sys/fs/cgroup/cpu", "/sys/fs/cgroup/cpu,cpuacct"] {
            let root = Path::new(version_1);
            if root.join("cpu.cfs_quota_us").exists() || root.join("cpu.shares").exists() {
                let files = &[
                    ("cpu.cfs_period_us", "100000"),
                    ("cpu.cfs_quota_us", "1000"),
                ];
                return Ok((root.to_owned(), files));
            }
        }
        let root = Path::new("/sys/fs/cgroup");
        let control = root.join("cgroup.subtree_control");
        let controllers = fs::read_to_string(&control)
            .map_err(|_| "control groups are not mounted".to_owned())?;
        if !controllers.split_whitespace().any(|one| one == "cpu") {
            fs::write(&control, "+cpu")
                .map_err(|error| format!("the controller of CPUs cannot be used: {error}"))?;
        }
        Ok((root.to_owned(), &[("cpu.max", "1000 100000")]))
    }

    pub(crate) fn add(&self, pid: u64) {
        fs::write(self.0.join("cgroup.procs"), pid.to_string()).unwrap();
    }
}

impl Drop for Quota {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.0);
    }
}

#[test]
fn by_its_quota() {
    alone(name!(), || {
        let quota = Quota::new()?;
        let scene = Scene::new(Build::C, "holder_throttled")
            .finds(&["holder_not_running"])
            .may_find(&["long_hold"])
            .later();
        watch("throttled", vec![scene], Duration::from_secs(3), &|stage| {
            quota.add(stage.pid());
        })
    });
}
