//! The program of these tests: compiled once, started often, told what to do line by line.

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, Stdio},
    sync::{
        OnceLock,
        mpsc::{self, Receiver},
    },
};

use serde_json::Value;

use crate::harness::{LIMIT, Mode, Observer, Skip, TempDir, Tested, kernel_at_least, poll};

/// What the tests ask observer to look at.
pub(crate) const PACK: &str = r#"
[[pair]]
provider = "shop"
begin = "wait__start"
end = "wait__done"
resource = 0
kind = "semaphore"
lock.addr = 0
lock.name = "{1:s} {0}"

[[pair]]
provider = "shop"
begin = "forms__a"
end = "forms__done"
lock.name = "{0:x} {1:x} {2:x} {3:x} {4:x} {5:i} {6:i} {7:x}"

[[pair]]
provider = "shop"
begin = "forms__b"
end = "forms__done"
lock.name = "{0:x} {1:i} {2:x} {3:x} {4:i} {5:i} {6:x} {7:x}"

[[pair]]
provider = "shop"
begin = "forms__c"
end = "forms__done"
lock.name = "{0:x} {1:x} {2:x} {3:x} {4:i} {5:i} {6:i} {7:x}"

[[pair]]
provider = "shop"
begin = "forms__d"
end = "forms__done"
lock.name = "{0:s1}"

[[pair]]
provider = "shop"
begin = "strange"
end = "strange__done"
resource = 0

[[pair]]
provider = "shop"
begin = "bad"
end = "bad__done"
resource = 0
"#;

/// The probe of the pair that waits are made with.
pub(crate) const WAIT: &str = "shop:wait__start";

/// The compiled program, the same as a library with a program that loads it, and the pack. Left behind: no test is the
/// last to need them.
struct Built {
    program: PathBuf,
    library: PathBuf,
    loader: PathBuf,
    pack: PathBuf,
}

/// Loads a library, and is then what that is.
const LOADER: &str = r#"
#include <dlfcn.h>
#include <stdio.h>
int main(int count, char **words) {
    void *library = count > 1 ? dlopen(words[1], RTLD_NOW) : 0;
    int (*body)(void) = library ? (int (*)(void))dlsym(library, "main") : 0;
    return body ? body() : 1;
}
"#;

fn built() -> Result<&'static Built, Skip> {
    static BUILT: OnceLock<Option<Built>> = OnceLock::new();
    if !kernel_at_least(5, 15) {
        return Err(Skip("attach cookies need Linux 5.15".into()));
    }
    if !Path::new("/sys/bus/event_source/devices/uprobe").exists() {
        return Err(Skip("this kernel has no uprobes".into()));
    }
    let build = || {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).to_owned();
        let [program, library, loader, pack, to_load] = [
            "usdt-shop",
            "libusdt-shop.so",
            "usdt-loader",
            "usdt-shop.toml",
            "usdt-loader.c",
        ]
        .map(|name| folder.join(name));
        fs::write(&pack, PACK).unwrap();
        fs::write(&to_load, LOADER).unwrap();
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/usdt/shop.c");
        for (source, to, options) in [
            (&source, &program, &[][..]),
            (&source, &library, &["-shared", "-fPIC"]),
            (&to_load, &loader, &["-ldl"]),
        ] {
            let mut gcc = Command::new("gcc");
            gcc.args(["-O1", "-pthread", "-o"]).arg(to).arg(source);
            match gcc.args(options).status() {
                Ok(status) => assert!(status.success(), "gcc: {status}"),
                Err(_) => return None,
            }
        }
        Some(Built {
            program,
            library,
            loader,
            pack,
        })
    };
    let skip = || Skip("no gcc: shop.c cannot be compiled".into());
    BUILT.get_or_init(build).as_ref().ok_or_else(skip)
}

/// The compiled program.
pub(crate) fn program() -> Result<&'static Path, Skip> {
    Ok(&built()?.program)
}

/// The file with the pack.
pub(crate) fn pack() -> Result<String, Skip> {
    Ok(built()?.pack.to_string_lossy().into_owned())
}

/// Runs the body of a test with either way to attach: both have to give the same answers.
pub(crate) fn in_both_ways(mut body: impl FnMut(&str) -> Tested) -> Tested {
    for way in ["single", "multi"] {
        println!("--usdt-attach {way}");
        // Up to 6.9 it cannot be for one process.
        if way == "multi" && !kernel_at_least(6, 10) {
            return Err(Skip("attaching to many places needs Linux 6.10".into()));
        }
        body(way)?;
    }
    Ok(())
}

/// A running shop; killed when dropped.
pub(crate) struct Shop {
    child: Child,
    stdin: ChildStdin,
    lines: Receiver<String>,
    pub(crate) pack: String,
    /// Where its file was.
    folder: Option<TempDir>,
}

impl Shop {
    pub(crate) fn open() -> Result<Shop, Skip> {
        Shop::at(program()?)
    }

    /// One whose file has no name any more.
    pub(crate) fn of_deleted_file() -> Result<Shop, Skip> {
        let folder = TempDir::new();
        Shop::at(&folder.copy(program()?, "shop"))
    }

    /// One whose file was replaced by another, with other probes at its path now: as an update does.
    pub(crate) fn of_replaced_file() -> Result<Shop, Skip> {
        let folder = TempDir::new();
        let copy = folder.copy(program()?, "shop");
        let mut shop = Shop::at(&copy)?;
        fs::rename(folder.copy("/bin/true", "new"), &copy).unwrap();
        shop.folder = Some(folder);
        Ok(shop)
    }

    /// One that is a library of another program, which nobody else maps.
    pub(crate) fn of_library() -> Result<Shop, Skip> {
        let built = built()?;
        let folder = TempDir::new();
        let library = folder.copy(&built.library, "libshop.so");
        let mut shop = Shop::from(Command::new(&built.loader).arg(library))?;
        shop.folder = Some(folder);
        Ok(shop)
    }

    /// The same, replaced by a file without probes as soon as it was loaded.
    pub(crate) fn of_replaced_library() -> Result<Shop, Skip> {
        let shop = Shop::of_library()?;
        if let Some(folder) = &shop.folder {
            let library = folder.path().join("libshop.so");
            fs::rename(folder.copy("/bin/true", "new"), library).unwrap();
        }
        Ok(shop)
    }

    /// One in a file system of its own, as in a container: its path means nothing outside.
    pub(crate) fn of_another_file_system() -> Result<Shop, Skip> {
        let script = "mount -t tmpfs none /mnt && cp \"$0\" /mnt/inside && exec /mnt/inside";
        let mut command = Command::new("unshare");
        command
            .args(["--mount", "sh", "-c", script])
            .arg(program()?);
        Shop::from(&mut command)
    }

    pub(crate) fn at(program: &Path) -> Result<Shop, Skip> {
        Shop::from(&mut Command::new(program))
    }

    pub(crate) fn from(command: &mut Command) -> Result<Shop, Skip> {
        let shop = Shop::spawn(command)?;
        shop.answer("ready");
        Ok(shop)
    }

    fn spawn(command: &mut Command) -> Result<Shop, Skip> {
        let pack = pack()?;
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let stdin = child.stdin.take().unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        let (send, lines) = mpsc::channel();
        std::thread::spawn(move || {
            for line in stdout.lines().map_while(Result::ok) {
                let _ = send.send(line);
            }
        });
        Ok(Shop {
            child,
            stdin,
            lines,
            pack,
            folder: None,
        })
    }

    /// A process that is another program, and becomes a shop when it is told `go`; of a file that nobody maps.
    pub(crate) fn to_be() -> Result<Shop, Skip> {
        let folder = TempDir::new();
        let copy = folder.path().join("later-shop");
        fs::copy(program()?, &copy).unwrap();
        let mut command = Command::new("sh");
        command.args(["-c", "read go && exec \"$0\""]).arg(&copy);
        let mut shop = Shop::spawn(&mut command)?;
        shop.folder = Some(folder);
        Ok(shop)
    }

    /// One of a file that nobody maps.
    pub(crate) fn of_new_file() -> Result<Shop, Skip> {
        let mut shop = Shop::to_be()?;
        shop.tell("go", "ready");
        Ok(shop)
    }

    /// Another one of the same new file.
    pub(crate) fn sibling(&self) -> Result<Shop, Skip> {
        let folder = self.folder.as_ref().expect("a file of its own");
        Shop::at(&folder.path().join("later-shop"))
    }

    /// Waits until observer is attached: to where its waits begin, and to where they end.
    #[track_caller]
    pub(crate) fn wait_until_observer_listens(&mut self) {
        poll("the semaphore to be raised twice", || {
            (self.semaphore() == 2).then_some(())
        });
    }

    #[track_caller]
    fn answer(&self, word: &str) -> Value {
        let line = self.lines.recv_timeout(LIMIT).expect("an answer");
        let json = line.strip_prefix(word).unwrap_or_else(|| panic!("{line}"));
        serde_json::from_str(json).unwrap_or_else(|error| panic!("{line}: {error}"))
    }

    /// Does something, and answers.
    #[track_caller]
    pub(crate) fn tell(&mut self, line: &str, answer: &str) -> Value {
        writeln!(self.stdin, "{line}").unwrap();
        self.answer(answer)
    }

    /// How many listen.
    #[track_caller]
    pub(crate) fn semaphore(&mut self) -> u64 {
        self.tell("semaphore", "semaphore").as_u64().unwrap()
    }

    /// Waits until nobody listens any more.
    #[track_caller]
    pub(crate) fn wait_until_nobody_listens(&mut self) {
        poll("the semaphore to be zero", || {
            (self.semaphore() == 0).then_some(())
        });
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// observer, watching this process.
    pub(crate) fn watched(&self, way: &str, args: &[&str]) -> Observer {
        let pid = self.pid().to_string();
        let own = ["-p", &pid, "--usdt", &self.pack, "--usdt-attach", way];
        Observer::trace(Mode::Sched, &[&own, args].concat())
    }

    /// Ends it.
    pub(crate) fn close(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Shop {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The waits that a probe began.
pub(crate) fn waits<'a>(events: &'a [Value], probe: &'a str) -> impl Iterator<Item = &'a Value> {
    crate::harness::event::of(events, "wait").filter(move |event| event["probe"] == probe)
}

/// The latest totals of the resource that is called so.
#[track_caller]
pub(crate) fn totals<'a>(events: &'a [Value], name: &str) -> &'a Value {
    crate::harness::event::of(events, "lock")
        .filter(|event| event["lock"]["name"] == name)
        .last()
        .unwrap_or_else(|| panic!("no totals of {name}"))
}
