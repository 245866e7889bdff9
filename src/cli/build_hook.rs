//! A profile's `build` command: run in a group of its own, heard line by line, and ended with the run.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{ChildStdout, Command, ExitStatus, Stdio};

use crate::foundation::group_guard::GroupGuard;
use crate::foundation::path_error::describe_io;
use crate::foundation::process;
use crate::foundation::supervise::{Leftovers, Supervisor};
use crate::nix_realiser::Cancel;

/// How much of a failed command's output an error shows, in lines.
const SHOWN_LINES: usize = 40;
/// A longer line is cut in pieces, in bytes.
const LONGEST_LINE: u64 = 64 * 1024;
/// What the shell does first: waits until the group is watched over. Should this process end before, so does the shell.
const AFTER_GUARD: &str = "read -r go || exit 1; exec </dev/null 2>&1; ";

/// Runs `line` in the shell, in `directory`, with `{out}` replaced by `out`; `told` hears both of its outputs. What it
/// leaves running in its process group ends with it: the build is over then.
///
/// # Errors
/// It can't be started, fails, or somebody cancelled: how, and the last lines it said.
pub fn run(
    line: &str,
    directory: &Path,
    out: &Path,
    told: &mut dyn FnMut(&str),
    cancel: &Cancel,
) -> Result<(), String> {
    let mut command = Command::new("/bin/sh");
    command
        .arg("-c")
        .arg(format!("{AFTER_GUARD}{}", line.replace("{out}", &out.to_string_lossy())))
        .current_dir(directory)
        .env("out", out)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .process_group(0);
    let failed = |error: std::io::Error| describe_io(&error);
    let mut child = process::spawn(command, Vec::new()).map_err(failed)?;
    let guard = GroupGuard::watch(child.id())
        .and_then(|guard| child.stdin.take().map_or(Ok(()), |mut go| go.write_all(b"go\n")).map(|()| guard));
    let output = child.stdout.take();
    let mut supervisor = Supervisor::new(child);
    let listening = cancel.listen(Box::new(supervisor.canceller()));
    if let Some(output) = output {
        supervisor.read(move |say| read_lines(output, say));
    }
    let mut last = VecDeque::new();
    let (mut child, was_cancelled) = supervisor.run(Leftovers::Kill, &mut |line: String| {
        told(&line);
        last.truncate(SHOWN_LINES - 1);
        last.push_front(line);
    });
    drop(listening);
    // Not before the group has ended.
    let guarded = guard.map(drop).map_err(failed);
    let status = child.wait().map_err(failed)?;
    guarded?;
    match (was_cancelled, status.success()) {
        (true, _) => Err("interrupted".to_owned()),
        (false, true) => Ok(()),
        (false, false) => {
            let lines: String = last.iter().rev().map(|line| format!("\n  | {line}")).collect();
            Err(format!("{}{lines}", describe(status)))
        }
    }
}

fn describe(status: ExitStatus) -> String {
    match (status.code(), std::os::unix::process::ExitStatusExt::signal(&status)) {
        (Some(code), _) => format!("failed with exit code {code}"),
        (None, Some(signal)) => format!("ended by signal {signal}"),
        (None, None) => "failed".to_owned(),
    }
}

fn read_lines(output: ChildStdout, say: &mut dyn FnMut(String) -> bool) {
    let mut reader = BufReader::new(output);
    let mut line = Vec::new();
    // A pipe that breaks has said all it will; the exit status tells whether that was well.
    while matches!(reader.by_ref().take(LONGEST_LINE).read_until(b'\n', &mut line), Ok(1..)) {
        let text = String::from_utf8_lossy(line.trim_ascii_end()).into_owned();
        line.clear();
        if !say(text) {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hook(line: &str, cancel: &Cancel) -> (Result<(), String>, Vec<String>) {
        let dir = tempfile::tempdir().unwrap();
        let mut lines = Vec::new();
        let result = run(line, dir.path(), Path::new("/out dir"), &mut |line| lines.push(line.to_owned()), cancel);
        (result, lines)
    }

    #[test]
    fn both_outputs_are_heard_and_a_failure_shows_the_last_lines() {
        let (result, lines) = hook("echo '{out}'; echo \"$out\" >&2; printf last", &Cancel::new());
        assert_eq!(result, Ok(()));
        assert_eq!(lines, ["/out dir", "/out dir", "last"]);
        let (result, _) = hook("i=0; while [ $i -lt 50 ]; do echo line $i; i=$((i+1)); done; exit 7", &Cancel::new());
        let text = result.unwrap_err();
        assert!(text.starts_with("failed with exit code 7\n  | line 10\n"), "{text}");
        assert!(text.ends_with("\n  | line 49"), "{text}");
        assert_eq!(hook("kill -9 $$", &Cancel::new()).0, Err("ended by signal 9".to_owned()));
    }

    #[test]
    fn what_it_leaves_running_ends_with_it() {
        let (result, lines) = hook("sleep 1000 & echo $!", &Cancel::new());
        assert_eq!(result, Ok(()));
        // Killed before the hook was over; it may still be on its way out.
        process::wait_for_end_of(&lines[0]);
    }

    #[test]
    fn cancelling_ends_it() {
        let cancel = Cancel::new();
        let handle = cancel.clone();
        let dir = tempfile::tempdir().unwrap();
        let mut told = |_: &str| handle.cancel();
        let result = run("echo up; sleep 1000", dir.path(), dir.path(), &mut told, &cancel);
        assert_eq!(result, Err("interrupted".to_owned()));
    }
}
