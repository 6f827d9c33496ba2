//! Circles: older than observer, and formed while it watches.

use std::time::Duration;

use crate::{
    harness::{alone, name},
    programs::Build,
    scene::Scene,
    table::watch_all,
};

fn scenes() -> Vec<Scene> {
    let mut all = Vec::new();
    for build in [Build::C, Build::StrippedC] {
        for name in ["abba", "three_cycle"] {
            all.push(Scene::new(build, name).finds(&["deadlock"]));
            all.push(Scene::new(build, name).finds(&["deadlock"]).later());
        }
        // A thread in its own way, and two processes in each other's: by locks in memory, on files, and both.
        for name in [
            "relock",
            "shared_abba",
            "flock_cycle",
            "flock_mutex",
            "fcntl_mutex",
        ] {
            all.push(Scene::new(build, name).finds(&["deadlock"]));
        }
    }
    for build in [Build::Cxx, Build::StrippedCxx] {
        all.push(Scene::new(build, "cxx_abba").finds(&["deadlock"]));
    }
    // Rust's mutexes do not record their owner: such a circle is only suspected.
    for name in ["rust_abba", "rust_abba_arc"] {
        all.push(Scene::new(Build::Rust, name).likely().finds(&["deadlock"]));
    }
    all
}

#[test]
fn all_of_them_and_soon() {
    alone(name!(), || {
        watch_all("deadlocks", scenes(), Duration::from_secs(3))
    });
}
