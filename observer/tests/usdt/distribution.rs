//! Packs for libraries of the distribution, attached to in programs that use them, where it builds them with probes.

use std::{
    collections::HashMap,
    fs,
    path::Path,
    process::{Command, Stdio},
};

use serde_json::Value;

use crate::{
    harness::{Mode, Observer, Skip, alone, event::of, name, output},
    shop::{Shop, in_both_ways},
};

/// Throws as often as it is told to, and catches each.
const THROWS: &str = r#"
#include <cstdio>
#include <stdexcept>
int main() {
    unsigned count;
    setvbuf(stdout, nullptr, _IOLBF, 0);
    printf("ready {}\n");
    while (scanf(" throw %u", &count) == 1) {
        unsigned caught = 0;
        for (unsigned i = 0; i < count; i++)
            try { throw std::runtime_error("no"); } catch (const std::exception &) { caught++; }
        printf("caught %u\n", caught);
    }
}
"#;

/// Skips where no file that the process maps has this probe.
fn needs(pid: u32, provider: &str, probe: &str) -> Result<(), Skip> {
    let output = output(&["usdt", "list", &pid.to_string(), "--format", "json"]);
    let listed: Value = serde_json::from_slice(&output.stdout).unwrap();
    let files = listed["files"].as_array().unwrap().iter();
    let mut probes = files.flat_map(|file| file["probes"].as_array().into_iter().flatten());
    if probes.any(|one| one["provider"] == provider && one["name"] == probe) {
        return Ok(());
    }
    Err(Skip(format!("no library here has {provider}:{probe}")))
}

/// How many waits that begin with a probe are in the totals.
fn counted(events: &[Value], probe: &str) -> u64 {
    let id = format!(":usdt:{probe}");
    let totals: HashMap<&str, u64> = of(events, "lock")
        .filter_map(|event| Some((event["lock"]["id"].as_str()?, event["waits"].as_u64()?)))
        .filter(|(lock, _)| lock.contains(&id))
        .collect();
    totals.values().sum()
}

fn watch(pid: u32, pack: &str, way: &str) -> Observer {
    let pid = pid.to_string();
    let args = ["-p", &pid, "--usdt", pack, "--usdt-attach", way];
    Observer::trace(Mode::Sched, &[&args[..], &["--interval", "100ms"]].concat())
}

#[test]
fn exceptions_of_libstdcxx_are_counted() {
    alone(name!(), || {
        let program = Path::new(env!("CARGO_TARGET_TMPDIR")).join("usdt-throws");
        let source = program.with_extension("cc");
        fs::write(&source, THROWS).unwrap();
        let mut compiler = Command::new("g++");
        compiler.args(["-O1", "-o"]).arg(&program).arg(&source);
        match compiler.stderr(Stdio::inherit()).status() {
            Ok(status) => assert!(status.success(), "g++: {status}"),
            Err(_) => return Err(Skip("no g++".into())),
        }
        in_both_ways(|way| {
            let mut throws = Shop::at(&program)?;
            needs(throws.pid(), "libstdcxx", "throw")?;
            let observer = watch(throws.pid(), "libstdcxx", way);
            assert_eq!(throws.tell("throw 250", "caught"), 250);
            observer.wait_until("the totals", |events| {
                counted(events, "libstdcxx:throw") >= 250
            });
            let run = observer.stop();
            assert_eq!(counted(&run.events, "libstdcxx:throw"), 250);
            run.assert_complete();
            throws.close();
            Ok(())
        })
    });
}

#[test]
fn threads_that_are_joined_are_counted() {
    alone(name!(), || {
        in_both_ways(|way| {
            let mut shop = Shop::open()?;
            let built_with = ["libc", "libpthread"]
                .iter()
                .any(|provider| needs(shop.pid(), provider, "pthread_join").is_ok());
            let observer = watch(shop.pid(), "libc", way);
            if !built_with {
                // Debian's is built without probes: then that is what is said.
                observer.wait_until("what is missing", |events| {
                    let missing = events[0]["capture"]["missing"].as_array().unwrap();
                    missing.iter().any(|one| one["feature"] == "usdt")
                });
                shop.close();
                return Ok(());
            }
            shop.tell("threads 7 1 2000 3", "truth");
            let joined = |events: &[Value]| {
                let providers = ["libc", "libpthread"];
                let probes = providers.map(|provider| format!("{provider}:pthread_join"));
                probes
                    .iter()
                    .map(|probe| counted(events, probe))
                    .sum::<u64>()
            };
            observer.wait_until("the totals", |events| joined(events) >= 7);
            let run = observer.stop();
            assert_eq!(joined(&run.events), 7);
            shop.close();
            Ok(())
        })
    });
}
