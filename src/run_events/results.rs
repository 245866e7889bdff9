//! Events of test files and tests.

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// A test file, as it is shown to people.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileRef {
    /// The file's path.
    pub file: String,
}

/// A file can't start yet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileBlocked {
    /// The file's path.
    pub file: String,
    /// `memory`, `cpus`, `fixture` or `pressure`.
    pub reason: String,
}

/// How a file ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FileStatus {
    /// All its tests passed.
    Passed,
    /// A test failed or timed out, or the file did not load.
    Failed,
    /// Nothing of it ran: skipped, or no test selected.
    Skipped,
    /// The file's time was up.
    TimedOut,
    /// The run was interrupted while or before it ran.
    Interrupted,
    /// The run ended before its turn: `--fail-fast`, or an environment that no file could run in.
    NotRun,
}

/// Where a file broke, apart from its tests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FilePhase {
    /// Syntax, an error at file scope, a duplicate test name.
    Load,
    /// After loading, outside of a test.
    Run,
    /// The configuration does not hold what the file asks for.
    Config,
    /// The environment can't run any virtual machine.
    Environment,
    /// A bug in provium.
    Internal,
}

/// What broke a file, apart from its tests.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileError {
    /// Where.
    pub phase: FilePhase,
    /// The whole message.
    pub message: String,
    /// `file:line`, innermost first.
    pub trace: Vec<String>,
}

/// The last event of a file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FileDone {
    /// The file's path.
    pub file: String,
    /// How it ended.
    pub status: FileStatus,
    /// Seconds.
    pub duration: f64,
    /// What broke it, apart from its tests.
    pub error: Option<FileError>,
    /// What it printed outside of tests.
    pub log: String,
}

/// A test's body is about to run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TestStarted {
    /// The file's path.
    pub file: String,
    /// The test's name.
    pub name: String,
    /// Of the variant, where the test runs once per profile.
    pub profile: Option<String>,
}

/// How a test ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TestStatus {
    /// All is well.
    Passed,
    /// An assertion or an error.
    Failed,
    /// It said so, or its metadata did.
    Skipped,
    /// Its own or its file's time was up.
    TimedOut,
    /// Failed first, passed on a retry.
    Flaky,
}

impl TestStatus {
    /// Whether the run fails with it.
    pub fn is_failure(self) -> bool {
        matches!(self, Self::Failed | Self::TimedOut)
    }
}

/// The result of one test.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TestDone {
    /// The file's path.
    pub file: String,
    /// The test's name.
    pub name: String,
    /// How it ended.
    pub status: TestStatus,
    /// Seconds.
    pub duration: f64,
    /// Why it failed, with both values or their diff; or why it was skipped.
    pub message: Option<String>,
    /// `file:line` from the test's own line that failed, outwards.
    pub trace: Vec<String>,
    /// The text of the test's own line that failed.
    pub source: Option<SourceLine>,
    /// What it printed and logged.
    pub log: String,
    /// Its metadata, any JSON.
    pub meta: Value,
    /// Its sub-results.
    pub steps: Vec<Step>,
    /// What it attached.
    pub attachments: Vec<Attachment>,
    /// The consoles of the machines that it could see; only for a failure.
    pub consoles: Vec<ConsoleTail>,
    /// Of the variant, where the test runs once per profile.
    pub profile: Option<String>,
    /// The time limit that it ran into, in seconds.
    pub limit: Option<f64>,
    /// Titles of the kernel reports that it fails with. Such a failure is never retried away.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub kernel_reports: Vec<String>,
}

impl TestDone {
    /// A result with nothing to add.
    pub fn new(file: impl Into<String>, name: impl Into<String>, status: TestStatus, duration: f64) -> Self {
        Self {
            file: file.into(),
            name: name.into(),
            status,
            duration,
            message: None,
            trace: Vec::new(),
            source: None,
            log: String::new(),
            meta: Value::Object(serde_json::Map::new()),
            steps: Vec::new(),
            attachments: Vec::new(),
            consoles: Vec::new(),
            profile: None,
            limit: None,
            kernel_reports: Vec::new(),
        }
    }
}

/// One line of a test file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceLine {
    /// `file:line`.
    pub at: String,
    /// The line as it stands there.
    pub text: String,
}

impl SourceLine {
    /// Picks line `line` (from 1) out of a file's text; none where the text has no such line.
    pub fn pick(file: &str, line: usize, text: &str) -> Option<Self> {
        let found = text.lines().nth(line.checked_sub(1)?)?;
        Some(Self { at: format!("{file}:{line}"), text: found.to_owned() })
    }
}

/// A sub-result of a test.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Step {
    /// The step's name.
    pub name: String,
    /// How it ended.
    pub status: TestStatus,
    /// Seconds.
    pub duration: f64,
    /// Why it failed or was skipped.
    pub message: Option<String>,
}

/// A file kept with the report.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attachment {
    /// The name that the test gave it.
    pub name: String,
    /// Bytes.
    pub size: u64,
    /// Where it is kept, where it is.
    pub path: Option<String>,
}

/// The end of a machine's console.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConsoleTail {
    /// The machine's name.
    pub vm: String,
    /// The last 4 KiB.
    pub tail: String,
    /// The file with the whole log, where it is kept.
    pub log: Option<String>,
}
