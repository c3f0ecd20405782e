//! Signals: the first one asks the running stage to save its work and stop, another one ends the program at once.

use std::{
    sync::OnceLock,
    time::{Duration, Instant},
};

use tokio::runtime::{Builder, Runtime};

use super::messages::say;

/// The exit status that shells report for a program that Ctrl-C ended.
pub(crate) const EXIT_INTERRUPTED: u8 = 130;

/// Two signals within this time are one request: `timeout` and job schedulers signal a program and then its group.
const ONE_REQUEST: Duration = Duration::from_secs(1);
/// The same for Ctrl-C, which a user may well press twice in a second.
const ONE_KEY_PRESS: Duration = Duration::from_millis(100);

/// The time of the first signal that asked the program to end.
static FIRST: OnceLock<Instant> = OnceLock::new();

/// True if Ctrl-C was pressed or the system asked the program to end.
pub(crate) fn interrupted() -> bool {
    FIRST.get().is_some()
}

/// Watches for signals while the runtime exists: Ctrl-C; SIGTERM, with which SLURM, Kubernetes and systemd ask a
/// program to end; SIGHUP, which a closed terminal sends.
///
/// # Errors
/// If the system starts no thread.
pub(crate) fn watch() -> std::io::Result<Runtime> {
    let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    #[cfg(not(unix))]
    runtime.spawn(async {
        while tokio::signal::ctrl_c().await.is_ok() {
            stop(ONE_KEY_PRESS);
        }
    });
    #[cfg(unix)]
    {
        use tokio::signal::unix::SignalKind;
        /// SIGXFSZ, on Linux and macOS: a limit on the size of files (`ulimit -f`) would end the program. Ignored, the
        /// write fails instead, and its error names the file.
        const FILE_SIZE: i32 = 25;
        on_each(&runtime, SignalKind::interrupt(), || stop(ONE_KEY_PRESS))?;
        on_each(&runtime, SignalKind::terminate(), || stop(ONE_REQUEST))?;
        on_each(&runtime, SignalKind::hangup(), || stop(ONE_REQUEST))?;
        on_each(&runtime, SignalKind::from_raw(FILE_SIZE), || {})?;
    }
    Ok(runtime)
}

/// Reacts to every signal of a kind, from now on: until then it ends the program without a word.
#[cfg(unix)]
fn on_each(runtime: &Runtime, kind: tokio::signal::unix::SignalKind, react: fn()) -> std::io::Result<()> {
    let _inside = runtime.enter();
    let mut signal = tokio::signal::unix::signal(kind)?;
    runtime.spawn(async move {
        while signal.recv().await.is_some() {
            react();
        }
    });
    Ok(())
}

/// Asks running stages to stop at the first signal; leaves at one that comes later than `one_request` after it.
fn stop(one_request: Duration) {
    match FIRST.set(Instant::now()) {
        Ok(()) => say("stopping: saving progress (Ctrl-C again to quit now)"),
        Err(now) if FIRST.get().is_some_and(|first| now.duration_since(*first) > one_request) => {
            std::process::exit(i32::from(EXIT_INTERRUPTED))
        }
        Err(_) => {}
    }
}
