//! A report may come twice: through the agent, and on the console. Pure.

use std::collections::HashMap;

/// Where a report was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// The kernel's own records, through the agent.
    Agent,
    /// The console, each time from its beginning.
    Console,
}

#[derive(Default)]
struct Count {
    by_agent: usize,
    on_console: usize,
    told: usize,
}

/// What was told already.
#[derive(Default)]
pub struct Ledger {
    counts: HashMap<String, Count>,
}

impl Ledger {
    /// The console is about to be read from its beginning again.
    pub fn begin_console(&mut self) {
        self.counts.values_mut().for_each(|count| count.on_console = 0);
    }

    /// Notes a report `title`. Whether it is new.
    pub fn is_new(&mut self, source: Source, title: &str) -> bool {
        let count = self.counts.entry(title.to_owned()).or_default();
        let seen = match source {
            Source::Agent => &mut count.by_agent,
            Source::Console => &mut count.on_console,
        };
        *seen += 1;
        let new = *seen > count.told;
        count.told = count.told.max(*seen);
        new
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_report_is_told_once() {
        let mut ledger = Ledger::default();
        assert!(ledger.is_new(Source::Agent, "a"));
        for _ in 0..2 {
            ledger.begin_console();
            assert!(!ledger.is_new(Source::Console, "a"));
        }
        assert!(ledger.is_new(Source::Console, "a"));
        assert!(!ledger.is_new(Source::Agent, "a"));
        assert!(ledger.is_new(Source::Agent, "a"));
        assert!(ledger.is_new(Source::Console, "b"));
        assert!(!ledger.is_new(Source::Agent, "b"));
    }
}
