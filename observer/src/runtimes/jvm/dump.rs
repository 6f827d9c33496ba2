//! The thread dump of a Java virtual machine (HotSpot, `jstack -l`): names, functions, and who waits for what.
//!
//! The machine writes it at a moment when none of its threads runs, so it is of one moment. It is text for people:
//! lines that are not understood are passed over.

use std::collections::HashMap;

/// Threads, and functions of a thread, that are told.
const MAX_THREADS: usize = 65_536;
const MAX_FRAMES: usize = 1_024;

/// A thread of a dump.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct JavaThread {
    /// Its name, whole.
    pub name: String,
    /// Its number, as its own process knows it.
    pub native: u32,
    /// The functions that it is in, innermost first.
    pub frames: Vec<JavaFrame>,
    /// What it waits for.
    pub wants: Option<Wanted>,
    /// Objects whose monitors, or locks that it holds: by address.
    pub holds: Vec<u64>,
}

/// A function.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JavaFrame {
    /// `java.lang.Object.wait`
    pub name: String,
    /// Source file.
    pub file: Option<String>,
    /// Line in it.
    pub line: Option<u32>,
}

/// What a thread waits for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// The object, by its address.
    pub object: u64,
    /// Its class.
    pub class: String,
    /// In which way.
    pub way: Way,
}

/// In which way an object is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// To enter its monitor.
    Enter,
    /// To be notified.
    Notified,
    /// Parked, with the object named: a lock of `java.util.concurrent`, or another.
    Parked,
}

/// The threads of a dump.
pub fn parse(text: &str) -> Vec<JavaThread> {
    let mut threads: Vec<JavaThread> = Vec::new();
    let mut open = false;
    for line in text.lines() {
        if line.starts_with('"') {
            let found = thread(line).filter(|_| threads.len() < MAX_THREADS);
            open = found.is_some();
            threads.extend(found);
        } else if line.starts_with("Found ") {
            // The machine's own words about deadlocks repeat the stacks.
            break;
        } else if open && let Some(last) = threads.last_mut() {
            inside(last, line.trim_start());
        }
    }
    threads
}

/// `"main" #1 prio=5 … tid=0x00007f… nid=0x1a2b waiting on condition [0x…]`; from JDK 21 on `nid=6699`.
fn thread(line: &str) -> Option<JavaThread> {
    // The name may hold anything.
    let (name, rest) = line.strip_prefix('"')?.rsplit_once('"')?;
    let native = rest
        .split_ascii_whitespace()
        .find_map(|word| word.strip_prefix("nid="))?;
    let native = match native.strip_prefix("0x") {
        Some(digits) => u32::from_str_radix(digits, 16).ok()?,
        None => native.parse().ok()?,
    };
    Some(JavaThread {
        name: name.to_owned(),
        native,
        ..JavaThread::default()
    })
}

fn inside(thread: &mut JavaThread, line: &str) {
    if let Some(frame) = line.strip_prefix("at ").and_then(frame) {
        if thread.frames.len() < MAX_FRAMES {
            thread.frames.push(frame);
        }
        return;
    }
    let Some(line) = line.strip_prefix("- ") else {
        return;
    };
    let ways = [
        ("waiting to lock ", Way::Enter),
        ("waiting to re-lock in wait() ", Way::Enter),
        ("waiting on ", Way::Notified),
        ("parking to wait for ", Way::Parked),
    ];
    let wanted = ways.iter().find_map(|(words, way)| {
        let (object, class) = object(line.strip_prefix(words)?)?;
        Some(Wanted {
            object,
            class,
            way: *way,
        })
    });
    if wanted.is_some() {
        thread.wants = wanted;
    } else if let Some((object, _)) = object(line.strip_prefix("locked ").unwrap_or(line)) {
        thread.holds.push(object);
    }
}

/// `<0x00000000e0a1> (a java.lang.Object)`
fn object(text: &str) -> Option<(u64, String)> {
    let (address, rest) = text.trim_start().strip_prefix("<0x")?.split_once('>')?;
    let class = rest.trim().strip_prefix("(a ")?.strip_suffix(')')?;
    Some((u64::from_str_radix(address, 16).ok()?, class.to_owned()))
}

/// `java.lang.Object.wait(java.base@17.0.15/Object.java:338)`
fn frame(text: &str) -> Option<JavaFrame> {
    let (name, place) = text.strip_suffix(')')?.rsplit_once('(')?;
    let place = place.rsplit('/').next().unwrap_or(place);
    let (file, line) = match place.rsplit_once(':') {
        Some((file, line)) => (Some(file), line.parse().ok()),
        None => (Some(place).filter(|place| place.contains('.')), None),
    };
    Some(JavaFrame {
        name: name.to_owned(),
        file: file.map(str::to_owned),
        line,
    })
}

/// By object: the thread that holds it. A thread in `Object.wait` has entered the monitor, and has left it for as long
/// as it waits, so it does not hold that one.
pub fn holders(threads: &[JavaThread]) -> HashMap<u64, u32> {
    let mut holders = HashMap::new();
    for thread in threads {
        for object in &thread.holds {
            let waits = thread.wants.as_ref();
            if waits.is_none_or(|wanted| wanted.object != *object) {
                holders.insert(*object, thread.native);
            }
        }
    }
    holders
}

#[cfg(test)]
mod tests {
    use super::*;

    const DUMP: &str = r#"2026-01-01 00:00:00
Full thread dump OpenJDK 64-Bit Server VM (17.0.15+6 mixed mode, sharing):

"a "quoted" one" #12 prio=5 os_prio=0 cpu=1.5ms elapsed=3.40s tid=0x00007f10 nid=0x1a2b waiting for monitor entry  [0x00007f00]
   java.lang.Thread.State: BLOCKED (on object monitor)
	at Dead.lambda$main$0(Dead.java:10)
	- waiting to lock <0x00000000e0a1> (a Dead$Account)
	- locked <0x00000000e0b2> (a java.lang.Object)
	at java.lang.Thread.run(java.base@17.0.15/Thread.java:840)

   Locked ownable synchronizers:
	- <0x00000000e0c3> (a java.util.concurrent.locks.ReentrantLock$NonfairSync)

"waiter" #13 daemon prio=5 tid=0x00007f11 nid=6700 in Object.wait()  [0x00007f01]
	at java.lang.Object.wait(java.base@17.0.15/Native Method)
	- waiting on <0x00000000e0d4> (a java.lang.Object)
	- locked <0x00000000e0d4> (a java.lang.Object)

"parked" #14 nid=0x1a2d waiting on condition
	- parking to wait for  <0x00000000e0c3> (a java.util.concurrent.locks.ReentrantLock$NonfairSync)

"VM Thread" os_prio=0 tid=0x00007f12 runnable

Found one Java-level deadlock:
"a":
	- waiting to lock <0x1> (a X)
"#;

    #[test]
    fn names_functions_and_what_is_waited_for() {
        let threads = parse(DUMP);
        assert_eq!(threads.len(), 3);
        let first = &threads[0];
        assert_eq!(
            (first.name.as_str(), first.native),
            ("a \"quoted\" one", 0x1a2b)
        );
        assert_eq!(first.holds, [0xe0b2, 0xe0c3]);
        let wanted = first.wants.as_ref().unwrap();
        assert_eq!((wanted.object, wanted.way), (0xe0a1, Way::Enter));
        assert_eq!(wanted.class, "Dead$Account");
        assert_eq!(first.frames[0].name, "Dead.lambda$main$0");
        assert_eq!(first.frames[0].line, Some(10));
        assert_eq!(first.frames[1].file.as_deref(), Some("Thread.java"));
        assert_eq!(threads[1].native, 6_700);
        assert_eq!(threads[1].frames[0].file, None);
        assert_eq!(threads[2].wants.as_ref().unwrap().way, Way::Parked);
        // Who waits to be notified has left the monitor.
        let holders = holders(&threads);
        assert_eq!(holders.get(&0xe0b2), Some(&0x1a2b));
        assert_eq!(holders.get(&0xe0c3), Some(&0x1a2b));
        assert_eq!(holders.get(&0xe0d4), None);
    }

    #[test]
    fn dumps_may_hold_anything() {
        for text in [
            "",
            "\"",
            "\"\"",
            "\"a\" nid=",
            "\"a\" nid=0xzz",
            "\tat x\n- locked <",
        ] {
            assert_eq!(parse(text), []);
        }
        let text =
            "\"a\" nid=7\n\tat (\n\tat )(\n- waiting to lock <0x> (a )\n- locked <0x1> (a X\n";
        assert!(parse(text)[0].holds.is_empty());
    }
}
