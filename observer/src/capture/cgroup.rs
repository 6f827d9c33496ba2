//! Control groups (version 2): path → the identifier and depth that the kernel's ancestor test takes.

use std::{
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, anyhow};

/// Identifier and depth of a control group, named by its path in the file system or below the root of
/// the version 2 tree.
///
/// # Errors
/// There is no version 2 tree, or no such group in it.
pub(super) fn identify(name: &str) -> Result<(u64, u32)> {
    let root = tree(name)?;
    let path = folder_in(&root, name);
    let metadata = fs::metadata(&path).with_context(|| {
        format!(
            "--cgroup {name}: no control group at {} (only version 2 groups can be filtered by)",
            path.display()
        )
    })?;
    let below = path.strip_prefix(&root).unwrap_or(Path::new(""));
    // The identifier is the inode of the folder, on 64-bit kernels.
    Ok((metadata.ino(), below.components().count() as u32))
}

/// The folder of a control group.
///
/// # Errors
/// There is no version 2 tree.
pub(super) fn folder(name: &str) -> Result<PathBuf> {
    Ok(folder_in(&tree(name)?, name))
}

fn folder_in(root: &Path, name: &str) -> PathBuf {
    let path = if Path::new(name).starts_with(root) {
        PathBuf::from(name)
    } else {
        root.join(name.trim_start_matches('/'))
    };
    // `..` and links would falsify the depth.
    fs::canonicalize(&path).unwrap_or(path)
}

/// The root of the version 2 tree.
fn tree(name: &str) -> Result<PathBuf> {
    let mounts =
        fs::read_to_string("/proc/self/mounts").context("cannot read /proc/self/mounts")?;
    root(&mounts).ok_or_else(|| {
        anyhow!(
            "--cgroup {name}: no version 2 control group tree is mounted; `mount -t cgroup2 none DIR` \
             makes one visible"
        )
    })
}

fn root(mounts: &str) -> Option<PathBuf> {
    mounts.lines().find_map(|line| {
        let mut fields = line.split(' ');
        let (_, path, kind) = (fields.next()?, fields.next()?, fields.next()?);
        (kind == "cgroup2").then(|| PathBuf::from(path))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_2_tree_is_found() {
        let mounts = "proc /proc proc rw 0 0\ncgroup /a cgroup rw 0 0\ncgroup2 /b cgroup2 rw 0 0\n";
        assert_eq!(root(mounts), Some(PathBuf::from("/b")));
        assert_eq!(root("x\n"), None);
    }
}
