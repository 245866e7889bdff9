//! Ctrl-C and its kin: the first signal cancels the run, so that everything is torn down in order; the second ends
//! the process at once, and its children die with it.

use tokio::signal::unix::{Signal, SignalKind, signal};

use super::error::SchedulerError;
use crate::foundation::cancel::{CancelReason, CancelToken};

/// The exit code of a process that ends at the second signal.
const INTERRUPTED: i32 = 130;

/// Listens to SIGINT, SIGTERM and SIGHUP for the rest of the process's life. At the first, `run` is cancelled and
/// `on_first` is called with the signal's name; at the second the process exits with 130.
///
/// # Errors
/// When the listener can't be set up.
pub fn watch_signals(run: CancelToken, on_first: impl FnOnce(&str) + Send + 'static) -> Result<(), SchedulerError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().map_err(SchedulerError::Signals)?;
    // Registered here and not in the thread: once this returns, no signal is missed.
    let mut signals = {
        let _inside = runtime.enter();
        Signals::new().map_err(SchedulerError::Signals)?
    };
    let listen = move || {
        runtime.block_on(async {
            let name = signals.next().await;
            run.cancel(CancelReason::Interrupted);
            on_first(name);
            signals.next().await;
            std::process::exit(INTERRUPTED);
        });
    };
    std::thread::Builder::new().name("signals".to_owned()).spawn(listen).map_err(SchedulerError::Signals)?;
    Ok(())
}

struct Signals {
    interrupt: Signal,
    terminate: Signal,
    hangup: Signal,
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.interrupt.recv() => "SIGINT",
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.hangup.recv() => "SIGHUP",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::foundation::process;
    use std::io::{BufRead, BufReader, Write};
    use std::process::{Child, Command, Stdio};

    const CHILD: &str = "PROVIUM_TEST_SIGNAL_CHILD";

    /// Not a test of its own: the process that the others signal.
    #[test]
    fn child() {
        if std::env::var_os(CHILD).is_none() {
            return;
        }
        let run = CancelToken::new();
        watch_signals(run.clone(), |name| println!("told {name}")).unwrap();
        println!("ready");
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let reason = runtime.block_on(run.cancelled());
        println!("cancelled: {reason}");
        // Ends at the second signal, or when the parent has gone.
        let _ = std::io::stdin().read_line(&mut String::new());
        std::io::stdout().flush().unwrap();
    }

    fn start() -> (Child, impl Iterator<Item = String>) {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "scheduler::signals::tests::child", "--nocapture"]).env(CHILD, "1");
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = process::spawn(command, Vec::new()).unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
        assert!(lines.any(|line| line.ends_with("ready")));
        (child, lines)
    }

    fn send(child: &Child, signal: i32) {
        // SAFETY: plain system call on a child that was not waited for yet.
        assert_eq!(unsafe { libc::kill(i32::try_from(child.id()).unwrap(), signal) }, 0);
    }

    #[test]
    fn each_signal_cancels_and_the_second_ends_the_process() {
        for (signal, name) in [(libc::SIGINT, "SIGINT"), (libc::SIGTERM, "SIGTERM"), (libc::SIGHUP, "SIGHUP")] {
            let (mut child, mut lines) = start();
            // `wait` would close it, and the child would end by itself.
            let stdin = child.stdin.take();
            send(&child, signal);
            let mut told = [lines.next().unwrap(), lines.next().unwrap()];
            told.sort();
            assert_eq!(told, ["cancelled: interrupted".to_owned(), format!("told {name}")]);
            send(&child, libc::SIGINT);
            assert_eq!(child.wait().unwrap().code(), Some(INTERRUPTED));
            drop(stdin);
        }
    }
}
