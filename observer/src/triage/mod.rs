//! What a triage does beside the watch: one look at every thread, goroutines, sessions of databases, facts of the
//! host; and the bundle that keeps all of it.

pub mod bundle;
mod host;

use std::time::{Duration, Instant};

use crate::{
    capture::Options,
    dump::{self, goroutines},
    inspect::proc,
    model::Model,
    report::scene::Scene,
    rules::Thresholds,
    runtimes::sessions,
    time::Clock,
};

/// Processes that are looked at for goroutines when none was asked for by number, and the time for it.
const MAX_GO: usize = 16;
const GO_TIME: Duration = Duration::from_secs(3);
/// Processes chosen by name or group whose threads are all looked at.
const MAX_SEEN: usize = 64;
/// Blocked threads of all processes are looked at from this age on.
const LONG_WAIT: Duration = Duration::from_secs(1);

/// Are there processes of PostgreSQL among those that are to be observed? Their probes cost nothing but where a
/// session waits, and tell what for.
pub fn has_postgres(options: &Options) -> bool {
    if !options.comms.is_empty() && !options.comms.iter().any(|name| name == "postgres") {
        return false;
    }
    selected(options).into_iter().any(sessions::is_postgres)
}

/// Processes that were asked for, or all.
fn selected(options: &Options) -> Vec<u32> {
    if options.pids.is_empty() {
        proc::processes()
    } else {
        options.pids.clone()
    }
}

/// Looks once at everything that the watch does not see. What cannot be looked at is said, and is no failure.
pub fn look(options: &Options, thresholds: Thresholds, model: &Model) -> Scene {
    let mut scene = Scene::default();
    let mut pids = options.pids.clone();
    pids.retain(|&pid| {
        let there = is_there(pid);
        if !there {
            scene.missing.push(format!(
                "threads of process {pid}, one by one: it ended before they were looked at"
            ));
        }
        there
    });
    // A host whose processes were chosen by name or group: what the watch saw blocked is looked at.
    let chosen = !options.comms.is_empty() || !options.cgroups.is_empty();
    if options.pids.is_empty() && chosen {
        pids = seen(model);
        let more = pids.len().saturating_sub(MAX_SEEN);
        if more > 0 {
            pids.truncate(MAX_SEEN);
            scene.missing.push(format!(
                "threads of {more} more processes, one by one: name them with -p"
            ));
        }
    }
    if pids.is_empty() && (chosen || !options.pids.is_empty()) {
        return scene;
    }
    let whole_host = pids.is_empty();
    let taken = dump::take(&dump::Options {
        pids,
        long_wait: LONG_WAIT,
        thresholds,
        ..dump::Options::default()
    });
    match taken {
        Ok(dump) => scene.dump = Some(dump),
        Err(error) => scene.missing.push(format!("threads one by one: {error:#}")),
    }
    if whole_host {
        look_at_goroutines(&mut scene);
    }
    let mut all = if whole_host || chosen {
        seen_or_all(options, model)
    } else {
        options.pids.clone()
    };
    all.sort_unstable();
    all.dedup();
    scene.sessions = sessions::sessions(all);
    scene
}

/// One that has ended is still listed until its parent has asked how.
fn is_there(pid: u32) -> bool {
    proc::stat(pid, pid).is_some_and(|stat| stat.state != proc::State::Ended)
}

/// Processes that the watch saw waiting.
fn seen(model: &Model) -> Vec<u32> {
    let tasks = model.tasks().map(|totals| totals.task.pid);
    let blocked = model.blocked().map(|wait| wait.event.task.pid);
    let mut pids: Vec<u32> = tasks.chain(blocked).collect();
    pids.sort_unstable();
    pids.dedup();
    pids.retain(|&pid| is_there(pid));
    pids
}

fn seen_or_all(options: &Options, model: &Model) -> Vec<u32> {
    if options.cgroups.is_empty() && options.comms.iter().all(|name| name == "postgres") {
        proc::processes()
    } else {
        seen(model)
    }
}

/// Go processes of the host as far as there is time.
fn look_at_goroutines(scene: &mut Scene) {
    let clock = Clock::now();
    let began = Instant::now();
    let own = std::process::id();
    let mut left = 0;
    for pid in proc::processes() {
        if pid == own || proc::is_kernel_thread(pid) {
            continue;
        }
        if began.elapsed() >= GO_TIME || scene.goroutines.len() >= MAX_GO {
            left += 1;
            continue;
        }
        match goroutines::look(pid, clock) {
            Some(Ok(found)) => scene.goroutines.push(found),
            Some(Err(missing)) => scene
                .missing
                .push(format!("{}: {}", missing.feature, missing.why)),
            None => {}
        }
    }
    if left > 0 {
        scene.missing.push(format!(
            "goroutines of {left} processes that were not looked at, if they are Go's: name them with -p"
        ));
    }
}
