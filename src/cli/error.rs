//! What a command says when it can't go on, and the exit code that goes with it.

use std::fmt;
use std::io::Write;

use super::exit_code::Exit;
use crate::reporters::ReporterError;
use crate::run_events::ConsumerError;
use crate::scheduler::SchedulerError;

/// One thing that is wrong, and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// What is wrong; a lowercase fragment, possibly of several lines.
    pub message: String,
    /// What to do, one hint a line.
    pub hints: Vec<String>,
}

/// Why a command ended early: one problem or several of one family.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommandError {
    exit: Exit,
    problems: Vec<Problem>,
}

impl CommandError {
    /// One problem; `exit` is its family.
    pub fn new(exit: Exit, message: impl fmt::Display) -> Self {
        Self { exit, problems: vec![Problem { message: message.to_string(), hints: Vec::new() }] }
    }

    /// Usage or configuration.
    pub fn usage(message: impl fmt::Display) -> Self {
        Self::new(Exit::Usage, message)
    }

    /// The environment: QEMU, a realised value.
    pub fn environment(message: impl fmt::Display) -> Self {
        Self::new(Exit::Environment, message)
    }

    /// A bug in provium.
    pub fn bug(message: impl fmt::Display) -> Self {
        Self::new(Exit::Bug, message).hint("this is a bug in provium: please report it, with the command")
    }

    /// Several problems at once, such as all the errors of a configuration.
    pub fn several(exit: Exit, problems: Vec<Problem>) -> Self {
        Self { exit, problems }
    }

    /// Adds a hint to the last problem.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        if let Some(problem) = self.problems.last_mut() {
            problem.hints.push(hint.into());
        }
        self
    }

    /// The exit code.
    pub fn exit(&self) -> Exit {
        self.exit
    }

    /// What is wrong.
    pub fn problems(&self) -> &[Problem] {
        &self.problems
    }

    /// Writes it to standard error.
    pub fn print(&self) {
        // Nobody may be listening; there is no better place to say so.
        let _ = std::io::stderr().lock().write_all(self.to_string().as_bytes());
    }
}

impl fmt::Display for CommandError {
    /// Whole lines: `error: …`, then `hint: …`, for each problem.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for problem in &self.problems {
            writeln!(f, "error: {}", problem.message.trim_end())?;
            for hint in &problem.hints {
                writeln!(f, "hint: {hint}")?;
            }
        }
        Ok(())
    }
}

impl std::error::Error for CommandError {}

impl From<ReporterError> for CommandError {
    fn from(error: ReporterError) -> Self {
        Self::usage(&error).hint(error.hint())
    }
}

impl From<SchedulerError> for CommandError {
    fn from(error: SchedulerError) -> Self {
        match error {
            SchedulerError::Signals(_) => Self::environment(error),
            SchedulerError::MetaPair(_) | SchedulerError::Shard(_) => Self::usage(error),
        }
    }
}

impl From<Vec<ConsumerError>> for CommandError {
    fn from(errors: Vec<ConsumerError>) -> Self {
        let exit = if errors.iter().any(|error| error.bug) { Exit::Bug } else { Exit::Environment };
        let problem = |error: &ConsumerError| Problem { message: error.to_string(), hints: Vec::new() };
        Self::several(exit, errors.iter().map(problem).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hints_stand_on_their_own_lines() {
        let error =
            CommandError::usage("no profile `stabel`").hint("did you mean `stable`?").hint("see `profile list`");
        assert_eq!(
            error.to_string(),
            "error: no profile `stabel`\nhint: did you mean `stable`?\nhint: see `profile list`\n"
        );
        assert_eq!(error.exit(), Exit::Usage);
    }

    #[test]
    fn several_problems_keep_their_order() {
        let problem = |text: &str| Problem { message: format!("{text}\n"), hints: Vec::new() };
        let error = CommandError::several(Exit::Usage, vec![problem("a"), problem("b")]);
        assert_eq!(error.to_string(), "error: a\nerror: b\n");
    }

    #[test]
    fn each_error_has_its_family() {
        let missing = crate::reporters::EventFile::create("/nonexistent/e".as_ref()).err().unwrap();
        assert_eq!(CommandError::from(missing).exit(), Exit::Usage);
        assert_eq!(CommandError::from(SchedulerError::MetaPair("x".into())).exit(), Exit::Usage);
        let full = ConsumerError::new("event file", "no space left on device");
        let broken = ConsumerError { bug: true, ..full.clone() };
        assert_eq!(CommandError::from(vec![full.clone()]).exit(), Exit::Environment);
        assert_eq!(CommandError::from(vec![full, broken]).exit(), Exit::Bug);
    }
}
