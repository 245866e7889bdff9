//! `--save-events FILE`: the stream as JSON lines, written whole or not at all.

use std::io::{self, Write};
use std::path::Path;

use super::error::ReporterError;
use super::spool::Spool;
use crate::foundation::path_error::{PathContext, PathError};
use crate::run_events::{Consumer, ConsumerError, Event};

/// Collects the stream and puts it into place at its end.
pub struct EventFile {
    spool: Spool,
    failure: Option<PathError>,
}

impl EventFile {
    /// Prepares to write `path`; an old file there stays until the end.
    ///
    /// # Errors
    /// When the directory does not exist or is not writable, or when `path` can't be a file: both are to be reported
    /// before any test runs.
    pub fn create(path: &Path) -> Result<Self, ReporterError> {
        Ok(Self { spool: Spool::create("events", path)?, failure: None })
    }

    fn append(&mut self, event: &Event) -> io::Result<()> {
        let line = event.to_json_line()?;
        self.spool.write_all(line.as_bytes())?;
        self.spool.write_all(b"\n")
    }
}

impl Consumer for EventFile {
    fn output(&self) -> String {
        "event file".to_owned()
    }

    fn event(&mut self, event: &Event) {
        if self.failure.is_none() {
            self.failure = self.append(event).at("write", self.spool.target()).err();
        }
    }

    fn finish(mut self: Box<Self>) -> Result<(), ConsumerError> {
        let outcome = match self.failure.take() {
            Some(failure) => Err(failure),
            None => self.spool.put_in_place(),
        };
        outcome.map_err(|error| ConsumerError::new("event file", error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run_events::{EventKind, EventSink, FileRef, RunStatus};
    use std::fs;

    fn names(directory: &Path) -> Vec<String> {
        let mut names: Vec<String> =
            fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    fn save(path: &Path) -> EventSink {
        let sink = EventSink::new(vec![Box::new(EventFile::create(path).unwrap())]).unwrap();
        sink.emit(EventKind::FileDiscovered(FileRef { file: "a".into() }));
        sink
    }

    #[test]
    fn is_whole_at_the_end_and_not_there_before() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("events.jsonl");
        let sink = save(&path);
        assert!(names(directory.path()).is_empty());
        sink.end_run(RunStatus::Passed, 0);
        sink.finish().unwrap();
        assert_eq!(names(directory.path()), ["events.jsonl"]);
        let text = fs::read_to_string(&path).unwrap();
        let events: Vec<Event> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(events.len(), 3);
        assert!(matches!(events[2].kind, EventKind::RunDone(_)));
    }

    #[test]
    fn an_old_file_stays_until_the_new_one_is_whole() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("events.jsonl");
        fs::write(&path, "old").unwrap();
        let sink = save(&path);
        assert_eq!(fs::read_to_string(&path).unwrap(), "old");
        sink.finish().unwrap();
        assert!(fs::read_to_string(&path).unwrap().starts_with("{\"v\":1,"));
    }

    #[test]
    fn a_link_stays_a_link() {
        let directory = tempfile::tempdir().unwrap();
        let (file, link) = (directory.path().join("file"), directory.path().join("link"));
        fs::write(&file, "old").unwrap();
        std::os::unix::fs::symlink(&file, &link).unwrap();
        save(&link).finish().unwrap();
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert!(fs::read_to_string(&file).unwrap().starts_with('{'));
    }

    #[test]
    fn a_device_is_written_to_and_not_replaced() {
        save(Path::new("/dev/null")).finish().unwrap();
        assert!(!fs::metadata("/dev/null").unwrap().is_file());
    }

    #[test]
    fn a_missing_directory_is_said_at_once() {
        let error = EventFile::create(Path::new("/nonexistent/events.jsonl")).err().unwrap();
        assert_eq!(error.to_string(), "can't save events: can't write to `/nonexistent`: no such file or directory");
        let error = EventFile::create(Path::new("/tmp/")).err().unwrap();
        assert_eq!(error.to_string(), "can't save events: expected a file, found `/tmp/`");
        assert!(!error.hint().is_empty());
    }
}
