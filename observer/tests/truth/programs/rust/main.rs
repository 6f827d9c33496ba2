//! Scenes of Rust's locks, and of `parking_lot`'s: what truth.h describes, in Rust.

mod crossed;
mod held;
mod idle;
mod truth;

use truth::Truth;

fn main() {
    truth::end_with_parent();
    let name = std::env::args().nth(1).unwrap_or_default();
    let mut truth = Truth::default();
    match name.as_str() {
        "rust_mutex" => held::mutex(&mut truth),
        "rust_arc" => held::arc(&mut truth),
        "rust_local" => held::local(&mut truth),
        "rust_write" => held::write(&mut truth),
        "rust_read" => held::read(&mut truth),
        "rust_once" => held::once(&mut truth),
        "rust_lazy" => held::lazy(&mut truth),
        "rust_join" => held::join(&mut truth),
        "rust_raw_once" => held::raw_in_once(&mut truth),
        "rust_abba" => crossed::mutexes(&mut truth),
        "rust_abba_arc" => crossed::arcs(&mut truth),
        "rust_idle" => idle::std(&mut truth),
        "parking_mutex" => held::parking(&mut truth),
        "parking_idle" => idle::parking(&mut truth),
        other => {
            eprintln!("no such scene: {other}");
            std::process::exit(2);
        }
    }
    truth.stand();
}
