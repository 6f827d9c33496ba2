//! Stock kernels of the distribution, fetched by name, unpacked and never installed.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};

use crate::apt::PrivateApt;
use crate::cmd::Step;
use crate::project;

/// A line of kernels, of which the newest is taken.
#[derive(Debug, Clone, Copy)]
pub(super) struct Line {
    /// The name on the command line.
    pub(super) name: &'static str,
    /// What its releases begin with.
    prefix: &'static str,
    /// The suite that has it.
    suite: &'static str,
}

pub(super) const LINES: [Line; 4] = [
    Line {
        name: "5.10",
        prefix: "5.10.",
        suite: "bullseye",
    },
    Line {
        name: "6.1",
        prefix: "6.1.",
        suite: "bookworm",
    },
    Line {
        name: "6.12",
        prefix: "6.12.",
        suite: "bookworm-backports",
    },
    Line {
        name: "7.x",
        prefix: "7.",
        suite: "trixie-backports",
    },
];

/// The variant without drivers for real machines: small, and all that a virtual one needs.
const FLAVOUR: &str = "-cloud-amd64";

/// What a package with a kernel begins with, the likeliest first: where there are several, the others
/// only depend on it.
const PACKAGES: [&str; 3] = ["linux-binary-", "linux-binary-unsigned-", "linux-image-"];

/// So many packages are tried before giving up.
const TRIES: usize = 4;

/// A kernel to boot.
#[derive(Debug)]
pub(super) struct Kernel {
    /// Its release, as `uname -r`.
    pub(super) release: String,
    /// The file.
    pub(super) image: PathBuf,
}

/// The newest kernel of a line that was fetched before, or else the newest that there is.
pub(super) fn find(line: &Line) -> Result<Kernel> {
    let kept = project::tools().join("kernels");
    fs::create_dir_all(&kept)
        .with_context(|| format!("cannot make the folder {}", kept.display()))?;
    // Another run may be fetching the same.
    let lock = kept.join("lock");
    let lock = File::create(&lock)
        .and_then(|file| file.lock().map(|()| file))
        .with_context(|| format!("cannot lock {}", lock.display()))?;
    let found = match fetched(&kept, line) {
        Some(kernel) => Ok(kernel),
        None => fetch(&kept, line).with_context(|| {
            format!(
                "cannot fetch a {} kernel from the suite {}; a vmlinuz put at {}/RELEASE/vmlinuz \
                 does as well",
                line.name,
                line.suite,
                kept.display()
            )
        }),
    };
    drop(lock);
    found
}

fn fetched(kept: &Path, line: &Line) -> Option<Kernel> {
    let entries = fs::read_dir(kept).ok()?;
    let releases = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    releases
        .filter(|release| release.starts_with(line.prefix))
        .map(|release| Kernel {
            image: kept.join(&release).join("vmlinuz"),
            release,
        })
        .filter(|kernel| kernel.image.is_file())
        .max_by_key(|kernel| numbers(&kernel.release))
}

fn fetch(kept: &Path, line: &Line) -> Result<Kernel> {
    let step = Step::quiet(&format!("vm: {}", line.name), "fetching the stock kernel");
    let apt = PrivateApt::new(project::tools().join("apt-kernels"))?;
    let names = apt.names(line.suite, "linux-")?;
    let packages = choose(&names, line.prefix);
    if packages.is_empty() {
        bail!(
            "the suite has no package linux-image-{}…{FLAVOUR}",
            line.prefix
        );
    }
    let mut refusals = Vec::new();
    for (package, release) in packages.into_iter().take(TRIES) {
        match unpack(&apt, line.suite, package, release, kept) {
            Ok(image) => {
                step.done();
                let release = release.to_owned();
                return Ok(Kernel { release, image });
            }
            Err(error) => refusals.push(format!("{package}: {error:#}")),
        }
    }
    bail!("no package has a kernel in it:\n{}", refusals.join("\n"))
}

/// Fetches a package and keeps the kernel in it.
fn unpack(
    apt: &PrivateApt,
    suite: &str,
    package: &str,
    release: &str,
    kept: &Path,
) -> Result<PathBuf> {
    let archive = apt.download(suite, package, "")?;
    let unpacked = apt.unpack(&archive, "*/vmlinuz*")?;
    let places = [
        format!("boot/vmlinuz-{release}"),
        format!("usr/lib/modules/{release}/vmlinuz"),
        format!("usr/lib/modules/{release}/vmlinuz.unsigned"),
    ];
    let found = places
        .iter()
        .map(|place| unpacked.join(place))
        .find(|path| path.is_file())
        .context("no vmlinuz in it")?;
    let image = kept.join(release).join("vmlinuz");
    let partial = image.with_extension("partial");
    fs::create_dir_all(kept.join(release))
        .and_then(|()| fs::copy(found, &partial))
        .and_then(|_| fs::rename(&partial, &image))
        .with_context(|| format!("cannot write {}", image.display()))?;
    Ok(image)
}

/// Packages with kernels of a line, and their releases: the newest first.
fn choose<'a>(names: &'a [String], prefix: &str) -> Vec<(&'a str, &'a str)> {
    let mut found: Vec<_> = names
        .iter()
        .filter_map(|name| {
            let release = release_of(name)?;
            release
                .starts_with(prefix)
                .then_some((name.as_str(), release))
        })
        .collect();
    // Names sort as the packages are to be tried, so only the releases are turned around.
    found.sort_by_key(|(name, release)| (std::cmp::Reverse(numbers(release)), *name));
    found
}

/// The release of the kernel in a package, by the package's name.
fn release_of(package: &str) -> Option<&str> {
    let release = PACKAGES
        .iter()
        .filter_map(|before| package.strip_prefix(before))
        .find(|release| release.starts_with(|c: char| c.is_ascii_digit()))?;
    release.ends_with(FLAVOUR).then_some(release)
}

/// The numbers in a release, by which releases are ordered: `6.12.90+deb12.1-cloud-amd64` is 6, 12, 90,
/// 12, 1.
fn numbers(release: &str) -> Vec<u32> {
    let version = release.strip_suffix(FLAVOUR).unwrap_or(release);
    let digits = version.split(|c: char| !c.is_ascii_digit());
    digits.filter_map(|digits| digits.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(names: &[&str], prefix: &str) -> Vec<String> {
        let names: Vec<String> = names.iter().map(ToString::to_string).collect();
        let chosen = choose(&names, prefix);
        chosen.iter().map(|(name, _)| (*name).to_owned()).collect()
    }

    #[test]
    fn the_newest_comes_first_by_number_and_not_by_letter() {
        let names = [
            "linux-image-6.12.9+deb12-cloud-amd64",
            "linux-image-6.12.90+deb12-cloud-amd64",
            "linux-image-6.12.90+deb12.1-cloud-amd64",
            "linux-image-6.1.0-50-cloud-amd64",
            "linux-image-6.12.95+deb12-cloud-amd64-dbg",
            "linux-image-6.12.95+deb12-cloud-amd64-unsigned",
            "linux-image-6.12.95+deb12-amd64",
            "linux-image-cloud-amd64",
        ];
        assert_eq!(chosen(&names, "6.12."), [names[2], names[1], names[0]]);
        assert_eq!(chosen(&names, "6.1."), [names[3]]);
        assert!(chosen(&names, "7.").is_empty());
    }

    #[test]
    fn of_several_packages_of_one_kernel_the_one_that_holds_it_comes_first() {
        let names = [
            "linux-image-7.3.4+deb13-cloud-amd64",
            "linux-image-7.2.12+deb13-cloud-amd64",
            "linux-binary-unsigned-7.3.4+deb13-cloud-amd64",
            "linux-binary-7.3.4+deb13-cloud-amd64",
        ];
        assert_eq!(
            chosen(&names, "7."),
            [names[3], names[2], names[0], names[1]]
        );
        assert_eq!(release_of(names[2]), Some("7.3.4+deb13-cloud-amd64"));
    }

    #[test]
    fn what_was_fetched_is_found_again() {
        let kept = std::env::temp_dir().join(format!("observer-kernels-{}", std::process::id()));
        for release in ["5.10.0-9-cloud-amd64", "5.10.0-32-cloud-amd64", "5.10.1"] {
            fs::create_dir_all(kept.join(release)).unwrap();
        }
        assert!(
            fetched(&kept, &LINES[0]).is_none(),
            "folders without a kernel"
        );
        for release in ["5.10.0-9-cloud-amd64", "5.10.0-32-cloud-amd64"] {
            fs::write(kept.join(release).join("vmlinuz"), "").unwrap();
        }
        let kernel = fetched(&kept, &LINES[0]).unwrap();
        assert_eq!(kernel.release, "5.10.0-32-cloud-amd64");
        assert!(fetched(&kept, &LINES[1]).is_none());
        fs::remove_dir_all(&kept).unwrap();
    }
}
