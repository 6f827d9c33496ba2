//! Where HotSpot has what is read of it, by what it publishes ([`super::structs`]).

use std::ops::RangeInclusive;

use observer_common::usdt::Monitor;

use super::structs::Structs;
use crate::{
    inspect::memory::{Memory, text},
    runtimes::Process,
};

/// Releases in which monitors refer to their objects, and threads to their own, in the way that is read here.
const RELEASES: RangeInclusive<u32> = 16..=21;
/// Releases in which monitors refer to their objects, these to their classes, and these to their names, in the way that
/// the kernel program follows.
const NAMED: RangeInclusive<u32> = 16..=25;
/// Why nothing is known.
const NOT_PUBLISHED: &str = "it does not publish its structures (`gHotSpotVMStructs`)";
/// The first release in which Java's own objects say less, or elsewhere, of what their threads do.
const MOVED: u32 = 19;
/// Offsets within HotSpot's structures are smaller than this.
const MAX_OFFSET: u64 = 1 << 16;
/// Shifts of compressed pointers are smaller than this.
const MAX_SHIFT: u32 = 16;

/// Offsets in HotSpot's structures, and addresses of its static fields.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Layout {
    pub(super) release: String,
    /// Is what Java's objects say of their threads known?
    pub(super) whole: bool,
    /// Address of the pointer to the list of threads; its fields.
    pub(super) thread_list: u64,
    pub(super) list_length: u64,
    pub(super) list_threads: u64,
    /// `JavaThread`
    pub(super) osthread: u64,
    pub(super) thread_object: u64,
    pub(super) pending: u64,
    pub(super) waiting: u64,
    pub(super) stack_base: u64,
    pub(super) stack_size: u64,
    /// `OSThread`
    pub(super) thread_id: u64,
    /// `ObjectMonitor`
    pub(super) monitor_object: u64,
    pub(super) monitor_owner: u64,
    /// `oopDesc`, `Klass`, `Symbol`
    pub(super) mark: u64,
    pub(super) klass: u64,
    pub(super) klass_name: u64,
    pub(super) klass_super: u64,
    pub(super) symbol_length: u64,
    pub(super) symbol_body: u64,
    /// Pointers to classes, and to objects.
    classes: Pointers,
    objects: Pointers,
    z: Option<Z>,
    /// Address of where in a `java.lang.Class` the pointer to its `Klass` is.
    pub(super) class_klass: Option<u64>,
    /// Where fields of Java's classes are; not known of releases that compress it.
    pub(super) fields: Option<Fields>,
}

/// Where in `InstanceKlass` and what belongs to it the fields of a class are described.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Fields {
    pub(super) array: u64,
    pub(super) count: u64,
    pub(super) constants: u64,
    pub(super) pool_size: u64,
    pub(super) array_data: u64,
    /// Of a field's description, in units of two bytes.
    pub(super) slots: u64,
    pub(super) name: u64,
    pub(super) low: u64,
    pub(super) high: u64,
    pub(super) tag_bits: u32,
}

/// Addresses of what tells how pointers of one sort are compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Pointers {
    used: Option<u64>,
    base: u64,
    shift: u64,
}

/// The collector ZGC, which has a pointer to a pointer to the bits of references that are out of date.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Z {
    used: u64,
    globals: Option<(u64, u64)>,
}

/// How pointers of one sort are compressed: `None`: not at all.
pub(super) type Narrow = Option<(u64, u32)>;

impl Layout {
    /// By what the machine publishes.
    ///
    /// # Errors
    /// Why it is not known.
    pub(super) fn of(process: &Process, memory: &dyn Memory) -> Result<Layout, String> {
        let structs = Structs::read(process, memory).ok_or(NOT_PUBLISHED)?;
        let (major, release) = release(&structs, memory, RELEASES)?;
        let [compressed_classes, compressed_oops, compact, zgc] = structs.flags([
            "UseCompressedClassPointers",
            "UseCompressedOops",
            "UseCompactObjectHeaders",
            "UseZGC",
        ])?;
        if compact.is_some_and(|at| is_set(memory, at)) {
            return Err("its objects have compact headers, which are not known".to_owned());
        }
        let thread = ["JavaThread", "Thread"];
        let offset = |types: &[&str], field: &str| near(&structs, types, field);
        let fields = fields(&structs).ok();
        Ok(Layout {
            whole: major < MOVED && fields.is_some(),
            release,
            thread_list: structs.address("ThreadsSMRSupport", "_java_thread_list")?,
            list_length: offset(&["ThreadsList"], "_length")?,
            list_threads: offset(&["ThreadsList"], "_threads")?,
            osthread: offset(&thread, "_osthread")?,
            thread_object: offset(&thread, "_threadObj")?,
            pending: offset(&thread, "_current_pending_monitor")?,
            waiting: offset(&thread, "_current_waiting_monitor")?,
            stack_base: offset(&thread, "_stack_base")?,
            stack_size: offset(&thread, "_stack_size")?,
            thread_id: offset(&["OSThread"], "_thread_id")?,
            monitor_object: offset(&["ObjectMonitor"], "_object")?,
            monitor_owner: offset(&["ObjectMonitor"], "_owner")?,
            mark: offset(&["oopDesc"], "_mark")?,
            klass: offset(&["oopDesc"], "_metadata._klass")?,
            klass_name: offset(&["Klass"], "_name")?,
            klass_super: offset(&["Klass"], "_super")?,
            symbol_length: offset(&["Symbol"], "_length")?,
            symbol_body: offset(&["Symbol"], "_body[0]")?,
            classes: Pointers {
                used: compressed_classes,
                base: structs.address("CompressedKlassPointers", "_narrow_klass._base")?,
                shift: structs.address("CompressedKlassPointers", "_narrow_klass._shift")?,
            },
            objects: Pointers {
                used: compressed_oops,
                base: structs.address("CompressedOops", "_narrow_oop._base")?,
                shift: structs.address("CompressedOops", "_narrow_oop._shift")?,
            },
            z: zgc.map(|used| Z {
                used,
                globals: z_globals(&structs).ok(),
            }),
            class_klass: structs.address("java_lang_Class", "_klass_offset").ok(),
            fields,
        })
    }

    /// Bits of references that are out of date.
    pub(super) fn stale(&self, memory: &dyn Memory) -> u64 {
        let Some(z) = self.z.filter(|z| is_set(memory, z.used)) else {
            return 0;
        };
        let read = || {
            let (instance, bad) = z.globals?;
            let globals = memory.u64(instance)?;
            memory.u64(memory.u64(globals.wrapping_add(bad))?)
        };
        // None is known to be up to date.
        read().unwrap_or(u64::MAX)
    }

    /// How pointers to classes, and to objects, are compressed now: the machine decides it as it begins.
    pub(super) fn narrow(&self, memory: &dyn Memory) -> Option<(Narrow, Narrow)> {
        Some((self.classes.read(memory)?, self.objects.read(memory)?))
    }
}

impl Pointers {
    fn read(&self, memory: &dyn Memory) -> Option<Narrow> {
        if !self.used.is_some_and(|at| is_set(memory, at)) {
            return Some(None);
        }
        let shift = memory.u32(self.shift).filter(|shift| *shift < MAX_SHIFT)?;
        Some(Some((memory.u64(self.base)?, shift)))
    }
}

/// How the kernel program finds the name of the class of a monitor's object, seen from a place in the machine's code
/// that is at `from`.
///
/// # Errors
/// Why it is not known.
pub(super) fn class_of_monitors(
    process: &Process,
    memory: &dyn Memory,
    from: u64,
) -> Result<Monitor, String> {
    const POINTERS: &str = "CompressedKlassPointers";
    let structs = Structs::read(process, memory).ok_or(NOT_PUBLISHED)?;
    release(&structs, memory, NAMED)?;
    let [narrow, zgc, compact] = structs.flags([
        "UseCompressedClassPointers",
        "UseZGC",
        "UseCompactObjectHeaders",
    ])?;
    let distance = |at: u64| at.wrapping_sub(from);
    // All are less than `MAX_OFFSET`.
    let offset = |of: &str, field: &str| near(&structs, &[of], field).map(|at| at as u32);
    // From release 24 on by itself.
    let pointers = |before: &str, now: &str| {
        let at = structs.address(POINTERS, before);
        at.or_else(|_| structs.address(POINTERS, now)).map(distance)
    };
    Ok(Monitor {
        hides: [zgc, compact].map(|at| at.map_or(0, distance)),
        // Not to know it would be to take half a reference for one.
        narrow: narrow
            .map(distance)
            .ok_or("`UseCompressedClassPointers` is not published")?,
        base: pointers("_narrow_klass._base", "_base")?,
        shift: pointers("_narrow_klass._shift", "_shift")?,
        named: 1,
        object: offset("ObjectMonitor", "_object")?,
        mark: offset("oopDesc", "_mark")?,
        klass: offset("oopDesc", "_metadata._klass")?,
        name: offset("Klass", "_name")?,
        length: offset("Symbol", "_length")?,
        body: offset("Symbol", "_body[0]")?,
        ..Monitor::default()
    })
}

/// The number of the release, if it is one that is known, and its name.
fn release(
    structs: &Structs<'_>,
    memory: &dyn Memory,
    known: RangeInclusive<u32>,
) -> Result<(u32, String), String> {
    let major = structs.address("Abstract_VM_Version", "_vm_major_version")?;
    let major = memory.u32(major).unwrap_or(0);
    if !known.contains(&major) {
        let (first, last) = known.into_inner();
        return Err(format!(
            "release {major} is not known ({first} to {last} are)"
        ));
    }
    let name = structs
        .address("Abstract_VM_Version", "_s_vm_release")
        .ok()
        .and_then(|at| text(memory, memory.u64(at)?));
    Ok((major, name.unwrap_or_else(|| major.to_string())))
}

/// Where ZGC tells which references are out of date.
fn z_globals(structs: &Structs<'_>) -> Result<(u64, u64), String> {
    let of = "ZGlobalsForVMStructs";
    let instance = structs.address(of, "_instance_p")?;
    Ok((instance, near(structs, &[of], "_ZAddressBadMask")?))
}

/// Offset of a field, as far as one can be.
fn near(structs: &Structs<'_>, types: &[&str], field: &str) -> Result<u64, String> {
    let offset = structs.offset(types, field)?;
    if offset < MAX_OFFSET {
        Ok(offset)
    } else {
        Err(format!("`{field}` is at {offset}, which cannot be"))
    }
}

fn is_set(memory: &dyn Memory, at: u64) -> bool {
    let mut byte = [0];
    memory.read(at, &mut byte) && byte != [0]
}

fn fields(structs: &Structs<'_>) -> Result<Fields, String> {
    let klass = ["InstanceKlass"];
    let constant = |name: &str| structs.constant(name).map(u64::from);
    let fields = Fields {
        array: structs.offset(&klass, "_fields")?,
        count: structs.offset(&klass, "_java_fields_count")?,
        constants: structs.offset(&klass, "_constants")?,
        pool_size: structs.size("ConstantPool")?,
        array_data: structs.offset(&["Array<u2>"], "_data")?,
        slots: constant("FieldInfo::field_slots")?,
        name: constant("FieldInfo::name_index_offset")?,
        low: constant("FieldInfo::low_packed_offset")?,
        high: constant("FieldInfo::high_packed_offset")?,
        tag_bits: structs.constant("FIELDINFO_TAG_SIZE")?,
    };
    let inside = [fields.name, fields.low, fields.high];
    let known = fields.slots <= 16
        && fields.tag_bits < 16
        && inside.iter().all(|slot| *slot < fields.slots)
        && [
            fields.array,
            fields.count,
            fields.constants,
            fields.pool_size,
            fields.array_data,
        ]
        .iter()
        .all(|offset| *offset < MAX_OFFSET);
    known
        .then_some(fields)
        .ok_or_else(|| "fields are described in a way that is not known".to_owned())
}

#[cfg(test)]
impl Layout {
    /// One that is as good as any: what is wherever `word` says, by number.
    pub(super) fn any(word: impl Fn(u64) -> u64) -> Layout {
        let pointers = |i| Pointers {
            used: Some(word(i)),
            base: word(i + 1),
            shift: word(i + 2),
        };
        Layout {
            release: String::new(),
            whole: true,
            thread_list: word(0),
            list_length: word(1),
            list_threads: word(2),
            osthread: word(3),
            thread_object: word(4),
            pending: word(5),
            waiting: word(6),
            stack_base: word(7),
            stack_size: word(8),
            thread_id: word(9),
            monitor_object: word(10),
            monitor_owner: word(11),
            mark: word(32),
            klass: word(12),
            klass_name: word(13),
            klass_super: word(14),
            symbol_length: word(15),
            symbol_body: word(16),
            classes: pointers(17),
            objects: pointers(20),
            z: Some(Z {
                used: word(29),
                globals: Some((word(30), word(31))),
            }),
            class_klass: Some(word(23)),
            fields: Some(Fields {
                array: word(24),
                count: word(25),
                constants: word(26),
                pool_size: word(27),
                array_data: word(28),
                slots: 6,
                name: 1,
                low: 4,
                high: 5,
                tag_bits: 2,
            }),
        }
    }
}
