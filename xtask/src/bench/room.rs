//! A folder for what a run of the benchmark needs, removed at its end.

use std::env;
use std::fs::{self, DirBuilder};
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

/// The folder. It is not in the checkout: the user that the database runs as may not be let in there,
/// and the path of a socket may have 107 bytes only.
pub(super) struct Room {
    dir: PathBuf,
}

impl Room {
    pub(super) fn new() -> Result<Self> {
        let dir = env::temp_dir().join(format!("observer-bench-{}", std::process::id()));
        let cannot = || format!("cannot make the folder {}", dir.display());
        DirBuilder::new()
            .mode(0o700)
            .create(&dir)
            .with_context(cannot)?;
        // Others may pass through, whatever the umask is.
        fs::set_permissions(&dir, fs::Permissions::from_mode(0o711)).with_context(cannot)?;
        Ok(Self { dir })
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// Writes a file into it.
    pub(super) fn write(&self, name: &str, text: &str) -> Result<PathBuf> {
        let path = self.path(name);
        write(&path, text)?;
        Ok(path)
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.dir);
    }
}

/// Writes a file, and names it when that fails.
pub(super) fn write(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}
