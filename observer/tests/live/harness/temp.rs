//! A folder for the files of one test.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
    sync::atomic::{AtomicU32, Ordering},
};

/// A fresh folder that everybody may read; removed at the end.
pub(crate) struct TempDir(PathBuf);

impl TempDir {
    pub(crate) fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("observer-test-{}-{count}", std::process::id());
        let path = std::env::temp_dir().join(name);
        fs::create_dir(&path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        TempDir(path)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    /// A copy of a program, to be started. A process of its own makes it: what this one has open for writing, so
    /// has a child that another test is just starting, and a file that somebody may write to cannot be started.
    pub(crate) fn copy(&self, program: impl AsRef<Path>, name: &str) -> PathBuf {
        let copy = self.0.join(name);
        let mut cp = Command::new("cp");
        let status = cp.arg(program.as_ref()).arg(&copy).status().unwrap();
        assert!(status.success(), "{cp:?}: {status}");
        copy
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
