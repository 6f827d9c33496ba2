//! Type information of the running kernel: the few offsets and facts the programs need.
//!
//! One pass over `/sys/kernel/btf/vmlinux` notes where each type starts; questions are then answered
//! by walking names. The format is described in the kernel's Documentation/bpf/btf.rst. The file is
//! the kernel's own, but it is checked like any other input: every read is bounded.

use std::path::Path;

use anyhow::{Context, Result, bail, ensure};

/// Where the kernel shows its type information.
pub const PATH: &str = "/sys/kernel/btf/vmlinux";

const KIND_STRUCT: u32 = 4;
const KIND_UNION: u32 = 5;
const KIND_ENUM: u32 = 6;
const KIND_TYPEDEF: u32 = 8;
const KIND_ENUM64: u32 = 19;
/// Nesting of anonymous members, and of modifiers, that is followed.
const MAX_DEPTH: u32 = 16;

/// Parsed type information.
#[derive(Debug)]
pub struct Btf {
    data: Vec<u8>,
    /// Byte position of each type in `data`; index 0 is `void`.
    types: Vec<u32>,
    strings: usize,
}

impl Btf {
    /// Reads a file.
    ///
    /// # Errors
    /// The file cannot be read, or is not BTF of this machine's byte order.
    pub fn read(path: &Path) -> Result<Btf> {
        let data = std::fs::read(path)
            .with_context(|| format!("cannot read the kernel's types at {}", path.display()))?;
        Btf::parse(data).with_context(|| format!("{} is not usable", path.display()))
    }

    /// Parses the bytes of a file.
    ///
    /// # Errors
    /// They are not BTF of this machine's byte order, or are cut.
    pub fn parse(data: Vec<u8>) -> Result<Btf> {
        ensure!(data.get(..2) == Some(&[0x9f, 0xeb]), "no BTF magic");
        let header = |at| word(&data, at).map(|value| value as usize);
        let length = header(4).context("no header")?;
        let (Some(type_off), Some(type_len), Some(str_off)) = (header(8), header(12), header(16))
        else {
            bail!("no header");
        };
        let strings = length + str_off;
        let (mut at, end) = (length + type_off, length + type_off + type_len);
        ensure!(end <= data.len() && strings <= data.len(), "cut short");
        let mut types = vec![0];
        while at < end {
            types.push(at as u32);
            let info = word(&data, at + 4).context("cut short")?;
            let (kind, vlen) = ((info >> 24) & 0x1f, (info & 0xffff) as usize);
            at += 12
                + match kind {
                    1 | 14 | 17 => 4,
                    2 | 7..=12 | 16 | 18 => 0,
                    3 => 12,
                    KIND_STRUCT | KIND_UNION | 15 | KIND_ENUM64 => 12 * vlen,
                    KIND_ENUM | 13 => 8 * vlen,
                    other => bail!("type {} is of unknown kind {other}", types.len() - 1),
                };
        }
        Ok(Btf {
            data,
            types,
            strings,
        })
    }

    fn word(&self, at: usize) -> Option<u32> {
        word(&self.data, at)
    }

    fn at(&self, id: usize) -> Option<usize> {
        self.types.get(id).filter(|_| id > 0).map(|at| *at as usize)
    }

    /// Kind and number of members.
    fn info(&self, id: usize) -> Option<(u32, usize, bool)> {
        let info = self.word(self.at(id)? + 4)?;
        Some((
            (info >> 24) & 0x1f,
            (info & 0xffff) as usize,
            info >> 31 == 1,
        ))
    }

    fn named(&self, offset: u32, name: &str) -> bool {
        let start = self.strings + offset as usize;
        let end = start + name.len();
        self.data.get(start..end) == Some(name.as_bytes()) && self.data.get(end) == Some(&0)
    }

    fn find(&self, kind: u32, name: &str) -> Option<usize> {
        (1..self.types.len()).find(|&id| {
            self.info(id).is_some_and(|info| info.0 == kind)
                && self
                    .at(id)
                    .and_then(|at| self.word(at))
                    .is_some_and(|offset| self.named(offset, name))
        })
    }

    /// Follows typedefs and qualifiers.
    fn strip(&self, mut id: usize) -> usize {
        for _ in 0..MAX_DEPTH {
            match self.info(id) {
                Some((8..=11 | 18, ..)) => {
                    let Some(next) = self.at(id).and_then(|at| self.word(at + 8)) else {
                        return id;
                    };
                    id = next as usize;
                }
                _ => return id,
            }
        }
        id
    }

    /// Offset in bits and type of a member; anonymous members are searched.
    fn member(&self, id: usize, name: &str, depth: u32) -> Option<(u32, usize)> {
        let (kind, count, has_bitfields) = self.info(id)?;
        if depth > MAX_DEPTH || (kind != KIND_STRUCT && kind != KIND_UNION) {
            return None;
        }
        let members = self.at(id)? + 12;
        for i in 0..count {
            let at = members + 12 * i;
            let (name_at, ty) = (self.word(at)?, self.word(at + 4)? as usize);
            let mut bits = self.word(at + 8)?;
            if has_bitfields {
                bits &= 0x00ff_ffff;
            }
            if self.named(name_at, name) {
                return Some((bits, ty));
            }
            if self.named(name_at, "")
                && let Some((inner, ty)) = self.member(self.strip(ty), name, depth + 1)
            {
                return Some((bits + inner, ty));
            }
        }
        None
    }

    /// Byte offset of a member of a struct; `path` may go through members: `thread_info.flags`.
    pub fn offset(&self, of: &str, path: &str) -> Option<u32> {
        let mut id = self.find(KIND_STRUCT, of)?;
        let mut bits = 0u32;
        for name in path.split('.') {
            let (offset, ty) = self.member(self.strip(id), name, 0)?;
            bits = bits.checked_add(offset)?;
            id = ty;
        }
        Some(bits / 8)
    }

    /// Number of arguments that a tracepoint passes: `btf_trace_NAME` is a pointer to a function that
    /// takes them after a leading `void *`. `None`: there is no such tracepoint.
    pub fn tracepoint_args(&self, name: &str) -> Option<usize> {
        let typedef = self.find(KIND_TYPEDEF, &format!("btf_trace_{name}"))?;
        let pointer = self.word(self.at(typedef)? + 8)? as usize;
        let prototype = self.word(self.at(pointer)? + 8)? as usize;
        self.info(prototype)
            .map(|(_, count, _)| count.saturating_sub(1))
    }

    /// Is there a value of this name in any of the kernel's enums? Helpers are listed in one, as
    /// `BPF_FUNC_…`.
    pub fn has_enum_value(&self, name: &str) -> bool {
        (1..self.types.len()).any(|id| {
            let (Some((KIND_ENUM, count, _)), Some(at)) = (self.info(id), self.at(id)) else {
                return false;
            };
            (0..count).any(|i| {
                self.word(at + 12 + 8 * i)
                    .is_some_and(|offset| self.named(offset, name))
            })
        })
    }
}

fn word(data: &[u8], at: usize) -> Option<u32> {
    let bytes = data.get(at..at.checked_add(4)?)?;
    Some(u32::from_le_bytes(bytes.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `struct outer { int a; struct { int b; }; };` and nothing else.
    fn sample() -> Vec<u8> {
        let strings = b"\0outer\0a\0b\0int\0";
        let mut types: Vec<u32> = Vec::new();
        types.extend([11, 1 << 24, 4, 32]); // 1: int
        types.extend([0, (4 << 24) | 1, 4, 9, 1, 0]); // 2: struct { int b; }
        types.extend([1, (4 << 24) | 2, 8, 7, 1, 0, 0, 2, 32]); // 3: struct outer
        let type_len = types.len() as u32 * 4;
        let mut data = vec![0x9f, 0xeb, 1, 0];
        for value in [24, 0, type_len, type_len, strings.len() as u32] {
            data.extend(u32::to_le_bytes(value));
        }
        for value in types {
            data.extend(value.to_le_bytes());
        }
        data.extend(strings);
        data
    }

    #[test]
    fn members_are_found_through_anonymous_ones() {
        let btf = Btf::parse(sample()).unwrap();
        assert_eq!(btf.offset("outer", "a"), Some(0));
        assert_eq!(btf.offset("outer", "b"), Some(4));
        assert_eq!(btf.offset("outer", "c"), None);
        assert_eq!(btf.offset("inner", "a"), None);
        assert_eq!(btf.tracepoint_args("sched_switch"), None);
    }

    #[test]
    fn cut_and_corrupt_bytes_are_refused_or_harmless() {
        let whole = sample();
        for length in 0..whole.len() {
            if let Ok(btf) = Btf::parse(whole[..length].to_vec()) {
                let _ = btf.offset("outer", "b");
            }
        }
        for at in 0..whole.len() {
            for flip in [0xff, 0x01, 0x80] {
                let mut data = whole.clone();
                data[at] ^= flip;
                if let Ok(btf) = Btf::parse(data) {
                    let _ = btf.offset("outer", "b");
                    let _ = btf.has_enum_value("x");
                    let _ = btf.tracepoint_args("x");
                }
            }
        }
    }
}
