//! What is told when one is paged: the first sentences are right, whoever is in trouble.

use std::{
    fs,
    io::{BufRead, BufReader},
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{Child, Command, Output, Stdio},
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use crate::harness::{OBSERVER, Skip, TempDir, Workload, alone, name, output};

fn triage(args: &[&str]) -> Output {
    output(&[&["triage"], args].concat())
}

fn text(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn mode(path: &Path) -> u32 {
    path.metadata().unwrap().permissions().mode() & 0o777
}

#[test]
fn of_a_deadlock() {
    alone(name!(), || {
        let workload = Workload::start(&["deadlock"])?;
        let pid = workload.pid().to_string();
        let run = triage(&["-p", &pid, "-d", "2s", "--fail-on", "deadlock"]);
        assert_eq!(run.status.code(), Some(10), "{run:?}");
        let text = text(&run);
        let sentences: Vec<&str> = text.lines().take_while(|line| !line.is_empty()).collect();
        assert!(
            sentences[0].starts_with(&format!("Deadlock in workload {pid}: ")),
            "{text}"
        );
        for name in ["ab/", "ba/", "will not go on"] {
            assert!(sentences[0].contains(name), "{text}");
        }
        let last = sentences.last().unwrap();
        assert!(
            last.starts_with("2 threads were held up at the end"),
            "{text}"
        );
        for part in [
            "\nFINDINGS\n",
            "\nDEADLOCKS\n",
            "\nRUN QUEUE\n",
            "\nLOST\n",
            "\nNOT SEEN\n",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
        Ok(())
    });
}

/// The program that users try first: each of the three sentences names what it is made to have.
#[test]
fn of_the_demo() {
    alone(name!(), || {
        let demo = Path::new(OBSERVER).with_file_name("examples/demo");
        let mut demo = Command::new(demo)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let pid = demo.id().to_string();
        let began = Instant::now();
        // Its deadlock forms when it has run for a while.
        let by_process = loop {
            let text = text(&triage(&["-p", &pid, "-d", "3s"]));
            if text.starts_with("Deadlock") || began.elapsed() > Duration::from_mins(1) {
                break text;
            }
        };
        let by_name = text(&triage(&["--comm", "demo", "-d", "1s"]));
        demo.kill().unwrap();
        demo.wait().unwrap();
        let sentences: Vec<&str> = by_process.lines().take(3).collect();
        let begin = format!("Deadlock in demo {pid}: ");
        for (sentence, parts) in sentences.iter().zip([
            [&*begin, "transfer-a/", "(for demo::RIGHT)", "transfer-b/"],
            [
                "The costliest lock is demo::ACCOUNTS",
                "demo ",
                "waits of",
                "(exact, in clock_nanosleep)",
            ],
            [
                "threads were held up at the end",
                "transfer-",
                "waiting for demo::",
                "",
            ],
        ]) {
            for part in parts {
                assert!(sentence.contains(part), "{part}: {by_process}");
            }
        }
        // Its slow holder keeps it for most of the time, and each client for a moment.
        let holders = ["slow-holder/", "client-"];
        let held_by = |name: &&str| sentences[1].contains(&format!("last held by {name}"));
        assert!(holders.iter().any(held_by), "{by_process}");
        // The watch was for the one thread of that name, and the look for all of its process.
        assert!(by_name.starts_with(&begin), "{by_name}");
        let others = "No thread that was watched was held up at the end";
        assert!(by_name.contains(others), "{by_name}");
        Ok(())
    });
}

#[test]
fn makes_a_bundle() {
    alone(name!(), || {
        let workload = Workload::start(&["deadlock"])?;
        let pid = workload.pid().to_string();
        let folder = TempDir::new();
        let bundle = folder.path().join("incident");
        let to = bundle.to_str().unwrap();
        let run = triage(&["-p", &pid, "-d", "2s", "-o", to, "--format", "json"]);
        assert!(run.status.success(), "{run:?}");
        assert_eq!(mode(&bundle), 0o700);
        let mut names: Vec<String> = Vec::new();
        for entry in fs::read_dir(&bundle).unwrap() {
            let path = entry.unwrap().path();
            assert_eq!(mode(&path), 0o600, "{}", path.display());
            names.push(path.file_name().unwrap().to_str().unwrap().to_owned());
        }
        names.sort_unstable();
        let all = [
            "doctor.json",
            "dump.json",
            "dump.txt",
            "host.json",
            "recording.jsonl.zst",
            "report.html",
            "report.json",
            "report.md",
        ];
        assert_eq!(names, all);
        let object = serde_json::from_slice(&run.stdout).unwrap();
        json_is_a_dump_and_more(&object);
        is_of_the_schema(&object);

        let archive = folder.path().join("incident.tar.gz");
        assert_eq!(mode(&archive), 0o600);
        let list = Command::new("tar")
            .arg("tzf")
            .arg(&archive)
            .output()
            .unwrap();
        let mut listed: Vec<String> = text(&list).lines().map(str::to_owned).collect();
        listed.sort_unstable();
        assert_eq!(listed, all.map(|name| format!("incident/{name}")));
        says_the_same(&bundle.join("recording.jsonl.zst"));
        is_of_the_same_totals(&bundle);

        let refused = triage(&["-p", &pid, "-d", "100ms", "-o", to]);
        assert_eq!(refused.status.code(), Some(1), "{refused:?}");
        assert!(
            String::from_utf8_lossy(&refused.stderr).contains("--force"),
            "{refused:?}"
        );
        fs::write(bundle.join("notes.txt"), "mine").unwrap();
        let again = triage(&["-p", &pid, "-d", "100ms", "-o", to, "--force"]);
        assert!(again.status.success(), "{again:?}");
        assert_eq!(
            fs::read_to_string(bundle.join("notes.txt")).unwrap(),
            "mine"
        );
        Ok(())
    });
}

/// The recording says what the report does that was made of it.
fn says_the_same(recording: &Path) {
    let recording = recording.to_str().unwrap();
    let replayed = output(&["report", recording]);
    assert!(
        text(&replayed).starts_with("Deadlock in workload"),
        "{replayed:?}"
    );
    let again = output(&["report", recording, "--format", "json"]);
    is_of_the_schema(&serde_json::from_slice(&again.stdout).unwrap());
}

/// What is read from the recording is what was known live.
fn is_of_the_same_totals(bundle: &Path) {
    let recording = bundle.join("recording.jsonl.zst");
    let again = output(&["report", recording.to_str().unwrap(), "--format", "json"]);
    let replayed: Value = serde_json::from_slice(&again.stdout).unwrap();
    let live: Value =
        serde_json::from_slice(&fs::read(bundle.join("report.json")).unwrap()).unwrap();
    assert_ne!(live["deadlocks"], Value::Null, "{live}");
    for part in ["deadlocks", "findings", "waits", "loss", "end"] {
        assert_eq!(live[part], replayed[part], "{part}");
    }
    assert_eq!(live["task_totals"], replayed["tasks"]);
    // Of the holder the look at every thread may know more.
    let totals = |report: &Value| -> Vec<Value> {
        let locks = report["locks"].as_array().unwrap();
        let numbers = |lock: &Value| {
            let name = |name: &str| lock[name].clone();
            json!([
                name("lock"),
                name("waits"),
                name("total_ns"),
                name("max_ns")
            ])
        };
        locks.iter().map(numbers).collect()
    };
    assert_eq!(totals(&live), totals(&replayed));
}

fn is_of_the_schema(object: &Value) {
    let schema = serde_json::to_value(observer::report::object::schema()).unwrap();
    let validator = jsonschema::validator_for(&schema).unwrap();
    let faults: Vec<String> = validator
        .iter_errors(object)
        .map(|error| format!("{}: {error}", error.instance_path()))
        .collect();
    assert_eq!(faults, Vec::<String>::new());
}

/// Without privileges there is no watch: the report is made of one look at what may be read, and says so.
#[test]
fn without_privileges() {
    alone(name!(), || {
        let as_nobody = |program: &str, args: &[&str]| {
            let mut command = Command::new("setpriv");
            command
                .args(["--reuid", "65534", "--regid", "65534", "--clear-groups"])
                .args(["--bounding-set", "-all", "--", program])
                .args(args);
            command
        };
        let probe = as_nobody(OBSERVER, &["--version"]).output();
        if !probe.is_ok_and(|probe| probe.status.success()) {
            return Err(Skip(
                "no other user can be made to run observer here".to_owned(),
            ));
        }
        let mut workload = as_nobody(OBSERVER, &["workload", "deadlock"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(workload.stdout.take().unwrap());
        lines.read_line(&mut String::new()).unwrap();
        let pid = workload.id().to_string();
        let deadline = Instant::now() + Duration::from_secs(30);
        let run = loop {
            let run = as_nobody(OBSERVER, &["triage", "-p", &pid])
                .output()
                .unwrap();
            if text(&run).starts_with("Deadlock") || Instant::now() > deadline {
                break run;
            }
        };
        let stranger = as_nobody(OBSERVER, &["triage", "-p", "1"])
            .output()
            .unwrap();
        drop(workload.stdin.take());
        workload.wait().unwrap();
        let text = text(&run);
        assert_eq!(run.status.code(), Some(0), "{run:?}");
        assert!(text.starts_with("Deadlock in observer"), "{text}");
        assert!(text.contains("This is one look at "), "{text}");
        assert!(text.contains("CAP_BPF"), "{text}");
        // Where there is nothing to tell at all.
        assert_eq!(stranger.status.code(), Some(3), "{stranger:?}");
        Ok(())
    });
}

/// What has room is kept, what has not is taken away again, and all of it is said.
#[test]
fn on_a_full_disk() {
    alone(name!(), || {
        let workload = Workload::start(&["deadlock"])?;
        let folder = TempDir::new();
        let script = format!(
            "mount -t tmpfs -o size=32k tmpfs {0} && exec {1} triage -p {2} -d 1500ms -o {0}/incident",
            folder.path().display(),
            crate::harness::OBSERVER,
            workload.pid()
        );
        let list = format!(
            "({script}); echo \"code $?\"; ls {}/incident",
            folder.path().display()
        );
        let run = Command::new("unshare")
            .args(["--mount", "sh", "-c", &list])
            .output()
            .unwrap();
        let (told, errors) = (
            text(&run),
            String::from_utf8_lossy(&run.stderr).into_owned(),
        );
        assert!(
            told.contains("deadlock") || told.contains("Deadlock"),
            "{told}"
        );
        let (_, after) = told.rsplit_once("code ").unwrap();
        let mut kept = after.lines();
        assert_eq!(kept.next(), Some("1"), "{told}{errors}");
        let kept: Vec<&str> = kept.collect();
        assert!(
            kept.contains(&"report.md") && !kept.contains(&"report.html"),
            "{kept:?}"
        );
        assert!(
            errors.contains("report.html: No space left on device"),
            "{errors}"
        );
        Ok(())
    });
}

fn json_is_a_dump_and_more(json: &Value) {
    for list in [
        "tasks",
        "goroutines",
        "locks",
        "deadlocks",
        "findings",
        "waits",
        "summary",
    ] {
        assert!(json[list].is_array(), "{list}: {json}");
    }
    assert_eq!(json["meta"]["schema"], 1);
    assert!(json["loss"]["counters"].is_object());
    assert_eq!(json["deadlocks"].as_array().unwrap().len(), 1, "{json}");
    assert!(
        json["summary"][0].as_str().unwrap().starts_with("Deadlock"),
        "{json}"
    );
    let ab = json["tasks"]
        .as_array()
        .unwrap()
        .iter()
        .find(|task| task["task"]["comm"] == "ab")
        .unwrap();
    assert_eq!(ab["kind"], "lock");
    assert_eq!(ab["holder"]["comm"], "ba", "{ab}");
}

#[test]
fn of_nothing_wrong() {
    alone(name!(), || {
        let workload = Workload::start(&["timedwait"])?;
        let pid = workload.pid().to_string();
        let run = triage(&["-p", &pid, "-d", "1s", "--fail-on", "finding"]);
        assert_eq!(run.status.code(), Some(0), "{run:?}");
        let text = text(&run);
        assert!(
            text.starts_with("No rule found anything wrong.\n"),
            "{text}"
        );
        assert!(text.contains("No thread was held up at the end"), "{text}");
        Ok(())
    });
}

#[test]
fn of_a_process_that_ends() {
    alone(name!(), || {
        let mut short = Command::new("sleep").arg("1").spawn().unwrap();
        let run = triage(&["-p", &short.id().to_string(), "-d", "1m"]);
        assert!(run.status.success(), "{run:?}");
        assert!(
            text(&run).contains("it ended before they were looked at"),
            "{run:?}"
        );
        short.wait().unwrap();
        Ok(())
    });
}

const JAVA: &str = r#"
public class Dead {
    static final Object LEFT = new Object(), RIGHT = new Object();
    static final java.util.concurrent.CountDownLatch BOTH = new java.util.concurrent.CountDownLatch(2);
    static void take(Object first, Object second) {
        synchronized (first) {
            BOTH.countDown();
            try { BOTH.await(); } catch (InterruptedException e) { return; }
            synchronized (second) { System.out.println("never"); }
        }
    }
    public static void main(String[] args) throws Exception {
        Thread a = new Thread(() -> take(LEFT, RIGHT), "transfer-a");
        Thread b = new Thread(() -> take(RIGHT, LEFT), "transfer-b");
        a.start();
        b.start();
        while (a.getState() != Thread.State.BLOCKED || b.getState() != Thread.State.BLOCKED) Thread.sleep(5);
        System.out.println("ready");
    }
}
"#;

/// A Java program; killed when dropped.
struct Java(Child);

impl Drop for Java {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Java {
    fn start(folder: &Path) -> Result<Java, Skip> {
        let source = folder.join("Dead.java");
        fs::write(&source, JAVA).unwrap();
        let Ok(compiled) = Command::new("javac")
            .arg("-d")
            .arg(folder)
            .arg(&source)
            .status()
        else {
            return Err(Skip("javac is not there".into()));
        };
        assert!(compiled.success(), "javac: {compiled}");
        let mut child = Command::new("java")
            .args(["-Xshare:auto", "-XX:+UseSerialGC", "-cp"])
            .arg(folder)
            .arg("Dead")
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let stdout = child.stdout.take().unwrap();
        let java = Java(child);
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line).unwrap();
        assert_eq!(line, "ready\n");
        Ok(java)
    }
}

/// Neither the program nor its options have a part in it.
#[test]
fn of_a_deadlocked_java_program() {
    alone(name!(), || {
        let folder = TempDir::new();
        let java = Java::start(folder.path())?;
        let pid = java.0.id().to_string();
        let run = triage(&["-p", &pid, "-d", "4s", "--fail-on", "deadlock"]);
        assert_eq!(run.status.code(), Some(10), "{run:?}");
        let text = text(&run);
        let sentences: Vec<&str> = text.lines().take_while(|line| !line.is_empty()).collect();
        assert!(
            sentences[0].starts_with(&format!("Deadlock in java {pid}: ")),
            "{text}"
        );
        for part in [
            "transfer-a/",
            "transfer-b/",
            "(for java.lang.Object)",
            "will not go on.",
        ] {
            assert!(sentences[0].contains(part), "{part}: {text}");
        }
        // Told once, though the virtual machine wakes these threads every second.
        assert!(!sentences[0].contains("There were"), "{text}");
        let last = sentences.last().unwrap();
        assert!(
            last.starts_with("2 threads were held up at the end, the longest transfer-"),
            "{text}"
        );
        Ok(())
    });
}
