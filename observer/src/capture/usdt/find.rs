//! The files that have the probes of the pairs that were asked for.

use std::{collections::HashMap, fs::File, os::unix::fs::MetadataExt, path::Path};

use crate::{
    inspect::usdt::{self, Binary, Machine, files},
    runtimes::packs::Pair,
};

/// Files without any of the probes that are remembered.
const MAX_FILES: usize = 16_384;

/// Which file it is, whatever its name: device and inode.
pub(super) type Identity = (u64, u64);

/// What a list of mappings says of a file: device, inode and path.
type Name = ((String, u64), String);

/// A file with probes.
pub(super) struct Found {
    pub(super) identity: Identity,
    pub(super) path: String,
    pub(super) file: File,
    pub(super) binary: Binary,
    /// A process that maps the file.
    pub(super) mapped_by: Option<u32>,
}

/// What a file turned out to be.
pub(super) enum Looked {
    /// It has probes, and is met for the first time.
    New(Box<Found>),
    /// It has, and was met before.
    Known(Identity),
    /// It has none of them, or cannot be read.
    Other,
}

/// Reads each file once, whatever its names and however many processes map it.
#[derive(Default)]
pub(super) struct Finder {
    /// Has the file any of the probes?
    known: HashMap<Identity, bool>,
    /// By what a list of mappings says, so that a file is opened once. The path is needed too: to some file systems
    /// (btrfs) device and inode are not the same there, and may be those of two files.
    seen: HashMap<Name, Identity>,
}

impl Finder {
    /// A file that a process maps.
    pub(super) fn mapped(&mut self, pid: u32, mapped: &files::Mapped, pairs: &[Pair]) -> Looked {
        let name = (mapped.identity.clone(), mapped.path.clone());
        if let Some(identity) = self.seen.get(&name) {
            return self.again(*identity);
        }
        match mapped.open(pid) {
            Ok(file) => {
                let Ok(metadata) = file.metadata() else {
                    return Looked::Other;
                };
                let identity = (metadata.dev(), metadata.ino());
                if self.seen.len() >= MAX_FILES {
                    self.forget();
                }
                self.seen.insert(name, identity);
                self.file(&mapped.path, file, identity, Some(pid), pairs)
            }
            // Gone with its process, or to be opened through another one.
            Err(error) => {
                if Path::new(&format!("/proc/{pid}/maps")).exists() {
                    log::debug!("usdt: {} of process {pid}: {error}", mapped.path);
                }
                Looked::Other
            }
        }
    }

    /// A file that a pair names.
    ///
    /// # Errors
    /// Why it cannot be read.
    pub(super) fn named(&mut self, path: &Path, pairs: &[Pair]) -> std::io::Result<Looked> {
        let file = files::open(path)?;
        let metadata = file.metadata()?;
        let identity = (metadata.dev(), metadata.ino());
        Ok(self.file(&path.to_string_lossy(), file, identity, None, pairs))
    }

    /// Files without probes are looked at anew: another one may have got the inode of one that was deleted. Those with
    /// probes keep theirs, since they are attached to.
    pub(super) fn forget(&mut self) {
        self.known.retain(|_, has_any| *has_any);
        self.seen.clear();
    }

    /// Nothing of a file's probes is wanted.
    pub(super) fn refuse(&mut self, identity: Identity) {
        self.known.insert(identity, false);
    }

    /// A file that is not attached to yet is met as if for the first time.
    pub(super) fn take_back(&mut self, identity: Identity) {
        self.known.remove(&identity);
        self.seen.retain(|_, known| *known != identity);
    }

    fn again(&self, identity: Identity) -> Looked {
        match self.known.get(&identity) {
            Some(true) => Looked::Known(identity),
            _ => Looked::Other,
        }
    }

    /// Reads the file's probes, unless it is known.
    fn file(
        &mut self,
        path: &str,
        file: File,
        identity: Identity,
        pid: Option<u32>,
        pairs: &[Pair],
    ) -> Looked {
        if self.known.contains_key(&identity) {
            return self.again(identity);
        }
        if self.known.len() >= MAX_FILES {
            self.forget();
        }
        let binary = usdt::probes(&file)
            .ok()
            .filter(|binary| Machine::native() == Some(binary.machine))
            .filter(|binary| has_any(binary, pairs));
        self.known.insert(identity, binary.is_some());
        match binary {
            Some(binary) => Looked::New(Box::new(Found {
                identity,
                path: path.to_owned(),
                file,
                binary,
                mapped_by: pid,
            })),
            None => Looked::Other,
        }
    }
}

fn has_any(binary: &Binary, pairs: &[Pair]) -> bool {
    pairs.iter().any(|pair| {
        binary
            .probes
            .iter()
            .any(|probe| probe.provider == pair.provider && probe.name == pair.begin)
    })
}
