//! Files that are kept with the report: what tests attach, kernel reports, whole console logs.
//!
//! With a directory (`--artifacts DIR`) each file lies at `DIR/<test file>/<test>/<name>`, written whole or not at all. Names
//! become safe file names; two that would fall together get numbers. Without a directory nothing is written: the report
//! knows name and size, and the path is absent.

use std::collections::{HashMap, HashSet};
use std::fs::Permissions;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::foundation::path_error::{PathContext, PathError};
use crate::run_events::Attachment;

/// The longest name of a file or directory, in bytes; room is left for numbers.
const LONGEST: usize = 120;

/// Where files are kept, and what the running tests have attached so far; clones share it.
#[derive(Debug, Clone, Default)]
pub struct Artifacts {
    directory: Option<PathBuf>,
    desk: Arc<Mutex<Desk>>,
}

#[derive(Debug, Default)]
struct Desk {
    /// The running test of each test file, by the file as it is shown.
    running: HashMap<String, Running>,
    /// Directories that are given away.
    directories: HashMap<PathBuf, (String, Option<String>)>,
    /// Files of this run.
    files: HashSet<PathBuf>,
}

#[derive(Debug)]
struct Running {
    test: String,
    attached: Vec<Attachment>,
}

impl Artifacts {
    /// Keeps files below `directory`, which is made where it is missing.
    ///
    /// # Errors
    /// When it can't be made.
    pub fn in_directory(directory: &Path) -> Result<Self, PathError> {
        std::fs::create_dir_all(directory).at("create", directory)?;
        Ok(Self { directory: Some(directory.to_owned()), desk: Arc::default() })
    }

    fn desk(&self) -> MutexGuard<'_, Desk> {
        // Consistent at every step, so a panic elsewhere does not spoil it.
        self.desk.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// `test` of the test file `file` (as it is shown) runs from now on.
    pub fn begin_test(&self, file: &str, test: &str) {
        self.desk().running.insert(file.to_owned(), Running { test: test.to_owned(), attached: Vec::new() });
    }

    /// The running test of `file` has ended; what was attached to it.
    pub fn end_test(&self, file: &str) -> Vec<Attachment> {
        self.desk().running.remove(file).map(|running| running.attached).unwrap_or_default()
    }

    /// Attaches `bytes` to the test of `file` that runs now. Where none runs (file scope), the file is kept beside the
    /// directories of the tests. May be called on any thread.
    ///
    /// # Errors
    /// When it can't be written; nothing is attached then.
    pub fn attach(&self, file: &str, name: &str, bytes: &[u8]) -> Result<Attachment, PathError> {
        let test = self.desk().running.get(file).map(|running| running.test.clone());
        let path = self.keep(file, test.as_deref(), name, bytes)?;
        let attachment = Attachment {
            name: name.to_owned(),
            size: u64::try_from(bytes.len()).unwrap_or(u64::MAX),
            path: path.map(|path| path.display().to_string()),
        };
        if let Some(running) = self.desk().running.get_mut(file)
            && Some(&running.test) == test.as_ref()
        {
            running.attached.push(attachment.clone());
        }
        Ok(attachment)
    }

    /// Writes a file of `test` without attaching it; its path, where there is a directory.
    ///
    /// # Errors
    /// When it can't be written.
    pub fn keep(&self, file: &str, test: Option<&str>, name: &str, bytes: &[u8]) -> Result<Option<PathBuf>, PathError> {
        let Some(top) = &self.directory else { return Ok(None) };
        let (directory, path) = {
            let mut desk = self.desk();
            let directory = desk.directory(top, file, test);
            let path = desk.file(&directory, name);
            (directory, path)
        };
        std::fs::create_dir_all(&directory).at("create", &directory)?;
        let mut whole = tempfile::Builder::new()
            .prefix(".provium-")
            // Less the umask, as for any file that a program writes.
            .permissions(Permissions::from_mode(0o666))
            .tempfile_in(&directory)
            .at("create", &path)?;
        whole.write_all(bytes).at("write", &path)?;
        whole.persist(&path).map_err(|error| error.error).at("create", &path)?;
        Ok(Some(path))
    }
}

impl Desk {
    /// The directory of a test, or of a file where no test is named.
    fn directory(&mut self, top: &Path, file: &str, test: Option<&str>) -> PathBuf {
        let mut base = top.to_owned();
        base.extend(file.split('/').filter(|part| !matches!(*part, "" | ".")).map(safe_name));
        let Some(test) = test else { return base };
        let owner = (file.to_owned(), Some(test.to_owned()));
        let name = safe_name(test);
        let mut number = 1_u32;
        loop {
            let directory = base.join(numbered(&name, number));
            match self.directories.get(&directory) {
                Some(taken) if *taken != owner => number += 1,
                _ => {
                    self.directories.insert(directory.clone(), owner);
                    return directory;
                }
            }
        }
    }

    /// A path in `directory` that no file of this run has.
    fn file(&mut self, directory: &Path, name: &str) -> PathBuf {
        let name = safe_name(name);
        let mut number = 1_u32;
        loop {
            let path = directory.join(numbered(&name, number));
            if self.files.insert(path.clone()) {
                return path;
            }
            number += 1;
        }
    }
}

/// `name`, or `name-2` (before the extension) for the second of that name.
fn numbered(name: &str, number: u32) -> String {
    match (number, name.rsplit_once('.')) {
        (1, _) => name.to_owned(),
        (_, Some((stem, extension))) if !stem.is_empty() => format!("{stem}-{number}.{extension}"),
        _ => format!("{name}-{number}"),
    }
}

/// Any text as the name of a file: no separators, no control or shell characters, no leading dot, not too long.
fn safe_name(text: &str) -> String {
    let mut name = String::new();
    for character in text.trim().chars() {
        let fine = character.is_alphanumeric() || matches!(character, '-' | '_' | '.' | '+' | '=' | '@' | ',' | ' ');
        let character = if fine { character } else { '_' };
        if name.len() + character.len_utf8() > LONGEST {
            break;
        }
        name.push(character);
    }
    if name.is_empty() || name.starts_with('.') {
        name.insert(0, '_');
    }
    name.trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn files_lie_by_test_file_and_test() {
        let dir = tempfile::tempdir().unwrap();
        let artifacts = Artifacts::in_directory(&dir.path().join("new/out")).unwrap();
        artifacts.begin_test("tests/a.test.lua", "reads & writes");
        let first = artifacts.attach("tests/a.test.lua", "../../log.txt", b"\0one").unwrap();
        let second = artifacts.attach("tests/a.test.lua", "../../log.txt", b"two").unwrap();
        let base = dir.path().join("new/out/tests/a.test.lua/reads _ writes");
        assert_eq!(first.path.as_deref(), base.join("_.._.._log.txt").to_str());
        assert_eq!(second.path.as_deref(), base.join("_.._.._log-2.txt").to_str());
        assert_eq!(std::fs::read(first.path.as_ref().unwrap()).unwrap(), b"\0one");
        assert_eq!(artifacts.end_test("tests/a.test.lua"), [first, second]);
        assert_eq!(artifacts.end_test("tests/a.test.lua"), []);
        assert_eq!(std::fs::read_dir(&base).unwrap().count(), 2, "nothing but the two files");
    }

    #[test]
    fn tests_whose_names_fall_together_have_directories_of_their_own() {
        let dir = tempfile::tempdir().unwrap();
        let artifacts = Artifacts::in_directory(dir.path()).unwrap();
        let keep = |test: &str| artifacts.keep("../x.test.lua", Some(test), "f", b"").unwrap().unwrap();
        assert_eq!(keep("a/b"), dir.path().join("_../x.test.lua/a_b/f"));
        assert_eq!(keep("a_b"), dir.path().join("_../x.test.lua/a_b-2/f"));
        assert_eq!(keep("a/b"), dir.path().join("_../x.test.lua/a_b/f-2"));
    }

    #[test]
    fn without_a_directory_only_name_and_size_are_known() {
        let artifacts = Artifacts::default();
        artifacts.begin_test("a", "t");
        artifacts.attach("a", "x", b"123").unwrap();
        assert_eq!(artifacts.end_test("a"), [Attachment { name: "x".to_owned(), size: 3, path: None }]);
    }

    #[test]
    fn a_file_of_an_earlier_run_is_replaced_and_a_failure_attaches_nothing() {
        let dir = tempfile::tempdir().unwrap();
        for text in ["first run", "2nd"] {
            let artifacts = Artifacts::in_directory(dir.path()).unwrap();
            artifacts.begin_test("a", "t");
            let path = artifacts.attach("a", "x", text.as_bytes()).unwrap().path.unwrap();
            assert_eq!(std::fs::read_to_string(path).unwrap(), text);
        }
        std::fs::write(dir.path().join("b"), "in the way").unwrap();
        let artifacts = Artifacts::in_directory(dir.path()).unwrap();
        artifacts.begin_test("b", "t");
        assert!(artifacts.attach("b", "x", b"1").unwrap_err().to_string().contains("can't create"));
        assert_eq!(artifacts.end_test("b"), []);
    }

    proptest! {
        #[test]
        fn any_name_is_one_plain_component(text in any::<String>()) {
            let name = safe_name(&text);
            prop_assert!(!name.is_empty() && !name.starts_with('.') && name.len() <= LONGEST + 1);
            prop_assert!(!name.contains(['/', '\0', '\n']) && Path::new(&name).components().count() == 1);
        }
    }
}
