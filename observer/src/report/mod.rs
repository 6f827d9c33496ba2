//! Events and the model, written down.

pub mod json;
pub mod text;
