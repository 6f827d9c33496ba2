//! An incident bundle: a directory for its owner only with all that a triage saw, and an archive of it.

use std::{
    ffi::OsString,
    fs::{self, DirBuilder, File, Permissions},
    io::{BufWriter, Write},
    os::unix::fs::{DirBuilderExt, PermissionsExt},
    path::{Path, PathBuf},
};

use anyhow::{Context, Error, Result, bail};
use flate2::{Compression, write::GzEncoder};

use super::host;
use crate::{capture::doctor, dump::Dump, record, report, time};

/// Files of a bundle.
pub const RECORDING: &str = "recording.jsonl.zst";
/// The report in each of its forms.
pub const REPORTS: [&str; 3] = ["report.html", "report.md", "report.json"];
const OTHERS: [&str; 4] = ["dump.json", "dump.txt", "doctor.json", "host.json"];

/// The directory, and what has been put into it.
#[derive(Debug)]
pub struct Bundle {
    folder: PathBuf,
    archive: PathBuf,
    name: OsString,
    files: Vec<&'static str>,
    errors: Vec<Error>,
}

impl Bundle {
    /// Makes the directory. An existing one, or an existing archive, is refused; with `force` the files of a
    /// bundle in it are replaced, and others are left alone.
    ///
    /// # Errors
    /// When something is there already, or the directory cannot be made.
    pub fn create(folder: &Path, force: bool) -> Result<Bundle> {
        let shown = folder.display();
        let Some(name) = folder.file_name() else {
            bail!("{shown} is no name for a new directory");
        };
        let mut archive = name.to_owned();
        archive.push(".tar.gz");
        let archive = folder.with_file_name(archive);
        record::check(&archive, force)?;
        match folder.symlink_metadata() {
            Ok(there) if !force => {
                let what = if there.is_dir() { "directory" } else { "file" };
                bail!("the {what} {shown} exists; --force replaces the files of a bundle in it");
            }
            Ok(there) if !there.is_dir() => bail!("{shown} is no directory"),
            Ok(_) => {
                fs::set_permissions(folder, Permissions::from_mode(0o700))
                    .with_context(|| format!("cannot change {shown}"))?;
                for file in REPORTS.iter().chain(&OTHERS).chain([&RECORDING]) {
                    remove(&folder.join(file))?;
                }
            }
            Err(_) => DirBuilder::new()
                .mode(0o700)
                .create(folder)
                .with_context(|| format!("cannot make the directory {shown}"))?,
        }
        if force {
            remove(&archive)?;
        }
        Ok(Bundle {
            folder: folder.to_owned(),
            archive,
            name: name.to_owned(),
            files: Vec::new(),
            errors: Vec::new(),
        })
    }

    /// The place of a file, which somebody else writes.
    pub fn reserve(&mut self, file: &'static str) -> PathBuf {
        self.files.push(file);
        self.folder.join(file)
    }

    /// Writes a file, for its owner only. One that cannot be written whole is taken away again, and the others are
    /// written nevertheless: what is there of an incident is worth keeping.
    pub fn add(&mut self, file: &'static str, write: impl FnOnce(&mut dyn Write) -> Result<()>) {
        let path = self.folder.join(file);
        match put(&path, write) {
            Ok(()) => self.files.push(file),
            Err(error) => {
                // Its directory may be gone, and with it the file.
                let _ = fs::remove_file(&path);
                self.errors.push(error);
            }
        }
    }

    /// Adds the dump, what `observer doctor` says, and facts of the host and of these processes.
    pub fn add_facts(&mut self, dump: Option<&Dump>, pids: &[u32]) {
        if let Some(dump) = dump {
            self.add("dump.json", |out| {
                Ok(serde_json::to_writer_pretty(out, dump)?)
            });
            self.add("dump.txt", |mut out| {
                Ok(report::dump::text(&mut out, dump)?)
            });
        }
        self.add("doctor.json", |out| {
            Ok(serde_json::to_writer_pretty(out, &doctor::examine()?)?)
        });
        let facts = host::facts(pids);
        self.add("host.json", |out| {
            Ok(serde_json::to_writer_pretty(out, &facts)?)
        });
    }

    /// Packs the directory. Returns the archive, if it could be written, and what went wrong.
    pub fn pack(mut self) -> (Option<PathBuf>, Vec<Error>) {
        let packed = self
            .write_archive()
            .with_context(|| format!("cannot write {}", self.archive.display()));
        let archive = match packed {
            Ok(()) => Some(self.archive),
            Err(error) => {
                let _ = fs::remove_file(&self.archive);
                self.errors.push(error);
                None
            }
        };
        (archive, self.errors)
    }

    fn write_archive(&self) -> Result<()> {
        let out = GzEncoder::new(
            BufWriter::new(record::make(&self.archive)?),
            Compression::default(),
        );
        let mut archive = tar::Builder::new(out);
        for file in &self.files {
            let path = self.folder.join(file);
            let mut input = File::open(&path)?;
            let mut header = tar::Header::new_gnu();
            header.set_size(input.metadata()?.len());
            header.set_mode(0o600);
            header.set_mtime(time::Clock::now().wall(time::mono_ns()).0 / 1_000_000_000);
            archive.append_data(&mut header, Path::new(&self.name).join(file), &mut input)?;
        }
        archive.into_inner()?.finish()?.flush()?;
        Ok(())
    }
}

fn put(path: &Path, write: impl FnOnce(&mut dyn Write) -> Result<()>) -> Result<()> {
    let mut out = BufWriter::new(record::make(path)?);
    write(&mut out)
        .and_then(|()| Ok(out.flush()?))
        .with_context(|| format!("cannot write {}", path.display()))
}

fn remove(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot replace {}", path.display()))
        }
        _ => Ok(()),
    }
}
