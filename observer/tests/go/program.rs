//! The scenes, compiled by each release, and started.

use std::{
    fs,
    io::{BufRead as _, BufReader, ErrorKind, Write as _},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, Stdio},
    sync::mpsc::{self, Receiver},
    sync::{Arc, Mutex, OnceLock},
    time::{Duration, Instant},
};

use observer::{
    inspect::memory::Memory,
    runtimes::go::{Inventory, Limits, Refused, Target},
};

use crate::truth::Truth;

/// No scene takes this long to be ready, on the slowest machine.
pub(crate) const LIMIT: Duration = Duration::from_mins(1);

/// How a program is linked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    Normal,
    Stripped,
    Pie,
    StrippedPie,
    /// With C in it, linked by the system's linker, which has its own idea of sections.
    Cgo,
    /// For arm64: an emulator runs it.
    Arm64,
    StrippedArm64,
    StrippedPieArm64,
}

/// Where the dynamic linker for arm64 is, in the folder that Debian's `libc6-arm64-cross` has it in. Position
/// independent programs need it.
const LIBRARIES: &str = "/usr/aarch64-linux-gnu";

impl Form {
    pub(crate) fn is_emulated(self) -> bool {
        matches!(
            self,
            Form::Arm64 | Form::StrippedArm64 | Form::StrippedPieArm64
        )
    }
}

/// Where the emulator looks for libraries.
fn libraries() -> String {
    std::env::var("QEMU_LD_PREFIX").unwrap_or_else(|_| LIBRARIES.to_owned())
}

/// The emulator for arm64, by the names that distributions give it.
fn emulator() -> Option<&'static str> {
    let is_there = |name: &&str| Command::new(name).arg("--version").output().is_ok();
    let names = ["qemu-aarch64", "qemu-aarch64-static"];
    names.into_iter().find(is_there)
}

/// A compiled set of scenes.
#[derive(Clone, Debug)]
pub(crate) struct Program {
    /// The release, as the toolchain says it.
    pub(crate) release: String,
    pub(crate) form: Form,
    path: PathBuf,
    /// What compiled it.
    go: PathBuf,
}

fn root() -> &'static Path {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    manifest.parent().unwrap_or(manifest)
}

/// The `go` commands that there are, with the releases that they say they are.
fn toolchains() -> Vec<(String, PathBuf)> {
    let mut found = vec![PathBuf::from("go")];
    if let Ok(entries) = fs::read_dir(root().join(".tools/go")) {
        found.extend(
            entries
                .flatten()
                .map(|entry| entry.path().join("go/bin/go")),
        );
    }
    let mut all: Vec<(String, PathBuf)> = found
        .into_iter()
        .filter_map(|go| {
            let said = Command::new(&go)
                .args(["env", "GOVERSION"])
                .env("GOTOOLCHAIN", "local")
                .output();
            let said = said.ok().filter(|said| said.status.success())?;
            Some((String::from_utf8(said.stdout).ok()?.trim().to_owned(), go))
        })
        .collect();
    all.sort();
    all.dedup_by(|one, other| one.0 == other.0);
    all
}

/// Compiles, unless it is newer than its sources already.
fn compile(release: &str, go: &Path, form: Form) -> Program {
    let folder = root().join("target/go-scenes");
    fs::create_dir_all(&folder).unwrap();
    let path = folder.join(format!("{release}-{form:?}"));
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/go/programs");
    let changed = |path: &Path| fs::metadata(path).and_then(|data| data.modified()).ok();
    let newest = fs::read_dir(&sources).unwrap().flatten();
    let newest = newest.filter_map(|entry| changed(&entry.path())).max();
    let program = Program {
        release: release.to_owned(),
        form,
        path,
        go: go.to_owned(),
    };
    if changed(&program.path) > newest {
        return program;
    }
    let mut command = Command::new(go);
    command
        .current_dir(&sources)
        .args(["build", "-trimpath", "-o"])
        .arg(&program.path)
        .env("GOTOOLCHAIN", "local")
        .env("GOFLAGS", "-mod=mod")
        .env("GOCACHE", root().join("target/go-cache"))
        .env("CGO_ENABLED", if form == Form::Cgo { "1" } else { "0" });
    if matches!(
        form,
        Form::Stripped | Form::StrippedPie | Form::StrippedArm64 | Form::StrippedPieArm64
    ) {
        command.arg("-ldflags=-s -w");
    }
    if form.is_emulated() {
        command.env("GOARCH", "arm64");
    }
    if form == Form::Cgo {
        command.arg("-ldflags=-s -w -linkmode=external");
    }
    if matches!(
        form,
        Form::Pie | Form::StrippedPie | Form::Cgo | Form::StrippedPieArm64
    ) {
        command.arg("-buildmode=pie");
    }
    let output = command.arg(".").output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{release}: {said}");
    program
}

/// The programs: each release normal, stripped, position independent and, where there is a compiler for C,
/// with C in it.
fn programs() -> &'static [Program] {
    static PROGRAMS: OnceLock<Vec<Program>> = OnceLock::new();
    PROGRAMS.get_or_init(|| {
        let mut forms = vec![Form::Normal, Form::Stripped, Form::Pie, Form::StrippedPie];
        if Command::new("gcc").arg("--version").output().is_ok() {
            forms.push(Form::Cgo);
        }
        let toolchains = toolchains();
        let each = |(release, go): &(String, PathBuf)| {
            let compiled = forms.iter().map(|form| compile(release, go, *form));
            compiled.collect::<Vec<_>>()
        };
        toolchains.iter().flat_map(each).collect()
    })
}

/// The same for arm64.
pub(crate) fn arm64_programs() -> &'static [Program] {
    static PROGRAMS: OnceLock<Vec<Program>> = OnceLock::new();
    PROGRAMS.get_or_init(|| {
        let mut forms = vec![Form::Arm64, Form::StrippedArm64];
        if Path::new(&libraries())
            .join("lib/ld-linux-aarch64.so.1")
            .exists()
        {
            forms.push(Form::StrippedPieArm64);
        }
        let toolchains = toolchains();
        let each = |(release, go): &(String, PathBuf)| {
            let compiled = forms.iter().map(|form| compile(release, go, *form));
            compiled.collect::<Vec<_>>()
        };
        toolchains.iter().flat_map(each).collect()
    })
}

/// Runs a test with each program of these forms; skips it where there is none.
pub(crate) fn with_each(name: &str, forms: &[Form], test: impl Fn(&Program)) {
    if programs().is_empty() {
        skip(name, "no Go toolchain: `cargo xtask test` installs some");
        return;
    }
    let mut all: Vec<&Program> = programs().iter().collect();
    if forms.iter().any(|form| form.is_emulated()) {
        if emulator().is_some() {
            all.extend(arm64_programs());
            let pie = Form::StrippedPieArm64;
            if forms.contains(&pie) && !all.iter().any(|program| program.form == pie) {
                skip(
                    name,
                    "no dynamic linker for arm64: not with position independent programs for it",
                );
            }
        } else {
            skip(name, "no qemu-aarch64: not with programs for arm64");
        }
    }
    for program in all
        .into_iter()
        .filter(|program| forms.contains(&program.form))
    {
        test(program);
    }
}

/// Says in the file for it that a test could not run.
pub(crate) fn skip(name: &str, reason: &str) {
    static WRITING: Mutex<()> = Mutex::new(());
    let _writing = WRITING.lock();
    eprintln!("skipped: {name}: {reason}");
    if let Some(path) = std::env::var_os("OBSERVER_SKIPS") {
        let mut file = fs::OpenOptions::new()
            .append(true)
            .create(true)
            .open(path)
            .unwrap();
        writeln!(file, "{name}: {reason}").unwrap();
    }
}

/// A scene that plays; ended when dropped.
pub(crate) struct Scene {
    child: Child,
    /// The program, if an emulator runs it.
    emulated: Option<PathBuf>,
    stdin: Option<ChildStdin>,
    lines: Receiver<String>,
    errors: Arc<Mutex<Vec<String>>>,
    pub(crate) truth: Truth,
}

impl Program {
    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// A copy whose debug information is noise.
    pub(crate) fn with_debug_info_of_nothing(&self) -> Program {
        use object::{Object as _, ObjectSection as _};
        let mut bytes = fs::read(&self.path).unwrap();
        let range = {
            let file = object::File::parse(&*bytes).unwrap();
            let info = file.section_by_name(".debug_info").unwrap();
            info.file_range().unwrap()
        };
        let (at, size) = (range.0 as usize, range.1 as usize);
        // The header of a compressed section stays.
        for byte in &mut bytes[at + 24..at + size] {
            *byte = byte.wrapping_mul(151).wrapping_add(43);
        }
        let mut path = self.path.clone();
        path.as_mut_os_string().push("-forged");
        fs::copy(&self.path, &path).unwrap();
        fs::write(&path, bytes).unwrap();
        Program {
            path,
            ..self.clone()
        }
    }

    /// The same program with debug information that is not compressed.
    pub(crate) fn uncompressed(&self) -> Vec<u8> {
        let mut path = self.path.clone();
        path.as_mut_os_string().push("-uncompressed");
        let status = Command::new(&self.go)
            .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/go/programs"))
            .args(["build", "-trimpath", "-ldflags=-compressdwarf=false", "-o"])
            .arg(&path)
            .arg(".")
            .env("GOTOOLCHAIN", "local")
            .env("GOFLAGS", "-mod=mod")
            .env("GOCACHE", root().join("target/go-cache"))
            .env("CGO_ENABLED", "0")
            .status()
            .unwrap();
        assert!(status.success(), "{self:?}");
        let bytes = fs::read(&path).unwrap();
        fs::remove_file(&path).unwrap();
        bytes
    }

    /// A copy whose build information has these bytes at an offset.
    pub(crate) fn with_build_info(&self, at: usize, with: &[u8]) -> Program {
        let mut bytes = fs::read(&self.path).unwrap();
        let release = self.release.as_bytes();
        let magic = b"\xff Go buildinf:";
        // The release comes after the header of 32 bytes and its own length.
        let is_it =
            |at: &usize| bytes[*at..].starts_with(magic) && bytes[*at + 33..].starts_with(release);
        let info = (0..bytes.len() - 64).find(is_it).unwrap();
        bytes[info + at..info + at + with.len()].copy_from_slice(with);
        let named: Vec<String> = with.iter().map(|byte| format!("{byte:02x}")).collect();
        let mut path = self.path.clone();
        path.as_mut_os_string()
            .push(format!("-{at}-{}", named.concat()));
        let written = fs::metadata(&path).and_then(|data| data.modified()).ok();
        if written
            <= fs::metadata(&self.path)
                .and_then(|data| data.modified())
                .ok()
        {
            fs::copy(&self.path, &path).unwrap();
            fs::write(&path, bytes).unwrap();
        }
        Program {
            path,
            ..self.clone()
        }
    }

    /// A copy that says it was built by another release: this minor number, of two digits.
    pub(crate) fn claiming(&self, minor: u32) -> Program {
        self.with_build_info(33 + 4, minor.to_string().as_bytes())
    }

    /// Starts a scene and waits until its goroutines are parked.
    pub(crate) fn play(&self, args: &[&str]) -> Scene {
        self.play_with(args, "")
    }

    /// The same, with settings of the runtime (`GODEBUG`).
    pub(crate) fn play_with(&self, args: &[&str], settings: &str) -> Scene {
        let emulated = self.form.is_emulated().then(|| self.path.clone());
        let mut command = match &emulated {
            Some(program) => {
                let mut emulator = Command::new(emulator().unwrap());
                emulator.arg("-L").arg(libraries()).arg(program);
                emulator
            }
            None => Command::new(&self.path),
        };
        command
            .args(args)
            // The language version of the scenes is an old one, and would bring its timers with it.
            .env("GODEBUG", format!("asynctimerchan=0,{settings}"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = spawn(&mut command);
        let stdin = child.stdin.take();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        let (send, lines) = mpsc::channel();
        std::thread::spawn(move || {
            for line in stdout.lines().map_while(Result::ok) {
                // Nobody listens any more when the test is over.
                let _ = send.send(line);
            }
        });
        let stderr = BufReader::new(child.stderr.take().unwrap());
        let errors = Arc::new(Mutex::new(Vec::new()));
        let heard = Arc::clone(&errors);
        std::thread::spawn(move || {
            for line in stderr.lines().map_while(Result::ok) {
                heard.lock().unwrap().push(line);
            }
        });
        let mut scene = Scene {
            child,
            emulated,
            errors,
            stdin,
            lines,
            truth: Truth::default(),
        };
        scene.hear();
        scene
    }
}

/// Starts a program that may have been written a moment ago: whatever another test starts meanwhile has the file
/// open for writing until it has become another program.
fn spawn(command: &mut Command) -> Child {
    let start = Instant::now();
    loop {
        match command.spawn() {
            Err(error)
                if error.kind() == ErrorKind::ExecutableFileBusy && start.elapsed() < LIMIT =>
            {
                std::thread::sleep(Duration::from_millis(1));
            }
            spawned => return spawned.unwrap(),
        }
    }
}

impl Scene {
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it has said on standard error so far.
    pub(crate) fn errors(&self) -> Vec<String> {
        self.errors.lock().unwrap().clone()
    }

    fn hear(&mut self) {
        let line = self.lines.recv_timeout(LIMIT).unwrap_or_else(|error| {
            panic!("the scene said nothing ({error}) but {:#?}", self.errors())
        });
        self.truth = Truth::parse(&line);
    }

    /// Tells the scene to do something, and hears what is true then.
    pub(crate) fn tell(&mut self, word: &str) {
        let stdin = self.stdin.as_mut().unwrap();
        stdin.write_all(format!("{word}\n").as_bytes()).unwrap();
        self.hear();
    }

    pub(crate) fn target(&self) -> Target {
        match &self.emulated {
            Some(program) => Target::open_emulated(self.pid(), program).unwrap(),
            None => Target::open(self.pid()).unwrap(),
        }
    }

    /// The same, with a reader of its own for the memory.
    pub(crate) fn open_with<M: Memory>(&self, memory: M) -> Result<Target<M>, Refused> {
        match &self.emulated {
            Some(program) => Target::open_emulated_with(self.pid(), program, memory),
            None => Target::open_with(self.pid(), memory),
        }
    }

    /// One look. What was just said may still be on its way out: the main goroutine reads again soon.
    pub(crate) fn look(&self) -> Inventory {
        self.look_until(|_| true)
    }

    /// The first look at which this holds too; the last one if it does not come to hold.
    pub(crate) fn look_until(&self, holds: impl Fn(&Inventory) -> bool) -> Inventory {
        let mut target = self.target();
        let start = Instant::now();
        loop {
            let inventory = target.snapshot(&Limits::default()).unwrap();
            let main = inventory.goroutine(1);
            let is_back = main.is_some_and(|main| {
                main.stack.frames.iter().any(|frame| {
                    frame.function == "syscall.Read" || frame.function == "syscall.read"
                })
            });
            if is_back && holds(&inventory) || start.elapsed() > LIMIT {
                return inventory;
            }
        }
    }

    /// Ends the process, and not by its own will.
    pub(crate) fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        self.kill();
    }
}

/// The name of the test that this stands in, as the test runner prints it.
macro_rules! name {
    () => {{
        let here = std::any::type_name_of_val(&|| ());
        let here = here.trim_end_matches("::{{closure}}");
        here.split_once("::").map_or(here, |(_, name)| name)
    }};
}
pub(crate) use name;
