//! Reading other processes: names and mappings. Everything read is bounded and checked.

pub mod maps;
pub mod names;
