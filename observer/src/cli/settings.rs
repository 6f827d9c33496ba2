//! Where the screen keeps how it was left: a file of the user's own.
//!
//! Through sudo that is the user who called it: everything is read and written with that user's rights, so that
//! the file is theirs, and a link that they put there leads nowhere that they could not go themselves.

use std::{
    fs,
    io::{self, Read as _, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use crate::tui::{Settings, Ui};

/// More than this is none of ours.
const MAX_BYTES: u64 = 64 * 1024;

/// The file, and whose it is.
pub(super) struct Store {
    path: PathBuf,
    user: Option<(u32, u32)>,
}

impl Store {
    /// Finds the file; `None`: the user has no home.
    pub(super) fn find() -> Option<Store> {
        Store::from(|name| std::env::var(name).ok(), home_of)
    }

    fn from(
        variable: impl Fn(&str) -> Option<String>,
        home_of: impl Fn(u32) -> Option<PathBuf>,
    ) -> Option<Store> {
        let number = |name| variable(name)?.parse::<u32>().ok();
        // SAFETY: geteuid takes nothing and always succeeds.
        let root = unsafe { libc::geteuid() } == 0;
        let sudo = number("SUDO_UID").zip(number("SUDO_GID"));
        let user = sudo.filter(|(uid, _)| root && *uid != 0);
        let absolute = |name| {
            variable(name)
                .map(PathBuf::from)
                .filter(|path| path.is_absolute())
        };
        let folder = match user {
            Some((uid, _)) => home_of(uid)?.join(".config"),
            None => {
                absolute("XDG_CONFIG_HOME").or_else(|| Some(absolute("HOME")?.join(".config")))?
            }
        };
        Some(Store {
            path: folder.join("observer/screen.toml"),
            user,
        })
    }

    /// Puts what is in the file into force. A file that cannot be used is told of, and left alone.
    pub(super) fn load(&self, ui: &mut Ui) {
        let text = match self.as_user(|| read(&self.path)) {
            Ok(text) => text,
            // `XDG_CONFIG_HOME=/dev/null` is how to do without.
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
                ) =>
            {
                return;
            }
            Err(error) => return ui.notice(self.not_used(&error.to_string())),
        };
        match Settings::parse(&text) {
            Ok(settings) => ui.restore(&settings),
            Err(why) => ui.notice(self.not_used(&why)),
        }
    }

    fn not_used(&self, why: &str) -> String {
        format!("{} is not used: {why}", self.path.display())
    }

    /// Writes how the screen is left. It is no loss if that fails: the next one begins as the first did.
    pub(super) fn save(&self, ui: &mut Ui) {
        let text = ui.settings().text();
        let saved = self.as_user(|| write(&self.path, &text));
        if let Err(error) = saved {
            log::info!("cannot write {}: {error}", self.path.display());
        }
    }

    /// With the rights of the user whose file it is.
    fn as_user<T>(&self, act: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        let Some((uid, gid)) = self.user else {
            return act();
        };
        // Of this thread alone, and only for files. Group first: without its rights root could not.
        // SAFETY: the calls take integers and touch no memory; they report no errors but are asked below.
        unsafe {
            libc::setfsgid(gid);
            libc::setfsuid(uid);
        }
        // SAFETY: as above; a number that is no user's changes nothing and tells what is in force.
        let taken = unsafe { libc::setfsuid(u32::MAX) } as u32 == uid;
        let done = if taken {
            act()
        } else {
            Err(io::ErrorKind::PermissionDenied.into())
        };
        // SAFETY: as above.
        unsafe {
            libc::setfsuid(0);
            libc::setfsgid(0);
        }
        done
    }
}

fn read(path: &Path) -> io::Result<String> {
    let file = fs::OpenOptions::new()
        .read(true)
        // A pipe of that name would be waited for.
        .custom_flags(libc::O_NONBLOCK)
        .open(path)?;
    let mut text = String::new();
    let read = file.take(MAX_BYTES + 1).read_to_string(&mut text)?;
    if read as u64 > MAX_BYTES {
        return Err(io::Error::other("it is larger than 64 KiB"));
    }
    Ok(text)
}

/// Whole or not at all.
fn write(path: &Path, text: &str) -> io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("/"));
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)?;
    let new = folder.join(format!("screen.toml.{}", std::process::id()));
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&new)?;
    let written = file
        .write_all(text.as_bytes())
        .and_then(|()| fs::rename(&new, path));
    if written.is_err() {
        let _ = fs::remove_file(&new);
    }
    written
}

/// The home of a user, by `/etc/passwd`.
fn home_of(uid: u32) -> Option<PathBuf> {
    let users = fs::read_to_string("/etc/passwd").ok()?;
    home_in(&users, uid)
}

fn home_in(users: &str, uid: u32) -> Option<PathBuf> {
    let uid = uid.to_string();
    let line = users
        .lines()
        .find(|line| line.split(':').nth(2) == Some(&*uid))?;
    let home = PathBuf::from(line.split(':').nth(5)?);
    home.is_absolute().then_some(home)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{model::Model, tui::Options};
    use std::os::unix::fs::{MetadataExt as _, symlink};

    const USERS: &str =
        "root:x:0:0::/root:/bin/sh\nnobody:x:65534:65534::/nonexistent:/x\nbroken\n";

    fn folder(name: &str) -> PathBuf {
        let path = std::env::temp_dir().join(format!("observer-{name}-{}", std::process::id()));
        fs::create_dir(&path).unwrap();
        path
    }

    #[test]
    fn the_file_is_the_users_own() {
        let set = |pairs: &'static [(&'static str, &'static str)]| {
            let variable = move |name: &str| {
                let found = pairs.iter().find(|(one, _)| *one == name);
                found.map(|(_, value)| (*value).to_owned())
            };
            Store::from(variable, |uid| home_in(USERS, uid)).map(|store| store.path)
        };
        let path = |text: &str| Some(PathBuf::from(text));
        assert_eq!(
            set(&[("HOME", "/h")]),
            path("/h/.config/observer/screen.toml")
        );
        assert_eq!(
            set(&[("HOME", "/h"), ("XDG_CONFIG_HOME", "/c")]),
            path("/c/observer/screen.toml")
        );
        assert_eq!(set(&[("HOME", "h")]), None);
        assert_eq!(home_in(USERS, 7), None);
    }

    #[test]
    fn what_was_left_is_found_and_damage_is_told() {
        let home = folder("settings");
        let store = Store {
            path: home.join("observer/screen.toml"),
            user: None,
        };
        let mut ui = Ui::new(Options::default());
        store.load(&mut ui);
        assert_eq!(ui.said(), None, "no file is no trouble");
        store.save(&mut ui);
        assert_eq!(store.path.metadata().unwrap().mode() & 0o777, 0o600);
        store.load(&mut ui);
        assert_eq!(ui.said(), None);
        for damage in ["view = [", "\u{0}"] {
            fs::write(&store.path, damage).unwrap();
            store.load(&mut ui);
            assert!(
                ui.said().unwrap().contains("is not used"),
                "{:?}",
                ui.said()
            );
        }
        fs::write(&store.path, "# ".repeat(40_000)).unwrap();
        store.load(&mut ui);
        assert!(ui.said().unwrap().contains("larger than 64 KiB"));
        fs::remove_file(&store.path).unwrap();
        fs::create_dir(&store.path).unwrap();
        store.load(&mut ui);
        store.save(&mut ui);
        ui.tick(&Model::default());
        fs::remove_dir_all(home).unwrap();
    }

    /// Through sudo a link leads no further than the user may go.
    #[test]
    fn files_are_read_and_written_as_the_user() {
        // SAFETY: geteuid takes nothing and always succeeds.
        if unsafe { libc::geteuid() } != 0 {
            println!("skipped: only root can act as somebody else");
            return;
        }
        let home = folder("sudo");
        std::os::unix::fs::chown(&home, Some(65534), Some(65534)).unwrap();
        let secret = home.join("secret");
        fs::write(&secret, "mine").unwrap();
        fs::set_permissions(&secret, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
        let store = Store {
            path: home.join("observer/screen.toml"),
            user: Some((65534, 65534)),
        };
        let mut ui = Ui::new(Options::default());
        store.save(&mut ui);
        assert_eq!(store.path.metadata().unwrap().uid(), 65534);
        fs::remove_file(&store.path).unwrap();
        symlink(&secret, &store.path).unwrap();
        store.load(&mut ui);
        assert!(
            ui.said().unwrap().contains("ermission denied"),
            "{:?}",
            ui.said()
        );
        store.save(&mut ui);
        assert_eq!(fs::read_to_string(&secret).unwrap(), "mine");
        fs::write(home.join("root"), "").unwrap();
        assert_eq!(home.join("root").metadata().unwrap().uid(), 0, "root again");
        fs::remove_dir_all(home).unwrap();
    }
}
