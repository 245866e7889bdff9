//! What one nix process said: progress as it comes, and what an error needs afterwards.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::log_line::{self, LogLine};
use super::request::Progress;

/// How many of a build's last lines an error shows.
pub(super) const TAIL: usize = 40;

/// An error as nix told it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct NixError {
    /// The last of its causes.
    pub(super) cause: String,
    /// The whole text, with nix's trace and suggestions; equal to `cause` where there is nothing more.
    pub(super) whole: String,
}

/// Collects what one nix process says.
#[derive(Debug, Default)]
pub(super) struct BuildLog {
    activities: BTreeMap<u64, Activity>,
    tails: BTreeMap<String, VecDeque<String>>,
    errors: Vec<NixError>,
    warnings: BTreeSet<String>,
    plain: VecDeque<String>,
    missing: Vec<String>,
    listing: bool,
    evaluating: Option<String>,
}

#[derive(Debug)]
enum Activity {
    Build(String),
    Builds,
    Transfer(String),
}

impl BuildLog {
    /// Takes one line, and says what the user should see of it.
    pub(super) fn take(&mut self, line: &str) -> Option<Progress> {
        match log_line::parse(line) {
            LogLine::Start { id, kind, text, fields } => self.start(id, kind, &text, fields),
            LogLine::Stop { id } => match self.activities.remove(&id) {
                Some(Activity::Build(derivation)) => Some(Progress::Ended { derivation }),
                _ => None,
            },
            LogLine::BuildOutput { id, line } => {
                let derivation = self.build(id)?;
                let tail = self.tails.entry(derivation.clone()).or_default();
                push_bounded(tail, line.clone());
                Some(Progress::LogLine { derivation, line })
            }
            LogLine::Phase { id, phase } => Some(Progress::Phase { derivation: self.build(id)?, phase }),
            LogLine::Moved { id, done, expected, running } => match self.activities.get(&id)? {
                Activity::Builds => Some(Progress::Counts { done, expected, running }),
                Activity::Transfer(what) => Some(Progress::Downloading { what: what.clone(), done, expected }),
                Activity::Build(_) => None,
            },
            LogLine::Error { cause, whole } => {
                self.errors.push(NixError { cause, whole });
                None
            }
            LogLine::Warning(text) => self.warning(text),
            LogLine::Notice(text) => {
                self.notice(&text);
                None
            }
            LogLine::Plain(text) => {
                push_bounded(&mut self.plain, text);
                None
            }
            LogLine::Other => None,
        }
    }

    fn start(&mut self, id: u64, kind: u64, text: &str, fields: Vec<String>) -> Option<Progress> {
        let first = fields.into_iter().next().filter(|field| !field.is_empty());
        match (kind, first) {
            (log_line::BUILD, Some(derivation)) => {
                self.activities.insert(id, Activity::Build(derivation.clone()));
                self.tails.entry(derivation.clone()).or_default();
                Some(Progress::Building { derivation })
            }
            (log_line::BUILDS, _) => {
                self.activities.insert(id, Activity::Builds);
                None
            }
            (log_line::COPY_PATH | log_line::FILE_TRANSFER, Some(what)) => {
                self.activities.insert(id, Activity::Transfer(what.clone()));
                Some(Progress::Downloading { what, done: 0, expected: 0 })
            }
            _ => {
                if let Some(rest) = text.strip_prefix("evaluating derivation '") {
                    self.evaluating = Some(rest.trim_end_matches('\'').to_owned());
                }
                None
            }
        }
    }

    fn build(&self, id: u64) -> Option<String> {
        match self.activities.get(&id)? {
            Activity::Build(derivation) => Some(derivation.clone()),
            _ => None,
        }
    }

    /// Each warning once. That the tree has changes is no news to somebody who tests them.
    fn warning(&mut self, text: String) -> Option<Progress> {
        let dirty = text.starts_with("Git tree '") && text.ends_with("' is dirty");
        (!dirty && self.warnings.insert(text.clone())).then_some(Progress::Warning(text))
    }

    /// "these 2 derivations will be built:", "this path will be fetched (…):", "don't know how to build these paths:",
    /// each followed by indented paths.
    fn notice(&mut self, text: &str) {
        if let Some(item) = text.strip_prefix("  ") {
            if self.listing {
                self.missing.push(item.trim().to_owned());
            }
        } else {
            self.listing = text.ends_with(':')
                && ["will be built", "will be fetched", "know how to build"].iter().any(|part| text.contains(part));
        }
    }

    /// The errors, in the order nix told them; without any the plain lines, which is where nix complains about its own
    /// configuration.
    pub(super) fn errors(&self) -> Vec<NixError> {
        if !self.errors.is_empty() || self.plain.is_empty() {
            return self.errors.clone();
        }
        let lines: Vec<_> = self.plain.iter().map(String::as_str).collect();
        let text = lines.join("\n");
        let text = text.trim().trim_start_matches("error:").trim().to_owned();
        vec![NixError { cause: text.clone(), whole: text }]
    }

    /// The last lines of a derivation's build; `None` if it was not built here.
    pub(super) fn tail(&self, derivation: &str) -> Option<Vec<String>> {
        self.tails.get(derivation).map(|tail| tail.iter().cloned().collect())
    }

    /// Store paths that a dry run listed as not there.
    pub(super) fn missing(&self) -> &[String] {
        &self.missing
    }

    /// The installable that was evaluated last, as nix spells it.
    pub(super) fn evaluating(&self) -> Option<&str> {
        self.evaluating.as_deref()
    }
}

fn push_bounded(tail: &mut VecDeque<String>, line: String) {
    if tail.len() == TAIL {
        tail.pop_front();
    }
    tail.push_back(line);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn take_all(lines: &[&str]) -> (BuildLog, Vec<Progress>) {
        let mut log = BuildLog::default();
        let progress = lines.iter().filter_map(|line| log.take(line)).collect();
        (log, progress)
    }

    #[test]
    fn keeps_the_tail_of_a_build() {
        let drv = "/nix/store/54v8s7wdm90v4i25dwbhbz5d18bybypm-fail.drv";
        let mut log = BuildLog::default();
        log.take(&format!(r#"@nix {{"action":"start","fields":["{drv}","",1,1],"id":7,"level":3,"type":105}}"#));
        for i in 1..=60 {
            log.take(&format!(r#"@nix {{"action":"result","fields":["line {i}"],"id":7,"type":101}}"#));
        }
        let progress = log.take(r#"@nix {"action":"stop","id":7}"#);
        assert_eq!(progress, Some(Progress::Ended { derivation: drv.to_owned() }));
        let tail = log.tail(drv).unwrap();
        assert_eq!((tail.len(), tail[0].as_str(), tail[39].as_str()), (40, "line 21", "line 60"));
        assert_eq!(log.tail("other"), None);
    }

    #[test]
    fn counts_builds_and_bytes_apart() {
        let (_, progress) = take_all(&[
            r#"@nix {"action":"start","id":1,"level":0,"parent":0,"text":"","type":104}"#,
            r#"@nix {"action":"start","fields":["https://x/y"],"id":2,"level":4,"parent":0,"text":"downloading","type":101}"#,
            r#"@nix {"action":"result","fields":[1,3,1,0],"id":1,"type":105}"#,
            r#"@nix {"action":"result","fields":[10,30,0,0],"id":2,"type":105}"#,
            r#"@nix {"action":"result","fields":[10,30,0,0],"id":3,"type":105}"#,
        ]);
        let what = "https://x/y".to_owned();
        assert_eq!(
            progress,
            [
                Progress::Downloading { what: what.clone(), done: 0, expected: 0 },
                Progress::Counts { done: 1, expected: 3, running: 1 },
                Progress::Downloading { what, done: 10, expected: 30 },
            ]
        );
    }

    #[test]
    fn lists_what_a_dry_run_misses() {
        let (log, _) = take_all(&[
            r#"@nix {"action":"msg","level":0,"msg":"these 2 derivations will be built:"}"#,
            r#"@nix {"action":"msg","level":0,"msg":"  /nix/store/a.drv"}"#,
            r#"@nix {"action":"msg","level":0,"msg":"something else"}"#,
            r#"@nix {"action":"msg","level":0,"msg":"  not an item"}"#,
            r#"@nix {"action":"msg","level":0,"msg":"this path will be fetched (0.1 MiB download, 0.2 MiB unpacked):"}"#,
            r#"@nix {"action":"msg","level":0,"msg":"  /nix/store/b"}"#,
        ]);
        assert_eq!(log.missing(), ["/nix/store/a.drv", "/nix/store/b"]);
        assert_eq!(log.errors(), []);
    }

    #[test]
    fn tells_a_warning_once_and_never_that_the_tree_is_dirty() {
        let (_, progress) = take_all(&[
            r#"@nix {"action":"msg","level":1,"msg":"warning: Git tree '/p' is dirty"}"#,
            r#"@nix {"action":"msg","level":1,"msg":"warning: odd"}"#,
            r#"@nix {"action":"msg","level":1,"msg":"warning: odd"}"#,
        ]);
        assert_eq!(progress, [Progress::Warning("odd".to_owned())]);
    }

    #[test]
    fn plain_lines_are_the_error_of_last_resort() {
        let (log, _) = take_all(&["error: unknown setting", "  more"]);
        assert_eq!(log.errors()[0].cause, "unknown setting\n  more");
    }

    proptest! {
        #[test]
        fn takes_any_sequence(lines in proptest::collection::vec("(@nix )?\\PC{0,40}", 0..60)) {
            let mut log = BuildLog::default();
            for line in &lines {
                log.take(line);
            }
            prop_assert!(log.errors().len() <= 1);
        }
    }
}
