//! Programs that do nothing, on the hooks of [`crate::sched`]: what any program there costs at least.
//! Only the benchmark loads them.

use aya_ebpf::{macros::btf_tracepoint, programs::BtfTracePointContext};

#[btf_tracepoint(function = "sched_switch")]
pub(crate) fn empty_switch(_: BtfTracePointContext) -> i32 {
    0
}

#[btf_tracepoint(function = "sched_waking")]
pub(crate) fn empty_waking(_: BtfTracePointContext) -> i32 {
    0
}
