//! The `longshore` command: does what was asked for, and says by its exit code how that went.

use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use longshore::cli::{self, Cli};

fn main() -> ExitCode {
    let cli = Cli::parse();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(cause) => return cli::no_runtime(&cause),
    };
    let code = runtime.block_on(Box::pin(cli::run(cli)));
    // What still runs in the background has nothing left to tell.
    runtime.shutdown_timeout(Duration::from_secs(1));
    ExitCode::from(code)
}
