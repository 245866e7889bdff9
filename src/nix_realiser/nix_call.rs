//! One nix process: its arguments, its progress, its end.

use std::ffi::{OsStr, OsString};
use std::io::{self, BufRead, BufReader, Read};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};

use super::build_log::BuildLog;
use super::cancel::Cancel;
use super::error::RealiseError;
use super::request::Progress;
use crate::foundation::process;
use crate::foundation::supervise::{Leftovers, Supervisor};

/// What is kept of one line of nix, in bytes.
const LINE_LIMIT: usize = 1 << 20;

/// How nix is called.
#[derive(Clone, Debug)]
pub(super) struct Nix {
    /// The program, a path or a name on `PATH`.
    pub(super) program: PathBuf,
    /// Where it runs.
    pub(super) directory: PathBuf,
    /// Passed on to every call.
    pub(super) extra_args: Vec<String>,
    /// Fetch nothing.
    pub(super) offline: bool,
    /// Variables beyond the inherited ones.
    pub(super) variables: Vec<(OsString, OsString)>,
}

/// How a call ended.
#[derive(Debug)]
pub(super) struct Outcome {
    /// Whether nix said all is well.
    pub(super) status: ExitStatus,
    /// What it printed.
    pub(super) stdout: Vec<u8>,
    /// What it told.
    pub(super) log: BuildLog,
}

enum Said {
    Line(String),
    Stdout(io::Result<Vec<u8>>),
}

impl Nix {
    /// Runs `nix <subcommand> …` in a process group of its own, to its end.
    ///
    /// # Errors
    /// nix can't be started, or somebody cancelled. That nix fails is no error here.
    pub(super) fn run(
        &self,
        subcommand: &str,
        args: &[OsString],
        progress: &mut dyn FnMut(Progress),
        cancel: &Cancel,
    ) -> Result<Outcome, RealiseError> {
        let mut command = Command::new(&self.program);
        command.args(["--extra-experimental-features", "nix-command flakes", subcommand]).args(args);
        command.current_dir(&self.directory).envs(self.variables.iter().map(|(name, value)| (name, value)));
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
        if cancel.is_cancelled() {
            return Err(RealiseError::Cancelled);
        }
        let child = process::spawn_with(command, Vec::new(), process::DeathSignal::Terminate)
            .map_err(|source| self.start_error(source))?;
        self.supervise(child, progress, cancel)
    }

    fn supervise(
        &self,
        mut child: Child,
        progress: &mut dyn FnMut(Progress),
        cancel: &Cancel,
    ) -> Result<Outcome, RealiseError> {
        let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
        let mut supervisor = Supervisor::new(child);
        let listening = cancel.listen(Box::new(supervisor.canceller()));
        if let Some(mut stdout) = stdout {
            supervisor.read(move |say| {
                let mut bytes = Vec::new();
                let result = stdout.read_to_end(&mut bytes).map(|_| bytes);
                say(Said::Stdout(result));
            });
        }
        if let Some(stderr) = stderr {
            supervisor.read(move |say| {
                let mut reader = BufReader::new(stderr);
                // A pipe that breaks has said all it will; the exit status tells whether that was well.
                while let Ok(Some(line)) = read_line(&mut reader)
                    && say(Said::Line(line))
                {}
            });
        }
        let (mut log, mut stdout) = (BuildLog::default(), None);
        // What a builder leaves behind is the daemon's, or none of our business.
        let (mut child, cancelled) = supervisor.run(Leftovers::Leave, &mut |said| match said {
            Said::Line(line) => {
                if let Some(shown) = log.take(&line) {
                    progress(shown);
                }
            }
            Said::Stdout(bytes) => stdout = Some(bytes),
        });
        drop(listening);
        let status = child.wait().map_err(|source| self.start_error(source))?;
        if cancelled {
            return Err(RealiseError::Cancelled);
        }
        let stdout = stdout.unwrap_or_else(|| Ok(Vec::new())).map_err(|source| self.start_error(source))?;
        Ok(Outcome { status, stdout, log })
    }

    fn start_error(&self, source: io::Error) -> RealiseError {
        let program = self.program.clone();
        // A missing working directory gives the same error as a missing program.
        if source.kind() == io::ErrorKind::NotFound && self.directory.is_dir() {
            RealiseError::NotInstalled { program, asked_by: Vec::new() }
        } else {
            RealiseError::Start { program, directory: self.directory.clone(), source }
        }
    }
}

/// One line without its end, at most `LINE_LIMIT` bytes of it; `None` at the end.
fn read_line(reader: &mut impl BufRead) -> io::Result<Option<String>> {
    let mut line = Vec::new();
    loop {
        let available = reader.fill_buf()?;
        if available.is_empty() {
            return Ok((!line.is_empty()).then(|| String::from_utf8_lossy(&line).into_owned()));
        }
        let end = available.iter().position(|byte| *byte == b'\n');
        let taken = end.unwrap_or(available.len());
        let room = LINE_LIMIT.saturating_sub(line.len());
        line.extend_from_slice(&available[..taken.min(room)]);
        reader.consume(end.map_or(taken, |end| end + 1));
        if end.is_some() {
            return Ok(Some(String::from_utf8_lossy(&line).into_owned()));
        }
    }
}

/// Arguments from text and paths.
pub(super) fn arguments<const N: usize>(args: [&dyn AsRef<OsStr>; N]) -> Vec<OsString> {
    args.into_iter().map(|arg| arg.as_ref().to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_lines_of_any_length() {
        let mut text = "a\n\n".to_owned();
        text.push_str(&"x".repeat(LINE_LIMIT + 10));
        text.push_str("\nlast");
        let mut reader = BufReader::with_capacity(100, text.as_bytes());
        let mut lengths = Vec::new();
        while let Some(line) = read_line(&mut reader).unwrap() {
            lengths.push(line.len());
        }
        assert_eq!(lengths, [1, 0, LINE_LIMIT, 4]);
    }

    fn shell(script: &str, cancel: &Cancel, progress: &mut dyn FnMut(Progress)) -> Result<Outcome, RealiseError> {
        let top = tempfile::tempdir().unwrap();
        let program = top.path().join("nix");
        std::fs::write(&program, format!("#!/bin/sh\n{script}\n")).unwrap();
        // Run through the shell: another test's fork may hold a just written file open for writing.
        let nix = Nix {
            program: "/bin/sh".into(),
            directory: top.path().to_owned(),
            extra_args: Vec::new(),
            offline: false,
            variables: Vec::new(),
        };
        let mut command = Command::new(&nix.program);
        command.arg(&program).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
        let child = process::spawn(command, Vec::new()).unwrap();
        nix.supervise(child, progress, cancel)
    }

    const BUILDING: &str =
        r#"echo '@nix {"action":"start","fields":["/x.drv"],"id":1,"level":3,"text":"","type":105}' >&2"#;

    #[test]
    fn cancels_a_group() {
        let cancel = Cancel::new();
        let handle = cancel.clone();
        let mut seen = Vec::new();
        let result = shell(&format!("{BUILDING}; sleep 1000 & wait"), &cancel, &mut |progress| {
            seen.push(progress);
            handle.cancel();
        });
        assert!(matches!(result, Err(RealiseError::Cancelled)));
        assert_eq!(seen, [Progress::Building { derivation: "/x.drv".to_owned() }]);
    }

    #[test]
    fn does_not_wait_for_what_nix_left_behind() {
        let outcome = shell("sleep 5 & echo out; exit 3", &Cancel::new(), &mut |_| ()).unwrap();
        assert_eq!(outcome.status.code(), Some(3));
    }
}
