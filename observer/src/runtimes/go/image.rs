//! What is read of a Go program's file: its release, its sections, and where the kernel put it.

use std::{fs, fs::File, io, path::Path};

use object::{
    elf,
    read::{
        ReadCache, ReadRef,
        elf::{FileHeader as _, SectionHeader as _},
    },
};

use super::{Refused, machine::Machine, release::Release, target::exe};
use crate::inspect::maps;

/// Sections looked at; a program has some thirty.
const MAX_SECTIONS: usize = 512;
/// Bytes of `.go.buildinfo` read: the release comes first.
const MAX_BUILDINFO: u64 = 4096;
/// Auxiliary vector: where the program is entered.
const AT_ENTRY: u64 = 9;

/// A part of the program, at the address where the process has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Section {
    pub(super) name: String,
    pub(super) addr: u64,
    pub(super) size: u64,
    /// In the file.
    pub(super) offset: u64,
}

/// A Go program and where it lies in a process.
#[derive(Clone, Debug)]
pub(super) struct Image {
    pub(super) release: Release,
    pub(super) machine: Machine,
    pub(super) sections: Vec<Section>,
}

impl Image {
    /// That of a process, by `/proc/PID/exe`, which also opens files that are deleted.
    pub(super) fn of(pid: u32) -> Result<Image, Refused> {
        let (mut image, entry) = Image::open(&exe(pid))?;
        if let Some(entry) = entry {
            let path = format!("/proc/{pid}/auxv");
            let vector = fs::read(&path).map_err(|error| Refused::of(&path, &error))?;
            let real = entry_in(&vector)
                .ok_or_else(|| Refused::Odd("the auxiliary vector names no entry".to_owned()))?;
            image.shift(real.wrapping_sub(entry));
        }
        Ok(image)
    }

    /// That of a program that a process has mapped, whatever the process itself runs.
    pub(super) fn mapped(pid: u32, program: &Path) -> Result<Image, Refused> {
        let (mut image, entry) = Image::open(program)?;
        if entry.is_some() {
            let by = image.distance(pid, program);
            image.shift(by.ok_or_else(|| Refused::Odd("it is mapped nowhere".to_owned()))?);
        }
        Ok(image)
    }

    /// How far its code is from where the file says that it is.
    fn distance(&self, pid: u32, program: &Path) -> Option<u64> {
        use std::os::unix::fs::MetadataExt as _;
        let inode = fs::metadata(program).ok()?.ino();
        let text = self.section(&[".text"])?;
        let mappings = maps::read(pid).ok()?;
        mappings.iter().find_map(|mapping| {
            let within = text.offset.checked_sub(mapping.offset)?;
            let addr = mapping.start.checked_add(within)?;
            let is_it = mapping.inode == inode && mapping.holds(addr);
            is_it.then(|| addr.wrapping_sub(text.addr))
        })
    }

    fn open(program: &Path) -> Result<(Image, Option<u64>), Refused> {
        let file = File::open(program);
        let file = file.map_err(|error| Refused::of(&program.to_string_lossy(), &error))?;
        Image::parse(&ReadCache::new(file))
    }

    /// Reads a file. For one that may lie anywhere, also the address of its entry in the file.
    pub(super) fn parse<'data, R: ReadRef<'data>>(
        data: R,
    ) -> Result<(Image, Option<u64>), Refused> {
        let odd = |error: object::Error| Refused::Odd(format!("its program file: {error}"));
        let header =
            elf::FileHeader64::<object::Endianness>::parse(data).map_err(|_| Refused::NotGo)?;
        let endian = header.endian().map_err(odd)?;
        let sections = header.sections(endian, data).map_err(odd)?;
        let mut release = None;
        let mut found = Vec::new();
        for section in sections.iter().take(MAX_SECTIONS) {
            let name = sections.section_name(endian, section).map_err(odd)?;
            if name == b".go.buildinfo" {
                let (offset, size) = section.file_range(endian).unwrap_or_default();
                let bytes = data.read_bytes_at(offset, size.min(MAX_BUILDINFO));
                let bytes = bytes.map_err(|()| {
                    Refused::Odd(".go.buildinfo lies outside of the file".to_owned())
                })?;
                release = Some(Release::parse(bytes).map_err(Refused::Odd)?);
            }
            if section.sh_addr(endian) != 0 {
                found.push(Section {
                    name: String::from_utf8_lossy(name).into_owned(),
                    addr: section.sh_addr(endian),
                    size: section.sh_size(endian),
                    offset: section.sh_offset(endian),
                });
            }
        }
        let release = release.ok_or(Refused::NotGo)?;
        let machine = match header.e_machine(endian) {
            elf::EM_X86_64 if header.is_little_endian() => Machine::X86_64,
            elf::EM_AARCH64 if header.is_little_endian() => Machine::Arm64,
            _ => return Err(Refused::Machine(release.text)),
        };
        let moved = header.e_type(endian) == elf::ET_DYN;
        let image = Image {
            release,
            machine,
            sections: found,
        };
        Ok((image, moved.then(|| header.e_entry(endian))))
    }

    fn shift(&mut self, by: u64) {
        for section in &mut self.sections {
            section.addr = section.addr.wrapping_add(by);
        }
    }

    /// Where in the file an instruction is.
    pub(super) fn offset(&self, addr: u64) -> Option<u64> {
        let text = self.section(&[".text"])?;
        let within = addr.checked_sub(text.addr).filter(|at| *at < text.size)?;
        text.offset.checked_add(within)
    }

    /// The first section of one of these names.
    pub(super) fn section(&self, names: &[&str]) -> Option<&Section> {
        names
            .iter()
            .find_map(|name| self.sections.iter().find(|section| section.name == *name))
    }
}

/// What tells a process from another that has its number later, and from itself after it became another
/// program: its file, its beginning, and where the kernel put what it handed over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Identity {
    file: (u64, u64),
    began: String,
    vector: Vec<u8>,
}

impl Identity {
    pub(super) fn of(pid: u32) -> Option<Identity> {
        use std::os::unix::fs::MetadataExt as _;
        let file = fs::metadata(format!("/proc/{pid}/exe")).ok()?;
        let stat = fs::read(format!("/proc/{pid}/stat")).ok()?;
        let stat = String::from_utf8_lossy(&stat);
        // The name is in parentheses and may hold any of them; the beginning is the 20th field behind it.
        let (_, fields) = stat.rsplit_once(')')?;
        Some(Identity {
            file: (file.dev(), file.ino()),
            began: fields.split_ascii_whitespace().nth(19)?.to_owned(),
            vector: fs::read(format!("/proc/{pid}/auxv")).ok()?,
        })
    }
}

/// The address of the entry in an auxiliary vector.
fn entry_in(vector: &[u8]) -> Option<u64> {
    vector.as_chunks::<16>().0.iter().find_map(|pair| {
        let (words, _) = pair.as_chunks::<8>();
        (u64::from_le_bytes(words[0]) == AT_ENTRY).then(|| u64::from_le_bytes(words[1]))
    })
}

impl Refused {
    /// What the kernel says to a look at a process.
    fn of(path: &str, error: &io::Error) -> Refused {
        match error.kind() {
            // The link of a process that ended, or of a kernel thread, leads nowhere.
            io::ErrorKind::NotFound => Refused::Gone,
            io::ErrorKind::PermissionDenied => Refused::Permission(path.to_owned()),
            _ if error.raw_os_error() == Some(libc::ESRCH) => Refused::Gone,
            _ => Refused::Odd(format!("{path}: {error}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_entry_is_found() {
        let words: Vec<u8> = [6u64, 4096, AT_ENTRY, 0x55_1234, 0, 0]
            .iter()
            .flat_map(|word| word.to_le_bytes())
            .collect();
        assert_eq!(entry_in(&words), Some(0x55_1234));
        assert_eq!(entry_in(&words[..31]), None);
        assert_eq!(entry_in(&[]), None);
    }

    #[test]
    fn a_process_is_itself() {
        let identity = Identity::of(std::process::id());
        assert!(identity.is_some());
        assert_eq!(identity, Identity::of(std::process::id()));
        assert_eq!(Identity::of(u32::MAX / 2), None);
    }

    #[test]
    fn what_is_not_go_is_told_from_what_is_gone() {
        assert!(matches!(Image::of(std::process::id()), Err(Refused::NotGo)));
        assert!(matches!(Image::of(u32::MAX / 2), Err(Refused::Gone)));
        assert!(matches!(
            Image::parse(&b"#!/bin/sh"[..]),
            Err(Refused::NotGo)
        ));
    }

    /// A file of this program's own form, damaged: an answer every time.
    #[test]
    fn no_truncation_or_flip_panics() {
        let mut file = fs::read("/proc/self/exe").unwrap();
        // Only the header and what it points at matter: the section headers are at the end.
        let headers = u64::from_le_bytes(file[40..48].try_into().unwrap()) as usize;
        for end in (0..64).chain((headers..file.len()).step_by(7)) {
            let _ = Image::parse(&file[..end]);
        }
        for at in (0..64).chain(headers..headers + 1024) {
            let kept = file[at];
            for value in [0, 1, 0x7f, 0x80, 0xff] {
                file[at] = value;
                let _ = Image::parse(&file[..]);
            }
            file[at] = kept;
        }
    }
}
