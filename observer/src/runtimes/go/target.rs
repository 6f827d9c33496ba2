//! A Go process, made ready for snapshots: its tables are found once, and kept.

use std::{
    fmt,
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{
    code::{self, Use},
    dwarf,
    gather::Gathered,
    image::{Identity, Image},
    layout::{self, Layout},
    machine::Machine,
    module::Module,
    pclntab::Pclntab,
    raw::Raw,
    reasons,
    release::Release,
    scheduler,
    snapshot::Room,
    stacks::Stacks,
};
use crate::inspect::memory::{Memory, ProcessMemory};

/// Goroutines looked at to see if a layout fits.
const SAMPLE: usize = 64;
/// Looks at them.
const LOOKS: usize = 3;
/// Goroutines believed: more are left out, and counted.
pub(super) const MAX_GOROUTINES: u64 = 2 << 20;

/// Why a process's goroutines cannot be seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refused {
    /// It is no Go program.
    NotGo,
    /// It has ended.
    Gone,
    /// Its memory may not be read. Names what was tried.
    Permission(String),
    /// It is for another machine than amd64 and arm64. Names the release.
    Machine(String),
    /// Something in it is not as Go programs have it. Says what.
    Odd(String),
    /// No known layout of the runtime's structs fits.
    Layout {
        /// The release that it says it was built by.
        release: String,
        /// What did not fit.
        reason: String,
    },
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refused::NotGo => write!(f, "not a Go program"),
            Refused::Gone => write!(f, "the process has ended"),
            Refused::Permission(what) => {
                write!(
                    f,
                    "{what}: permission denied; observer needs CAP_SYS_PTRACE"
                )
            }
            Refused::Machine(release) => {
                write!(f, "{release} for another machine than amd64 and arm64")
            }
            Refused::Odd(what) => write!(f, "{what}"),
            Refused::Layout { release, reason } => write!(
                f,
                "the runtime of {release} is not laid out in a way that is known: {reason}"
            ),
        }
    }
}

impl std::error::Error for Refused {}

/// A Go process that snapshots can be taken of.
pub struct Target<M: Memory = ProcessMemory> {
    pub(super) pid: u32,
    /// To see that it is still the same process.
    pub(super) identity: Identity,
    pub(super) memory: M,
    pub(super) release: Release,
    /// The minor number whose layout is used.
    pub(super) layout_of: u32,
    /// It is that of the program's own debug information; or why that was not used.
    pub(super) debug_info: Result<bool, String>,
    pub(super) layout: Arc<Layout>,
    pub(super) module: Module,
    pub(super) stacks: Stacks,
    pub(super) reasons: Vec<Arc<str>>,
    /// Where the number of goroutines is, and the address of the first's address.
    pub(super) all: (u64, u64),
    /// The table of semaphores; none: not found.
    pub(super) semaphores: Option<u64>,
    /// The scheduler's variables; none: not found.
    pub(super) scheduler: Option<scheduler::Places>,
    /// The list of the heap's spans; none: not looked for yet, or not found.
    pub(super) spans: Option<u64>,
    pub(super) room: Room,
}

impl<M: Memory> fmt::Debug for Target<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Target")
            .field("pid", &self.pid)
            .field("release", &self.release.text)
            .finish_non_exhaustive()
    }
}

impl Target {
    /// Recognises a Go process and finds its tables.
    ///
    /// # Errors
    /// Why its goroutines cannot be seen.
    pub fn open(pid: u32) -> Result<Target, Refused> {
        // Before anything is read: what is another program at the end was mixed up.
        let identity = Identity::of(pid).ok_or(Refused::Gone)?;
        let image = Image::of(pid)?;
        Target::of_image(pid, identity, &exe(pid), &image)
    }

    /// The same of a program that another one runs in itself, as emulators do: the process's own file is not the
    /// program's. Its memory has to be at its own addresses.
    ///
    /// # Errors
    /// Why its goroutines cannot be seen.
    pub fn open_emulated(pid: u32, program: &Path) -> Result<Target, Refused> {
        let identity = Identity::of(pid).ok_or(Refused::Gone)?;
        let image = Image::mapped(pid, program)?;
        Target::of_image(pid, identity, program, &image)
    }

    fn of_image(
        pid: u32,
        identity: Identity,
        program: &Path,
        image: &Image,
    ) -> Result<Target, Refused> {
        let memory = ProcessMemory::of(pid);
        if let Some(section) = image.section(&[".text"])
            && let Err(error) = memory.check(section.addr)
        {
            return Err(match error.raw_os_error() {
                Some(libc::ESRCH) => Refused::Gone,
                Some(libc::EPERM) => Refused::Permission(format!("memory of process {pid}")),
                _ => Refused::Odd(format!("its code cannot be read: {error}")),
            });
        }
        Target::in_memory(pid, identity, memory, program, image)
    }
}

/// The file that a process runs; it can be opened when it is deleted too.
pub(super) fn exe(pid: u32) -> PathBuf {
    format!("/proc/{pid}/exe").into()
}

impl<M: Memory> Target<M> {
    /// The same, with a reader of its own for the memory.
    ///
    /// # Errors
    /// Why its goroutines cannot be seen.
    pub fn open_with(pid: u32, memory: M) -> Result<Target<M>, Refused> {
        let identity = Identity::of(pid).ok_or(Refused::Gone)?;
        let image = Image::of(pid)?;
        Target::in_memory(pid, identity, memory, &exe(pid), &image)
    }

    /// [`Target::open_emulated`] with a reader of its own for the memory.
    ///
    /// # Errors
    /// Why its goroutines cannot be seen.
    pub fn open_emulated_with(pid: u32, program: &Path, memory: M) -> Result<Target<M>, Refused> {
        let identity = Identity::of(pid).ok_or(Refused::Gone)?;
        let image = Image::mapped(pid, program)?;
        Target::in_memory(pid, identity, memory, program, &image)
    }
}

/// Is this a Go program, and of which release? Only the program's file is read.
///
/// # Errors
/// Why not.
pub fn recognise(pid: u32) -> Result<Program, Refused> {
    let image = Image::of(pid)?;
    Ok(Program {
        release: image.release,
        machine: image.machine,
    })
}

/// What a Go program is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Program {
    /// The release that it was built by.
    pub release: Release,
    /// What it was built for.
    pub machine: Machine,
}

/// `go1.24.11`, or `go1.24.11 for arm64, untested`.
impl fmt::Display for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.release)?;
        if self.machine.is_untested_for_go() {
            write!(f, " for {}, untested", self.machine.goarch())?;
        }
        Ok(())
    }
}

/// What is found with one layout.
struct Found {
    module: Module,
    stacks: Stacks,
    all: (u64, u64),
    semaphores: Option<u64>,
    scheduler: Option<scheduler::Places>,
}

impl<M: Memory> Target<M> {
    /// Tries the layouts that may be right: the program's own, then those of the table.
    fn in_memory(
        pid: u32,
        identity: Identity,
        memory: M,
        program: &Path,
        image: &Image,
    ) -> Result<Target<M>, Refused> {
        let minor = image.release.minor;
        let mut reasons_against = Vec::new();
        let mut candidates = Vec::new();
        let mut without = None;
        match dwarf::of(program) {
            Ok(Some(layout)) => candidates.push((minor, Arc::new(layout), true)),
            Ok(None) => {}
            Err(why) => without = Some(why),
        }
        let table = layout::candidates(image.machine, minor).into_iter();
        candidates.extend(table.map(|(from, layout)| (from, layout, false)));
        for (from, layout, own) in candidates {
            match find(&memory, image, &layout) {
                Ok(found) => {
                    if Identity::of(pid).as_ref() != Some(&identity) {
                        return Err(Refused::Gone);
                    }
                    let reasons = reasons::find(&memory, image, &found.module);
                    return Ok(Target {
                        pid,
                        identity,
                        release: image.release.clone(),
                        layout_of: from,
                        debug_info: without.map_or(Ok(own), Err),
                        layout,
                        module: found.module,
                        stacks: found.stacks,
                        reasons,
                        all: found.all,
                        semaphores: found.semaphores,
                        scheduler: found.scheduler,
                        spans: None,
                        room: Room::default(),
                        memory,
                    });
                }
                Err(reason) => {
                    if own {
                        without = Some(format!("its debug information does not fit: {reason}"));
                    }
                    if !reasons_against.contains(&reason) {
                        reasons_against.push(reason);
                    }
                }
            }
        }
        Err(Refused::Layout {
            release: image.release.text.clone(),
            reason: reasons_against.join("; "),
        })
    }

    /// The release that it was built by.
    pub fn release(&self) -> &Release {
        &self.release
    }
}

/// Looks for everything with one layout, and holds it against goroutines that live.
fn find(memory: &dyn Memory, image: &Image, layout: &Layout) -> Result<Found, String> {
    let module = Module::find(memory, image, &layout.moduledata)?;
    let mut table = Pclntab::new(memory, module.clone())?;
    let mut names = vec![
        "runtime.forEachGRace",
        "runtime.allgadd",
        "runtime.semacquire1",
    ];
    names.extend(scheduler::FUNCTIONS);
    let functions = table.named(memory, &names);
    let used = |index: usize, how: Use| -> Vec<u64> {
        let function = functions[index].as_ref();
        function.map_or_else(Vec::new, |function| {
            code::variables(memory, &module, function, how)
        })
    };
    let mut refusal = "the list of goroutines was not found".to_owned();
    let mut all = None;
    for pair in pairs(&used(0, Use::Load), &used(1, Use::Load)) {
        match check(memory, &mut table, &module, layout, pair) {
            Ok(()) => {
                all = Some(pair);
                break;
            }
            Err(reason) => refusal = reason,
        }
    }
    let semaphores = used(2, Use::Address).first().copied();
    let scheduler = scheduler::find(memory, &module, layout, &functions[3..]);
    Ok(Found {
        scheduler,
        all: all.ok_or(refusal)?,
        stacks: Stacks::new(table),
        semaphores,
        module,
    })
}

/// Where number and address of the list may be: two words that are read one after the other, the number
/// first; or a slice that is extended.
fn pairs(loads: &[u64], slices: &[u64]) -> Vec<(u64, u64)> {
    let two = loads.windows(2).map(|pair| (pair[0], pair[1]));
    let slice = slices.iter().map(|addr| (addr.wrapping_add(8), *addr));
    two.chain(slice).collect()
}

/// The addresses of all goroutines, as far as they are believed; and how many more there are.
pub(super) fn list(memory: &dyn Memory, all: (u64, u64), most: u64) -> Option<(Vec<u64>, u64)> {
    // The runtime writes the address first: the list is at least as long as a number read before it.
    let length = memory.u64(all.0)?;
    let first = memory.u64(all.1)?;
    let count = length.min(most);
    if first == 0 || length == 0 || first % 8 != 0 {
        return None;
    }
    let mut bytes = vec![0; count as usize * 8];
    if !memory.read(first, &mut bytes) {
        return None;
    }
    let (words, _) = bytes.as_chunks::<8>();
    let words = words.iter().map(|word| u64::from_le_bytes(*word));
    Some((words.collect(), length - count))
}

/// Do goroutines look like goroutines? One may just change, so there is more than one look.
fn check(
    memory: &dyn Memory,
    table: &mut Pclntab,
    module: &Module,
    layout: &Layout,
    all: (u64, u64),
) -> Result<(), String> {
    let mut outcome = Ok(());
    for _ in 0..LOOKS {
        outcome = look(memory, table, module, layout, all);
        if outcome.is_ok() {
            break;
        }
    }
    outcome
}

fn look(
    memory: &dyn Memory,
    table: &mut Pclntab,
    module: &Module,
    layout: &Layout,
    all: (u64, u64),
) -> Result<(), String> {
    let (addrs, _) = list(memory, all, SAMPLE as u64).ok_or("the list of goroutines is not one")?;
    let mut gathered = Gathered::default();
    let size = layout.g.size as u32;
    let wanted: Vec<_> = addrs.iter().map(|addr| (*addr, size)).collect();
    gathered.read(memory, &wanted);
    let (mut sound, mut odd) = (0, Vec::new());
    let mut goids = Vec::new();
    for (i, addr) in addrs.iter().enumerate() {
        let bytes = gathered.get(i).ok_or("a goroutine cannot be read")?;
        let parsed = Raw::parse(bytes, *addr, layout, module);
        match parsed
            .and_then(|raw| raw.map_or(Ok(None), |raw| begins(memory, table, raw).map(Some)))
        {
            Ok(Some(goid)) => {
                sound += 1;
                goids.push(goid);
            }
            Ok(None) => {}
            Err(reason) => odd.push(reason),
        }
    }
    goids.sort_unstable();
    if goids.windows(2).any(|pair| pair[0] == pair[1]) {
        return Err("two goroutines have the same number".to_owned());
    }
    match odd.first() {
        Some(reason) if odd.len() * 4 > sound => Err(format!("a goroutine is none: {reason}")),
        _ if sound == 0 => Err("no goroutine lives".to_owned()),
        _ => Ok(()),
    }
}

/// Does it begin where a goroutine begins? Gives its number.
fn begins(memory: &dyn Memory, table: &mut Pclntab, raw: Raw) -> Result<u64, &'static str> {
    let entry = table.function(memory, raw.startpc);
    let entry = entry.filter(|function| function.entry == raw.startpc);
    let entry = entry.ok_or("it does not begin with a function")?;
    // The first one is always the same.
    if raw.goid == 1 && table.name(memory, &entry).as_deref() != Some("runtime.main") {
        return Err("the first one does not begin with runtime.main");
    }
    Ok(raw.goid)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_for_arm64_are_called_untested() {
        let on = |machine| Program {
            release: Release {
                text: "go1.24.11".to_owned(),
                minor: 24,
            },
            machine,
        };
        assert_eq!(on(Machine::X86_64).to_string(), "go1.24.11");
        let said = on(Machine::Arm64).to_string();
        assert_eq!(said, "go1.24.11 for arm64, untested");
    }
}
