//! The folder of incidents: names, ages, and what is in it.

use std::{
    collections::HashMap,
    fs::{self, File, OpenOptions},
    io::{self, Read},
    os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
    time::{Duration, Instant, SystemTime},
};

use super::{ABOUT, About, RECORDING};
use crate::time::WallTime;

/// What the name of one ends in that is not whole.
pub(super) const PART: &str = "part";
/// Bytes of what is said of one: more than it ever has.
const MAX_ABOUT: u64 = 1 << 20;
/// Others than the owner may make something in a folder of this mode, or it is meant to be shared.
const SHARED: u32 = 0o1022;

/// How old incidents are. The wall clock is asked once for each, when it is first seen, and from then on a clock that nobody
/// sets: one that is set forward retires nothing, and one that is set back does not make the newest the oldest.
#[derive(Default)]
pub(super) struct Ages(HashMap<PathBuf, (Instant, Duration)>);

impl Ages {
    /// Counts the age of one from now on.
    pub(super) fn begin(&mut self, folder: PathBuf) {
        self.0.insert(folder, (Instant::now(), Duration::ZERO));
    }

    /// All of them, the newest first. `written`: since when a folder is there, by the wall clock.
    pub(super) fn of(
        &mut self,
        folders: impl Iterator<Item = (PathBuf, Option<SystemTime>)>,
        wall: SystemTime,
        now: Instant,
    ) -> Vec<(PathBuf, Duration)> {
        let mut before = std::mem::take(&mut self.0);
        let mut all: Vec<_> = folders
            .map(|(folder, written)| {
                let seen = before.remove(&folder).unwrap_or_else(|| {
                    // One from the future is new.
                    let age = written.and_then(|written| wall.duration_since(written).ok());
                    (now, age.unwrap_or_default())
                });
                self.0.insert(folder.clone(), seen);
                (folder, seen.1 + now.duration_since(seen.0))
            })
            .collect();
        all.sort_by(|a, b| (a.1, &b.0).cmp(&(b.1, &a.0)));
        all
    }
}

/// `20261121T161003Z-finding-1`.
pub(super) fn id_of(time: WallTime, kind: &str, count: u64) -> String {
    let text = time.to_string();
    let digits: String = text
        .chars()
        .take(19)
        .filter(char::is_ascii_alphanumeric)
        .collect();
    format!("{digits}Z-{kind}-{count}")
}

/// Is this a name that an incident may have? Anything else could lead out of the folder.
pub fn is_id(text: &str) -> bool {
    (1..=80).contains(&text.len())
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
}

/// What is said of the incidents in a folder, newest first.
pub fn list(dir: &Path) -> Vec<About> {
    let about = |path: PathBuf| -> Option<About> {
        let file = open(&path.join(ABOUT)).ok()?;
        let mut text = Vec::new();
        file.take(MAX_ABOUT).read_to_end(&mut text).ok()?;
        serde_json::from_slice(&text).ok()
    };
    let ours = entries(dir).filter(|path| is_ours(path));
    let mut all: Vec<About> = ours.filter_map(about).collect();
    all.sort_by_key(|about| std::cmp::Reverse(about.time));
    all
}

/// The recording of an incident, if there is one of this name.
pub fn recording(dir: &Path, id: &str) -> Option<File> {
    let folder = dir.join(id);
    let is_one = is_id(id) && is_ours(&folder);
    is_one.then(|| open(&folder.join(RECORDING)).ok())?
}

/// Opens a file of an incident. Nothing else that lies there, as a named pipe, makes the reader wait.
fn open(path: &Path) -> io::Result<File> {
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_CLOEXEC)
        .open(path)?;
    if file.metadata()?.is_file() {
        Ok(file)
    } else {
        Err(io::Error::other("not a regular file"))
    }
}

pub(super) fn entries(dir: &Path) -> impl Iterator<Item = PathBuf> + use<> {
    let entries = fs::read_dir(dir).ok();
    entries
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path())
}

pub(super) fn bytes_of(folder: &Path) -> u64 {
    entries(folder)
        .filter_map(|path| fs::symlink_metadata(path).ok())
        .fold(0, |sum, metadata| sum.saturating_add(metadata.len()))
}

/// Is this an incident, whole or not? Others may keep something in the folder too. The process that observes and the one
/// that serves HTTP are the same user's: what either makes of it is the same.
pub(super) fn is_ours(path: &Path) -> bool {
    let is_folder =
        || fs::symlink_metadata(path).is_ok_and(|found| found.is_dir() && is_own(&found));
    has_our_name(path) && is_folder()
}

/// Does it belong to the user whom this process runs as?
fn is_own(found: &fs::Metadata) -> bool {
    // SAFETY: geteuid takes nothing and always succeeds.
    found.uid() == unsafe { libc::geteuid() }
}

fn has_our_name(path: &Path) -> bool {
    let stem = path.file_stem().and_then(|stem| stem.to_str());
    let good_end = path.extension().is_none_or(|end| end == PART);
    good_end
        && stem.is_some_and(|stem| {
            let (time, rest) = stem.split_once('-').unwrap_or_default();
            is_id(stem) && time.len() == 16 && time.ends_with('Z') && rest.contains('-')
        })
}

/// Makes sure that a folder of incidents is its owner's only, unless others keep something there too, or may: an
/// incident's own folder is so in any case.
pub fn protect(dir: &Path) {
    let found = fs::metadata(dir);
    if !found.is_ok_and(|found| found.mode() & SHARED == 0 && is_own(&found)) {
        return;
    }
    if entries(dir).all(|path| is_ours(&path)) {
        let _ = fs::set_permissions(dir, fs::Permissions::from_mode(0o700));
    }
}

#[cfg(test)]
mod tests {
    use std::{ffi::CString, os::unix::ffi::OsStrExt};

    use super::*;

    fn make_pipe(path: &Path) {
        let path = CString::new(path.as_os_str().as_bytes()).unwrap();
        // SAFETY: the path ends in a zero byte, and outlives the call.
        assert_eq!(unsafe { libc::mkfifo(path.as_ptr(), 0o600) }, 0);
    }

    /// An incident as the agent leaves it, but for what it says.
    fn make_one(dir: &Path, count: u64) -> (String, PathBuf) {
        let id = id_of(WallTime(1_000_000_000), "finding", count);
        let folder = dir.join(&id);
        fs::create_dir_all(&folder).unwrap();
        (id, folder)
    }

    #[test]
    fn what_is_no_incident_is_not_read() {
        let dir = std::env::temp_dir().join(format!("observer-read-{}", std::process::id()));
        let (good, folder) = make_one(&dir, 1);
        let about = About {
            id: good.clone(),
            host: "h".into(),
            time: WallTime(1),
            triggers: Vec::new(),
            events: 0,
            bytes: 0,
        };
        let text = serde_json::to_vec(&about).unwrap();
        fs::write(folder.join(ABOUT), &text).unwrap();
        fs::write(folder.join(RECORDING), "r").unwrap();
        // Named pipes, in the folder of another and in one of ours: nobody ever writes into them.
        let foreign = dir.join("backup");
        fs::create_dir(&foreign).unwrap();
        make_pipe(&foreign.join(ABOUT));
        make_pipe(&foreign.join(RECORDING));
        let (piped, folder) = make_one(&dir, 2);
        make_pipe(&folder.join(ABOUT));
        make_pipe(&folder.join(RECORDING));
        // A file that has no end in a lifetime, and links to something that could be read.
        let (_, folder) = make_one(&dir, 3);
        let large = File::create(folder.join(ABOUT)).unwrap();
        large.set_len(1 << 40).unwrap();
        let (linked, folder) = make_one(&dir, 4);
        let link = |from: &Path, to: &Path| std::os::unix::fs::symlink(from, to).unwrap();
        link(&dir.join(&good).join(ABOUT), &folder.join(ABOUT));
        link(&dir.join(&good).join(RECORDING), &folder.join(RECORDING));
        let other = id_of(WallTime(1_000_000_000), "finding", 5);
        link(&dir.join(&good), &dir.join(&other));
        // The folder of another user, which only root can make.
        let (given, folder) = make_one(&dir, 6);
        fs::write(folder.join(ABOUT), &text).unwrap();
        fs::write(folder.join(RECORDING), "r").unwrap();
        let is_given = std::os::unix::fs::chown(&folder, Some(4_242), None).is_ok();

        let expected = if is_given { 1 } else { 2 };
        assert_eq!(list(&dir).len(), expected);
        assert!(list(&dir).contains(&about));
        assert!(recording(&dir, &good).is_some());
        assert_eq!(recording(&dir, &given).is_none(), is_given);
        for id in [&*piped, &*linked, &*other, "backup", "..", ""] {
            assert!(recording(&dir, id).is_none(), "{id}");
        }
        fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn a_folder_that_others_may_use_keeps_its_mode() {
        let dir = std::env::temp_dir().join(format!("observer-mode-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        // Nothing is in it.
        for (mode, after) in [
            (0o755, 0o700),
            (0o1777, 0o1777),
            (0o775, 0o775),
            (0o757, 0o757),
        ] {
            fs::set_permissions(&dir, fs::Permissions::from_mode(mode)).unwrap();
            protect(&dir);
            assert_eq!(
                fs::metadata(&dir).unwrap().mode() & 0o7777,
                after,
                "{mode:o}"
            );
        }
        fs::set_permissions(&dir, fs::Permissions::from_mode(0o755)).unwrap();
        if std::os::unix::fs::chown(&dir, Some(4_242), None).is_ok() {
            protect(&dir);
            assert_eq!(fs::metadata(&dir).unwrap().mode() & 0o7777, 0o755);
        }
        fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn a_clock_that_is_set_retires_nothing() {
        const DAY: Duration = Duration::from_hours(24);
        let (wall, now) = (SystemTime::now(), Instant::now());
        let mut ages = Ages::default();
        let path = |name: &str| PathBuf::from(name);
        let mut of = |folders: &[(&str, SystemTime)], wall, now| -> Vec<(String, u64)> {
            let folders = folders
                .iter()
                .map(|(name, written)| (path(name), Some(*written)));
            let all = ages.of(folders, wall, now).into_iter();
            all.map(|(path, age)| (path.display().to_string(), age.as_secs()))
                .collect()
        };
        let pair = |name: &str, age| (name.to_owned(), age);
        let (old, new) = (("old", wall - DAY), ("new", wall));
        let day = DAY.as_secs();
        let expected = [pair("new", 0), pair("old", day)];
        assert_eq!(of(&[old, new], wall, now), expected);
        // A minute later the clock is a year ahead, and then a year behind.
        let later = now + Duration::from_mins(1);
        for set in [wall + 365 * DAY, wall - 365 * DAY] {
            let expected = [pair("new", 60), pair("old", day + 60)];
            assert_eq!(of(&[old, new], set, later), expected);
        }
        // What is written by a clock that is behind is the newest nevertheless.
        let behind = wall - 365 * DAY;
        let all = of(&[old, new, ("behind", behind)], behind, later);
        assert_eq!(all[0], pair("behind", 0));
        // What is gone is forgotten.
        of(&[], wall, later);
        assert!(ages.0.is_empty());
    }
}
