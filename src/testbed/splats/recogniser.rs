//! Lines of a kernel's log to reports, each whole. Pure.

use super::kind::{End, SplatKind, Start, is_frame, is_oops, start};

/// A pause in the log that ends a report, in microseconds of the guest's time.
const PAUSE: u64 = 1_000_000;
/// The longest report that is kept, in lines and in bytes.
const MOST_LINES: usize = 4000;
const MOST_BYTES: usize = 512 * 1024;
/// How many lines may stand between what may begin a report and what says that it is one: behind `cut here`, a warning's own text.
const PATIENCE: usize = 8;
const CUT_HERE_PATIENCE: usize = 64;

/// One kernel report.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// What it is.
    pub kind: SplatKind,
    /// Its most telling line.
    pub title: String,
    /// All of it, without the log's time stamps; ends with a newline.
    pub text: String,
}

/// A report that is not whole yet.
struct Open {
    /// None as long as it may be nothing.
    title: Option<(SplatKind, String)>,
    /// What it becomes if a stack follows.
    perhaps: Option<(SplatKind, String)>,
    end: End,
    cut_here: bool,
    framed: bool,
    /// Whether the line that numbers an oops was seen.
    numbered: bool,
    lines: Vec<String>,
    bytes: usize,
    last: Option<u64>,
}

impl Open {
    fn new(begun: Start, line: &str) -> Self {
        let mut open = Self {
            title: None,
            perhaps: None,
            end: End::Trace,
            cut_here: begun == Start::CutHere,
            framed: begun == Start::Frame,
            numbered: false,
            lines: Vec::new(),
            bytes: 0,
            last: None,
        };
        match begun {
            Start::Titled(kind, end) => open.set_title(kind, end, line),
            Start::Perhaps(kind, end) => {
                open.perhaps = Some((kind, line.to_owned()));
                open.end = end;
            }
            Start::CutHere | Start::Frame => {}
        }
        open
    }

    fn set_title(&mut self, kind: SplatKind, end: End, line: &str) {
        self.title = Some((kind, line.trim().to_owned()));
        self.end = end;
        self.numbered = is_oops(line);
    }

    fn push(&mut self, micros: Option<u64>, line: &str) {
        self.bytes += line.len() + 1;
        self.lines.push(line.to_owned());
        self.last = micros.or(self.last);
        if self.title.is_none() && self.perhaps.is_some() && shows_stack(line) {
            self.title = self.perhaps.take();
        }
    }

    /// Whether `line`, which begins something, belongs to this report nevertheless; changes what this report is.
    fn absorbs(&mut self, begun: Start, line: &str) -> bool {
        let Some((kind, _)) = &self.title else {
            return match begun {
                Start::Titled(kind, end) if self.cut_here || self.framed => {
                    // What a list is corrupted by stands in front of the line that says what the kernel makes of it.
                    let only_text = self.cut_here && kind == SplatKind::Bug && !line.starts_with("kernel BUG at ");
                    if kind == SplatKind::Panic {
                        return false;
                    }
                    if !only_text {
                        // Inside `cut here` everything but a lock validator's report ends as a trace does.
                        self.set_title(kind, if self.cut_here { End::Trace } else { end }, line);
                    }
                    true
                }
                Start::Perhaps(kind, end) if self.cut_here || self.framed => {
                    self.perhaps = Some((kind, line.trim().to_owned()));
                    self.end = end;
                    true
                }
                _ => false,
            };
        };
        match (kind, begun) {
            (SplatKind::Panic, _) => true,
            // The list's corruption was told before.
            (SplatKind::Bug, Start::CutHere) => {
                self.end == End::Trace && !self.cut_here && self.lines.len() <= 4 && {
                    self.cut_here = true;
                    true
                }
            }
            (SplatKind::Bug, Start::Titled(SplatKind::Bug, _)) if line.starts_with("kernel BUG at ") => {
                self.cut_here && !self.title.as_ref().is_some_and(|(_, title)| title.starts_with("kernel BUG at "))
            }
            (SplatKind::Oops | SplatKind::Bug, Start::Titled(SplatKind::Oops, _))
                if is_oops(line) && !self.numbered =>
            {
                self.numbered = true;
                true
            }
            _ => false,
        }
    }

    /// Whether `line`, the last that was pushed, ends it.
    fn is_ended_by(&self, line: &str) -> bool {
        let kind = self.title.as_ref().map(|(kind, _)| *kind);
        if kind == Some(SplatKind::Panic) {
            return line.starts_with("---[ end Kernel panic");
        }
        line.starts_with("---[ end trace")
            || self.lines.len() >= MOST_LINES
            || self.bytes >= MOST_BYTES
            || self.end == End::Task && line.trim() == "</TASK>"
            || is_frame(line) && self.lines.len() > 2 && self.is_closed_by_frame()
    }

    /// Whether a line of `=` is its last.
    fn is_closed_by_frame(&self) -> bool {
        let is_old_ubsan = self.framed && self.title.as_ref().is_some_and(|(kind, _)| *kind == SplatKind::Ubsan);
        self.title.is_some() && self.end == End::Frame || is_old_ubsan
    }

    fn report(self) -> Option<Report> {
        let (kind, title) = match (self.title, self.cut_here) {
            (Some(title), _) => title,
            // What says what it is was lost.
            (None, true) if self.lines.len() > 1 => (SplatKind::Warning, self.lines[1].trim().to_owned()),
            _ => return None,
        };
        let mut text = self.lines.join("\n");
        text.push('\n');
        Some(Report { kind, title, text })
    }
}

/// A line that only a dump of a CPU or a stack has.
fn shows_stack(line: &str) -> bool {
    let line = line.trim_start();
    ["CPU: ", "Call Trace:", "Call trace:", "Hardware name: ", "Modules linked in:", "RIP: "]
        .iter()
        .any(|begin| line.starts_with(begin))
}

/// Finds reports in a log that comes line by line.
#[derive(Default)]
pub struct Recogniser {
    open: Option<Open>,
}

impl Recogniser {
    /// Whether what came last may be a report that is not whole yet: then `finish` is called once the log is quiet.
    pub fn is_open(&self) -> bool {
        self.open.is_some()
    }

    /// The next line of the kernel, and when it was logged; the reports that are whole with it.
    pub fn line(&mut self, micros: Option<u64>, line: &str) -> Vec<Report> {
        let mut whole = Vec::new();
        let line = line.trim_end();
        if let Some(open) = &self.open
            && let (Some(last), Some(now)) = (open.last, micros)
            && now > last.saturating_add(PAUSE)
        {
            whole.extend(self.finish());
        }
        let begun = start(line);
        if let Some(open) = &mut self.open {
            let closes = is_frame(line) && open.is_closed_by_frame();
            match begun {
                None => {}
                Some(_) if closes => {}
                Some(begun) if open.absorbs(begun, line) => {}
                Some(_) => whole.extend(self.finish()),
            }
        }
        match (&mut self.open, begun) {
            (None, None) => return whole,
            (Some(_), _) => {}
            (None, Some(begun)) => self.open = Some(Open::new(begun, line)),
        }
        let Some(open) = &mut self.open else { return whole };
        open.push(micros, line);
        let waits = open.title.is_none();
        let patience = if open.cut_here { CUT_HERE_PATIENCE } else { PATIENCE };
        let hopeless =
            waits && (open.lines.len() > patience || open.framed && open.lines.len() > 1 && open.perhaps.is_none());
        if hopeless && !open.cut_here {
            self.open = None;
        } else if hopeless || open.is_ended_by(line) {
            whole.extend(self.finish());
        }
        whole
    }

    /// The log is quiet, or over: what is open is whole.
    pub fn finish(&mut self) -> Option<Report> {
        self.open.take()?.report()
    }
}
