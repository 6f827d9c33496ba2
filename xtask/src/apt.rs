//! A Debian-like distribution's packages, without changing the machine's own configuration.
//!
//! A package of another suite is fetched with apt itself, from the mirror that the machine uses,
//! through a private list of sources with private folders. Nothing is installed and no privileges
//! are needed; apt checks the signatures as ever.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::cmd;

/// Debian's archive keys, where its releases keep them: apt's own way to say which keys a source
/// is to be signed with differs between its versions.
const KEYRINGS: [&str; 2] = [
    "/usr/share/keyrings/debian-archive-keyring.pgp",
    "/usr/share/keyrings/debian-archive-keyring.gpg",
];

/// A folder with apt's state in it, removed when done.
pub(crate) struct PrivateApt {
    dir: PathBuf,
    mirror: String,
}

impl PrivateApt {
    /// Makes the folder and finds the mirror that this machine uses.
    pub(crate) fn new(dir: PathBuf) -> Result<Self> {
        for tool in ["apt-get", "dpkg-deb", "tar"] {
            if !cmd::exists(tool) {
                bail!("no {tool} here: not a Debian-like system");
            }
        }
        let mut apt = Self {
            dir,
            mirror: String::new(),
        };
        // The rest of an earlier run that was interrupted.
        let _ = fs::remove_dir_all(&apt.dir);
        for folder in ["lists/partial", "cache/archives/partial"] {
            let folder = apt.dir.join(folder);
            fs::create_dir_all(&folder)
                .with_context(|| format!("cannot make the folder {}", folder.display()))?;
        }
        // With the machine's sources, but an empty folder of lists, so that it names every file it
        // would fetch. Nothing is fetched, and it works where no list was ever fetched.
        let uris = cmd::output(apt.get().args(["update", "--print-uris"]))?;
        apt.mirror =
            find_mirror(&uris).context("apt has no mirror of a distribution configured")?;
        Ok(apt)
    }

    /// apt-get with the private folders.
    fn get(&self) -> Command {
        self.tool("apt-get")
    }

    fn tool(&self, name: &str) -> Command {
        let mut command = Command::new(name);
        command
            .current_dir(&self.dir)
            .env("LC_ALL", "C")
            .arg("--quiet")
            .arg("-o")
            .arg(option("Dir::State::lists", &self.dir.join("lists")))
            .arg("-o")
            .arg(option("Dir::Cache", &self.dir.join("cache")))
            // As root apt fetches as a user of its own, who cannot write into this folder.
            .args(["-o", "APT::Sandbox::User=root"]);
        command
    }

    /// Fetches the list of one suite; gives apt-get and its like with that list alone.
    fn update(&self, suite: &str) -> Result<impl Fn(&str) -> Command> {
        let sources = self.dir.join("sources.list");
        let keyring = KEYRINGS.into_iter().find(|path| Path::new(path).is_file());
        fs::write(&sources, source_line(&self.mirror, suite, keyring))
            .with_context(|| format!("cannot write {}", sources.display()))?;
        let tool = move |name: &str| {
            let mut command = self.tool(name);
            command
                .arg("-o")
                .arg(option("Dir::Etc::sourcelist", &sources))
                .args(["-o", "Dir::Etc::sourceparts=-"]);
            command
        };
        cmd::output(tool("apt-get").arg("update"))?;
        Ok(tool)
    }

    /// The names of a suite's packages that begin with `prefix`.
    pub(crate) fn names(&self, suite: &str, prefix: &str) -> Result<Vec<String>> {
        let tool = self.update(suite)?;
        // Without this machine's own packages.
        let mut names = tool("apt-cache");
        names
            .args(["-o", "Dir::State::status=/dev/null"])
            .args(["pkgnames", prefix]);
        Ok(cmd::output(&mut names)?
            .lines()
            .map(str::to_owned)
            .collect())
    }

    /// Fetches a package of one suite whose version begins with `version`.
    pub(crate) fn download(&self, suite: &str, package: &str, version: &str) -> Result<PathBuf> {
        let tool = self.update(suite)?;
        cmd::output(tool("apt-get").args(["download", &format!("{package}={version}*")]))?;
        find_package(&self.dir, package)?
            .with_context(|| format!("apt-get download left no {package}_*.deb behind"))
    }

    /// Unpacks those files of a package that match a pattern, and gives the folder with them.
    pub(crate) fn unpack(&self, package: &Path, pattern: &str) -> Result<PathBuf> {
        let into = self.dir.join("unpacked");
        fs::create_dir_all(&into)
            .with_context(|| format!("cannot make the folder {}", into.display()))?;
        // Only what is needed: the whole of rust-src is five times as large.
        let mut command = Command::new("sh");
        command
            .args([
                "-c",
                r#"dpkg-deb --fsys-tarfile "$1" | tar -x -C "$2" --wildcards "$3""#,
            ])
            .arg("unpack")
            .args([package, &into])
            .arg(pattern);
        cmd::output(&mut command)?;
        Ok(into)
    }
}

impl Drop for PrivateApt {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.dir);
    }
}

fn option(name: &str, path: &Path) -> String {
    format!("{name}={}", path.display())
}

fn source_line(mirror: &str, suite: &str, keyring: Option<&str>) -> String {
    let signed = keyring.map_or_else(String::new, |path| format!("[signed-by={path}] "));
    format!("deb {signed}{mirror} {suite} main\n")
}

fn find_package(dir: &Path, package: &str) -> Result<Option<PathBuf>> {
    let entries = fs::read_dir(dir).with_context(|| format!("cannot list {}", dir.display()))?;
    let prefix = format!("{package}_");
    Ok(entries.filter_map(Result::ok).find_map(|entry| {
        let path = entry.path();
        let named = path.file_name()?.to_str()?.starts_with(&prefix);
        (named && path.extension()? == "deb").then_some(path)
    }))
}

/// The first mirror in the output of `apt-get update --print-uris` that is not the one for
/// security updates: that one has no backports.
///
/// A line is `'URI/dists/SUITE/…' FILE SIZE`.
fn find_mirror(uris: &str) -> Option<String> {
    uris.lines().find_map(|line| {
        let (uri, _) = line.strip_prefix('\'')?.split_once('\'')?;
        let (mirror, suite) = uri.split_once("/dists/")?;
        let security = mirror.contains("security") || suite.contains("security");
        (!security).then(|| format!("{mirror}/"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mirror_is_the_first_that_is_not_for_security() {
        let uris = "'http://m.test/debian-security/dists/bookworm-security/InRelease' m_s 0 \n\
                    'http://m.test/debian/dists/bookworm/InRelease' m_b 0 \n\
                    'http://m.test/debian/dists/bookworm/main/binary-amd64/Packages.xz' m_p 0 \n";
        assert_eq!(find_mirror(uris).as_deref(), Some("http://m.test/debian/"));
        let odd = "'mirror+file:/etc/apt/mirrors.list/dists/trixie/InRelease' x 0\n";
        assert_eq!(
            find_mirror(odd).as_deref(),
            Some("mirror+file:/etc/apt/mirrors.list/")
        );
    }

    #[test]
    fn no_mirror_is_no_mirror() {
        assert_eq!(find_mirror(""), None);
        assert_eq!(
            find_mirror("Reading package lists...\n'file:/flat/./Release' x 0\n"),
            None
        );
    }

    #[test]
    fn a_source_names_its_keys_when_they_are_known() {
        assert_eq!(
            source_line("http://m.test/debian/", "forky", Some("/keys.gpg")),
            "deb [signed-by=/keys.gpg] http://m.test/debian/ forky main\n"
        );
        assert_eq!(source_line("m:/d/", "sid", None), "deb m:/d/ sid main\n");
    }
}
