//! Stacks in events.

use std::{fmt, sync::Arc};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Addr;

/// One frame of a stack.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Frame {
    /// Address of the instruction.
    pub addr: Addr,
    /// Function.
    #[serde(
        skip_serializing_if = "Option::is_none",
        deserialize_with = "crate::de::some_text",
        default
    )]
    pub name: Option<Arc<str>>,
    /// Distance from the function's start.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub offset: Option<u64>,
    /// File of the program or library.
    #[serde(
        skip_serializing_if = "Option::is_none",
        deserialize_with = "crate::de::some_text",
        default
    )]
    pub module: Option<Arc<str>>,
    /// Source file.
    #[serde(
        skip_serializing_if = "Option::is_none",
        deserialize_with = "crate::de::some_text",
        default
    )]
    pub file: Option<Arc<str>>,
    /// Line in it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub line: Option<u32>,
    /// The compiler put the function into its caller, which is the next frame and has the same address.
    #[serde(skip_serializing_if = "is_false", default)]
    pub inlined: bool,
    /// Found by looking for a return address on the stack: frames between this one and the one before are
    /// missing, and it may be a trace of an earlier call.
    #[serde(skip_serializing_if = "is_false", default)]
    pub scanned: bool,
}

/// Where a task sleeps, innermost frames first.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Stack {
    /// User code. Without `end` it was walked by frame pointers: frames of code that keeps none are missing.
    #[serde(skip_serializing_if = "no_frames", default = "empty_frames")]
    pub user: Arc<[Frame]>,
    /// Kernel code.
    #[serde(skip_serializing_if = "no_frames", default = "empty_frames")]
    pub kernel: Arc<[Frame]>,
    /// How the user stack ended, where it was unwound by the program's tables.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub end: Option<StackEnd>,
}

super::named! {
    /// How the unwinding of a user stack ended.
    StackEnd {
        /// At the thread's first function: the stack is whole.
        Root = "root",
        /// In code without unwind information.
        NoUnwindInfo = "no_unwind_info",
        /// In code whose unwind information makes no sense.
        BadUnwindInfo = "bad_unwind_info",
        /// A frame is found by a register whose value is not known.
        UnknownRegister = "unknown_register",
        /// The stack, or a part of it, cannot be read.
        UnreadableMemory = "unreadable_memory",
        /// What should be a return address is not in code.
        NotCode = "not_code",
        /// A frame lies further in than the one it was called from.
        Loop = "loop",
        /// There are more frames than observer follows.
        TooDeep = "too_deep",
        /// The thread ran meanwhile, each time observer tried.
        Torn = "torn",
        /// The thread runs, or is about to: it is not blocked.
        Running = "running",
    }
}

impl StackEnd {
    /// In words, to follow "the stack ends: ".
    pub fn words(self) -> &'static str {
        match self {
            StackEnd::Root => "at the thread's first function",
            StackEnd::NoUnwindInfo => "code without unwind information",
            StackEnd::BadUnwindInfo => "unwind information that makes no sense",
            StackEnd::UnknownRegister => "a register whose value is not known is needed",
            StackEnd::UnreadableMemory => "the stack cannot be read",
            StackEnd::NotCode => "a return address that is not in code",
            StackEnd::Loop => "frames that do not lead outwards",
            StackEnd::TooDeep => "too many frames",
            StackEnd::Torn => "the thread ran meanwhile",
            StackEnd::Running => "the thread is running",
        }
    }
}

impl fmt::Display for StackEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.words())
    }
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde passes a reference"
)]
fn is_false(value: &bool) -> bool {
    !value
}

fn no_frames(frames: &Arc<[Frame]>) -> bool {
    frames.is_empty()
}

fn empty_frames() -> Arc<[Frame]> {
    Arc::new([])
}
