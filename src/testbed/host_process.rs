//! Programs of this host that a test starts (`os.execute`, `io.popen`), and their end with the test.
//!
//! Each shell leads a process group of its own and carries a mark in its environment. At the end everything in one of the
//! groups or with the mark is killed, so that what the shell left in the background is found as well, also where it went into
//! a session of its own. A leader is collected only once its group is empty: its number is not used again before.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::io::{self, ErrorKind};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::net::unix::pipe;
use tokio::sync::watch;

use crate::foundation::process;

/// The variable that marks a process, with the number of its scope.
const MARK: &str = "PROVIUM_HOST_SCOPE";
/// How much unread output of one program is kept, in bytes; more is dropped.
const KEPT: usize = 1024 * 1024;
/// How long after a program's end its output may take to come to its own.
const LAST_WORDS: Duration = Duration::from_millis(100);
/// How long killed processes may take to vanish.
const VANISH: Duration = Duration::from_secs(5);

/// The programs that one test (or file) started; clones share them.
#[derive(Clone)]
pub struct HostProcesses {
    shared: Arc<Shared>,
}

struct Shared {
    mark: String,
    started: Mutex<Vec<Arc<Started>>>,
}

struct Started {
    group: i32,
    log: Log,
    /// The leader, as long as its number must not be used again.
    leader: Mutex<Option<Child>>,
    exit: watch::Sender<Option<ExitStatus>>,
}

/// What a program writes into the test's log.
#[derive(Clone)]
struct Log {
    kept: Arc<Mutex<Vec<u8>>>,
    ended: watch::Receiver<bool>,
}

/// Which end of a program the caller holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pipe {
    /// None: its output goes into the log.
    None,
    /// Its standard output.
    Output,
    /// Its standard input.
    Input,
}

/// A started program. Dropping it kills its group unless it has ended or is let go.
pub struct HostProcess {
    started: Arc<Started>,
    kill_on_drop: bool,
}

/// The caller's end of a pipe.
pub enum PipeEnd {
    /// Of a program's standard output.
    Output(pipe::Receiver),
    /// Of a program's standard input.
    Input(pipe::Sender),
}

impl Default for HostProcesses {
    fn default() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let mark = format!("{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        Self { shared: Arc::new(Shared { mark, started: Mutex::default() }) }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl HostProcesses {
    /// Starts `/bin/sh -c line`. What it writes and the caller does not hold is for the log. Needs the runtime around it.
    ///
    /// # Errors
    /// Those of starting a program.
    pub fn shell(&self, line: &[u8], held: Pipe) -> io::Result<(HostProcess, Option<PipeEnd>)> {
        let (log_reader, log_writer) = io::pipe()?;
        let mut command = Command::new("/bin/sh");
        command.arg("-c").arg(OsStr::from_bytes(line)).env(MARK, &self.shared.mark).process_group(0);
        command.stdin(Stdio::null()).stderr(log_writer.try_clone()?);
        let mut end = None;
        match held {
            Pipe::None => {
                command.stdout(log_writer);
            }
            Pipe::Output => {
                let (reader, writer) = io::pipe()?;
                command.stdout(writer);
                end = Some(PipeEnd::Output(pipe::Receiver::from_owned_fd(OwnedFd::from(reader))?));
            }
            Pipe::Input => {
                let (reader, writer) = io::pipe()?;
                command.stdin(reader).stdout(log_writer);
                end = Some(PipeEnd::Input(pipe::Sender::from_owned_fd(OwnedFd::from(writer))?));
            }
        }
        let log = follow(pipe::Receiver::from_owned_fd(OwnedFd::from(log_reader))?);
        // The command holds our copies of the child's ends: it is gone when `spawn` returns.
        let child = process::spawn(command, Vec::new())?;
        let group = i32::try_from(child.id()).map_err(io::Error::other)?;
        let exit = watch::Sender::new(None);
        let started = Arc::new(Started { group, log, leader: Mutex::new(Some(child)), exit });
        lock(&self.shared.started).push(Arc::clone(&started));
        let watched = Arc::clone(&started);
        std::thread::Builder::new().name("host-process".to_owned()).spawn(move || watched.watch())?;
        Ok((HostProcess { started, kill_on_drop: true }, end))
    }

    /// Kills all that is left of them, and gives what they wrote and nobody collected.
    pub async fn end(&self) -> Vec<u8> {
        let started = std::mem::take(&mut *lock(&self.shared.started));
        if started.is_empty() {
            return Vec::new();
        }
        let mark = format!("{MARK}={}", self.shared.mark);
        let groups: BTreeSet<i32> =
            started.iter().filter(|each| lock(&each.leader).is_some()).map(|each| each.group).collect();
        let deadline = Instant::now() + VANISH;
        // A process may fork while it is looked for: again until nothing is found.
        loop {
            let (groups, mark) = (groups.clone(), mark.clone());
            let found = tokio::task::spawn_blocking(move || kill_all(&groups, mark.as_bytes())).await.unwrap_or(0);
            if found == 0 || Instant::now() > deadline {
                break;
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        let mut words = Vec::new();
        for each in started {
            each.log.settle().await;
            words.append(&mut lock(&each.log.kept));
            if let Some(mut leader) = lock(&each.leader).take() {
                let _ = leader.wait(); // Killed: it is there already.
            }
        }
        words
    }
}

impl Started {
    /// Waits for the leader's end; collects it where nothing else is left in its group.
    fn watch(&self) {
        let status = process::wait_unreaped(self.group.unsigned_abs());
        let mut leader = lock(&self.leader);
        if let (Ok(status), Some(child)) = (&status, leader.as_mut()) {
            let alone = others_in(self.group) == 0;
            if alone {
                let _ = child.wait();
                *leader = None;
            }
            drop(leader);
            self.exit.send_replace(Some(*status));
        } else {
            drop(leader);
            self.exit.send_replace(Some(ExitStatus::from_raw(0)));
        }
    }
}

impl HostProcess {
    /// Waits for the shell's own end, then for what it wrote: the status, and the log's part.
    pub async fn wait(&mut self) -> (ExitStatus, Vec<u8>) {
        let mut exit = self.started.exit.subscribe();
        let status = match exit.wait_for(Option::is_some).await {
            Ok(status) => status.unwrap_or_default(),
            Err(_) => ExitStatus::default(),
        };
        self.kill_on_drop = false;
        self.started.log.settle().await;
        let words = std::mem::take(&mut *lock(&self.started.log.kept));
        (status, words)
    }

    /// Leaves it to the end of its scope.
    pub fn let_go(&mut self) {
        self.kill_on_drop = false;
    }
}

impl Drop for HostProcess {
    fn drop(&mut self) {
        if self.kill_on_drop && lock(&self.started.leader).is_some() {
            // SAFETY: the leader is not collected, so the group's number is still its own.
            unsafe { libc::kill(-self.started.group, libc::SIGKILL) };
        }
    }
}

impl Log {
    /// Waits a moment for the end of the output; a process in the background may hold it open.
    async fn settle(&self) {
        let mut ended = self.ended.clone();
        let _ = tokio::time::timeout(LAST_WORDS, ended.wait_for(|ended| *ended)).await;
    }
}

/// Reads until every writer is gone.
fn follow(reader: pipe::Receiver) -> Log {
    let kept = Arc::new(Mutex::new(Vec::new()));
    let (tell, ended) = watch::channel(false);
    let target = Arc::clone(&kept);
    tokio::spawn(async move {
        let mut buffer = vec![0; 8192];
        while reader.readable().await.is_ok() {
            match reader.try_read(&mut buffer) {
                Ok(0) => break,
                Ok(count) => {
                    let mut kept = lock(&target);
                    let room = KEPT.saturating_sub(kept.len()).min(count);
                    kept.extend_from_slice(&buffer[..room]);
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(_) => break,
            }
        }
        tell.send_replace(true);
    });
    Log { kept, ended }
}

/// A process, its group, and whether it still runs.
struct Entry {
    pid: i32,
    group: i32,
    runs: bool,
}

fn processes() -> impl Iterator<Item = Entry> {
    fs::read_dir("/proc").into_iter().flatten().flatten().filter_map(|entry| {
        let pid: i32 = entry.file_name().to_str()?.parse().ok()?;
        let stat = fs::read_to_string(entry.path().join("stat")).ok()?;
        // The name in parentheses may hold anything; state, parent and group follow the last one.
        let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
        let runs = !matches!(fields.next()?, "Z" | "X");
        let group = fields.nth(1)?.parse().ok()?;
        Some(Entry { pid, group, runs })
    })
}

fn others_in(group: i32) -> usize {
    processes().filter(|entry| entry.group == group && entry.pid != group).count()
}

/// Kills what is in one of `groups` or has `mark` in its environment; how many there were.
fn kill_all(groups: &BTreeSet<i32>, mark: &[u8]) -> usize {
    let marked = |pid: i32| {
        let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        environment.split(|byte| *byte == 0).any(|variable| variable == mark)
    };
    let found = processes().filter(|entry| entry.runs && (groups.contains(&entry.group) || marked(entry.pid)));
    found
        .inspect(|entry| {
            // SAFETY: a signal to a process that was one of ours a moment ago.
            unsafe { libc::kill(entry.pid, libc::SIGKILL) };
        })
        .count()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run<T>(future: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap().block_on(future)
    }

    fn lives(pid: &str) -> bool {
        let stat = fs::read_to_string(format!("/proc/{}/stat", pid.trim())).unwrap_or_default();
        stat.rsplit_once(')').is_some_and(|(_, rest)| !rest.trim_start().starts_with('Z'))
    }

    #[test]
    fn status_and_words() {
        run(async {
            let all = HostProcesses::default();
            let (mut process, _) = all.shell(b"echo out; echo err >&2; exit 3", Pipe::None).unwrap();
            let (status, words) = process.wait().await;
            assert_eq!((status.code(), words.as_slice()), (Some(3), b"out\nerr\n".as_slice()));
            let (mut process, _) = all.shell(b"kill -9 $$", Pipe::None).unwrap();
            assert_eq!(process.wait().await.0.signal(), Some(9));
            assert_eq!(all.end().await, b"");
        });
    }

    #[test]
    fn what_was_left_in_the_background_ends_with_the_scope() {
        run(async {
            let all = HostProcesses::default();
            let line = b"sleep 1000 & echo $!; setsid sleep 1000 & echo $!; env -i sleep 1000 & echo $!";
            let (mut process, _) = all.shell(line, Pipe::None).unwrap();
            let (status, words) = process.wait().await;
            assert!(status.success());
            let words = String::from_utf8(words).unwrap();
            let pids: Vec<&str> = words.lines().collect();
            assert_eq!(pids.len(), 3);
            assert!(pids.iter().all(|pid| lives(pid)), "{pids:?}");
            drop(process);
            assert!(pids.iter().all(|pid| lives(pid)), "they live on until the scope ends");
            all.end().await;
            assert!(pids.iter().all(|pid| !lives(pid)), "{pids:?}");
        });
    }

    #[test]
    fn a_program_that_is_given_up_is_killed() {
        run(async {
            let all = HostProcesses::default();
            let (process, end) = all.shell(b"echo $$; sleep 1000; true", Pipe::Output).unwrap();
            let Some(PipeEnd::Output(output)) = end else { unreachable!("its output is held") };
            output.readable().await.unwrap();
            let mut pid = [0; 16];
            let count = output.try_read(&mut pid).unwrap();
            drop(process);
            let mut exit = lock(&all.shared.started)[0].exit.subscribe();
            assert_eq!(exit.wait_for(Option::is_some).await.unwrap().unwrap().signal(), Some(9));
            assert!(count > 1);
            all.end().await;
        });
    }
}
