//! The programs that play the scenes, each compiled once a run.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::LazyLock,
};

use crate::harness::{OBSERVER, Skip};

/// How a program was built.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Build {
    /// C with symbols.
    C,
    /// C, optimised, without frame pointers and without symbols.
    StrippedC,
    /// C++ with symbols.
    Cxx,
    /// C++, optimised, without frame pointers and without symbols.
    StrippedCxx,
    /// Rust with symbols.
    Rust,
    /// C with symbols, with musl as its library.
    Musl,
    /// The same, optimised and without symbols of its own.
    StrippedMusl,
    /// Linked statically, with symbols.
    StaticMusl,
}

impl Build {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Build::C => "truth-c",
            Build::StrippedC => "truth-c-stripped",
            Build::Cxx => "truth-cxx",
            Build::StrippedCxx => "truth-cxx-stripped",
            Build::Rust => "truth",
            Build::Musl => "truth-musl",
            Build::StrippedMusl => "truth-musl-stripped",
            Build::StaticMusl => "truth-musl-static",
        }
    }

    /// Does the program have names of its functions and data?
    pub(crate) fn has_symbols(self) -> bool {
        !matches!(
            self,
            Build::StrippedC | Build::StrippedCxx | Build::StrippedMusl
        )
    }

    /// The program's file, which is there after this.
    pub(crate) fn path(self) -> Result<PathBuf, Skip> {
        static C: LazyLock<Compiled> = LazyLock::new(|| compile(Build::C));
        static STRIPPED_C: LazyLock<Compiled> = LazyLock::new(|| compile(Build::StrippedC));
        static CXX: LazyLock<Compiled> = LazyLock::new(|| compile(Build::Cxx));
        static STRIPPED_CXX: LazyLock<Compiled> = LazyLock::new(|| compile(Build::StrippedCxx));
        static MUSL: LazyLock<Compiled> = LazyLock::new(|| compile(Build::Musl));
        static STRIPPED_MUSL: LazyLock<Compiled> = LazyLock::new(|| compile(Build::StrippedMusl));
        static STATIC_MUSL: LazyLock<Compiled> = LazyLock::new(|| compile(Build::StaticMusl));
        let compiled = match self {
            Build::C => &C,
            Build::StrippedC => &STRIPPED_C,
            Build::Cxx => &CXX,
            Build::StrippedCxx => &STRIPPED_CXX,
            Build::Musl => &MUSL,
            Build::StrippedMusl => &STRIPPED_MUSL,
            Build::StaticMusl => &STATIC_MUSL,
            // Cargo has built it.
            Build::Rust => {
                let folder = Path::new(OBSERVER).parent().unwrap();
                return Ok(folder.join("examples").join(self.name()));
            }
        };
        (**compiled).clone().map_err(Skip)
    }
}

/// The file, or why there is none.
type Compiled = Result<PathBuf, String>;

const DEBUG: [&str; 2] = ["-g", "-O1"];
const STATIC: [&str; 3] = ["-g", "-O2", "-static"];
const STRIPPED: [&str; 4] = ["-O2", "-fomit-frame-pointer", "-s", "-DSTRIPPED"];

fn compile(build: Build) -> Compiled {
    let (compiler, standard, folder, ending) = match build {
        Build::C | Build::StrippedC => ("gcc", "-std=gnu11", "c", "c"),
        Build::Musl | Build::StrippedMusl | Build::StaticMusl => {
            ("musl-gcc", "-std=gnu11", "musl", "c")
        }
        _ => ("g++", "-std=c++20", "cc", "cc"),
    };
    let options: &[&str] = match build {
        Build::StaticMusl => &STATIC,
        _ if build.has_symbols() => &DEBUG,
        _ => &STRIPPED,
    };
    let target = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/truth/programs");
    let path = target.join(build.name());
    // Another run may be using the one that is there: it is replaced whole.
    let new = target.join(format!("{}.{}", build.name(), std::process::id()));
    let mut command = Command::new(compiler);
    command
        .args([standard, "-Wall", "-Werror", "-pthread"])
        .args(options);
    command.arg("-o").arg(&new).arg("-I").arg(&from);
    let mut sources: Vec<_> = fs::read_dir(from.join(folder))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|found| found == ending))
        .collect();
    sources.sort();
    if ending == "cc" {
        // What all share is written in C.
        let shared = target.join(format!("{}.{}.o", build.name(), std::process::id()));
        let status = Command::new("gcc")
            .args(options)
            .args(["-std=gnu11", "-c", "-o"])
            .arg(&shared)
            .arg(from.join("truth.c"))
            .status()
            .map_err(|error| format!("gcc: {error}"))?;
        assert!(status.success(), "truth.c does not compile");
        sources.push(shared);
    } else {
        sources.push(from.join("truth.c"));
    }
    match command.args(&sources).output() {
        Err(error) => Err(format!("{compiler}: {error}")),
        Ok(output) => {
            let said = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "{compiler}: {said}");
            fs::rename(&new, &path).unwrap();
            if ending == "cc" {
                fs::remove_file(&sources[sources.len() - 1]).unwrap();
            }
            Ok(path)
        }
    }
}
