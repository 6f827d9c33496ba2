//! Attaching to many places of a file at a time (`uprobe.multi`, Linux 6.6).
//!
//! One link takes the place of a perf event and a link for each. The program is of another type then, which
//! aya cannot load, so it is taken from the same object and loaded here, with the tables that aya made.

use std::{
    collections::{HashMap, HashSet},
    ffi::CString,
    fs, io, mem,
    os::fd::{AsFd, AsRawFd, OwnedFd, RawFd},
};

use aya::{
    Ebpf,
    maps::{Map, MapData},
};

use super::{
    super::bpf::{self, LINK_CREATE},
    attach::Place,
};

/// `BPF_PROG_LOAD`, `BPF_PROG_TYPE_KPROBE`, `BPF_TRACE_UPROBE_MULTI` (include/uapi/linux/bpf.h).
const PROG_LOAD: libc::c_int = 5;
const KPROBE: u32 = 2;
const UPROBE_MULTI: u32 = 48;

/// Up to 6.9 a link for one process is for one thread of it (fixed by 46ba0e49b642, "bpf: fix multi-uprobe
/// PID filtering logic").
const FOR_PROCESSES: (u32, u32) = (6, 10);

/// The part of `union bpf_attr` for loading a program.
#[repr(C)]
#[derive(Default)]
struct LoadAttr {
    prog_type: u32,
    insn_cnt: u32,
    insns: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log_buf: u64,
    kern_version: u32,
    prog_flags: u32,
    prog_name: [u8; 16],
    prog_ifindex: u32,
    expected_attach_type: u32,
}

/// The part of `union bpf_attr` for a link to many places.
#[repr(C)]
#[derive(Default)]
struct LinkAttr {
    prog_fd: u32,
    target_fd: u32,
    attach_type: u32,
    flags: u32,
    path: u64,
    offsets: u64,
    ref_ctr_offsets: u64,
    cookies: u64,
    cnt: u32,
    multi_flags: u32,
    pid: u32,
    pad: u32,
}

const _: () = {
    assert!(size_of::<LoadAttr>() == 72);
    assert!(size_of::<LinkAttr>() == 64);
};

/// The program, loaded.
#[derive(Debug)]
pub(in crate::capture) struct Multi {
    program: OwnedFd,
    for_processes: bool,
}

impl Multi {
    /// Loads the program of this name, if this kernel takes it.
    pub(in crate::capture) fn load(
        ebpf: &Ebpf,
        object: &[u8],
        name: &str,
        kernel: &str,
    ) -> Result<Multi, String> {
        let (instructions, license) = program(ebpf, object, name)?;
        let mut attr = LoadAttr {
            prog_type: KPROBE,
            insn_cnt: instructions.len() as u32,
            insns: instructions.as_ptr() as u64,
            license: license.as_ptr() as u64,
            expected_attach_type: UPROBE_MULTI,
            ..LoadAttr::default()
        };
        let length = name.len().min(attr.prog_name.len() - 1);
        attr.prog_name[..length].copy_from_slice(&name.as_bytes()[..length]);
        // SAFETY: the instructions, as many as are said, and the license outlive the call.
        let program = unsafe { bpf::call(PROG_LOAD, &attr) };
        Ok(Multi {
            program: program.map_err(|error| format!("cannot load {name}: {error}"))?,
            for_processes: version(kernel) >= FOR_PROCESSES,
        })
    }

    /// Attaches to all these places of one file, in this order, for one process or all.
    pub(in crate::capture) fn attach(
        &self,
        pid: Option<u32>,
        places: &[Place],
    ) -> io::Result<OwnedFd> {
        let first = places.first().ok_or(io::ErrorKind::InvalidInput)?;
        if pid.is_some() && !self.for_processes {
            return Err(io::ErrorKind::Unsupported.into());
        }
        let path = CString::new(format!("/proc/self/fd/{}", first.file))?;
        let offsets: Vec<u64> = places.iter().map(|place| place.offset).collect();
        let semaphores: Vec<u64> = places
            .iter()
            .map(|place| place.semaphore.unwrap_or(0))
            .collect();
        let cookies: Vec<u64> = places.iter().map(|place| place.cookie).collect();
        let attr = LinkAttr {
            prog_fd: self.program.as_raw_fd().cast_unsigned(),
            attach_type: UPROBE_MULTI,
            path: path.as_ptr() as u64,
            offsets: offsets.as_ptr() as u64,
            ref_ctr_offsets: semaphores.as_ptr() as u64,
            cookies: cookies.as_ptr() as u64,
            cnt: places.len() as u32,
            pid: pid.unwrap_or(0),
            ..LinkAttr::default()
        };
        // SAFETY: the path and the three lists, each of `cnt` entries, outlive the call.
        unsafe { bpf::call(LINK_CREATE, &attr) }
    }

    /// Run time of the program so far, while the kernel's statistics are on.
    pub(in crate::capture) fn run_time_ns(&self) -> u64 {
        self.statistic("run_time_ns:")
    }

    /// Can it be attached for a process, and not only for a thread?
    pub(in crate::capture) fn for_processes(&self) -> bool {
        self.for_processes
    }

    /// How often it ran, likewise.
    pub(in crate::capture) fn runs(&self) -> u64 {
        self.statistic("run_cnt:")
    }

    fn statistic(&self, name: &str) -> u64 {
        fs::read_to_string(format!("/proc/self/fdinfo/{}", self.program.as_raw_fd()))
            .ok()
            .and_then(|text| {
                let line = text.lines().find_map(|l| l.strip_prefix(name))?;
                line.trim().parse().ok()
            })
            .unwrap_or(0)
    }
}

/// The program's instructions, bound to the tables that are loaded, and its license.
fn program(
    ebpf: &Ebpf,
    object: &[u8],
    name: &str,
) -> Result<(Vec<aya_obj::generated::bpf_insn>, CString), String> {
    let failed = |error: &dyn std::fmt::Display| format!("cannot read {name}: {error}");
    let mut object = aya_obj::Object::parse(object).map_err(|error| failed(&error))?;
    let sections: HashSet<usize> = object.functions.keys().map(|key| key.0).collect();
    let program = object
        .programs
        .remove(name)
        .ok_or_else(|| failed(&"it is not there"))?;
    let key = program.function_key();
    // Of the other programs nothing is needed, and not all of their tables are at hand.
    let others: HashSet<_> = mem::take(&mut object.programs)
        .into_values()
        .map(|other| other.function_key())
        .collect();
    object.functions.retain(|key, _| !others.contains(key));
    let license = program.license.clone();
    object.programs.insert(name.to_owned(), program);
    let loaded: HashMap<&str, RawFd> = ebpf
        .maps()
        .filter_map(|(name, map)| Some((name, descriptor(map)?)))
        .collect();
    let tables = mem::take(&mut object.maps);
    let known = tables
        .iter()
        .filter_map(|(name, table)| Some((name.as_str(), *loaded.get(name.as_str())?, table)));
    object
        .relocate_maps(known, &sections)
        .and_then(|()| object.relocate_calls(&sections))
        .map_err(|error| failed(&error))?;
    let function = object.functions.remove(&key);
    let function = function.ok_or_else(|| failed(&"it has no code"))?;
    Ok((function.instructions, license))
}

/// The descriptor of a table of a type that the program uses.
fn descriptor(map: &Map) -> Option<RawFd> {
    let data: &MapData = match map {
        // The last two are not its own, but of functions that the compiler kept apart, whoever calls them.
        Map::Array(data)
        | Map::HashMap(data)
        | Map::PerCpuArray(data)
        | Map::RingBuf(data)
        | Map::Stack(data)
        | Map::StackTraceMap(data) => data,
        _ => return None,
    };
    Some(data.fd().as_fd().as_raw_fd())
}

/// The first two numbers of a kernel's release.
fn version(release: &str) -> (u32, u32) {
    let mut numbers = release
        .split(|c: char| !c.is_ascii_digit())
        .map(|digits| digits.parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_are_compared_by_number() {
        assert_eq!(version("6.18.44-fc"), (6, 18));
        assert!(version("6.9.1") < FOR_PROCESSES);
        assert!(version("7.2.0-rc1") >= FOR_PROCESSES);
        assert_eq!(version("x"), (0, 0));
    }
}
