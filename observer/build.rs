//! Builds the kernel programs and hands the object to the library, which embeds it.
//!
//! The pinned stable compiler builds them: `-Z build-std=core` needs its sources (`rust-src`) and
//! `RUSTC_BOOTSTRAP=1`, and the link step needs `bpf-linker` of the same LLVM. `cargo xtask setup`
//! provides both.

use std::{
    env,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
};

const TARGET: &str = "bpfel-unknown-none";

fn main() -> ExitCode {
    match build() {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("cannot build the kernel programs: {why}");
            ExitCode::FAILURE
        }
    }
}

/// Functions of the C library in which threads wait: by their names a wait is known to be one for a mutex.
const WAITING: [&str; 14] = [
    "pthread_mutex_lock",
    "pthread_mutex_timedlock",
    "pthread_mutex_clocklock",
    "pthread_rwlock_rdlock",
    "pthread_rwlock_timedrdlock",
    "pthread_rwlock_wrlock",
    "pthread_rwlock_timedwrlock",
    "pthread_cond_wait",
    "pthread_cond_timedwait",
    "pthread_cond_clockwait",
    "pthread_barrier_wait",
    "pthread_join",
    "sem_wait",
    "sem_timedwait",
];

fn build() -> Result<(), String> {
    // `observer verify` observes observer itself, which in a container image is static and has no other symbols.
    for name in WAITING {
        println!("cargo:rustc-link-arg-bins=-Wl,--export-dynamic-symbol={name}");
    }
    let manifest = PathBuf::from(var("CARGO_MANIFEST_DIR")?);
    let out = PathBuf::from(var("OUT_DIR")?);
    let root = manifest
        .parent()
        .ok_or("the package has no parent folder")?;
    for watched in [
        "observer-ebpf",
        "observer-common",
        "Cargo.lock",
        "rust-toolchain.toml",
    ] {
        println!("cargo:rerun-if-changed={}", root.join(watched).display());
    }
    let linker = linker(root)?;
    println!("cargo:rerun-if-changed={}", linker.display());
    let target_dir = out.join("ebpf-target");
    let arch = var("CARGO_CFG_TARGET_ARCH")?;
    let flags = [
        format!("--cfg=bpf_target_arch=\"{arch}\""),
        "-Cdebuginfo=2".to_owned(),
        "-Clink-arg=--btf".to_owned(),
    ];
    let mut cargo = Command::new(var("CARGO")?);
    cargo
        .current_dir(root)
        .args(["build", "--release", "--locked", "--bins"])
        .args(["--package", "observer-ebpf", "--target", TARGET])
        .args(["-Z", "build-std=core", "--target-dir"])
        .arg(&target_dir)
        .env("RUSTC_BOOTSTRAP", "1")
        .env("CARGO_TARGET_BPFEL_UNKNOWN_NONE_LINKER", &linker)
        .env("CARGO_ENCODED_RUSTFLAGS", flags.join("\u{1f}"))
        // The profile of the workspace is for programs with a stack to unwind.
        .env("CARGO_PROFILE_RELEASE_LTO", "fat")
        .env("CARGO_PROFILE_RELEASE_PANIC", "abort")
        .env("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "1");
    // A wrapper such as clippy's, and the flags of the outer build, are not for the kernel programs.
    for name in [
        "RUSTC",
        "RUSTC_WRAPPER",
        "RUSTC_WORKSPACE_WRAPPER",
        "RUSTFLAGS",
    ] {
        cargo.env_remove(name);
    }
    let status = cargo
        .status()
        .map_err(|error| format!("{cargo:?} did not start: {error}"))?;
    if !status.success() {
        return Err(format!(
            "{status}. If sources of the standard library or bpf-linker are missing: run `cargo xtask setup`"
        ));
    }
    let object = target_dir.join(TARGET).join("release/observer-ebpf");
    let to = out.join("observer.bpf.o");
    std::fs::copy(&object, &to)
        .map_err(|error| format!("no object at {}: {error}", object.display()))?;
    println!("cargo:rustc-env=OBSERVER_BPF_OBJECT={}", to.display());
    Ok(())
}

/// The project's own linker, or one on the path.
fn linker(root: &Path) -> Result<PathBuf, String> {
    let own = root.join(".tools/bin/bpf-linker");
    if own.is_file() {
        return Ok(own);
    }
    env::split_paths(&env::var_os("PATH").unwrap_or_default())
        .map(|folder| folder.join("bpf-linker"))
        .find(|path| path.is_file())
        .ok_or_else(|| {
            format!(
                "bpf-linker is neither at {} nor on the PATH; run `cargo xtask setup`",
                own.display()
            )
        })
}

fn var(name: &str) -> Result<String, String> {
    env::var(name).map_err(|_| format!("cargo did not set {name}"))
}
