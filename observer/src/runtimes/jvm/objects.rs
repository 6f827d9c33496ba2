//! Java objects in memory: their classes, and what is in their fields.
//!
//! The collector moves objects while they are read, so what is read may be of something else: a caller reads twice. ZGC
//! leaves references behind that it corrects when they are used, and marks them: these are not followed.

use super::layout::{Layout, Narrow};
use crate::inspect::memory::Memory;

/// Bytes of a class's name, characters of a text, and fields of a class, that are read.
const MAX_NAME: usize = 512;
const MAX_TEXT: u32 = 256;
const MAX_FIELDS: usize = 1_024;
/// Bits of an object's first word that say that it is elsewhere now (`markWord::marked_value`).
const MOVED: u64 = 3;
/// Classes from one to `java.lang.Object`.
const MAX_DEPTH: usize = 64;

/// The objects of a machine at this moment.
pub(super) struct Objects<'a> {
    memory: &'a dyn Memory,
    layout: &'a Layout,
    classes: Narrow,
    references: Narrow,
    /// Bits of a reference that is out of date.
    stale: u64,
}

impl<'a> Objects<'a> {
    pub(super) fn of(memory: &'a dyn Memory, layout: &'a Layout) -> Option<Objects<'a>> {
        let (classes, references) = layout.narrow(memory)?;
        let stale = layout.stale(memory);
        Some(Objects {
            memory,
            layout,
            classes,
            references,
            stale,
        })
    }

    /// The object that a handle of the machine's refers to.
    pub(super) fn behind(&self, handle: u64) -> Option<u64> {
        let slot = self.pointer(handle)?;
        self.pointer(slot).filter(|object| object & self.stale == 0)
    }

    /// A pointer that leads somewhere.
    fn pointer(&self, at: u64) -> Option<u64> {
        let pointer = self.memory.u64(at)?;
        (pointer != 0 && pointer % 8 == 0).then_some(pointer)
    }

    /// The class of an object; `None` also if this is what was left behind of one that was moved.
    pub(super) fn class_of(&self, object: u64) -> Option<u64> {
        let mark = self.memory.u64(object.wrapping_add(self.layout.mark))?;
        if mark & MOVED == MOVED {
            return None;
        }
        let at = object.wrapping_add(self.layout.klass);
        match self.classes {
            Some((base, shift)) => {
                let narrow = self.memory.u32(at).filter(|narrow| *narrow != 0)?;
                Some(base.wrapping_add(u64::from(narrow) << shift))
            }
            None => self.pointer(at),
        }
    }

    /// `java/lang/Object`
    fn internal_name(&self, class: u64) -> Option<String> {
        let name = self.pointer(class.wrapping_add(self.layout.klass_name))?;
        self.symbol(name)
    }

    /// `java.lang.Object`; of a class itself: `java.lang.Class of Account`.
    pub(super) fn class_name(&self, object: u64) -> Option<String> {
        let name = self.internal_name(self.class_of(object)?)?;
        if name == "java/lang/Class"
            && let Some(at) = self.layout.class_klass.and_then(|at| self.memory.u32(at))
            && let Some(class) = self.pointer(object.wrapping_add(u64::from(at)))
            && let Some(of) = self.internal_name(class)
        {
            return Some(format!("java.lang.Class of {}", of.replace('/', ".")));
        }
        Some(name.replace('/', "."))
    }

    fn symbol(&self, at: u64) -> Option<String> {
        let length = self
            .memory
            .u32(at.wrapping_add(self.layout.symbol_length))?;
        let mut bytes = vec![0; (length as usize & 0xffff).min(MAX_NAME)];
        let read = self
            .memory
            .read(at.wrapping_add(self.layout.symbol_body), &mut bytes);
        let text = String::from_utf8(bytes).ok().filter(|_| read)?;
        let named = !text.is_empty() && !text.contains(|c: char| c.is_control() || c == ' ');
        named.then_some(text)
    }

    /// The class itself or the one of its ancestors that is called `name`.
    pub(super) fn ancestor(&self, class: u64, name: &str) -> Option<u64> {
        let mut class = class;
        for _ in 0..MAX_DEPTH {
            if self.internal_name(class)? == name {
                return Some(class);
            }
            class = self.pointer(class.wrapping_add(self.layout.klass_super))?;
        }
        None
    }

    /// Where in objects of a class the field `name` is that the class itself declares.
    pub(super) fn field(&self, class: u64, name: &str) -> Option<u64> {
        let of = self.layout.fields?;
        let count = self.memory.u32(class.wrapping_add(of.count))? as usize & 0xffff;
        let array = self.pointer(class.wrapping_add(of.array))?;
        let pool = self.pointer(class.wrapping_add(of.constants))?;
        let slots = of.slots as usize;
        let mut bytes = vec![0; 2 * slots * count.min(MAX_FIELDS)];
        if slots == 0
            || !self
                .memory
                .read(array.wrapping_add(of.array_data), &mut bytes)
        {
            return None;
        }
        let found = bytes.chunks_exact(2 * slots).find(|field| {
            let index = u64::from(half(field, of.name));
            let at = pool.wrapping_add(of.pool_size + 8 * index);
            let symbol = self.pointer(at).and_then(|symbol| self.symbol(symbol));
            symbol.as_deref() == Some(name)
        })?;
        let packed = u32::from(half(found, of.high)) << 16 | u32::from(half(found, of.low));
        Some(u64::from(packed >> of.tag_bits))
    }

    /// The object that a field refers to; `None`: to none.
    pub(super) fn reference(&self, object: u64, field: u64) -> Option<u64> {
        let at = object.wrapping_add(field);
        match self.references {
            Some((base, shift)) => {
                let narrow = self.memory.u32(at).filter(|narrow| *narrow != 0)?;
                Some(base.wrapping_add(u64::from(narrow) << shift))
            }
            None => self.pointer(at).filter(|object| object & self.stale == 0),
        }
    }

    /// A `java.lang.String`, what is too long cut. `value`, `coder`: where its fields are.
    pub(super) fn text(&self, string: u64, value: u64, coder: u64) -> Option<String> {
        let array = self.reference(string, value)?;
        let mut coder_byte = [0];
        if !self
            .memory
            .read(string.wrapping_add(coder), &mut coder_byte)
        {
            return None;
        }
        // An array's length is behind its class, its bytes behind that (`arrayOopDesc`).
        let (length, data) = if self.classes.is_some() {
            (12, 16)
        } else {
            (16, 24)
        };
        let wide = coder_byte != [0];
        let most = if wide { 2 * MAX_TEXT } else { MAX_TEXT };
        let length = self.memory.u32(array.wrapping_add(length))?.min(most);
        let mut bytes = vec![0; length as usize];
        if !self.memory.read(array.wrapping_add(data), &mut bytes) {
            return None;
        }
        Some(if wide {
            let units = bytes.chunks_exact(2).map(|unit| half(unit, 0));
            char::decode_utf16(units)
                .map(|one| one.unwrap_or(char::REPLACEMENT_CHARACTER))
                .collect()
        } else {
            // Latin-1.
            bytes.into_iter().map(char::from).collect()
        })
    }
}

/// A number of two bytes.
fn half(bytes: &[u8], slot: u64) -> u16 {
    let at = 2 * slot as usize;
    let bytes = bytes.get(at..at + 2).unwrap_or(&[0, 0]);
    u16::from_le_bytes([bytes[0], bytes[1]])
}
