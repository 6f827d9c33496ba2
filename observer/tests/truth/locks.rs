//! Locks, who holds them and what the holder does; and threads that nobody holds up.

use std::time::Duration;

use crate::{
    harness::{alone, name},
    programs::Build,
    scene::Scene,
    table::watch_all,
};

/// Long enough for the rules that are slowest to speak up.
const WATCHED: Duration = Duration::from_secs(11);
const HELD: &[&str] = &["long_hold"];
/// A holder that wants a CPU may have to wait for it on a busy machine.
const STARVED: &[&str] = &["holder_not_running"];

/// Scenes that are worth two builds.
fn of_c(build: Build) -> Vec<Scene> {
    let scene = |name| Scene::new(build, name);
    let mut all = Vec::new();
    for name in [
        "normal",
        "pi",
        "pi_robust",
        "recursive",
        "errorcheck",
        "adaptive",
        "robust",
        "robust_dead",
        "process_shared",
        "timed",
        "heap",
        "member",
        "c11",
        "holder_asleep",
        "holder_in_pipe",
        "holder_in_poll",
        "chain",
        "write_held",
    ] {
        all.push(scene(name).finds(HELD));
    }
    for name in [
        "sem_queue",
        "barrier",
        "pool",
        "timed_pool",
        "loops",
        "busy",
    ] {
        all.push(scene(name));
    }
    // Memory that lies: a wait of the program's own is for no lock, and a number in a real one is believed
    // only if it is that of a thread that can have taken it.
    for name in [
        "look_alike",
        "liar",
        "liar_robust",
        "raw_in_once",
        "nobody",
        "stranger",
    ] {
        all.push(scene(name).unknown());
    }
    all.extend([
        scene("orphan").finds(&["dead_owner", "long_hold"]),
        scene("stopped").finds(&["holder_not_running", "long_hold"]),
        // The kernel clears the number that is waited for when the thread ends.
        scene("join"),
        // Which thread it is that initialises is recorded nowhere, but it has the control on its stack.
        scene("once").likely().finds(HELD),
        // Readers are counted, not named.
        scene("read_held").unknown().finds(&["writer_starvation"]),
        scene("starved_writer")
            .unknown()
            .finds(&["writer_starvation"]),
        // The layout of this lock is the library's own secret.
        scene("stream").unknown(),
    ]);
    all
}

/// Locks on files, which the kernel keeps.
fn of_files(build: Build) -> Vec<Scene> {
    let scene = |name| Scene::new(build, name);
    let held = [
        "flock_held",
        "flock_inherited",
        "fcntl_held",
        "fcntl_open_file",
    ];
    // One of several threads, or of several readers.
    let unknown = ["flock_threads", "fcntl_readers"];
    let mut all = vec![scene("files_idle")];
    all.extend(held.map(|name| scene(name).finds(HELD)));
    all.extend(unknown.map(|name| scene(name).unknown()));
    all
}

fn of_cxx(build: Build) -> Vec<Scene> {
    let scene = |name| Scene::new(build, name);
    let mut all = Vec::new();
    for name in [
        "cxx_mutex",
        "cxx_member",
        "cxx_recursive",
        "cxx_timed",
        "cxx_shared",
    ] {
        all.push(scene(name).finds(HELD));
    }
    all.extend([
        scene("cxx_once").likely().finds(HELD),
        // Recorded nowhere, too; but the initialiser is in the function that the others wait in.
        scene("cxx_static").likely().finds(HELD),
        scene("cxx_idle"),
    ]);
    all
}

/// None of these locks records its owner.
fn of_rust() -> Vec<Scene> {
    let scene = |name| Scene::new(Build::Rust, name);
    let mut all = Vec::new();
    for name in [
        "rust_mutex",
        "rust_arc",
        "rust_local",
        "rust_write",
        "rust_once",
        "rust_lazy",
    ] {
        all.push(scene(name).likely().finds(HELD));
    }
    all.extend([
        scene("rust_read").likely().finds(HELD),
        scene("rust_join"),
        scene("parking_mutex").unknown(),
        scene("rust_raw_once").unknown(),
        scene("rust_idle"),
        scene("parking_idle"),
    ]);
    all
}

/// musl's locks have owners only in mutexes that check for errors or may be taken again. Who has another one on the
/// stack, the compiler decides.
fn of_musl(build: Build) -> Vec<Scene> {
    let scene = |name| Scene::new(build, name);
    let unrecorded = |name| match build {
        Build::Musl => scene(name).likely().finds(HELD),
        _ => scene(name).unknown(),
    };
    vec![
        scene("musl_errorcheck").finds(HELD),
        scene("musl_recursive").finds(HELD),
        scene("musl_abba").finds(&["deadlock"]),
        unrecorded("musl_normal"),
        unrecorded("musl_rwlock"),
        scene("musl_idle"),
    ]
}

fn scenes() -> Vec<Scene> {
    let mut all = of_c(Build::C);
    all.extend(of_c(Build::StrippedC));
    all.extend(of_cxx(Build::Cxx));
    all.extend(of_cxx(Build::StrippedCxx));
    all.extend(of_rust());
    // These keep a CPU or a disk busy: once is enough.
    all.extend([
        Scene::new(Build::C, "holder_in_io")
            .finds(HELD)
            .may_find(STARVED),
        Scene::new(Build::C, "holder_spins")
            .finds(HELD)
            .may_find(STARVED),
    ]);
    all
}

/// In a run of their own: holders are looked at again and again of some locks at a time only.
fn more_scenes() -> Vec<Scene> {
    let mut all = of_files(Build::C);
    all.extend(of_files(Build::StrippedC));
    for build in [Build::Musl, Build::StrippedMusl, Build::StaticMusl] {
        all.extend(of_musl(build));
    }
    all
}

#[test]
fn of_files_and_of_musl() {
    alone(name!(), || watch_all("files, musl", more_scenes(), WATCHED));
}

#[test]
fn right_and_nobody_accused() {
    alone(name!(), || watch_all("locks", scenes(), WATCHED));
}
