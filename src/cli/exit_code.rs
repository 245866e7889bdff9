//! The exit codes of the specification.

use std::process::ExitCode;

use crate::run_events::{FilePhase, RunStatus};
use crate::scheduler::RunOutcome;

/// How the process ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Exit {
    /// All is well; of a run: all tests passed or were skipped.
    Success = 0,
    /// A test failed or timed out, or a file could not load.
    TestFailed = 1,
    /// Usage or configuration.
    Usage = 2,
    /// The environment: QEMU, a realised value.
    Environment = 3,
    /// The selection matches nothing.
    NothingSelected = 4,
    /// A bug in provium.
    Bug = 70,
    /// A signal; everything was torn down.
    Interrupted = 130,
}

impl Exit {
    /// The number that the shell sees.
    pub fn code(self) -> u8 {
        self as u8
    }

    /// What a run of files comes to.
    pub fn of_run(outcome: &RunOutcome, allow_empty: bool) -> Self {
        match outcome.status() {
            RunStatus::Passed => Self::Success,
            RunStatus::Empty if allow_empty => Self::Success,
            RunStatus::Empty => Self::NothingSelected,
            RunStatus::Failed => Self::TestFailed,
            RunStatus::Error if outcome.first_error(FilePhase::Environment).is_some() => Self::Environment,
            RunStatus::Error => Self::Usage,
            RunStatus::Interrupted => Self::Interrupted,
            RunStatus::Bug => Self::Bug,
        }
    }

    /// As the stream's last event says it.
    pub fn run_status(self) -> RunStatus {
        match self {
            Self::Success => RunStatus::Passed,
            Self::TestFailed => RunStatus::Failed,
            Self::Usage | Self::Environment => RunStatus::Error,
            Self::NothingSelected => RunStatus::Empty,
            Self::Bug => RunStatus::Bug,
            Self::Interrupted => RunStatus::Interrupted,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run_events::FileError;

    fn with_error(phase: FilePhase) -> RunOutcome {
        let error = FileError { phase, message: "no".into(), trace: Vec::new() };
        RunOutcome { failed: true, errors: vec![("a".into(), error)], ..RunOutcome::default() }
    }

    #[test]
    fn the_codes_are_those_of_the_specification() {
        let all = [
            Exit::Success,
            Exit::TestFailed,
            Exit::Usage,
            Exit::Environment,
            Exit::NothingSelected,
            Exit::Bug,
            Exit::Interrupted,
        ];
        assert_eq!(all.map(Exit::code), [0, 1, 2, 3, 4, 70, 130]);
    }

    #[test]
    fn a_run_comes_to_one_code() {
        let of = |outcome: &RunOutcome| Exit::of_run(outcome, false);
        let empty = RunOutcome::default();
        assert_eq!(of(&empty), Exit::NothingSelected);
        assert_eq!(Exit::of_run(&empty, true), Exit::Success);
        assert_eq!(of(&RunOutcome { selected: 1, ..empty.clone() }), Exit::Success);
        assert_eq!(of(&RunOutcome { selected: 1, failed: true, ..empty.clone() }), Exit::TestFailed);
        assert_eq!(of(&RunOutcome { failed: true, interrupted: true, ..empty }), Exit::Interrupted);
        assert_eq!(of(&with_error(FilePhase::Load)), Exit::TestFailed);
        assert_eq!(of(&with_error(FilePhase::Config)), Exit::Usage);
        assert_eq!(of(&with_error(FilePhase::Environment)), Exit::Environment);
        assert_eq!(of(&with_error(FilePhase::Internal)), Exit::Bug);
    }
}
