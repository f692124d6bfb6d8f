//! SIGTERM and SIGINT: the first asks a process to end, the second ends it.

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;

use super::{Failure, told};
use crate::error::{Error, Result};

/// Tells when the process is asked to end. Clones tell the same.
#[derive(Clone)]
pub struct Stop(watch::Receiver<bool>);

impl Stop {
    /// Ready once the process was asked to end.
    pub async fn asked(mut self) {
        // The sender lives as long as the process.
        let _ = self.0.wait_for(|asked| *asked).await;
    }

    /// Does something of which nothing is left half-done when it is cut off.
    pub async fn cuts<T>(
        &self,
        work: impl Future<Output = Result<T, Failure>>,
    ) -> Result<T, Failure> {
        tokio::select! {
            done = work => done,
            () = self.clone().asked() => Err(Failure::Interrupted),
        }
    }
}

/// Starts to listen for signals.
///
/// # Errors
/// `permanent` where the system does not allow it.
pub fn stop() -> Result<Stop> {
    let mut terminate = listen(SignalKind::terminate())?;
    let mut interrupt = listen(SignalKind::interrupt())?;
    let (ask, asked) = watch::channel(false);
    tokio::spawn(async move {
        next(&mut terminate, &mut interrupt).await;
        let _ = ask.send(true);
        next(&mut terminate, &mut interrupt).await;
        told("interrupted again: ending at once\n");
        std::process::exit(130);
    });
    Ok(Stop(asked))
}

async fn next(terminate: &mut Signal, interrupt: &mut Signal) {
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
}

fn listen(kind: SignalKind) -> Result<Signal> {
    signal(kind).map_err(|cause| {
        Error::permanent("listen for signals", "the system does not allow it").caused_by(cause)
    })
}
