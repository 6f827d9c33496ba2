//! How to come from one frame to its caller, as the compiler's tables say (DWARF call frame information).
//!
//! An entry of the table is read where it lies in the process, and turned into a rule that is kept for the
//! address. Nearly all rules are a register, an offset and a few places on the stack; what needs a DWARF
//! expression (signal frames, the stubs that call into libraries) is evaluated each time.

use gimli::{
    BaseAddresses, CfaRule, EhFrame, EndianSlice, EvaluationResult, LittleEndian, Register,
    RegisterRule, UnwindContext, UnwindExpression, UnwindSection, Value,
};

use super::pages::Pages;
use crate::{event::StackEnd, inspect::memory::Memory};

/// DWARF's numbers of x86-64's registers (System V ABI, figure 3.36).
pub(super) const RBX: usize = 3;
pub(super) const RBP: usize = 6;
pub(super) const RSP: usize = 7;
pub(super) const R12: usize = 12;
const RETURN_ADDRESS: u16 = 16;
/// Registers that are followed.
const REGISTERS: usize = 16;
/// Those that a called function preserves, other than the stack pointer.
const PRESERVED: [usize; 6] = [RBX, RBP, R12, 13, 14, 15];

/// Bytes of one entry of the table: compilers write a few dozen.
const MAX_ENTRY: u32 = 16 << 10;
/// Bytes of what several entries share.
pub(super) const MAX_SHARED: u32 = 4 << 10;
/// Steps of one expression.
const MAX_STEPS: u32 = 1_000;

/// What is known of the registers in a frame.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Machine {
    pub(super) ip: u64,
    pub(super) regs: [Option<u64>; REGISTERS],
    /// Is `ip` an instruction that was interrupted, and not the one behind a call?
    pub(super) exact: bool,
}

impl Machine {
    pub(super) fn sp(&self) -> u64 {
        self.regs[RSP].unwrap_or(0)
    }

    /// The address whose code is asked for: the call, not what follows it, which may be another function.
    pub(super) fn lookup(&self) -> u64 {
        if self.exact {
            self.ip
        } else {
            self.ip.saturating_sub(1)
        }
    }
}

/// Where a preserved register of the caller is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    Kept,
    At(i64),
    Lost,
}

/// What to do at an address.
#[derive(Clone, Copy, Debug)]
pub(super) enum Rule {
    /// The caller's stack pointer is a register plus an offset; the rest is on the stack, by offsets from it.
    Simple {
        register: usize,
        offset: i64,
        return_at: i64,
        places: [Place; PRESERVED.len()],
    },
    /// To be evaluated: the entry's address.
    Expression { entry: u64 },
    /// The first function of the thread.
    Root,
    /// Nothing is said, or nonsense.
    Unknown(StackEnd),
}

/// Reads words of a stack.
pub(super) type ReadWord<'a> = &'a mut dyn FnMut(u64) -> Option<u64>;
type Slice<'a> = EndianSlice<'a, LittleEndian>;

/// An entry of the table with what it refers to, copied side by side, as a section of its own.
struct Entry {
    bytes: Vec<u8>,
    /// Offset of the entry.
    at: usize,
    /// Address of the section, such that the entry's own addresses come out right.
    base: u64,
}

impl Entry {
    fn read(memory: &impl Memory, pages: &mut Pages, entry: u64) -> Option<Entry> {
        let length = pages.u32(memory, entry)?;
        let back = pages.u32(memory, entry.checked_add(4)?)?;
        let shared = (entry + 4).checked_sub(u64::from(back))?;
        let shared_length = pages.u32(memory, shared)?;
        // 0 is the table's end; the form for entries of more than 4 GiB is beyond the bound.
        if back == 0
            || !(4..=MAX_ENTRY).contains(&length)
            || !(4..=MAX_SHARED).contains(&shared_length)
        {
            return None;
        }
        let at = 4 + shared_length as usize;
        if !pages.spend(at + 4 + length as usize) {
            return None;
        }
        let mut bytes = vec![0; at + 4 + length as usize];
        let (first, second) = bytes.split_at_mut(at);
        if !pages.read(memory, shared, first) || !pages.read(memory, entry, second) {
            return None;
        }
        // The process may have written meanwhile.
        second[..4].copy_from_slice(&length.to_le_bytes());
        second[4..8].copy_from_slice(&(at as u32 + 4).to_le_bytes());
        first[..4].copy_from_slice(&shared_length.to_le_bytes());
        let base = entry.wrapping_sub(at as u64);
        Some(Entry { bytes, at, base })
    }

    /// Hands the row for `addr` to `then`, with the section and how its expressions are encoded; `None` if
    /// the entry is about other code.
    fn row<T>(
        &self,
        context: &mut UnwindContext<usize>,
        addr: u64,
        then: impl FnOnce(
            &gimli::UnwindTableRow<usize>,
            &EhFrame<Slice<'_>>,
            gimli::Encoding,
            bool,
        ) -> T,
    ) -> Result<T, StackEnd> {
        let section = EhFrame::new(&self.bytes, LittleEndian);
        let bases = BaseAddresses::default().set_eh_frame(self.base);
        let bad = |_| StackEnd::BadUnwindInfo;
        let fde = section
            .fde_from_offset(&bases, self.at.into(), EhFrame::cie_from_offset)
            .map_err(bad)?;
        if !fde.contains(addr) {
            return Err(StackEnd::NoUnwindInfo);
        }
        let (encoding, signal) = (fde.cie().encoding(), fde.is_signal_trampoline());
        if fde.cie().return_address_register() != Register(RETURN_ADDRESS) {
            return Err(StackEnd::BadUnwindInfo);
        }
        let row = fde
            .unwind_info_for_address(&section, &bases, context, addr)
            .map_err(bad)?;
        Ok(then(row, &section, encoding, signal))
    }
}

/// The rule for the code at `addr`, which the entry at `entry` may be about.
pub(super) fn compile(
    memory: &impl Memory,
    pages: &mut Pages,
    context: &mut UnwindContext<usize>,
    entry: u64,
    addr: u64,
) -> Rule {
    let Some(read) = Entry::read(memory, pages, entry) else {
        return Rule::Unknown(StackEnd::BadUnwindInfo);
    };
    read.row(context, addr, |row, _, _, signal| {
        simple(row, signal).unwrap_or(Rule::Expression { entry })
    })
    .unwrap_or_else(Rule::Unknown)
}

/// The row as a rule without expressions, if it has none.
fn simple(row: &gimli::UnwindTableRow<usize>, signal: bool) -> Option<Rule> {
    let return_at = match row.register(Register(RETURN_ADDRESS)) {
        Some(RegisterRule::Undefined) => return Some(Rule::Root),
        Some(RegisterRule::Offset(offset)) if !signal => offset,
        _ => return None,
    };
    let CfaRule::RegisterAndOffset { register, offset } = *row.cfa() else {
        return None;
    };
    let mut places = [Place::Kept; PRESERVED.len()];
    for (place, number) in places.iter_mut().zip(PRESERVED) {
        *place = match row.register(Register(number as u16)) {
            None | Some(RegisterRule::SameValue) => Place::Kept,
            Some(RegisterRule::Offset(offset)) => Place::At(offset),
            Some(RegisterRule::Undefined) => Place::Lost,
            Some(_) => return None,
        };
    }
    let register = usize::from(register.0);
    (register < REGISTERS && row.register(Register(RSP as u16)).is_none()).then_some(Rule::Simple {
        register,
        offset,
        return_at,
        places,
    })
}

/// Applies a simple rule, given the caller's stack pointer.
pub(super) fn apply(
    machine: &Machine,
    cfa: u64,
    return_at: i64,
    places: &[Place; PRESERVED.len()],
    word: ReadWord<'_>,
) -> Result<Machine, StackEnd> {
    let mut read = |offset| word(cfa.wrapping_add_signed(offset)).ok_or(StackEnd::UnreadableMemory);
    let mut next = Machine {
        ip: read(return_at)?,
        ..Machine::default()
    };
    for (place, number) in places.iter().zip(PRESERVED) {
        next.regs[number] = match place {
            Place::Kept => machine.regs[number],
            Place::At(offset) => Some(read(*offset)?),
            Place::Lost => None,
        };
    }
    next.regs[RSP] = Some(cfa);
    Ok(next)
}

/// Evaluates the entry at `entry` for the frame `machine`.
pub(super) fn evaluate(
    memory: &impl Memory,
    pages: &mut Pages,
    context: &mut UnwindContext<usize>,
    entry: u64,
    machine: &Machine,
    word: ReadWord<'_>,
) -> Result<Machine, StackEnd> {
    let read = Entry::read(memory, pages, entry).ok_or(StackEnd::BadUnwindInfo)?;
    read.row(
        context,
        machine.lookup(),
        |row, section, encoding, signal| {
            let mut run = Run {
                machine,
                section,
                encoding,
                word,
            };
            let cfa = match *row.cfa() {
                CfaRule::RegisterAndOffset { register, offset } => {
                    run.register(register)?.wrapping_add_signed(offset)
                }
                CfaRule::Expression(expression) => run.expression(expression, None)?,
            };
            let mut next = Machine {
                exact: signal,
                ..Machine::default()
            };
            for number in 0..REGISTERS {
                let rule = row.register(Register(number as u16));
                next.regs[number] = match rule {
                    None if number == RSP => Some(cfa),
                    None if signal || !PRESERVED.contains(&number) => None,
                    None | Some(RegisterRule::SameValue) => machine.regs[number],
                    Some(rule) => run.rule(&rule, cfa)?,
                };
            }
            let rule = row
                .register(Register(RETURN_ADDRESS))
                .ok_or(StackEnd::BadUnwindInfo)?;
            if rule == RegisterRule::Undefined {
                return Err(StackEnd::Root);
            }
            next.ip = run.rule(&rule, cfa)?.ok_or(StackEnd::BadUnwindInfo)?;
            Ok(next)
        },
    )?
}

/// The evaluation of one frame.
struct Run<'a, 'b, 'c> {
    machine: &'a Machine,
    section: &'a EhFrame<Slice<'b>>,
    encoding: gimli::Encoding,
    word: ReadWord<'c>,
}

impl Run<'_, '_, '_> {
    fn register(&self, register: Register) -> Result<u64, StackEnd> {
        if register.0 == RETURN_ADDRESS {
            return Ok(self.machine.ip);
        }
        let known = self.machine.regs.get(usize::from(register.0));
        known.copied().flatten().ok_or(StackEnd::UnknownRegister)
    }

    fn read(&mut self, addr: u64) -> Result<u64, StackEnd> {
        (self.word)(addr).ok_or(StackEnd::UnreadableMemory)
    }

    /// The caller's value by a rule; `None`: it is lost.
    fn rule(&mut self, rule: &RegisterRule<usize>, cfa: u64) -> Result<Option<u64>, StackEnd> {
        Ok(match *rule {
            RegisterRule::Offset(offset) => Some(self.read(cfa.wrapping_add_signed(offset))?),
            RegisterRule::ValOffset(offset) => Some(cfa.wrapping_add_signed(offset)),
            RegisterRule::Register(register) => self.register(register).ok(),
            RegisterRule::Expression(expression) => {
                let at = self.expression(expression, Some(cfa))?;
                Some(self.read(at)?)
            }
            RegisterRule::ValExpression(expression) => {
                Some(self.expression(expression, Some(cfa))?)
            }
            RegisterRule::Constant(value) => Some(value),
            _ => None,
        })
    }

    fn expression(
        &mut self,
        expression: UnwindExpression<usize>,
        initial: Option<u64>,
    ) -> Result<u64, StackEnd> {
        let bad = |_| StackEnd::BadUnwindInfo;
        let mut evaluation = expression
            .get(self.section)
            .map_err(bad)?
            .evaluation(self.encoding);
        evaluation.set_max_iterations(MAX_STEPS);
        if let Some(value) = initial {
            evaluation.set_initial_value(value);
        }
        let mut state = evaluation.evaluate().map_err(bad)?;
        for _ in 0..MAX_STEPS {
            state = match state {
                EvaluationResult::Complete => {
                    let value = evaluation.value_result().ok_or(StackEnd::BadUnwindInfo)?;
                    return value.to_u64(u64::MAX).map_err(bad);
                }
                EvaluationResult::RequiresRegister { register, .. } => {
                    let value = Value::Generic(self.register(register)?);
                    evaluation.resume_with_register(value).map_err(bad)?
                }
                EvaluationResult::RequiresMemory { address, size, .. } => {
                    let word = self.read(address)?;
                    let bits = u32::from(size).saturating_mul(8).min(64);
                    let value = word & u64::MAX.checked_shr(64 - bits).unwrap_or(0);
                    evaluation
                        .resume_with_memory(Value::Generic(value))
                        .map_err(bad)?
                }
                _ => return Err(StackEnd::BadUnwindInfo),
            };
        }
        Err(StackEnd::BadUnwindInfo)
    }
}
