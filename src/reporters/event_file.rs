//! `--save-events FILE`: the stream as JSON lines, written whole or not at all.
//!
//! Events collect in a nameless file in the same directory, which vanishes with the process however that ends. At the
//! end it is copied into a named one that is moved into place.

use std::fs::{self, File};
use std::io::{self, BufWriter, Seek, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::error::ReporterError;
use crate::foundation::path_error::{PathContext, PathError};
use crate::run_events::{Consumer, ConsumerError, Event};

/// Collects the stream and puts it into place at its end.
pub struct EventFile {
    target: PathBuf,
    spool: BufWriter<File>,
    failure: Option<PathError>,
}

impl EventFile {
    /// Prepares to write `path`; an old file there stays until the end.
    ///
    /// # Errors
    /// When the directory does not exist or is not writable, or when `path` can't be a file: both are to be reported
    /// before any test runs.
    pub fn create(path: &Path) -> Result<Self, ReporterError> {
        // Through a link, so that the file it points to is replaced and not the link.
        let target = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
        if target.file_name().is_none() || target.is_dir() || path.as_os_str().to_string_lossy().ends_with('/') {
            return Err(ReporterError::EventFileName(path.to_owned()));
        }
        let spool_directory = if is_special(&target) { std::env::temp_dir() } else { directory_of(&target) };
        let spool = tempfile::tempfile_in(&spool_directory)
            .at("write to", &spool_directory)
            .map_err(ReporterError::EventFileDirectory)?;
        Ok(Self { target, spool: BufWriter::new(spool), failure: None })
    }

    fn append(&mut self, event: &Event) -> io::Result<()> {
        let line = event.to_json_line()?;
        self.spool.write_all(line.as_bytes())?;
        self.spool.write_all(b"\n")
    }

    fn put_in_place(&mut self) -> Result<(), PathError> {
        self.spool.flush().at("write", &self.target)?;
        let spool = self.spool.get_mut();
        spool.rewind().at("write", &self.target)?;
        if is_special(&self.target) {
            let mut target = File::options().write(true).open(&self.target).at("open", &self.target)?;
            return io::copy(spool, &mut target).map(|_| ()).at("write", &self.target);
        }
        let mut whole = tempfile::Builder::new()
            .prefix(".provium-events-")
            // Less the umask, as for any file that a program writes.
            .permissions(fs::Permissions::from_mode(0o666))
            .tempfile_in(directory_of(&self.target))
            .at("create", &self.target)?;
        io::copy(spool, whole.as_file_mut()).at("write", &self.target)?;
        whole.as_file().sync_all().at("write", &self.target)?;
        whole.persist(&self.target).map(|_| ()).map_err(|error| error.error).at("create", &self.target)
    }
}

impl Consumer for EventFile {
    fn output(&self) -> String {
        "event file".to_owned()
    }

    fn event(&mut self, event: &Event) {
        if self.failure.is_none() {
            self.failure = self.append(event).at("write", &self.target).err();
        }
    }

    fn finish(mut self: Box<Self>) -> Result<(), ConsumerError> {
        let outcome = match self.failure.take() {
            Some(failure) => Err(failure),
            None => self.put_in_place(),
        };
        outcome.map_err(|error| ConsumerError::new(self.output(), error))
    }
}

/// A pipe or device, which can't be replaced.
fn is_special(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|found| !found.is_file())
}

fn directory_of(path: &Path) -> PathBuf {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
        _ => PathBuf::from("."),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run_events::{EventKind, EventSink, FileRef, RunStatus};

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
        assert!(is_special(Path::new("/dev/null")));
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
