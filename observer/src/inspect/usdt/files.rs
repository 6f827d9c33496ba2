//! Files whose probes are wanted: of a path, and of all that a process maps.

use std::{
    collections::HashSet,
    fs::{File, OpenOptions},
    io::{self, BufRead, BufReader, Read},
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

/// Bytes read of one process's list at most.
const MAX_BYTES: u64 = 16 << 20;
/// Different files of one process that are looked at.
const MAX_FILES: usize = 4_096;

/// A file with code that a process maps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mapped {
    /// First and last address of the first part that is mapped as code, as the kernel writes them.
    range: String,
    /// Device and inode, as the kernel writes them: which file it is, whatever its name.
    pub identity: (String, u64),
    /// Its path in the process's own file system.
    pub path: String,
    /// Its name was removed, or is that of another file by now.
    pub deleted: bool,
}

/// Opens a regular file; nothing else can have probes, and opening it could hang.
///
/// # Errors
/// The kernel's, and that it is no regular file.
pub fn open(path: &Path) -> io::Result<File> {
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NONBLOCK | libc::O_CLOEXEC)
        .open(path)?;
    if file.metadata()?.is_file() {
        Ok(file)
    } else {
        Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "it is no regular file",
        ))
    }
}

/// The files whose code a process maps, by each path once.
///
/// # Errors
/// The kernel's: no such process, or no permission.
pub fn mapped(pid: u32) -> io::Result<Vec<Mapped>> {
    let file = File::open(format!("/proc/{pid}/maps"))?;
    let mut lines = BufReader::new(file.take(MAX_BYTES));
    let mut files: Vec<Mapped> = Vec::new();
    let mut seen = HashSet::new();
    let mut line = Vec::new();
    while files.len() < MAX_FILES {
        line.clear();
        if lines.read_until(b'\n', &mut line)? == 0 {
            break;
        }
        if let Some(mapped) = parse(&String::from_utf8_lossy(&line))
            && seen.insert((mapped.identity.clone(), mapped.path.clone()))
        {
            files.push(mapped);
        }
    }
    Ok(files)
}

/// `7f00-7f10 r-xp 00001000 08:01 1234   /path (deleted)`
fn parse(line: &str) -> Option<Mapped> {
    let line = line.strip_suffix('\n').unwrap_or(line);
    // The path is the sixth field, and may hold blanks.
    let mut fields = line.splitn(6, ' ');
    let range = fields.next()?;
    let permissions = fields.next()?;
    let (_, device, inode) = (fields.next()?, fields.next()?, fields.next()?);
    let path = fields.next()?.trim_start();
    let inode: u64 = inode.parse().ok()?;
    if permissions.as_bytes().get(2) != Some(&b'x') || inode == 0 || !path.starts_with('/') {
        return None;
    }
    let (path, deleted) = match path.strip_suffix(" (deleted)") {
        Some(path) => (path, true),
        None => (path, false),
    };
    Some(Mapped {
        range: range.to_owned(),
        identity: (device.to_owned(), inode),
        path: path.replace("\\012", "\n"),
        deleted,
    })
}

impl Mapped {
    /// Opens the very file that is mapped: through the mapping itself, even if it has no name any more,
    /// or by its name in the process's file system if the privileges do not allow that.
    ///
    /// # Errors
    /// The kernel's; and that the name is another file's by now.
    pub fn open(&self, pid: u32) -> io::Result<File> {
        let refused = match open(Path::new(&format!("/proc/{pid}/map_files/{}", self.range))) {
            Ok(file) => return Ok(file),
            Err(error) => error,
        };
        if self.deleted {
            return Err(io::Error::new(
                refused.kind(),
                format!("it was deleted, and through the mapping it cannot be opened: {refused}"),
            ));
        }
        let file = open(&self.path_of(pid))?;
        if file.metadata()?.ino() == self.identity.1 {
            Ok(file)
        } else {
            Err(io::Error::other(
                "it was replaced since it was mapped, and through the mapping it cannot be opened",
            ))
        }
    }

    /// Its path as this process can use it.
    fn path_of(&self, pid: u32) -> PathBuf {
        PathBuf::from(format!("/proc/{pid}/root{}", self.path))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_code_are_parsed() {
        let mapped = parse(
            "7f00-7f10 r-xp 00001000 08:01 1234                  /opt/a b/x\\012y (deleted)\n",
        )
        .unwrap();
        assert_eq!(mapped.path, "/opt/a b/x\ny");
        assert_eq!((mapped.deleted, mapped.identity.1), (true, 1234));
        for line in [
            "",
            "7f00-7f10 rw-p 00001000 08:01 1234    /data",
            "7f00-7f10 r-xp 00000000 00:00 0       [vdso]",
            "7f00-7f10 r-xp 00000000 00:00 0 ",
            "7f00-7f10 r-xp 00000000 08:01 x       /x",
        ] {
            assert_eq!(parse(line), None, "{line}");
        }
    }

    #[test]
    fn own_files_are_listed_once_and_opened() {
        let pid = std::process::id();
        let files = mapped(pid).unwrap();
        let own = std::env::current_exe().unwrap();
        let own: Vec<_> = files
            .iter()
            .filter(|file| Path::new(&file.path) == own)
            .collect();
        assert_eq!(own.len(), 1, "{files:?}");
        let file = own[0].open(pid).unwrap();
        assert_eq!(file.metadata().unwrap().ino(), own[0].identity.1);
        assert!(mapped(u32::MAX / 2).is_err());
    }

    #[test]
    fn only_regular_files_are_opened() {
        for path in ["/dev/null", "/proc", "/nowhere/at/all"] {
            assert!(open(Path::new(path)).is_err(), "{path}");
        }
    }
}
