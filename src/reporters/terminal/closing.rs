//! The last lines of a log of which often only the last lines are seen, as nix shows 25 of a failed build's: what failed, why,
//! and how to repeat it.

use super::text::{indent, one_line};
use crate::run_events::{FileError, TestDone};

/// Lines of all of it. Nix shows 25, and a few belong to whoever ran provium.
const LINES: usize = 22;
/// Lines of one failure's message.
const MESSAGE: usize = 12;

/// The failures of a run, short.
#[derive(Default)]
pub(super) struct Closing {
    blocks: Vec<String>,
}

impl Closing {
    /// A test that failed.
    pub(super) fn test(&mut self, test: &TestDone) {
        let reports: String = test
            .kernel_reports
            .iter()
            .take(2)
            .map(|title| format!("    kernel report: {}\n", one_line(title)))
            .collect();
        let label = format!("{}: {}", one_line(&test.file), one_line(&test.name));
        self.add(&label, &test.file, test.message.as_deref().unwrap_or_default(), &reports, &test.trace);
    }

    /// A file that could not run.
    pub(super) fn file(&mut self, label: &str, file: &str, error: Option<&FileError>) {
        let (message, trace) = error.map_or(("", &[][..]), |error| (error.message.as_str(), &error.trace));
        self.add(label, file, message, "", trace);
    }

    fn add(&mut self, label: &str, file: &str, message: &str, reports: &str, trace: &[String]) {
        let place = trace.first().map(|frame| format!("    at {}\n", one_line(frame))).unwrap_or_default();
        self.blocks.push(format!(
            "FAIL {label}\n{}{reports}{place}    repeat: provium test {}\n",
            cut(&indent(message, "    ")),
            one_line(file)
        ));
    }

    /// The text; nothing where nothing failed.
    pub(super) fn text(&self) -> String {
        let mut text = String::new();
        for (index, block) in self.blocks.iter().enumerate() {
            if index > 0 && text.lines().count() + block.lines().count() > LINES - 2 {
                return format!("\n{text}and {} more, further up\n", self.blocks.len() - index);
            }
            text += block;
        }
        if text.is_empty() { text } else { format!("\n{text}") }
    }
}

/// At most `MESSAGE` lines.
fn cut(text: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    match lines.get(..MESSAGE) {
        Some(first) if lines.len() > MESSAGE => format!("{}\n    …\n", first.join("\n")),
        _ => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run_events::TestStatus;

    #[test]
    fn the_first_failures_fit_and_the_others_are_counted() {
        let mut closing = Closing::default();
        assert_eq!(closing.text(), "");
        for number in 0..10 {
            let mut test = TestDone::new("a.test.lua", format!("test {number}"), TestStatus::Failed, 0.0);
            test.message = Some("line\n".repeat(40));
            test.kernel_reports = vec!["KASAN: bad".to_owned()];
            test.trace = vec!["a.test.lua:7".to_owned(), "b".to_owned()];
            closing.test(&test);
        }
        let text = closing.text();
        assert!(text.lines().count() <= LINES, "{text}");
        assert!(text.starts_with("\nFAIL a.test.lua: test 0\n    line\n"), "{text}");
        assert!(text.contains(
            "    …\n    kernel report: KASAN: bad\n    at a.test.lua:7\n    repeat: provium test a.test.lua\n"
        ));
        assert!(text.ends_with("and 9 more, further up\n"), "{text}");
    }

    #[test]
    fn short_ones_are_all_there() {
        let mut closing = Closing::default();
        for number in 0..3 {
            closing.test(&TestDone::new("a.test.lua", format!("test {number}"), TestStatus::Failed, 0.0));
        }
        closing.file("b.test.lua: could not load", "b.test.lua", None);
        assert_eq!(closing.text().matches("FAIL ").count(), 4);
        assert!(closing.text().ends_with("FAIL b.test.lua: could not load\n    repeat: provium test b.test.lua\n"));
    }
}
