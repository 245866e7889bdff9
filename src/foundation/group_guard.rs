//! The end of a process group with this process, however that ends.
//!
//! A parent-death signal reaches one process, not what that has started. So a watcher waits for the end of a pipe whose
//! other end only this process holds.

use std::io;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};

/// Waits for the end of its input; then asks the group `$0` to end, and ends it half a second later.
const WATCH: &str = "read -r _; kill -s TERM -- -$0; sleep 0.5; kill -s KILL -- -$0";

/// While this lives, the group ends with this process.
#[derive(Debug)]
pub struct GroupGuard {
    watcher: Child,
}

impl GroupGuard {
    /// Watches over `group`, whose leader must not be reaped before this is dropped: until then the number is nobody
    /// else's.
    ///
    /// # Errors
    /// No process, pipe or shell to be had.
    pub fn watch(group: u32) -> io::Result<Self> {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", WATCH, &group.to_string()]);
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        // A group of its own: what a terminal sends to this one must not end the watcher.
        let watcher = command.process_group(0).spawn()?;
        Ok(Self { watcher })
    }
}

impl Drop for GroupGuard {
    fn drop(&mut self) {
        // Killed before its pipe closes. It fails only where the watcher has ended, which is what is wanted.
        let _ = self.watcher.kill();
        let _ = self.watcher.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{BufRead, BufReader, Read};

    const CHILD: &str = "PROVIUM_TEST_GROUP_GUARD";

    /// Not a test of its own: the process that the next one kills. Starts a group, and tells its grandchild's number.
    #[test]
    fn child() {
        if std::env::var_os(CHILD).is_none() {
            return;
        }
        let mut command = Command::new("/bin/sh");
        command.args(["-c", "read -r go; sleep 1000 & echo sleeper $!; wait"]);
        let mut leader = command.stdin(Stdio::piped()).process_group(0).spawn().unwrap();
        let _guard = GroupGuard::watch(leader.id()).unwrap();
        io::Write::write_all(leader.stdin.as_mut().unwrap(), b"go\n").unwrap();
        leader.wait().unwrap();
    }

    #[test]
    fn a_killed_process_takes_the_group_along() {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "foundation::group_guard::tests::child", "--nocapture"]).env(CHILD, "1");
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut output = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        while !line.contains("sleeper") {
            line.clear();
            assert!(output.read_line(&mut line).unwrap() > 0, "no word of the sleeper");
        }
        let sleeper = line.split("sleeper ").nth(1).unwrap().trim();
        child.kill().unwrap();
        child.wait().unwrap();
        // The sleeper holds this pipe too: its end is the sleeper's.
        output.read_to_end(&mut Vec::new()).unwrap();
        crate::foundation::process::wait_for_end_of(sleeper);
    }

    #[test]
    fn a_group_outlives_a_guard_that_is_dropped() {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", "read -r line; echo $line"]).stdin(Stdio::piped()).stdout(Stdio::piped()).process_group(0);
        let child = command.spawn().unwrap();
        drop(GroupGuard::watch(child.id()).unwrap());
        let mut child = child;
        io::Write::write_all(child.stdin.as_mut().unwrap(), b"alive\n").unwrap();
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.stdout, b"alive\n");
    }
}
