//! Java threads in a dump: names, functions, monitors and who has them, from the machine's own thread dump.

use std::sync::Arc;

use super::collect::Looked;
use crate::{
    event::{Addr, Confidence, Frame, Holder, LockClass, LockRef, Stack},
    inspect::{
        attach,
        holders::{self, Activity},
        proc,
    },
    runtimes::jvm::{self, JavaThread, Wanted, Way},
};

/// Puts what the machine `pid` tells of its threads into `tasks`.
///
/// # Errors
/// Why it tells nothing.
pub(super) fn tell(pid: u32, tasks: &mut [Looked], activity: &mut Activity) -> Result<(), String> {
    let threads = attach::threads(pid)?;
    let holders = jvm::holders(&threads);
    let host = |native: u32| {
        if proc::is_in_other_namespace(pid) {
            let mut all = proc::threads(pid).into_iter();
            all.find(|tid| proc::own_number(pid, *tid) == Some(native))
        } else {
            Some(native)
        }
    };
    for thread in &threads {
        let Some(tid) = host(thread.native) else {
            continue;
        };
        let Some(looked) = tasks
            .iter_mut()
            .find(|one| (one.task.task.pid, one.task.task.tid) == (pid, tid))
        else {
            continue;
        };
        let holder = thread.wants.as_ref().and_then(|wanted| {
            let owner = host(*holders.get(&wanted.object)?)?;
            Some(self::holder(pid, owner, activity))
        });
        put(looked, thread, holder);
    }
    Ok(())
}

fn holder(pid: u32, tid: u32, activity: &mut Activity) -> Holder {
    let doing = holders::doing(pid, tid, activity);
    Holder {
        pid: Some(pid),
        tid: Some(tid),
        comm: doing.comm,
        confidence: Confidence::Exact,
        evidence: "the Java virtual machine's thread dump".into(),
        state: doing.state,
        doing: doing.words,
    }
}

fn put(looked: &mut Looked, thread: &JavaThread, holder: Option<Holder>) {
    let name: Arc<str> = thread.name.as_str().into();
    let task = &mut looked.task;
    Arc::make_mut(&mut task.task).comm = Some(name);
    task.stack = Some(merged(task.stack.as_ref(), thread));
    let wanted = thread.wants.as_ref();
    if let Some(wanted) = wanted.filter(|wanted| wanted.way != Way::Notified || holder.is_none()) {
        let lock = lock(task.task.pid, wanted, holder.is_some());
        task.kind = Some(lock.class.kind());
        task.lock = Some(lock.into());
        task.holder = holder.map(Box::new);
    }
    if let Some(blocked) = &mut looked.blocked {
        blocked.task = task.task.clone();
        blocked.stack.clone_from(&task.stack);
        if wanted.is_some() {
            blocked.lock.clone_from(&task.lock);
            blocked.holder.clone_from(&task.holder);
            blocked.kind = task.kind.unwrap_or(blocked.kind);
        }
    }
    looked.told = true;
}

fn lock(pid: u32, wanted: &Wanted, held: bool) -> LockRef {
    LockRef {
        id: format!("{pid}:java:{:#x}", wanted.object).into(),
        class: match wanted.way {
            Way::Enter => LockClass::JvmMonitor,
            Way::Parked if held => LockClass::JvmLock,
            Way::Parked | Way::Notified => LockClass::JvmPark,
        },
        name: Some(wanted.class.as_str().into()),
        addr: Addr(wanted.object),
        shared: false,
    }
}

/// The Java functions behind those of the machine that wait.
fn merged(stack: Option<&Stack>, thread: &JavaThread) -> Stack {
    let is_native = |frame: &&Frame| {
        let module = frame.module.as_deref().unwrap_or("");
        module.contains("/libjvm.so") || module.contains("/libc.so")
    };
    let native = stack.into_iter().flat_map(|stack| stack.user.iter());
    let java = thread.frames.iter().map(|frame| Frame {
        name: Some(frame.name.as_str().into()),
        module: Some("java".into()),
        file: frame.file.as_deref().map(Arc::from),
        line: frame.line,
        ..Frame::default()
    });
    let user: Vec<Frame> = if thread.frames.is_empty() {
        native.cloned().collect()
    } else {
        native.take_while(is_native).cloned().chain(java).collect()
    };
    Stack {
        user: user.into(),
        ..stack.cloned().unwrap_or_default()
    }
}
