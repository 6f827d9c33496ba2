//! Where the fields of the runtime's structs lie, from a program's own debug information.
//!
//! It is that of the very build, so it is right where a table by releases may not be: for releases that came
//! later, and for runtimes that somebody changed. Programs are often linked without it (`-ldflags=-w`).

use std::{
    collections::HashMap,
    fs::File,
    io::Read as _,
    path::Path,
    time::{Duration, Instant},
};

use flate2::read::ZlibDecoder;
use gimli::{
    Abbreviations, AttributeValue, DebugAbbrev, DebugInfo, DebugInfoOffset, DebugStr, DwTag,
    EndianSlice, LittleEndian, UnitHeader, UnitOffset, constants as dw,
};
use object::{
    elf,
    read::{
        ReadCache, ReadRef,
        elf::{FileHeader as _, SectionHeader as _},
    },
};
use serde_json::{Map, Value};

use super::layout::Layout;

/// Sections looked at; a program has some thirty.
const MAX_SECTIONS: usize = 512;
/// Bytes of one section, as it is when it is not compressed; the largest programs have some 100 MB.
const MAX_SECTION: u64 = 256 << 20;
/// Entries looked at.
const MAX_ENTRIES: usize = 8 << 20;
/// Members of one struct.
const MAX_MEMBERS: usize = 1024;
/// Bytes of one struct; the largest, a processor, has 16 kB.
const MAX_STRUCT: u64 = 64 << 10;
/// Time for all of it.
const MAX_TIME: Duration = Duration::from_secs(2);
/// Entries between two looks at the clock.
const SOMETIMES: usize = 4096;
/// Types that only name others, one in the other.
const MAX_NAMES: usize = 8;

/// A struct: its name in the layout, its name in Go, the rest of which may be anything behind a `*`, and its fields.
type Wanted = (
    &'static str,
    &'static str,
    &'static [(&'static str, &'static [&'static str])],
);

/// The fields that are read. Where releases differ there is more than one path to a field; the last is that of
/// releases that do not have the ones before.
const WANTED: [Wanted; 13] = [
    (
        "g",
        "runtime.g",
        &[
            ("stack", &["stack"]),
            ("m", &["m"]),
            ("sched", &["sched"]),
            ("atomicstatus", &["atomicstatus"]),
            ("goid", &["goid"]),
            ("waitreason", &["waitreason"]),
            ("lockedm", &["lockedm"]),
            ("parentGoid", &["parentGoid"]),
            ("gopc", &["gopc"]),
            ("startpc", &["startpc"]),
            ("waiting", &["waiting"]),
            ("labels", &["labels"]),
            ("timer", &["timer"]),
            ("sleepWhen", &["sleepWhen"]),
        ],
    ),
    (
        "gobuf",
        "runtime.gobuf",
        &[
            ("sp", &["sp"]),
            ("pc", &["pc"]),
            ("g", &["g"]),
            ("lr", &["lr"]),
            ("bp", &["bp"]),
        ],
    ),
    (
        "m",
        "runtime.m",
        &[("procid", &["procid"]), ("curg", &["curg"])],
    ),
    (
        "sudog",
        "runtime.sudog",
        &[
            ("g", &["g"]),
            ("next", &["next"]),
            ("prev", &["prev"]),
            ("elem", &["elem.vu", "elem"]),
            ("isSelect", &["isSelect"]),
            ("waitlink", &["waitlink"]),
            ("c", &["c.maybeTraceablePtr.vu", "c.vu", "c"]),
        ],
    ),
    (
        "hchan",
        "runtime.hchan",
        &[
            ("qcount", &["qcount"]),
            ("dataqsiz", &["dataqsiz"]),
            ("elemsize", &["elemsize"]),
            ("closed", &["closed"]),
            ("timer", &["timer"]),
            ("recvq", &["recvq"]),
            ("sendq", &["sendq"]),
        ],
    ),
    ("timer", "runtime.timer", &[("when", &["when"])]),
    (
        "pollDesc",
        "runtime.pollDesc",
        &[("fd", &["fd"]), ("rg", &["rg"]), ("wg", &["wg"])],
    ),
    (
        "moduledata",
        "runtime.moduledata",
        &[("gofunc", &["gofunc"]), ("next", &["next"])],
    ),
    (
        "p",
        "runtime.p",
        &[
            ("id", &["id"]),
            ("status", &["status"]),
            ("m", &["m"]),
            ("runqhead", &["runqhead"]),
            ("runqtail", &["runqtail"]),
            ("runnext", &["runnext"]),
            ("wbBuf", &["wbBuf"]),
        ],
    ),
    (
        // It has no name but that of its fields, the last of which fills it up.
        "semtable",
        "struct { runtime.root runtime.semaRoot; *",
        &[("treap", &["root.treap"])],
    ),
    (
        "mspan",
        "runtime.mspan",
        &[
            ("startAddr", &["startAddr"]),
            ("npages", &["npages"]),
            ("spanclass", &["spanclass"]),
            ("state", &["state"]),
            ("elemsize", &["elemsize"]),
            ("specials", &["specials"]),
        ],
    ),
    (
        "special",
        "runtime.special",
        &[
            ("next", &["next"]),
            ("offset", &["offset"]),
            ("kind", &["kind"]),
        ],
    ),
    (
        "schedt",
        "runtime.schedt",
        &[
            ("lock", &["lock"]),
            ("nmidle", &["nmidle"]),
            ("mnext", &["mnext"]),
            ("nmfreed", &["nmfreed"]),
            ("npidle", &["npidle"]),
            ("nmspinning", &["nmspinning"]),
            ("runqsize", &["runq.size", "runqsize"]),
            ("gcwaiting", &["gcwaiting"]),
        ],
    ),
];

type Bytes<'a> = EndianSlice<'a, LittleEndian>;

/// The layout of a program, from its file. None: it has no debug information.
///
/// # Errors
/// What is wrong with it, or missing in it.
pub(super) fn of(program: &Path) -> Result<Option<Layout>, String> {
    let file = File::open(program).map_err(|error| format!("{}: {error}", program.display()))?;
    layout(&ReadCache::new(file))
}

/// The layout that a program file has in its debug information, as the table has it: structs with their
/// fields' offsets. None: it has no such information.
///
/// # Errors
/// What is wrong with it, or missing in it.
pub fn table_of(file: &Path) -> Result<Option<Value>, String> {
    let opened = File::open(file).map_err(|error| format!("{}: {error}", file.display()))?;
    table(&ReadCache::new(opened))
}

/// The same, of a file that is in memory.
///
/// # Errors
/// As [`table_of`].
pub fn table_in(file: &[u8]) -> Result<Option<Value>, String> {
    table(file)
}

fn table<'data, R: ReadRef<'data>>(data: R) -> Result<Option<Value>, String> {
    let sections = Sections::of(data)?;
    let found = sections.map(|sections| structs(&sections)).transpose()?;
    let offsets = found.iter().filter_map(Value::as_object);
    let offsets = offsets.flat_map(Map::values).filter_map(Value::as_object);
    let mut offsets = offsets.flat_map(Map::values);
    if !offsets.all(|at| at.as_u64().is_some_and(|at| at <= MAX_STRUCT)) {
        return Err("its debug information: a struct is too large to be one".to_owned());
    }
    Ok(found)
}

/// The layout in a file, checked to be possible.
fn layout<'data, R: ReadRef<'data>>(data: R) -> Result<Option<Layout>, String> {
    let Some(found) = table(data)? else {
        return Ok(None);
    };
    let layout = serde_json::from_value(found);
    let layout = layout.map_err(|error| format!("its debug information: {error}"))?;
    Ok(Some(layout))
}

/// Sections of debug information, as they are when they are not compressed.
#[derive(Debug, Default)]
struct Sections {
    info: Vec<u8>,
    abbrev: Vec<u8>,
    str: Vec<u8>,
}

impl Sections {
    fn of<'data, R: ReadRef<'data>>(data: R) -> Result<Option<Sections>, String> {
        let odd = |error: object::Error| format!("its program file: {error}");
        let header = elf::FileHeader64::<object::Endianness>::parse(data).map_err(odd)?;
        let endian = header.endian().map_err(odd)?;
        let table = header.sections(endian, data).map_err(odd)?;
        let mut sections = Sections::default();
        for section in table.iter().take(MAX_SECTIONS) {
            let name = table.section_name(endian, section).map_err(odd)?;
            let into = match name {
                b".debug_info" | b".zdebug_info" => &mut sections.info,
                b".debug_abbrev" | b".zdebug_abbrev" => &mut sections.abbrev,
                b".debug_str" | b".zdebug_str" => &mut sections.str,
                _ => continue,
            };
            let Some((at, size)) = section.file_range(endian) else {
                continue;
            };
            let bytes = if size <= MAX_SECTION {
                data.read_bytes_at(at, size).ok()
            } else {
                None
            };
            let bytes = bytes.ok_or("its debug information lies outside of the file")?;
            let flags = section.sh_flags(endian);
            let compressed = flags & u64::from(elf::SHF_COMPRESSED) != 0;
            *into = plain(bytes, compressed, name.starts_with(b".z"))
                .ok_or("its debug information cannot be expanded")?;
        }
        let is_there = !sections.info.is_empty() && !sections.abbrev.is_empty();
        Ok(is_there.then_some(sections))
    }
}

/// Sections that are in no file: the lengths of the first two, and all three one after the other.
#[cfg(feature = "fuzzing")]
pub(super) fn fuzz_sections(bytes: &[u8]) {
    let Some((lengths, bytes)) = bytes.split_first_chunk::<4>() else {
        return;
    };
    let length = |low, high| usize::from(u16::from_le_bytes([low, high]));
    let (info, bytes) = bytes.split_at(length(lengths[0], lengths[1]).min(bytes.len()));
    let (abbrev, str) = bytes.split_at(length(lengths[2], lengths[3]).min(bytes.len()));
    let sections = Sections {
        info: info.to_vec(),
        abbrev: abbrev.to_vec(),
        str: str.to_vec(),
    };
    let _ = structs(&sections).map(serde_json::from_value::<Layout>);
}

/// Expands a section. Two headers are in use: that of ELF, and before Go 1.19 an older one.
fn plain(bytes: &[u8], compressed: bool, older: bool) -> Option<Vec<u8>> {
    let (size, packed) = if compressed {
        let (head, packed) = bytes.split_at_checked(24)?;
        let kind = u32::from_le_bytes(head[..4].try_into().ok()?);
        if kind != elf::ELFCOMPRESS_ZLIB {
            return None;
        }
        (u64::from_le_bytes(head[8..16].try_into().ok()?), packed)
    } else if older {
        let packed = bytes.strip_prefix(b"ZLIB")?;
        let (size, packed) = packed.split_first_chunk::<8>()?;
        (u64::from_be_bytes(*size), packed)
    } else {
        return Some(bytes.to_vec());
    };
    if size > MAX_SECTION {
        return None;
    }
    // What is said of the size may be a lie: no room is made before there is something to put in it.
    let mut plain = Vec::new();
    let mut decoder = ZlibDecoder::new(packed).take(size);
    decoder.read_to_end(&mut plain).ok()?;
    (plain.len() as u64 == size).then_some(plain)
}

/// A member of a struct: where it lies, and the entry of its type.
#[derive(Clone, Debug)]
struct Member {
    at: u64,
    of: Option<UnitOffset>,
}

/// One unit, and what is needed to read it.
struct Reader<'a> {
    header: UnitHeader<Bytes<'a>>,
    abbrevs: Abbreviations,
    strings: DebugStr<Bytes<'a>>,
    until: Instant,
    entries: usize,
}

/// A struct's size and members.
type Struct = (u64, HashMap<String, Member>);

/// The offsets of all fields that are there, as the table has them.
fn structs(sections: &Sections) -> Result<Value, String> {
    let odd = |error: gimli::Error| format!("its debug information: {error}");
    let info = DebugInfo::new(&sections.info, LittleEndian);
    let abbrev = DebugAbbrev::new(&sections.abbrev, LittleEndian);
    let strings = DebugStr::new(&sections.str, LittleEndian);
    let until = Instant::now() + MAX_TIME;
    let mut layout = Map::new();
    let mut entries = 0;
    let mut units = info.units();
    while let Some(header) = units.next().map_err(odd)? {
        let mut reader = Reader {
            abbrevs: header.abbreviations(&abbrev).map_err(odd)?,
            header,
            strings,
            until,
            entries,
        };
        // The types are in one of several units that are named after the runtime.
        let name = reader.name_of_unit().map_err(odd)?;
        if name.as_deref() == Some("runtime") {
            reader.collect(&mut layout)?;
        }
        entries = reader.entries + 1;
        if layout.len() == WANTED.len() {
            return Ok(Value::Object(layout));
        }
        reader.is_in_time()?;
    }
    if layout.is_empty() {
        return Err("its debug information does not have the runtime's types".to_owned());
    }
    Ok(Value::Object(layout))
}

impl<'a> Reader<'a> {
    fn text(&self, value: &AttributeValue<Bytes<'a>>) -> Option<String> {
        let bytes = value.string_value(&self.strings)?;
        Some(String::from_utf8_lossy(bytes.slice()).into_owned())
    }

    fn name_of_unit(&self) -> gimli::Result<Option<String>> {
        let mut entries = self.header.entries(&self.abbrevs);
        let root = entries.next_dfs()?;
        let name = root.and_then(|root| root.attr_value(dw::DW_AT_name));
        Ok(name.and_then(|name| self.text(&name)))
    }

    fn is_in_time(&self) -> Result<(), String> {
        if self.entries > MAX_ENTRIES || Instant::now() > self.until {
            return Err("its debug information takes too long to read".to_owned());
        }
        Ok(())
    }

    /// Takes the wanted structs of this unit.
    fn collect(&mut self, layout: &mut Map<String, Value>) -> Result<(), String> {
        let odd = |error: gimli::Error| format!("its debug information: {error}");
        for (offset, wanted) in self.places().map_err(odd)? {
            self.is_in_time()?;
            let Some((size, members)) = self.members(offset).map_err(odd)? else {
                continue;
            };
            let mut fields = Map::new();
            for (field, paths) in wanted.2 {
                let at = self.field(&members, paths).map_err(odd)?;
                if let Some(at) = at {
                    fields.insert((*field).to_owned(), at.into());
                }
            }
            fields.insert("size".to_owned(), size.into());
            layout.insert(wanted.0.to_owned(), Value::Object(fields));
        }
        Ok(())
    }

    /// The entries of the wanted structs.
    fn places(&mut self) -> gimli::Result<Vec<(UnitOffset, &'static Wanted)>> {
        let mut found = Vec::new();
        let mut raw = self.header.entries_raw(&self.abbrevs, None)?;
        while !raw.is_empty() {
            let offset = raw.next_offset();
            self.entries += 1;
            if self.entries > MAX_ENTRIES
                || (self.entries.is_multiple_of(SOMETIMES) && Instant::now() > self.until)
            {
                break;
            }
            let Some(abbrev) = raw.read_abbreviation()? else {
                continue;
            };
            if abbrev.tag() != dw::DW_TAG_structure_type {
                raw.skip_attributes(abbrev.attributes())?;
                continue;
            }
            for spec in abbrev.attributes() {
                let attribute = raw.read_attribute(*spec)?;
                if attribute.name() != dw::DW_AT_name {
                    continue;
                }
                let name = attribute.value().string_value(&self.strings);
                let is_it =
                    |wanted: &&Wanted| name.is_some_and(|name| is_named(name.slice(), wanted.1));
                found.extend(WANTED.iter().find(is_it).map(|wanted| (offset, wanted)));
            }
            if found.len() == WANTED.len() {
                break;
            }
        }
        Ok(found)
    }

    /// The struct at an entry; the types that only name it are followed. None: no struct.
    fn members(&mut self, at: UnitOffset) -> gimli::Result<Option<Struct>> {
        let mut at = at;
        for _ in 0..MAX_NAMES {
            let mut entries = self.header.entries_at_offset(&self.abbrevs, at)?;
            let Some(entry) = entries.next_dfs()? else {
                return Ok(None);
            };
            match entry.tag() {
                dw::DW_TAG_typedef => match self.type_of(entry) {
                    Some(next) => at = next,
                    None => return Ok(None),
                },
                dw::DW_TAG_structure_type => {
                    let size = number(entry, dw::DW_AT_byte_size);
                    let mut members = HashMap::new();
                    while let Some(entry) = entries.next_dfs()? {
                        if entry.depth() != 1 || members.len() == MAX_MEMBERS {
                            break;
                        }
                        self.entries += 1;
                        self.member(entry, &mut members);
                    }
                    return Ok(size.map(|size| (size, members)));
                }
                _ => return Ok(None),
            }
        }
        Ok(None)
    }

    fn member(&self, entry: &Entry<'a>, members: &mut HashMap<String, Member>) {
        let is_member = |tag: DwTag| tag == dw::DW_TAG_member;
        let name = entry.attr_value(dw::DW_AT_name);
        let name = name.and_then(|name| self.text(&name));
        let at = number(entry, dw::DW_AT_data_member_location);
        if let (true, Some(name), Some(at)) = (is_member(entry.tag()), name, at) {
            let of = self.type_of(entry);
            members.insert(name, Member { at, of });
        }
    }

    /// The entry of something's type, in this unit.
    fn type_of(&self, entry: &Entry<'a>) -> Option<UnitOffset> {
        let offset = match entry.attr_value(dw::DW_AT_type)? {
            AttributeValue::UnitRef(offset) => offset,
            AttributeValue::DebugInfoRef(DebugInfoOffset(offset)) => {
                DebugInfoOffset(offset).to_unit_offset(&self.header)?
            }
            _ => return None,
        };
        offset.is_in_bounds(&self.header).then_some(offset)
    }

    /// Where the first of these paths that is there leads.
    fn field(
        &mut self,
        members: &HashMap<String, Member>,
        paths: &[&str],
    ) -> gimli::Result<Option<u64>> {
        for path in paths {
            let mut at = 0u64;
            let mut last: Option<Member> = None;
            let mut steps = path.split('.');
            let found = loop {
                let Some(step) = steps.next() else {
                    break true;
                };
                let within = match &last {
                    None => members.get(step).cloned(),
                    Some(Member { of: Some(of), .. }) => {
                        let inner = self.members(*of)?;
                        inner.and_then(|(_, inner)| inner.get(step).cloned())
                    }
                    Some(_) => None,
                };
                let Some(member) = within else {
                    break false;
                };
                at = at.saturating_add(member.at);
                last = Some(member);
            };
            if !found {
                continue;
            }
            // A struct in place of a word is of a release that nobody knows yet: its first word may be
            // anything.
            if paths.len() > 1
                && let Some(of) = last.and_then(|last| last.of)
                && self.members(of)?.is_some()
            {
                return Ok(None);
            }
            return Ok(Some(at));
        }
        Ok(None)
    }
}

fn is_named(name: &[u8], wanted: &str) -> bool {
    match wanted.strip_suffix('*') {
        Some(begin) => name.starts_with(begin.as_bytes()),
        None => name == wanted.as_bytes(),
    }
}

type Entry<'a> = gimli::DebuggingInformationEntry<Bytes<'a>>;

fn number(entry: &Entry<'_>, name: gimli::DwAt) -> Option<u64> {
    entry.attr_value(name)?.udata_value()
}
