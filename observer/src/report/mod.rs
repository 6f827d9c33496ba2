//! Events and the model, written down.

pub mod answer;
pub mod diff;
pub mod document;
pub mod dump;
pub mod export;
pub mod gather;
pub mod goroutines;
pub mod html;
pub mod incident;
pub mod json;
pub mod object;
pub mod scene;
mod staged;
pub mod text;
