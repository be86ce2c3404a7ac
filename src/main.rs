//! The `rollcall` program: everything it does is in [`rollcall::cli`].

use std::process::ExitCode;

fn main() -> ExitCode {
    rollcall::cli::main()
}
