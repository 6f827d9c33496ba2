//! The Python functions that a thread is in, and the locks that it holds by being inside `with`.

use super::{Interpreter, Layout, Thread, tables};
use crate::inspect::memory::{self, Memory};

/// Functions of a thread that are told.
const MAX_FRAMES: usize = 256;
/// Bytes of a name, and of a table of a code object.
const MAX_NAME: u64 = 1_024;
const MAX_TABLE: u64 = 256 << 10;
/// Values on the stack of one function that are looked at.
const MAX_DEPTH: usize = 64;
/// `PyObject.ob_type`, and where objects with a size have it; `PyTypeObject.tp_name`.
const TYPE: u64 = 8;
const SIZE: u64 = 16;
const TYPE_NAME: u64 = 24;
/// `PyBytesObject.ob_sval`
const BYTES: u64 = 32;
/// `PyCodeObject` from 3.11 on.
const EXCEPTION_TABLE: u64 = 40;
/// `PyFrameObject` before that: the bottom of its values; behind the instruction the number of blocks that it is in,
/// and the blocks, with the number of values below each.
const VALUES: u64 = 64;
const BLOCKS: u64 = 8;
const BLOCK: u64 = 16;
const BLOCK_SIZE: u64 = 12;
const LEVEL: u64 = 8;
const MAX_BLOCKS: u32 = 20;
/// `PyCFunctionObject`: the function, and the object that it is of.
const FUNCTION: u64 = 16;
const OF: u64 = 24;
/// `lockobject` and `rlockobject` (Modules/_threadmodule.c): the lock; whether it is held; owner and count.
const LOCK: u64 = 16;
const LOCKED: u64 = 32;
const OWNER: u64 = 24;
const COUNT: u64 = 32;
/// Bits of a text's state before the kind of its characters.
const INTERNED_BITS: u32 = 2;
/// Bytes of an instruction.
const UNIT: u64 = 2;

/// A Python function that a thread is in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Function {
    /// Its qualified name.
    pub name: String,
    /// Source file.
    pub file: String,
    /// Line in it.
    pub line: Option<u32>,
    /// Address of the instruction.
    pub addr: u64,
}

/// A lock that a thread holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Held {
    /// What others wait for: the semaphore.
    pub lock: u64,
    /// The lock names the thread itself (`RLock`).
    pub recorded: bool,
}

/// A frame, with its code.
struct Frame {
    at: u64,
    code: u64,
    /// Which instruction it is at, counted from the function's first (in bytes before 3.11); `None`: in none of its own.
    instruction: Option<u64>,
    addr: u64,
}

impl Interpreter {
    /// The functions that a thread is in, innermost first.
    pub fn functions(&self, memory: &dyn Memory, thread: &Thread) -> Vec<Function> {
        let Some(layout) = self.layout else {
            return Vec::new();
        };
        frames(memory, layout, thread)
            .into_iter()
            .filter_map(|frame| function(memory, layout, &frame))
            .collect()
    }

    /// The locks that a thread holds because it is inside `with`. What is held otherwise is not found.
    pub fn held(&self, memory: &dyn Memory, thread: &Thread) -> Vec<Held> {
        let Some(layout) = self.layout else {
            return Vec::new();
        };
        frames(memory, layout, thread)
            .iter()
            .flat_map(|frame| exits(memory, layout, frame))
            .filter_map(|exit| held(memory, exit, thread))
            .collect()
    }
}

fn frames(memory: &dyn Memory, layout: &Layout, thread: &Thread) -> Vec<Frame> {
    let mut frames = Vec::new();
    let holder = match layout.cframe {
        Some(at) => memory.u64(thread.state.wrapping_add(at)),
        None => Some(thread.state),
    };
    let first = holder.and_then(|holder| memory.u64(holder.wrapping_add(layout.current_frame)));
    let mut at = first.unwrap_or(0);
    for _ in 0..MAX_FRAMES {
        if at == 0 {
            break;
        }
        let field = |offset: u64| memory.u64(at.wrapping_add(offset));
        let (Some(code), Some(previous)) = (field(layout.code), field(layout.previous)) else {
            break;
        };
        let Some((instruction, addr)) = instruction(memory, layout, at, code) else {
            break;
        };
        frames.push(Frame {
            at,
            code,
            instruction,
            addr,
        });
        at = previous;
    }
    frames
}

/// Which instruction a frame is at, and its address.
fn instruction(
    memory: &dyn Memory,
    layout: &Layout,
    frame: u64,
    code: u64,
) -> Option<(Option<u64>, u64)> {
    let at = frame.wrapping_add(layout.instruction);
    let first = code.wrapping_add(layout.instructions);
    let Some(unit) = layout.unit else {
        let addr = memory.u64(at)?;
        let bytes = addr.checked_sub(first);
        return Some((bytes.map(|bytes| bytes / UNIT), addr));
    };
    // -1 before the first; the code is a `bytes` object.
    let number = u64::try_from(memory.u32(at)?.cast_signed()).ok();
    let bytes = number.map(|number| number * unit);
    let addr = memory.u64(first)?.wrapping_add(BYTES);
    Some((bytes, addr.wrapping_add(bytes.unwrap_or(0))))
}

/// `None`: it is not of a function, but of what calls one.
fn function(memory: &dyn Memory, layout: &Layout, frame: &Frame) -> Option<Function> {
    if type_name(memory, frame.code)? != "code" {
        return None;
    }
    let field = |offset: u64| memory.u64(frame.code.wrapping_add(offset));
    let first = memory.u32(frame.code.wrapping_add(layout.first_line))?;
    let line = match layout.unit {
        None => tables::line,
        Some(1) => tables::line_of_3_9,
        Some(_) => tables::line_of_3_10,
    };
    Some(Function {
        name: text(memory, layout, field(layout.name)?)?,
        file: text(memory, layout, field(layout.file)?)?,
        line: bytes(memory, field(layout.lines)?)
            .zip(frame.instruction)
            .and_then(|(table, instruction)| line(&table, first, instruction)),
        addr: frame.addr,
    })
}

/// The methods that are to be called at the end of the blocks that a frame is in: `with` puts its object's
/// `__exit__` on the stack. Values above those that are surely in use may be old.
fn exits(memory: &dyn Memory, layout: &Layout, frame: &Frame) -> Vec<u64> {
    if layout.unit.is_some() {
        return exits_of_blocks(memory, frame.at, frame.at.wrapping_add(layout.instruction))
            .unwrap_or_default();
    }
    let in_use = || {
        if type_name(memory, frame.code)? != "code" {
            return None;
        }
        let table = bytes(
            memory,
            memory.u64(frame.code.wrapping_add(EXCEPTION_TABLE))?,
        )?;
        let depth = tables::depth(&table, frame.instruction?).min(MAX_DEPTH);
        let locals = memory.u32(frame.code.wrapping_add(layout.locals_count))?;
        let first = layout.locals + 8 * u64::from(locals);
        let values = (0..depth as u64).map(|i| frame.at.wrapping_add(first + 8 * i));
        Some(values.filter_map(|at| memory.u64(at)).collect())
    };
    in_use().unwrap_or_default()
}

/// The same before 3.11: the values right below the blocks that a frame is in.
fn exits_of_blocks(memory: &dyn Memory, frame: u64, instruction: u64) -> Option<Vec<u64>> {
    let values = memory.u64(frame.wrapping_add(VALUES))?;
    let blocks = memory.u32(instruction.wrapping_add(BLOCKS))?;
    let below = |block: u64| {
        let at = instruction.wrapping_add(BLOCK + BLOCK_SIZE * block + LEVEL);
        let level = memory.u32(at)?.checked_sub(1)?;
        memory.u64(values.wrapping_add(8 * u64::from(level)))
    };
    let blocks = u64::from(blocks.min(MAX_BLOCKS));
    Some((0..blocks).filter_map(below).collect())
}

/// The lock that a method ends the use of, if `thread` holds it.
fn held(memory: &dyn Memory, method: u64, thread: &Thread) -> Option<Held> {
    if type_name(memory, method)? != "builtin_function_or_method" {
        return None;
    }
    let name = memory.u64(memory.u64(method.wrapping_add(FUNCTION))?)?;
    if memory::text(memory, name)? != "__exit__" {
        return None;
    }
    let object = memory.u64(method.wrapping_add(OF))?;
    let lock = memory.u64(object.wrapping_add(LOCK))?;
    match type_name(memory, object)?.as_str() {
        "_thread.lock" => {
            let mut locked = [0];
            let read = memory.read(object.wrapping_add(LOCKED), &mut locked);
            (read && locked == [1]).then_some(Held {
                lock,
                recorded: false,
            })
        }
        "_thread.RLock" => {
            let owner = memory.u64(object.wrapping_add(OWNER))?;
            let count = memory.u64(object.wrapping_add(COUNT))?;
            (owner == thread.ident && count > 0).then_some(Held {
                lock,
                recorded: true,
            })
        }
        _ => None,
    }
}

fn type_name(memory: &dyn Memory, object: u64) -> Option<String> {
    let of = memory.u64(object.wrapping_add(TYPE))?;
    memory::text(memory, memory.u64(of.wrapping_add(TYPE_NAME))?)
}

/// A `bytes` object.
fn bytes(memory: &dyn Memory, object: u64) -> Option<Vec<u8>> {
    let size = memory.u64(object.wrapping_add(SIZE))?;
    if size > MAX_TABLE {
        return None;
    }
    let mut bytes = vec![0; size as usize];
    memory
        .read(object.wrapping_add(BYTES), &mut bytes)
        .then_some(bytes)
}

/// A `str` object, what is too long cut.
fn text(memory: &dyn Memory, layout: &Layout, object: u64) -> Option<String> {
    let length = memory.u64(object.wrapping_add(SIZE))?.min(MAX_NAME);
    let (kind, compact, ascii) = kind(memory.u32(object.wrapping_add(32))?)?;
    if !compact {
        return None;
    }
    let start = object.wrapping_add(if ascii { layout.ascii } else { layout.compact });
    let mut bytes = vec![0; (length * kind) as usize];
    if !memory.read(start, &mut bytes) {
        return None;
    }
    let of = |bytes: &[u8]| {
        let mut word = [0; 4];
        word[..bytes.len()].copy_from_slice(bytes);
        char::from_u32(u32::from_le_bytes(word)).unwrap_or(char::REPLACEMENT_CHARACTER)
    };
    Some(bytes.chunks_exact(kind as usize).map(of).collect())
}

/// Bytes of a character, whether the text is behind the object, and whether it is ASCII. The two bits before these
/// tell whether the text is interned.
fn kind(state: u32) -> Option<(u64, bool, bool)> {
    let state = state >> INTERNED_BITS;
    let kind = u64::from(state & 7);
    matches!(kind, 1 | 2 | 4).then_some((kind, state & 8 != 0, state & 16 != 0))
}
