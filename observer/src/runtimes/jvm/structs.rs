//! What HotSpot publishes of its own structures, for debuggers: `gHotSpotVMStructs` and its like
//! (src/hotspot/share/runtime/vmStructs.hpp). Each is an array whose rows have pointers to names; where in a row what
//! is, is published too.

use std::collections::HashMap;

use crate::{
    inspect::memory::{MAX_TEXT, Memory, text, until_nul},
    runtimes::Process,
};

/// What is looked for among what files export.
pub const EXPORTS: [&str; 15] = [
    "gHotSpotVMStructs",
    "gHotSpotVMStructEntryTypeNameOffset",
    "gHotSpotVMStructEntryFieldNameOffset",
    "gHotSpotVMStructEntryIsStaticOffset",
    "gHotSpotVMStructEntryOffsetOffset",
    "gHotSpotVMStructEntryAddressOffset",
    "gHotSpotVMStructEntryArrayStride",
    "gHotSpotVMTypes",
    "gHotSpotVMTypeEntryTypeNameOffset",
    "gHotSpotVMTypeEntrySizeOffset",
    "gHotSpotVMTypeEntryArrayStride",
    "gHotSpotVMIntConstants",
    "gHotSpotVMIntConstantEntryNameOffset",
    "gHotSpotVMIntConstantEntryValueOffset",
    "gHotSpotVMIntConstantEntryArrayStride",
];

/// Rows of an array, and bytes of a row, that are read: OpenJDK 17 has 1 500 of 48.
const MAX_ROWS: usize = 8_192;
const MAX_STRIDE: usize = 256;
/// Rows that are read at once.
const CHUNK: usize = 64;

/// Where something is: in an object at an offset, or at an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Offset(u64),
    Static(u64),
}

/// The structures that a virtual machine publishes.
pub(super) struct Structs<'a> {
    memory: &'a dyn Memory,
    fields: HashMap<(String, String), Place>,
    sizes: HashMap<String, u64>,
    constants: HashMap<String, u32>,
}

impl<'a> Structs<'a> {
    /// Reads them; `None`: they are not published, or the machine has just begun.
    pub(super) fn read(process: &Process, memory: &'a dyn Memory) -> Option<Structs<'a>> {
        let source = Source { process, memory };
        Some(Structs {
            memory,
            fields: source.fields()?,
            sizes: source.sizes()?,
            constants: source.constants()?,
        })
    }

    /// Offset of a field in one of `types`: it may have moved to a subclass.
    pub(super) fn offset(&self, types: &[&str], field: &str) -> Result<u64, String> {
        let offset = types.iter().find_map(|one| match self.place(one, field)? {
            Place::Offset(offset) => Some(offset),
            Place::Static(_) => None,
        });
        offset.ok_or_else(|| missing(types, field))
    }

    /// Address of a static field.
    pub(super) fn address(&self, of: &str, field: &str) -> Result<u64, String> {
        match self.place(of, field) {
            Some(Place::Static(address)) if address != 0 => Ok(address),
            _ => Err(missing(&[of], field)),
        }
    }

    fn place(&self, of: &str, field: &str) -> Option<Place> {
        self.fields.get(&(of.to_owned(), field.to_owned())).copied()
    }

    /// Bytes of a type.
    pub(super) fn size(&self, of: &str) -> Result<u64, String> {
        let size = self.sizes.get(of).copied();
        size.ok_or_else(|| format!("the size of `{of}` is not published"))
    }

    /// A constant.
    pub(super) fn constant(&self, name: &str) -> Result<u32, String> {
        let value = self.constants.get(name).copied();
        value.ok_or_else(|| format!("`{name}` is not published"))
    }

    /// Addresses of the machine's options of these names.
    pub(super) fn flags<const N: usize>(
        &self,
        names: [&str; N],
    ) -> Result<[Option<u64>; N], String> {
        let first = self.memory.u64(self.address("JVMFlag", "flags")?);
        let count = self.memory.u64(self.address("JVMFlag", "numFlags")?);
        let stride = self.size("JVMFlag")? as usize;
        let name_at = self.offset(&["JVMFlag"], "_name")? as usize;
        let addr_at = self.offset(&["JVMFlag"], "_addr")? as usize;
        let (Some(first), Some(count)) = (first, count) else {
            return Err("the machine's options cannot be read".to_owned());
        };
        if !fits(stride, &[name_at, addr_at]) {
            return Err("the machine's options are laid out in a way that is not known".to_owned());
        }
        let rows = Rows::read(self.memory, first, stride, name_at, count as usize);
        let mut found = [None; N];
        for (row, name) in rows.texts(self.memory, name_at).into_iter().enumerate() {
            if let Some(at) = names.iter().position(|one| Some(*one) == name.as_deref()) {
                found[at] = rows.word(row, addr_at);
            }
        }
        Ok(found)
    }
}

fn missing(types: &[&str], field: &str) -> String {
    format!("`{}::{field}` is not published", types.join("` or `"))
}

/// Are these words within a row?
fn fits(stride: usize, words: &[usize]) -> bool {
    let inside = |at: &usize| at.checked_add(8).is_some_and(|end| end <= stride);
    (1..=MAX_STRIDE).contains(&stride) && words.iter().all(inside)
}

/// Where the arrays come from.
struct Source<'a> {
    process: &'a Process,
    memory: &'a dyn Memory,
}

impl Source<'_> {
    fn word(&self, symbol: &str) -> Option<u64> {
        self.memory.u64(self.process.symbols.get(symbol)?.addr)
    }

    /// The array `array`, whose rows' names are at the first of `words`; and where these words are.
    fn rows<const N: usize>(
        &self,
        array: &str,
        entry: &str,
        words: [&str; N],
    ) -> Option<(Rows, [usize; N])> {
        let stride = self.word(&format!("{entry}ArrayStride"))? as usize;
        let mut at = [0; N];
        for (at, word) in at.iter_mut().zip(words) {
            *at = self.word(&format!("{entry}{word}Offset"))? as usize;
        }
        if !fits(stride, &at) {
            return None;
        }
        let rows = Rows::read(self.memory, self.word(array)?, stride, at[0], MAX_ROWS);
        Some((rows, at))
    }

    fn fields(&self) -> Option<HashMap<(String, String), Place>> {
        let (rows, [of, field, is_static, offset, address]) = self.rows(
            "gHotSpotVMStructs",
            "gHotSpotVMStructEntry",
            ["TypeName", "FieldName", "IsStatic", "Offset", "Address"],
        )?;
        let types = rows.texts(self.memory, of);
        let names = rows.texts(self.memory, field);
        let mut fields = HashMap::new();
        for (row, name) in types.into_iter().zip(names).enumerate() {
            let (Some(of), Some(field)) = name else {
                continue;
            };
            let place = if rows.half(row, is_static)? == 0 {
                Place::Offset(rows.word(row, offset)?)
            } else {
                Place::Static(rows.word(row, address)?)
            };
            fields.entry((of, field)).or_insert(place);
        }
        Some(fields)
    }

    fn sizes(&self) -> Option<HashMap<String, u64>> {
        let (rows, [name, size]) = self.rows(
            "gHotSpotVMTypes",
            "gHotSpotVMTypeEntry",
            ["TypeName", "Size"],
        )?;
        let names = rows.texts(self.memory, name).into_iter().enumerate();
        let sized = names.filter_map(|(row, name)| Some((name?, rows.word(row, size)?)));
        Some(sized.collect())
    }

    fn constants(&self) -> Option<HashMap<String, u32>> {
        let (rows, [name, value]) = self.rows(
            "gHotSpotVMIntConstants",
            "gHotSpotVMIntConstantEntry",
            ["Name", "Value"],
        )?;
        let names = rows.texts(self.memory, name).into_iter().enumerate();
        let valued = names.filter_map(|(row, name)| Some((name?, rows.half(row, value)?)));
        Some(valued.collect())
    }
}

/// Rows of one array.
struct Rows {
    bytes: Vec<u8>,
    stride: usize,
}

impl Rows {
    /// Reads rows up to the one without a name, which is the last.
    fn read(memory: &dyn Memory, first: u64, stride: usize, name: usize, most: usize) -> Rows {
        let mut rows = Rows {
            bytes: Vec::new(),
            stride,
        };
        let mut chunk = vec![0; CHUNK * stride];
        let most = most.min(MAX_ROWS);
        while rows.count() < most {
            let at = first.wrapping_add(rows.bytes.len() as u64);
            // What is behind the last row need not be mapped.
            let count = if memory.read(at, &mut chunk) {
                CHUNK
            } else if memory.read(at, &mut chunk[..stride]) {
                1
            } else {
                break;
            };
            for row in chunk[..count * stride].chunks_exact(stride) {
                if row[name..name + 8] == [0; 8] || rows.count() >= most {
                    return rows;
                }
                rows.bytes.extend_from_slice(row);
            }
        }
        rows
    }

    fn count(&self) -> usize {
        self.bytes.len() / self.stride
    }

    fn word(&self, row: usize, at: usize) -> Option<u64> {
        let from = row * self.stride + at;
        let bytes = self.bytes.get(from..from + 8)?;
        Some(u64::from_le_bytes(bytes.try_into().ok()?))
    }

    fn half(&self, row: usize, at: usize) -> Option<u32> {
        self.word(row, at).map(|word| word as u32)
    }

    /// For each row the text that its word at `at` points to.
    fn texts(&self, memory: &dyn Memory, at: usize) -> Vec<Option<String>> {
        let pointers: Vec<u64> = (0..self.count())
            .map(|row| self.word(row, at).unwrap_or(0))
            .collect();
        let mut buffers = vec![[0; MAX_TEXT]; pointers.len()];
        let mut parts: Vec<(u64, &mut [u8])> = pointers
            .iter()
            .copied()
            .zip(buffers.iter_mut().map(|buffer| &mut buffer[..]))
            .collect();
        let read = memory.read_many(&mut parts);
        let all = pointers.into_iter().zip(buffers).zip(read);
        all.map(|((pointer, bytes), read)| {
            if read {
                until_nul(&bytes)
            } else {
                text(memory, pointer)
            }
        })
        .collect()
    }
}
