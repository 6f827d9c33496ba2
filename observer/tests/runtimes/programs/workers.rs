//! A program with tokio: one worker that a task blocks, and innocents that look like it.
//!
//! `workers blocked` or `workers innocent`.

use std::{
    io::{self, Write as _},
    thread,
    time::Duration,
};

const LONG: Duration = Duration::from_hours(1);

/// Sleeps though a task runs it.
#[inline(never)]
fn fetch_synchronously() {
    thread::sleep(LONG);
}

async fn handler() {
    tokio::task::yield_now().await;
    fetch_synchronously();
}

fn main() -> io::Result<()> {
    let mode = std::env::args().nth(1).unwrap_or_default();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(4)
        .enable_all()
        .build()?;
    runtime.spawn_blocking(|| thread::sleep(LONG));
    runtime.spawn(async { tokio::time::sleep(LONG).await });
    // The other tasks of this worker go to another thread first.
    runtime.spawn(async { tokio::task::block_in_place(|| thread::sleep(LONG)) });
    if mode == "blocked" {
        runtime.spawn(handler());
    }
    println!("ready");
    io::stdout().flush()?;
    runtime.block_on(async { tokio::time::sleep(LONG).await });
    Ok(())
}
