//! The task that follows one machine's log: through the agent while there is one, on the consoles where it is gone.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use super::ledger::{Ledger, Source};
use super::record::{Decoder, Record};
use crate::agent_client::{AgentClient, AgentError, KernelLogFeed};
use crate::project::Splats;
use crate::qemu::console;
use crate::run_events::{EventKind, EventSink, GuestSplat, VmRef, Warning};
use crate::testbed::artifacts::Artifacts;
use crate::testbed::splat_desk::SplatDesk;
use crate::testbed::splats::{Recogniser, Report, SplatKind, kernel_lines, reports_on_console};

/// How many records are remembered for error messages.
const REMEMBERED: usize = 500;
/// How many reports of one boot are told.
const MOST_REPORTS: usize = 1000;
/// How much of a console is looked at, in bytes.
const CONSOLE: usize = 1024 * 1024;

/// Who is told of a report.
pub struct Teller {
    /// The machine.
    pub vm: VmRef,
    /// Whether a test fails with it, as the machine's profile says.
    pub policy: Splats,
    /// Where the event goes.
    pub sink: EventSink,
    /// Where the running test looks.
    pub desk: SplatDesk,
    /// Where its text is kept.
    pub artifacts: Artifacts,
}

impl Teller {
    fn tell(&self, report: &Report, number: usize) {
        let test = self.desk.report(&self.vm, self.policy, report);
        // The event of a panic is told with the machine's end.
        if report.kind == SplatKind::Panic {
            return;
        }
        self.sink.emit(EventKind::GuestSplat(GuestSplat {
            vm_id: self.vm.vm_id,
            vm: self.vm.vm.clone(),
            file: self.vm.file.clone(),
            test,
            splat: report.kind.name().to_owned(),
            title: report.title.clone(),
            report: report.text.clone(),
        }));
        let name = format!("splat-{}-{number}-{}.txt", self.vm.vm, report.kind);
        if let Err(error) = self.artifacts.attach(&self.vm.file, &name, report.text.as_bytes()) {
            self.sink.emit(EventKind::Warning(Warning { message: error.to_string(), hint: None }));
        }
    }
}

enum Request {
    Agent(AgentClient),
    /// The agent is quiet: what it has passed on is taken in, and nobody listens any more.
    Rest(oneshot::Sender<()>),
    /// The agent of before is back.
    GoOn(AgentClient),
    Console,
    Sync {
        ask: bool,
        done: oneshot::Sender<()>,
    },
}

/// The newest lines of the kernel, with the numbers of their records.
type Remembered = Arc<Mutex<VecDeque<(u64, String)>>>;

/// The log of one machine, from the start of its QEMU. Dropping it ends the following.
pub struct KernelLog {
    requests: mpsc::UnboundedSender<Request>,
    remembered: Remembered,
}

impl KernelLog {
    /// Follows the log of a machine without an agent yet, whose consoles are kept in `consoles`. What is said within `quiet` may
    /// be one report.
    pub fn start(teller: Teller, consoles: Vec<PathBuf>, quiet: Duration) -> Self {
        let (requests, queue) = mpsc::unbounded_channel();
        let remembered = Remembered::default();
        let follower = Follower {
            teller,
            consoles,
            quiet,
            queue,
            remembered: Arc::clone(&remembered),
            agent: None,
            feed: None,
            agent_lost: false,
            decoder: Decoder::default(),
            recogniser: Recogniser::default(),
            programs: Recogniser::default(),
            ledger: Ledger::default(),
            told: 0,
            last: Instant::now(),
            newest: None,
            console_until: None,
            waiting: Vec::new(),
        };
        tokio::spawn(follower.run());
        Self { requests, remembered }
    }

    /// The machine has a new agent, which is asked for the log from its first record on.
    pub fn follow(&self, agent: AgentClient) {
        let _ = self.requests.send(Request::Agent(agent));
    }

    /// Takes in what an agent that is quiet has passed on, and lets go of it.
    pub async fn rest(&self) {
        let (done, rested) = oneshot::channel();
        if self.requests.send(Request::Rest(done)).is_ok() {
            let _ = rested.await;
        }
    }

    /// The machine's agent is back after a rest: it passes on what came since.
    pub fn go_on(&self, agent: AgentClient) {
        let _ = self.requests.send(Request::GoOn(agent));
    }

    /// The guest is gone: what the agent could not pass on any more is looked for on the consoles.
    pub fn guest_gone(&self) {
        let _ = self.requests.send(Request::Console);
    }

    /// Returns once everything that the kernel has logged until now was looked at, or after `limit`. `ask` says whether the agent
    /// can answer.
    pub async fn sync(&self, ask: bool, limit: Duration) {
        let (done, synced) = oneshot::channel();
        if self.requests.send(Request::Sync { ask, done }).is_ok() {
            let _ = tokio::time::timeout(limit, synced).await;
        }
    }

    /// The number of the next record.
    pub fn position(&self) -> u64 {
        let remembered = self.remembered.lock().unwrap_or_else(PoisonError::into_inner);
        remembered.back().map_or(0, |(number, _)| number + 1)
    }

    /// The newest lines of the kernel from the record `position` on.
    pub fn since(&self, position: u64) -> Vec<String> {
        let remembered = self.remembered.lock().unwrap_or_else(PoisonError::into_inner);
        remembered.iter().filter(|(number, _)| *number >= position).map(|(_, line)| line.clone()).collect()
    }
}

struct Follower {
    teller: Teller,
    consoles: Vec<PathBuf>,
    quiet: Duration,
    queue: mpsc::UnboundedReceiver<Request>,
    remembered: Remembered,
    agent: Option<AgentClient>,
    feed: Option<KernelLogFeed>,
    /// Whether there was an agent that passes on nothing any more.
    agent_lost: bool,
    decoder: Decoder,
    recogniser: Recogniser,
    /// What programs of the guest wrote into the kernel's log: no reports, though on a console they look like some.
    programs: Recogniser,
    ledger: Ledger,
    told: usize,
    /// When the last record came.
    last: Instant,
    /// When the newest line that was looked at was logged, in the guest's microseconds.
    newest: Option<u64>,
    /// Until when the consoles were looked at: what the agent passes on of that time comes late.
    console_until: Option<u64>,
    waiting: Vec<oneshot::Sender<()>>,
}

impl Follower {
    async fn run(mut self) {
        loop {
            let quiet = self.last + self.quiet;
            tokio::select! {
                biased;
                request = self.queue.recv() => match request {
                    Some(request) => self.serve(request).await,
                    None => break,
                },
                records = next(&mut self.feed) => match records {
                    Ok(records) => self.take(&records),
                    Err(_) => self.lose_agent(),
                },
                () = tokio::time::sleep_until(quiet), if self.recogniser.is_open() => self.finish(),
            }
            if !self.recogniser.is_open() {
                for done in self.waiting.drain(..) {
                    // Whoever asked may have given up.
                    let _ = done.send(());
                }
            }
        }
        self.finish();
    }

    async fn serve(&mut self, request: Request) {
        match request {
            Request::Agent(agent) => {
                self.finish();
                self.decoder = Decoder::default();
                (self.newest, self.console_until) = (None, None);
                self.feed = agent.follow_kernel_log().await.ok();
                self.agent_lost = self.feed.is_none();
                self.agent = Some(agent);
            }
            Request::Rest(done) => {
                self.drain();
                if let Some(feed) = self.feed.take() {
                    feed.leave();
                }
                // Whoever asked may have given up.
                let _ = done.send(());
            }
            Request::GoOn(agent) => {
                self.feed = agent.follow_kernel_log().await.ok();
                self.agent_lost = self.feed.is_none();
                self.agent = Some(agent);
            }
            Request::Console => {
                self.drain();
                self.look_at_consoles();
            }
            Request::Sync { ask, done } => {
                if let (true, Some(agent), Some(_)) = (ask, &self.agent, &self.feed) {
                    // Whoever asked bounds the time; a silent agent must not keep this task from its other work.
                    let _ = tokio::time::timeout(self.quiet * 4, agent.ping()).await;
                }
                self.drain();
                if self.agent_lost {
                    self.look_at_consoles();
                }
                self.waiting.push(done);
            }
        }
    }

    /// Takes what has come already.
    fn drain(&mut self) {
        while let Some(records) = self.feed.as_mut().and_then(KernelLogFeed::try_next) {
            self.take(&records);
        }
    }

    fn take(&mut self, bytes: &[u8]) {
        self.last = Instant::now();
        for record in self.decoder.push(bytes) {
            self.remember(&record);
            if self.console_until.is_some_and(|until| record.micros <= until) {
                continue;
            }
            self.newest = self.newest.max(Some(record.micros));
            for line in record.lines() {
                // What a terminal would obey is left out.
                let line = console::plain(line);
                if record.is_kernels() {
                    let whole = self.recogniser.line(Some(record.micros), &line);
                    whole.iter().for_each(|report| self.tell(Source::Agent, report));
                } else {
                    let lookalikes = self.programs.line(Some(record.micros), &line);
                    let lookalikes = lookalikes.into_iter().chain(self.programs.finish());
                    for report in lookalikes {
                        self.ledger.is_new(Source::Agent, &report.title);
                    }
                }
            }
        }
    }

    fn remember(&self, record: &Record) {
        let mut remembered = self.remembered.lock().unwrap_or_else(PoisonError::into_inner);
        record.print(|line| {
            if remembered.len() >= REMEMBERED {
                remembered.pop_front();
            }
            remembered.push_back((record.number, String::from_utf8_lossy(&line).into_owned()));
        });
    }

    /// The log is quiet: what came is whole.
    fn finish(&mut self) {
        if let Some(report) = self.recogniser.finish() {
            self.tell(Source::Agent, &report);
        }
    }

    fn lose_agent(&mut self) {
        self.feed = None;
        self.agent_lost = true;
        self.look_at_consoles();
    }

    fn look_at_consoles(&mut self) {
        let text = self
            .consoles
            .iter()
            .filter_map(|path| console::tail(path, CONSOLE).ok())
            .find(|text| !text.trim().is_empty())
            .unwrap_or_default();
        let lines = kernel_lines(&text);
        if lines.first().is_some_and(|(micros, _)| micros.is_some()) {
            self.continue_on_console(&lines);
            return;
        }
        let reports = reports_on_console(&text);
        if let Some(partial) = self.recogniser.finish() {
            // What the agent passed on in part may stand on the console as a whole.
            let is_longer = |report: &&Report| report.title == partial.title && report.text.len() > partial.text.len();
            let whole = reports.iter().rfind(is_longer);
            self.tell(Source::Agent, whole.unwrap_or(&partial));
        }
        self.ledger.begin_console();
        reports.iter().for_each(|report| self.tell(Source::Console, report));
    }

    /// The agent has passed on everything up to some moment; what the console says of later moments is new.
    fn continue_on_console(&mut self, lines: &[(Option<u64>, &str)]) {
        let known = self.newest;
        for (micros, line) in lines.iter().filter(|(micros, _)| *micros > known) {
            let whole = self.recogniser.line(*micros, line);
            whole.iter().for_each(|report| self.tell(Source::Agent, report));
            self.newest = self.newest.max(*micros);
        }
        self.console_until = self.newest;
        self.finish();
    }

    fn tell(&mut self, source: Source, report: &Report) {
        if !self.ledger.is_new(source, &report.title) {
            return;
        }
        self.told += 1;
        match self.told {
            ..=MOST_REPORTS => self.teller.tell(report, self.told),
            // A guest must not fill the host's memory and disk.
            number if number == MOST_REPORTS + 1 => {
                let name = &self.teller.vm.vm;
                let message = format!("vm `{name}`: more than {MOST_REPORTS} kernel reports: the rest is left out");
                self.teller.sink.emit(EventKind::Warning(Warning { message, hint: None }));
            }
            _ => {}
        }
    }
}

/// The next records; never where there is no agent.
async fn next(feed: &mut Option<KernelLogFeed>) -> Result<Vec<u8>, AgentError> {
    match feed {
        Some(feed) => feed.next().await,
        None => std::future::pending().await,
    }
}
