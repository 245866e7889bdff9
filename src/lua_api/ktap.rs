//! The results in KTAP and TAP text, as KUnit prints it into the kernel log and kselftest on its output. Pure.
//!
//! Subtests are told by indentation (KUnit) or by `# ` before each line after a version line (kselftest). Time stamps of
//! the kernel log are ignored. The leaves are the results; a parent is one only where it failed and none of its leaves did,
//! and where it has none. What is missing is a failure: results that a plan promised, the result line of a subtest.

use std::collections::VecDeque;

/// Between the names of a test and of a subtest.
const INSIDE: &str = " > ";
/// How many lines before a failed result are its message.
const DIAGNOSTICS: usize = 40;

/// How one test went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// `ok`; also `not ok … # TODO`, which is expected to fail.
    Passed,
    /// `not ok`, or it is missing.
    Failed,
    /// `# SKIP`.
    Skipped,
}

impl Outcome {
    /// As Lua has it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Passed => "passed",
            Self::Failed => "failed",
            Self::Skipped => "skipped",
        }
    }
}

/// One result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TestResult {
    /// With the names of the tests around it: `suite > case`.
    pub name: String,
    /// How it went.
    pub outcome: Outcome,
    /// Of a failure its diagnostics, of a skipped one the reason.
    pub message: Option<String>,
}

/// What a text says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// In the order of the text.
    pub results: Vec<TestResult>,
}

impl Report {
    /// The results of one outcome.
    pub fn of(&self, outcome: Outcome) -> impl Iterator<Item = &TestResult> {
        self.results.iter().filter(move |result| result.outcome == outcome)
    }
}

/// Reads `text`. Lines that are neither results nor plans are passed over, or become the message of a failure.
pub fn parse(text: &str) -> Report {
    let lines: Vec<&str> = text.lines().map(without_stamp).collect();
    let has_version = lines.iter().any(|line| matches!(classify(line.trim_start(), false), Line::Version));
    let mut parser = Parser { blocks: vec![Block::new("")], has_version };
    for line in lines {
        parser.line(line);
    }
    while parser.blocks.len() > 1 {
        parser.close_innermost();
    }
    let mut top = parser.blocks.pop().unwrap_or_else(|| Block::new(""));
    top.end();
    Report { results: top.results }
}

/// One line without its indentation.
#[derive(Debug, PartialEq, Eq)]
enum Line<'a> {
    Version,
    Plan { count: usize, skip: Option<&'a str> },
    Result { ok: bool, name: &'a str, directive: Option<&'a str> },
    Subtest(&'a str),
    BailOut(&'a str),
    Other,
}

/// `unnumbered` also takes results without a number.
fn classify(line: &str, unnumbered: bool) -> Line<'_> {
    let line = line.trim_end();
    let is_version = |rest: &str| rest.trim().bytes().all(|byte| byte.is_ascii_digit()) && !rest.trim().is_empty();
    if line.strip_prefix("KTAP version").or_else(|| line.strip_prefix("TAP version")).is_some_and(is_version) {
        return Line::Version;
    }
    if let Some(rest) = line.strip_prefix("1..") {
        let (count, comment) = rest.split_once('#').unwrap_or((rest, ""));
        if let Ok(count) = count.trim().parse() {
            return Line::Plan { count, skip: directive(comment, "SKIP") };
        }
    }
    if let Some(name) = line.strip_prefix("# Subtest:") {
        return Line::Subtest(name.trim());
    }
    if let Some(why) = line.strip_prefix("Bail out!") {
        return Line::BailOut(why.trim());
    }
    let (ok, rest) = match (line.strip_prefix("ok"), line.strip_prefix("not ok")) {
        (Some(rest), _) => (true, rest),
        (None, Some(rest)) => (false, rest),
        (None, None) => return Line::Other,
    };
    if !(rest.is_empty() || rest.starts_with(' ')) {
        return Line::Other;
    }
    let rest = rest.trim_start();
    let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
    let after = &rest[digits..];
    let numbered = digits > 0 && (after.is_empty() || after.starts_with(' '));
    if !(numbered || rest.starts_with("- ") || unnumbered) {
        return Line::Other;
    }
    let rest = if numbered { after.trim_start() } else { rest };
    let (name, comment) = split_comment(rest);
    let name = name.trim();
    let name = name.strip_prefix("- ").unwrap_or(name).trim_start();
    Line::Result { ok, name: if name == "-" { "" } else { name }, directive: comment }
}

/// A result's text up to its first ` #` that is not escaped, and what follows.
fn split_comment(text: &str) -> (&str, Option<&str>) {
    let bytes = text.as_bytes();
    let at = bytes.iter().enumerate().position(|(at, byte)| {
        let before = at.checked_sub(1).map(|before| bytes[before]);
        *byte == b'#' && before.is_none_or(|before| before == b' ')
    });
    match at {
        Some(at) => (&text[..at], Some(text[at + 1..].trim())),
        None => (text, None),
    }
}

/// What follows the word `wanted`, in any case, at the beginning of a comment.
fn directive<'a>(comment: &'a str, wanted: &str) -> Option<&'a str> {
    let comment = comment.trim();
    let head = comment.get(..wanted.len())?;
    let rest = &comment[wanted.len()..];
    let ends = rest.chars().next().is_none_or(|next| !next.is_alphanumeric());
    (head.eq_ignore_ascii_case(wanted) && ends).then(|| rest.trim_start_matches([':', ' ', '-']).trim())
}

/// A line without the level and the time stamp that the kernel's log puts before it.
fn without_stamp(line: &str) -> &str {
    let line = line.trim_end_matches('\r');
    let mut rest = line;
    if let Some(level) = rest.strip_prefix('<')
        && let Some((number, after)) = level.split_once('>')
        && number.bytes().all(|byte| byte.is_ascii_digit())
    {
        rest = after;
    }
    let mut stamped = false;
    while let Some((inside, after)) = rest.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        let inside = inside.trim();
        let is_stamp = inside.split_once('.').is_some_and(|(seconds, fraction)| {
            [seconds, fraction].iter().all(|part| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit()))
        });
        let is_caller = inside.strip_prefix(['T', 'C']).is_some_and(|id| id.bytes().all(|byte| byte.is_ascii_digit()));
        if !(is_stamp || (stamped && is_caller)) {
            break;
        }
        stamped = true;
        rest = after;
    }
    match (stamped, rest.strip_prefix(' ')) {
        (true, Some(after)) => after,
        _ => rest,
    }
}

struct Parser {
    /// Outermost first.
    blocks: Vec<Block>,
    has_version: bool,
}

/// Results at one depth.
struct Block {
    /// What stands before each of its lines.
    prefix: String,
    /// From `# Subtest:`.
    name: Option<String>,
    started: bool,
    plan: Option<usize>,
    /// Result lines so far.
    count: usize,
    results: Vec<TestResult>,
    /// Of the subtest that has just ended: its name and results.
    pending: Option<(Option<String>, Vec<TestResult>)>,
    diagnostics: VecDeque<String>,
    /// Lines of a YAML block behind the newest result.
    in_yaml: bool,
}

impl Block {
    fn new(prefix: &str) -> Self {
        Self {
            prefix: prefix.to_owned(),
            name: None,
            started: false,
            plan: None,
            count: 0,
            results: Vec::new(),
            pending: None,
            diagnostics: VecDeque::new(),
            in_yaml: false,
        }
    }

    fn note(&mut self, line: &str) {
        if line.trim().is_empty() {
            return;
        }
        if self.diagnostics.len() == DIAGNOSTICS {
            self.diagnostics.pop_front();
        }
        self.diagnostics.push_back(line.trim_start_matches('#').trim().to_owned());
    }

    fn fail(&mut self, name: impl Into<String>, message: impl Into<String>) {
        self.results.push(TestResult { name: name.into(), outcome: Outcome::Failed, message: Some(message.into()) });
    }

    fn result(&mut self, ok: bool, name: &str, comment: Option<&str>) {
        self.started = true;
        self.count += 1;
        let comment = comment.unwrap_or_default();
        let skipped = directive(comment, "SKIP");
        let expected = directive(comment, "TODO").or_else(|| directive(comment, "XFAIL")).is_some();
        let outcome = match (skipped, ok || expected) {
            (Some(_), _) => Outcome::Skipped,
            (None, true) => Outcome::Passed,
            (None, false) => Outcome::Failed,
        };
        let (subtest, inner) = self.pending.take().unwrap_or_default();
        let name = match (name, subtest) {
            ("", Some(subtest)) => subtest,
            ("", None) => format!("test {}", self.count),
            (name, _) => name.replace("\\#", "#"),
        };
        let diagnostics: Vec<String> = self.diagnostics.drain(..).collect();
        let message = match outcome {
            Outcome::Passed => None,
            Outcome::Skipped => Some(skipped.unwrap_or_default().to_owned()).filter(|reason| !reason.is_empty()),
            Outcome::Failed => {
                let lines = (!comment.is_empty()).then(|| comment.to_owned()).into_iter().chain(diagnostics);
                Some(lines.collect::<Vec<_>>().join("\n")).filter(|text| !text.is_empty())
            }
        };
        let explained = inner.iter().any(|result| result.outcome == Outcome::Failed);
        let has_inner = !inner.is_empty();
        for result in inner {
            self.results.push(TestResult { name: format!("{name}{INSIDE}{}", result.name), ..result });
        }
        if !has_inner || (outcome == Outcome::Failed && !explained) {
            self.results.push(TestResult { name, outcome, message });
        }
    }

    /// A subtest ended without a result line of its own.
    fn abandon(&mut self) {
        if let Some((name, inner)) = self.pending.take() {
            let name = name.unwrap_or_else(|| "subtest".to_owned());
            for result in inner {
                self.results.push(TestResult { name: format!("{name}{INSIDE}{}", result.name), ..result });
            }
            let mut message = "it began, and has no result".to_owned();
            for line in self.diagnostics.drain(..) {
                message.push('\n');
                message.push_str(&line);
            }
            self.fail(name, message);
        }
    }

    /// The text of this block is over.
    fn end(&mut self) {
        self.abandon();
        if let Some(plan) = self.plan.take()
            && plan != self.count
        {
            let message = format!("{plan} results were planned, found {}", self.count);
            self.fail("plan", message);
        }
        self.count = 0;
    }
}

impl Parser {
    fn line(&mut self, line: &str) {
        if line.trim().is_empty() {
            return;
        }
        // The innermost block that the line can belong to.
        while self.blocks.len() > 1 && !line.starts_with(self.current().prefix.as_str()) {
            let outer = &self.blocks[self.blocks.len() - 2].prefix;
            let ends = line
                .strip_prefix(outer.as_str())
                .is_some_and(|rest| !matches!(classify(rest.trim_start(), false), Line::Other));
            if !ends {
                // Kernel messages between the lines of a subtest.
                self.current().note(line);
                return;
            }
            self.close_innermost();
        }
        let prefix = self.current().prefix.clone();
        let rest = line.strip_prefix(prefix.as_str()).unwrap_or(line);
        if self.yaml(rest) {
            return;
        }
        if let Some(deeper) = self.deeper(rest) {
            self.current().abandon();
            self.blocks.push(Block::new(&format!("{prefix}{deeper}")));
            let inner = &rest[deeper.len()..];
            return self.at_block(inner);
        }
        self.at_block(rest);
    }

    fn current(&mut self) -> &mut Block {
        if self.blocks.is_empty() {
            self.blocks.push(Block::new(""));
        }
        let last = self.blocks.len() - 1;
        &mut self.blocks[last]
    }

    /// What begins a subtest on this line: more indentation, or `# ` before a version line.
    fn deeper<'a>(&self, rest: &'a str) -> Option<&'a str> {
        let inner = rest.trim_start();
        let indentation = &rest[..rest.len() - inner.len()];
        if !indentation.is_empty() {
            return (!matches!(classify(inner, false), Line::Other | Line::BailOut(_))).then_some(indentation);
        }
        let behind = rest.strip_prefix("# ")?;
        (classify(behind, false) == Line::Version).then_some(&rest[..2])
    }

    /// Whether the line belongs to a YAML block behind a result.
    fn yaml(&mut self, rest: &str) -> bool {
        let block = self.current();
        let text = rest.trim();
        if !block.in_yaml {
            block.in_yaml = text == "---" && rest.starts_with(' ') && !block.results.is_empty();
            return block.in_yaml;
        }
        if text == "..." {
            block.in_yaml = false;
        } else if let Some(result) = block.results.last_mut().filter(|result| result.outcome == Outcome::Failed) {
            let message = result.message.get_or_insert_default();
            if !message.is_empty() {
                message.push('\n');
            }
            message.push_str(text);
        }
        true
    }

    fn at_block(&mut self, rest: &str) {
        let has_version = self.has_version;
        let is_top = self.blocks.len() == 1;
        let block = self.current();
        match classify(rest, has_version && block.started) {
            Line::Version => {
                // Several runs may stand behind each other.
                if block.started && (block.count > 0 || block.plan.is_some()) {
                    block.end();
                }
                block.started = true;
                block.diagnostics.clear();
            }
            Line::Plan { count: 0, skip: Some(reason) } => {
                block.started = true;
                let name = block.name.clone().unwrap_or_else(|| "all".to_owned());
                let message = Some(reason.to_owned()).filter(|reason| !reason.is_empty());
                block.results.push(TestResult { name, outcome: Outcome::Skipped, message });
            }
            Line::Plan { count, .. } => {
                block.started = true;
                block.plan = Some(count);
            }
            Line::Subtest(name) => {
                // TAP 14 names the subtest before its first line, with less indentation.
                if is_top || block.count > 0 || block.name.is_some() {
                    block.note(rest);
                } else {
                    block.name = Some(name.to_owned());
                }
            }
            Line::Result { ok, name, directive } => {
                if !has_version || block.started || !is_top {
                    block.result(ok, name, directive);
                }
            }
            Line::BailOut(why) => {
                let message = if why.is_empty() { "bailed out" } else { why };
                block.fail("bail out", message);
                block.plan = None;
            }
            Line::Other => block.note(rest),
        }
    }

    fn close_innermost(&mut self) {
        if let Some(mut inner) = self.blocks.pop() {
            inner.end();
            let left = std::mem::take(&mut inner.diagnostics);
            let outer = self.current();
            outer.abandon();
            for line in left {
                outer.note(&line);
            }
            outer.pending = Some((inner.name, inner.results));
        }
    }
}

#[cfg(test)]
#[path = "ktap_tests.rs"]
mod tests;
