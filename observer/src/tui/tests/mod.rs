//! The screen as a user meets it: keys in, text out.

mod choosing;
mod details;
mod drawing;
mod large;
mod moving;
mod options;
mod scenes;
