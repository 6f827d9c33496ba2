//! Threads of Python: their functions among the frames of a stack, and who holds a lock that does not say it.

use std::sync::Arc;

use super::{holders::Found, memory::ProcessMemory, proc};
use crate::{
    event::{Addr, Frame, LockClass, Stack},
    runtimes::{
        Described, Owner,
        python::{Function, Interpreter, Thread},
    },
};

/// Beginnings of the names of C functions that run Python functions, and of those between such two.
const EVALUATION: [&str; 4] = [
    "_PyEval_EvalFrame",
    "PyEval_EvalCode",
    "PyEval_EvalFrame",
    "_PyEval_Vector",
];

/// The Python functions of a thread, innermost first.
pub(super) fn functions(pid: u32, tid: u32, python: &Interpreter) -> Vec<Function> {
    let memory = ProcessMemory::of(pid);
    let own = proc::own_number(pid, tid);
    let threads = python.threads(&memory);
    let thread = threads.iter().find(|thread| Some(thread.native) == own);
    thread.map_or_else(Vec::new, |thread| python.functions(&memory, thread))
}

/// The stack with the Python functions in the place of the C functions that run them.
pub(super) fn merged(stack: &Stack, functions: &[Function]) -> Stack {
    if functions.is_empty() {
        return stack.clone();
    }
    let runs = |frame: &Frame| {
        let name = frame.name.as_deref().unwrap_or("");
        EVALUATION.iter().any(|part| name.starts_with(part))
    };
    let inner = stack.user.iter().position(runs).unwrap_or(stack.user.len());
    let outer = stack.user.iter().rposition(runs).map_or(inner, |at| at + 1);
    let python = functions.iter().map(|function| Frame {
        addr: Addr(function.addr),
        name: Some(function.name.as_str().into()),
        module: Some("python".into()),
        file: Some(function.file.as_str().into()),
        line: function.line,
        ..Frame::default()
    });
    let user: Vec<Frame> = stack.user[..inner]
        .iter()
        .cloned()
        .chain(python)
        .chain(stack.user[outer..].iter().cloned())
        .collect();
    Stack {
        user: user.into(),
        ..stack.clone()
    }
}

/// What a wait for a lock of Python's is by the functions that are above it: conditions, events, queues and the end
/// of a thread are waited for with a lock that nobody holds.
pub(super) fn refine(described: &mut Described, functions: &[Function]) {
    if described.class != LockClass::PythonLock {
        return;
    }
    let in_threading = |function: &&Function| function.file.ends_with("threading.py");
    let waits = functions
        .first()
        .filter(in_threading)
        .is_some_and(|function| {
            // Before 3.11 a function does not say of which class it is.
            matches!(function.name.as_str(), "Condition.wait" | "wait")
                || function.name.ends_with("_wait_for_tstate_lock")
        });
    if functions.is_empty() {
        described.class = LockClass::Sem;
        described.owner = Owner::Unrecorded;
    } else if waits {
        described.class = LockClass::PythonCondition;
    }
}

/// `lock in Account.move (bank.py:12)`
pub(super) fn name(functions: &[Function]) -> Option<Arc<str>> {
    let function = functions.first()?;
    let file = function.file.rsplit('/').next().unwrap_or(&function.file);
    Some(match function.line {
        Some(line) => format!("lock in {} ({file}:{line})", function.name).into(),
        None => format!("lock in {} ({file})", function.name).into(),
    })
}

/// The thread that holds a lock because it is inside `with`, if there is one.
pub(super) fn holder(pid: u32, tid: u32, python: &Interpreter, lock: u64) -> Found {
    let memory = ProcessMemory::of(pid);
    let own = proc::own_number(pid, tid);
    let threads = python.threads(&memory);
    let holds = |thread: &&Thread| {
        Some(thread.native) != own
            && python
                .held(&memory, thread)
                .iter()
                .any(|held| held.lock == lock)
    };
    let holding: Vec<&Thread> = threads.iter().filter(holds).collect();
    let [thread] = holding[..] else {
        return Found::unknown(
            "locks of Python do not record it, and no thread is inside `with` on it",
        );
    };
    let recorded = python
        .held(&memory, thread)
        .iter()
        .any(|held| held.lock == lock && held.recorded);
    let Some(host) = super::holders::in_process(pid, thread.native) else {
        return Found::unknown("the thread that is inside `with` on it has ended");
    };
    if recorded {
        Found::exact(pid, host, "owner in the lock's memory")
    } else {
        Found::likely(pid, host, "the only thread that is inside `with` on it")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(name: &str) -> Frame {
        Frame {
            name: Some(name.into()),
            ..Frame::default()
        }
    }

    fn function(name: &str, file: &str) -> Function {
        Function {
            name: name.into(),
            file: file.into(),
            line: Some(7),
            addr: 1,
        }
    }

    #[test]
    fn python_functions_stand_where_they_are_run() {
        let stack = Stack {
            user: [
                "sem_wait",
                "lock",
                "_PyEval_EvalFrameDefault",
                "call",
                "PyEval_EvalCode",
                "main",
            ]
            .map(frame)
            .to_vec()
            .into(),
            ..Stack::default()
        };
        let merged = merged(
            &stack,
            &[function("work", "/a.py"), function("<module>", "/a.py")],
        );
        let names: Vec<_> = merged
            .user
            .iter()
            .filter_map(|f| f.name.as_deref())
            .collect();
        assert_eq!(names, ["sem_wait", "lock", "work", "<module>", "main"]);
        assert_eq!(merged.user[2].line, Some(7));
    }

    #[test]
    fn who_waits_for_a_condition_waits_for_nobody() {
        let class = |functions: &[Function]| {
            let mut described = Described {
                class: LockClass::PythonLock,
                base: Some(8),
                owner: Owner::Unrecorded,
                writer: None,
            };
            refine(&mut described, functions);
            described.class
        };
        let condition = function("Condition.wait", "/usr/lib/python3.11/threading.py");
        assert_eq!(class(&[condition]), LockClass::PythonCondition);
        assert_eq!(class(&[function("work", "/a.py")]), LockClass::PythonLock);
        assert_eq!(
            class(&[function("Condition.wait", "/a.py")]),
            LockClass::PythonLock
        );
        assert_eq!(class(&[]), LockClass::Sem);
        assert_eq!(
            name(&[function("work", "/srv/a.py")]).as_deref(),
            Some("lock in work (a.py:7)")
        );
    }
}
