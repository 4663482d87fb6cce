//! `berth`: the program.

use std::process::ExitCode;

fn main() -> ExitCode {
    server::tls::install_provider();
    server::command::run(std::env::args_os())
}
