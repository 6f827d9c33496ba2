//! Control groups.

use std::{
    fs,
    path::{Path, PathBuf},
};

use super::{Skip, TempDir, poll};

/// A control group of the version 2 tree, removed at the end.
pub(crate) struct Group(PathBuf);

impl Group {
    pub(crate) fn new() -> Result<Group, Skip> {
        // The name of a fresh folder is one that no other test has.
        let folder = TempDir::new();
        Group::named(folder.path().file_name().unwrap().to_str().unwrap())
    }

    pub(crate) fn named(name: &str) -> Result<Group, Skip> {
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
        let root = mounts.lines().find_map(|line| {
            let mut fields = line.split(' ').skip(1);
            let (path, kind) = (fields.next()?, fields.next()?);
            (kind == "cgroup2").then_some(path)
        });
        let Some(root) = root else {
            return Err(Skip("no version 2 control group tree is mounted".into()));
        };
        let group = Path::new(root).join(name);
        match fs::create_dir(&group) {
            Ok(()) => Ok(Group(group)),
            Err(error) => Err(Skip(format!(
                "no control group can be made at {}: {error}",
                group.display()
            ))),
        }
    }

    pub(crate) fn child(&self, name: &str) -> Group {
        let child = self.0.join(name);
        fs::create_dir(&child).unwrap();
        Group(child)
    }

    pub(crate) fn add(&self, pid: u32) {
        fs::write(self.0.join("cgroup.procs"), pid.to_string()).unwrap();
    }

    pub(crate) fn path(&self) -> &str {
        self.0.to_str().unwrap()
    }

    pub(crate) fn name(&self) -> &str {
        self.0.file_name().unwrap().to_str().unwrap()
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // It is empty a moment after its last process was waited for.
        poll("the control group to be empty", || {
            fs::remove_dir(&self.0).ok()
        });
    }
}
