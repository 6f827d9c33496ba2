//! Reading other processes: names and mappings; and the kernel's symbols. Everything read is bounded and checked.

pub mod kallsyms;
pub mod maps;
pub mod names;
pub mod symbols;
