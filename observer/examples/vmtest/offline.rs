//! A CPU that goes offline, and comes back, again and again while observer observes: only in a machine of this
//! program's own, since everybody else on the machine would notice.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Result, anyhow};

use crate::checks::Check;
use crate::scene::{self, Scene};

/// The switch of the second CPU.
const SWITCH: &str = "/sys/devices/system/cpu/cpu1/online";
/// How long the CPU is off, and on.
const FOR: Duration = Duration::from_millis(150);

/// Why this cannot be tried, if so.
pub(crate) fn missing() -> Option<String> {
    (!Path::new(SWITCH).exists()).then(|| format!("{SWITCH} is not there"))
}

/// One workload with its check, while the CPU comes and goes; how often it went.
pub(crate) fn observe(
    observer: &Path,
    workload: &Path,
    mode: &str,
    check: &Check,
    of_all: fn(&[serde_json::Value]) -> Result<(), String>,
) -> Result<Result<(), String>> {
    let mut scenes: BTreeMap<&str, Scene> = BTreeMap::new();
    match Scene::prepare(workload, check.name, check.args)? {
        Ok(scene) => scenes.insert(check.name, scene),
        Err(why) => return Ok(Err(why)),
    };
    let over = Arc::new(AtomicBool::new(false));
    let stop = Arc::clone(&over);
    let switching = thread::spawn(move || come_and_go(&stop));
    let events = scene::observe(observer, mode, &mut scenes);
    over.store(true, Ordering::SeqCst);
    let went = switching
        .join()
        .map_err(|_| anyhow!("who switches the CPU panicked"))?;
    let events = events?;
    let holds = || {
        if went? == 0 {
            return Err("the CPU never went offline".to_owned());
        }
        let scene = scenes.get(check.name).ok_or("no scene")?;
        (check.holds)(scene, &events)?;
        of_all(&events)
    };
    Ok(holds())
}

/// Switches until it is over; leaves the CPU on.
fn come_and_go(over: &AtomicBool) -> Result<u32, String> {
    let switch = |to: &str| fs::write(SWITCH, to).map_err(|error| format!("{SWITCH}: {error}"));
    let mut went = 0;
    while !over.load(Ordering::SeqCst) {
        switch("0")?;
        went += 1;
        thread::sleep(FOR);
        switch("1")?;
        thread::sleep(FOR);
    }
    Ok(went)
}
