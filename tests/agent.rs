//! The real agent's program on this host, spoken to through a socket: what needs no guest.

#![cfg(feature = "host")]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::os::fd::AsRawFd;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use provium::agent_client::{
    self, AgentClient, AgentError, Program, RunSpec, RunStatus, SyscallRequest, Turn, WorkerEnd,
};

/// Longer than anything here takes: a test that hangs fails.
const LONG: Duration = Duration::from_secs(120);

/// Held by tests that need much memory, or measure it.
static MEMORY: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

/// An agent, killed with the test.
struct Agent {
    process: Child,
    client: AgentClient,
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Agent {
    async fn start() -> Self {
        let (ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
        // SAFETY: fcntl on an open descriptor: the child inherits it.
        unsafe { libc::fcntl(theirs.as_raw_fd(), libc::F_SETFD, 0) };
        let process = Command::new(env!("CARGO_BIN_EXE_provium-agent"))
            .args(["--fd", &theirs.as_raw_fd().to_string()])
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        drop(theirs);
        ours.set_nonblocking(true).unwrap();
        let stream = tokio::net::UnixStream::from_std(ours).unwrap();
        let (client, _) = tokio::time::timeout(LONG, agent_client::connect(stream)).await.unwrap().unwrap();
        Self { process, client }
    }

    fn status(&self, key: &str) -> u64 {
        status_of(self.process.id(), key)
    }

    fn descriptors(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.process.id())).unwrap().count()
    }

    fn children(&self) -> String {
        let id = self.process.id();
        let tasks = std::fs::read_dir(format!("/proc/{id}/task")).unwrap();
        tasks.map(|task| std::fs::read_to_string(task.unwrap().path().join("children")).unwrap_or_default()).collect()
    }
}

fn status_of(pid: u32, key: &str) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = text.lines().find(|line| line.starts_with(key)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

fn argv(words: &[&str]) -> RunSpec {
    RunSpec {
        program: Program::Argv(words.iter().map(|word| word.as_bytes().to_vec()).collect()),
        ..RunSpec::default()
    }
}

fn shell(line: &str) -> RunSpec {
    RunSpec { program: Program::Shell(line.as_bytes().to_vec()), ..RunSpec::default() }
}

fn call(number: i64, args: &[u64]) -> SyscallRequest {
    let mut all = [0; 6];
    all[..args.len()].copy_from_slice(args);
    SyscallRequest { number, args: all, bufs: Vec::new(), ptrs: Vec::new(), nested: Vec::new() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_runs_leave_nothing() {
    let _alone = MEMORY.lock().await;
    let agent = Agent::start().await;
    let run = async |count: usize| {
        for _ in 0..count {
            let outcome = agent.client.run(argv(&["true"])).await.unwrap();
            assert_eq!(outcome.status, RunStatus::Exited(0));
        }
    };
    run(500).await;
    let (descriptors, memory, own) =
        (agent.descriptors(), agent.status("RssAnon"), status_of(std::process::id(), "RssAnon"));
    run(10_000).await;
    assert_eq!(agent.descriptors(), descriptors);
    assert_eq!(agent.children(), "");
    let grown = |now: u64, before: u64| now.saturating_sub(before);
    assert!(
        grown(agent.status("RssAnon"), memory) < 256,
        "the agent grew from {memory} KiB to {}",
        agent.status("RssAnon")
    );
    let now = status_of(std::process::id(), "RssAnon");
    assert!(grown(now, own) < 8192, "the host's end grew from {own} KiB to {now}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn input_that_nobody_reads_stays_with_the_host() {
    let _alone = MEMORY.lock().await;
    let agent = Agent::start().await;
    let before = agent.status("RssAnon");
    let data: Vec<u8> = (0..64 << 20).map(|at: u32| (at.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let client = agent.client.clone();
    let dir = tempfile::tempdir().unwrap();
    let gate = dir.path().join("gate");
    assert!(Command::new("mkfifo").arg(&gate).status().unwrap().success());
    let line = format!("read -r go < {}; exec cat > {}", gate.display(), dir.path().join("out").display());
    let spec = RunSpec { stdin: Some(data.clone()), ..shell(&line) };
    let running = tokio::spawn(async move { client.run(spec).await });
    // The others are served meanwhile.
    for _ in 0..50 {
        agent.client.run(argv(&["true"])).await.unwrap();
    }
    assert!(agent.status("RssAnon") - before < 2048, "{} KiB, {before} before", agent.status("RssAnon"));
    std::fs::write(&gate, "go\n").unwrap();
    assert_eq!(running.await.unwrap().unwrap().status, RunStatus::Exited(0));
    assert!(std::fs::read(dir.path().join("out")).unwrap() == data, "the bytes differ");
}

#[tokio::test]
async fn input_is_given_up_when_the_program_ends_or_closes_it() {
    let _alone = MEMORY.lock().await;
    let agent = Agent::start().await;
    for line in ["exit 3", "exec <&-; exit 3"] {
        let spec = RunSpec { stdin: Some(vec![0; 8 << 20]), ..shell(line) };
        let outcome = tokio::time::timeout(LONG, agent.client.run(spec)).await.unwrap().unwrap();
        assert_eq!(outcome.status, RunStatus::Exited(3), "{line}");
    }
}

#[tokio::test]
async fn a_worker_and_what_it_started_end_together() {
    let agent = Agent::start().await;
    let worker = agent.client.spawn_worker().await.unwrap();
    let dir = tempfile::tempdir().unwrap();
    let cwd = [dir.path().as_os_str().as_encoded_bytes(), b"\0"].concat();
    let chdir = SyscallRequest { bufs: vec![cwd], ptrs: vec![0], ..call(libc::SYS_chdir, &[]) };
    assert_eq!(worker.agent().syscall(chdir).await.unwrap().ret, 0);
    let pwd = async |agent: &AgentClient| agent.run(argv(&["pwd"])).await.unwrap().stdout;
    assert_eq!(pwd(worker.agent()).await, [dir.path().as_os_str().as_encoded_bytes(), b"\n"].concat());
    assert_ne!(pwd(&agent.client).await, pwd(worker.agent()).await);
    let mut started = worker.agent().start("run_async", argv(&["sleep", "1000"])).await.unwrap();
    assert!(started.pid > 1);
    // SAFETY: a process that this test started.
    unsafe { libc::kill(worker.pid().cast_signed(), libc::SIGKILL) };
    assert!(matches!(worker.wait().await, WorkerEnd::Ended(RunStatus::Signalled(9), _)));
    assert!(matches!(started.output.next().await, Err(AgentError::Closed(_))));
    assert!(matches!(worker.agent().run(argv(&["true"])).await, Err(AgentError::Closed(_))));
    let gone = || {
        !std::path::Path::new(&format!("/proc/{}/cmdline", started.pid)).exists()
            || std::fs::read(format!("/proc/{}/cmdline", started.pid)).unwrap_or_default().is_empty()
    };
    while !gone() {
        tokio::task::yield_now().await;
    }
    assert!(agent.client.run(argv(&["true"])).await.is_ok(), "the agent itself goes on");
}

#[tokio::test]
async fn a_worker_carries_much_in_both_directions() {
    let _alone = MEMORY.lock().await;
    let agent = Agent::start().await;
    let worker = agent.client.spawn_worker().await.unwrap();
    let data: Vec<u8> = (0..24 << 20).map(|at: u32| (at.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let spec = RunSpec { stdin: Some(data.clone()), ..argv(&["cat"]) };
    let outcome = tokio::time::timeout(LONG, worker.agent().run(spec)).await.unwrap().unwrap();
    assert!(outcome.stdout == data, "the bytes differ");
}

#[tokio::test]
async fn calls_that_were_given_up_do_not_block_those_that_follow() {
    let agent = Agent::start().await;
    for _ in 0..20 {
        let client = agent.client.clone();
        let blocked = tokio::spawn(async move { client.syscall(call(libc::SYS_ppoll, &[])).await });
        agent.client.ping().await.unwrap();
        blocked.abort();
        let answer = tokio::time::timeout(LONG, agent.client.syscall(call(libc::SYS_getpid, &[]))).await;
        assert_eq!(answer.unwrap().unwrap().ret, i64::from(agent.process.id()));
    }
    let call_under_way = agent.client.syscall_async(call(libc::SYS_ppoll, &[])).await.unwrap();
    agent.client.ping().await.unwrap();
    drop(call_under_way);
    // The ops thread, this one and the one that interrupts; the call's own ends.
    while std::fs::read_dir(format!("/proc/{}/task", agent.process.id())).unwrap().count() > 3 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_batch_is_sent_in_order_and_without_waiting() {
    let _alone = MEMORY.lock().await;
    let agent = Agent::start().await;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("f");
    let path = path.as_os_str().as_encoded_bytes();
    let mut turns = Turn::sequence();
    let mut turn = || agent.client.in_turn(turns());
    let (write, read, run, again) = (turn(), turn(), turn(), turn());
    let big = vec![7; 3 << 20];
    let line = format!("echo changed > {}", String::from_utf8_lossy(path));
    // Polled in the wrong order: the turns decide.
    let (after, (), before, written) = tokio::join!(
        async { again.read_file(path).await },
        async { assert_eq!(run.run(shell(&line)).await.unwrap().status, RunStatus::Exited(0)) },
        async { read.read_file(path).await },
        async { write.write_file(path, &big, None).await },
    );
    written.unwrap();
    assert!(before.unwrap() == big, "read before the program changed it");
    assert_eq!(after.unwrap(), b"changed\n");
}

#[tokio::test]
async fn memory_that_is_not_there_is_an_error() {
    let agent = Agent::start().await;
    match agent.client.read_mem(8, 8).await {
        Err(AgentError::Op(error)) => assert_eq!((error.op.as_str(), error.errno), ("read_mem", libc::EFAULT)),
        other => panic!("{other:?}"),
    }
}
