//! Which files are tests.

use std::collections::{BTreeSet, HashSet};
use std::fmt;
use std::path::{Path, PathBuf};

use super::profile::Project;
use crate::foundation::path_error::{PathContext, PathError};

/// What test files are called.
const SUFFIX: &str = ".test.lua";

/// A test file.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct TestFile {
    /// Absolute.
    pub path: PathBuf,
    /// Relative to the working directory where it lies below it.
    pub display: String,
}

/// Files that can't be found.
#[derive(Debug)]
pub enum DiscoverError {
    /// A PATH is not there, or can't be listed.
    File(PathError),
    /// A PATH is a file that is no Lua.
    NotLua(PathBuf),
}

impl fmt::Display for DiscoverError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(error) => error.fmt(f),
            Self::NotLua(path) => {
                write!(f, "`{}` is not a test file: expected a directory or a `*{SUFFIX}`", path.display())
            }
        }
    }
}

impl std::error::Error for DiscoverError {}

/// The test files below `paths`, or below the project's roots where no path is given, sorted by path. A file that is named
/// is taken whatever it is called, so long as it is Lua. Hidden directories are left out.
///
/// # Errors
/// A path that is not there or can't be read.
pub fn discover(project: Option<&Project>, paths: &[PathBuf], cwd: &Path) -> Result<Vec<TestFile>, DiscoverError> {
    let mut found = BTreeSet::new();
    let mut seen = HashSet::new();
    let starts: Vec<PathBuf> = match (paths, project) {
        ([], Some(project)) => project.roots.clone(),
        ([], None) => vec![cwd.to_owned()],
        (paths, _) => paths.iter().map(|path| cwd.join(path)).collect(),
    };
    for start in starts {
        let start: PathBuf = start.components().collect();
        let metadata = std::fs::metadata(&start).at("find", &start).map_err(DiscoverError::File)?;
        if metadata.is_dir() {
            walk(&start, &mut found, &mut seen)?;
        } else if start.extension().is_some_and(|ending| ending == "lua") {
            found.insert(start);
        } else {
            return Err(DiscoverError::NotLua(start));
        }
    }
    let file =
        |path: PathBuf| TestFile { display: path.strip_prefix(cwd).unwrap_or(&path).display().to_string(), path };
    Ok(found.into_iter().map(file).collect())
}

fn walk(directory: &Path, found: &mut BTreeSet<PathBuf>, seen: &mut HashSet<PathBuf>) -> Result<(), DiscoverError> {
    // A link may lead back up.
    let real = directory.canonicalize().at("find", directory).map_err(DiscoverError::File)?;
    if !seen.insert(real) {
        return Ok(());
    }
    for entry in std::fs::read_dir(directory).at("list", directory).map_err(DiscoverError::File)?.flatten() {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        let path = entry.path();
        if name.starts_with('.') {
            continue;
        }
        if path.is_dir() {
            walk(&path, found, seen)?;
        } else if name.ends_with(SUFFIX) {
            found.insert(path);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sorted_without_hidden_ones_and_loops() {
        let dir = tempfile::tempdir().unwrap();
        let cwd = dir.path().canonicalize().unwrap();
        for name in ["b.test.lua", "a/z.test.lua", "a/helper.lua", ".hidden/x.test.lua", "a.test.luac"] {
            std::fs::create_dir_all(cwd.join(name).parent().unwrap()).unwrap();
            std::fs::write(cwd.join(name), "").unwrap();
        }
        std::os::unix::fs::symlink(cwd.join("a"), cwd.join("a/loop")).unwrap();
        let names = |paths: &[&str]| -> Vec<String> {
            let paths: Vec<PathBuf> = paths.iter().map(PathBuf::from).collect();
            discover(None, &paths, &cwd).unwrap().into_iter().map(|file| file.display).collect()
        };
        assert_eq!(names(&[]), ["a/z.test.lua", "b.test.lua"]);
        assert_eq!(names(&["a"]), ["a/z.test.lua"]);
        assert_eq!(names(&["a/helper.lua", "./b.test.lua", "b.test.lua"]), ["a/helper.lua", "b.test.lua"]);
        let error = discover(None, &["nowhere".into()], &cwd).unwrap_err().to_string();
        assert!(error.contains("nowhere") && error.contains("no such file"), "{error}");
        assert!(discover(None, &["a.test.luac".into()], &cwd).unwrap_err().to_string().contains("is not a test file"));
    }
}
