//! Recordings for other tools.

pub mod csv;
pub mod folded;
pub mod goroutines;
pub mod parquet;
pub mod perfetto;
pub mod pprof;
mod profile;

pub use self::folded::Folded;
