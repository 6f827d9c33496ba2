//! Where HotSpot's threads go when they cannot have a monitor at once: places for probes in a machine that was started
//! without probes of its own for that (`-XX:+DTraceMonitorProbes`).
//!
//! A wait begins where the machine has given up spinning (`ObjectMonitor::EnterI`, from release 24 on
//! `enter_internal`), and ends where the machine asks whether its own probe is to tell that the monitor was entered: a
//! jump that is not taken, which the kernel need not single-step. Neither is on the way
//! of a thread that gets the monitor at once, and nothing is attached to a return.

use observer_common::usdt::Monitor;

use super::layout::class_of_monitors;
use crate::{
    inspect::{
        memory::Memory,
        usdt::{
            Binary, Machine as Code, Probe,
            functions::{Function, Symbols},
        },
    },
    runtimes::{Process, packs::Pair},
};

/// The pair of the machine's own probes that tells the same.
const PROVIDER: &str = "hotspot";
const ENTER: &str = "monitor__contended__enter";
const ENTERED: &str = "monitor__contended__entered";
/// Its argument that is the monitor.
const MONITOR: u8 = 1;
/// What all functions of monitors begin with.
pub const FUNCTIONS: &str = "_ZN13ObjectMonitor";
/// Those in which a thread waits, without their parameters, and how they are called.
const WAITS: [(&str, &str); 2] = [
    ("_ZN13ObjectMonitor6EnterIE", "ObjectMonitor::EnterI"),
    (
        "_ZN13ObjectMonitor14enter_internalE",
        "ObjectMonitor::enter_internal",
    ),
];
/// The machine's option for its own probes, and what it publishes for debuggers.
const OPTION: &str = "DTraceMonitorProbes";
const PUBLISHED: &str = "gHotSpotVMStructs";
/// What is looked for beside functions.
pub const SYMBOLS: [&str; 2] = [OPTION, PUBLISHED];
/// The code that passes a probe its arguments is not longer than this.
const PASSING: u64 = 256;
/// The option's address is loaded not further than this before it is asked for.
const LOADING: usize = 48;

/// The places in a machine's library.
#[derive(Clone, Debug)]
pub struct Contended {
    /// A thread begins to wait.
    pub begin: Probe,
    /// It has the monitor.
    pub end: Probe,
    /// What the kernel program is told of the first.
    pub monitor: Monitor,
    /// Why waits have no names of classes, if so.
    pub unnamed: Option<String>,
}

/// A process that maps the library, and its memory.
pub type Mapping<'a> = (&'a Process, &'a dyn Memory);

/// Does this pair tell what these places do?
pub fn is_told_by(pair: &Pair) -> bool {
    pair.provider == PROVIDER && pair.begin == ENTER && pair.resource == [MONITOR]
}

impl Contended {
    /// Finds the places in a library with these probes and symbols.
    ///
    /// # Errors
    /// Why there are none.
    pub fn find(
        binary: &Binary,
        symbols: &Symbols,
        mapped_by: Option<Mapping<'_>>,
    ) -> Result<Contended, String> {
        if binary.machine != Code::X86_64 {
            return Err("code for this machine is not read".into());
        }
        let (begin, name) = WAITS
            .iter()
            .find_map(|(beginning, name)| {
                let mut functions = symbols.functions.iter();
                let function = functions.find(|one| one.name.starts_with(beginning))?;
                Some((function, *name))
            })
            .ok_or("it has no function ObjectMonitor::EnterI nor enter_internal")?;
        let option = symbols.addresses.get(OPTION);
        let option = *option.ok_or_else(|| format!("its symbols do not tell where {OPTION} is"))?;
        let told: Vec<u64> = binary
            .probes
            .iter()
            .filter(|probe| probe.provider == PROVIDER && probe.name == ENTERED)
            .map(|probe| probe.location)
            .collect();
        let mut ends = symbols
            .functions
            .iter()
            .flat_map(|function| asks(function, option, &told));
        let (Some(end), None) = (ends.next(), ends.next()) else {
            return Err(format!(
                "the place where it asks for {OPTION} once a monitor is entered is not the only one, or not known"
            ));
        };
        let (monitor, unnamed) = match monitor(symbols, mapped_by, begin.address) {
            Ok(monitor) => (monitor, None),
            Err(why) => (Monitor::default(), Some(why)),
        };
        Ok(Contended {
            begin: place(name, begin.address, begin.offset),
            end: place("ObjectMonitor::enter", end.0, end.1),
            monitor: Monitor {
                probes: option.wrapping_sub(begin.address),
                ..monitor
            },
            unnamed,
        })
    }
}

fn place(name: &str, location: u64, offset: u64) -> Probe {
    Probe {
        provider: PROVIDER.into(),
        name: name.into(),
        location,
        offset: Some(offset),
        semaphore: None,
        arguments: Ok(Vec::new()),
        argument_text: String::new(),
        refused: None,
    }
}

/// How the class of a monitor is found, seen from the instruction that the linker has at `from`.
fn monitor(
    symbols: &Symbols,
    mapped_by: Option<Mapping<'_>>,
    from: u64,
) -> Result<Monitor, String> {
    let (process, memory) = mapped_by.ok_or("no process maps it yet")?;
    let loaded = process.symbols.get(PUBLISHED);
    let (Some(loaded), Some(linked)) = (loaded, symbols.addresses.get(PUBLISHED)) else {
        return Err(format!("its symbols do not tell where {PUBLISHED} is"));
    };
    let moved = loaded.addr.wrapping_sub(*linked);
    class_of_monitors(process, memory, from.wrapping_add(moved))
}

/// Jumps to where one of `probes` is passed its arguments, taken if the byte at `option` is not 0: their addresses, and
/// where they are in the file.
fn asks(function: &Function, option: u64, probes: &[u64]) -> Vec<(u64, u64)> {
    let code = &function.code[..];
    let at = |index: usize| function.address.wrapping_add(index as u64);
    let mut found = Vec::new();
    for index in 0..code.len() {
        // `jne`, far and near.
        let target = match code[index..] {
            [0x0f, 0x85, a, b, c, d, ..] => relative(at(index + 6), [a, b, c, d]),
            [0x75, near, ..] => at(index + 2).wrapping_add_signed(i64::from(near.cast_signed())),
            _ => continue,
        };
        let passes = |probe: &u64| (target..target.saturating_add(PASSING)).contains(probe);
        if probes.iter().any(passes) && is_asked_for(&code[..index], at(0), option) {
            found.push((at(index), function.offset.wrapping_add(index as u64)));
        }
    }
    found
}

/// Does the code, which begins at `start`, end by comparing the byte at `option` with 0?
fn is_asked_for(code: &[u8], start: u64, option: u64) -> bool {
    let at = |index: usize| start.wrapping_add(index as u64);
    match code {
        // `cmpb $0,option(%rip)`
        [.., 0x80, 0x3d, a, b, c, d, 0] if relative(at(code.len()), [*a, *b, *c, *d]) == option => {
            true
        }
        // `cmpb $0,(%rax)` or another register, into which its address was loaded before.
        [.., 0x80, 0x38..=0x3b | 0x3e | 0x3f, 0] => {
            let first = code.len().saturating_sub(LOADING);
            // `lea option(%rip),%rax`: the last one counts.
            let loaded = (first..code.len())
                .rev()
                .find_map(|index| match code[index..] {
                    [0x48 | 0x4c, 0x8d, register, a, b, c, d, ..] if register & 0xc7 == 0x05 => {
                        Some(relative(at(index + 7), [a, b, c, d]))
                    }
                    _ => None,
                });
            loaded == Some(option)
        }
        _ => false,
    }
}

/// An address by its distance from the end of an instruction.
fn relative(end: u64, distance: [u8; 4]) -> u64 {
    end.wrapping_add_signed(i64::from(i32::from_le_bytes(distance)))
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;
    use crate::runtimes::packs;

    const START: u64 = 0x1000;
    const FLAG: u64 = 0x9000;

    /// As OpenJDK 17 has it: the address loaded, another store, the question, the jump; and a question for something
    /// else behind it.
    fn entered(target: u64) -> Vec<u8> {
        let mut code = vec![0x90, 0x48, 0x8d, 0x05];
        code.extend(((FLAG - (START + 8)) as u32).to_le_bytes());
        code.extend([0x49, 0xc7, 0x87, 0x20, 3, 0, 0, 0, 0, 0, 0, 0x80, 0x38, 0]);
        jump(&mut code, target);
        code.extend([0x48, 0x8d, 0x05, 1, 0, 0, 0, 0x80, 0x38, 0]);
        jump(&mut code, target);
        code
    }

    fn jump(code: &mut Vec<u8>, target: u64) {
        let at = START + code.len() as u64 + 6;
        code.extend([0x0f, 0x85]);
        code.extend((target.wrapping_sub(at) as u32).to_le_bytes());
    }

    fn function(name: &str, address: u64, code: Vec<u8>) -> Function {
        Function {
            name: name.into(),
            address,
            offset: address + 0x100,
            code,
        }
    }

    fn binary(entered: u64) -> Binary {
        Binary {
            machine: Code::X86_64,
            probes: vec![Probe {
                name: ENTERED.into(),
                ..place(ENTERED, entered, entered)
            }],
            malformed: 0,
            symbols: HashMap::new(),
        }
    }

    fn symbols(code: Vec<u8>) -> Symbols {
        Symbols {
            functions: vec![
                function("_ZN13ObjectMonitor5enterEP10JavaThread", START, code),
                function(
                    "_ZN13ObjectMonitor6EnterIEP10JavaThread",
                    0x3000,
                    vec![0x55],
                ),
            ],
            addresses: HashMap::from([(OPTION.to_owned(), FLAG)]),
        }
    }

    #[test]
    fn a_wait_begins_where_it_parks_and_ends_where_the_option_is_asked_for() {
        let found = Contended::find(&binary(0x2010), &symbols(entered(0x2000)), None).unwrap();
        assert_eq!(found.begin.offset, Some(0x3100));
        assert_eq!(found.begin.name, "ObjectMonitor::EnterI");
        assert_eq!(found.end.offset, Some(START + 0x100 + 22));
        assert_eq!(found.monitor.probes, FLAG - 0x3000);
        assert_eq!(found.monitor.named, 0);
        assert!(found.unnamed.is_some());
    }

    #[test]
    fn what_is_not_surely_the_place_is_refused() {
        let refused = |binary: &Binary, symbols: &Symbols| {
            Contended::find(binary, symbols, None).unwrap_err()
        };
        // The jump leads elsewhere, there are two, the option is another, there is no function to wait in.
        let elsewhere = symbols(entered(0x5000));
        assert!(refused(&binary(0x2010), &elsewhere).contains("not known"));
        let mut twice = symbols(entered(0x2000));
        let again = function(
            "_ZN13ObjectMonitor4waitE",
            START,
            twice.functions[0].code.clone(),
        );
        twice.functions.push(again);
        assert!(refused(&binary(0x2010), &twice).contains("not the only one"));
        let mut other = symbols(entered(0x2000));
        other.addresses.insert(OPTION.into(), FLAG + 1);
        assert!(refused(&binary(0x2010), &other).contains("not known"));
        other.addresses.clear();
        assert!(refused(&binary(0x2010), &other).contains(OPTION));
        other.functions.pop();
        assert!(refused(&binary(0x2010), &other).contains("EnterI"));
        // Up to within the first jump.
        for length in 0..28 {
            let cut = symbols(entered(0x2000)[..length].to_vec());
            refused(&binary(0x2010), &cut);
        }
    }

    #[test]
    fn the_pack_has_the_pair() {
        let pairs = packs::load(&["hotspot".to_owned()]).unwrap();
        let told: Vec<_> = pairs.iter().filter(|pair| is_told_by(pair)).collect();
        assert_eq!(told.len(), 1);
        assert_eq!(told[0].slot(MONITOR), Some(0));
    }
}
