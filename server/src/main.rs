//! `berth`: the program.

use std::process::ExitCode;

/// Gives back what closed mailboxes leave free, which the system's allocator keeps; also that of SQLite. Its settings: `.cargo/config.toml`.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    server::tls::install_provider();
    server::command::run(std::env::args_os())
}
