//! What a release directory holds: built-in names, module files, and dependencies where depmod wrote them down.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};

use crate::foundation::path_error::{PathContext, PathError};

/// The endings of module files.
const ENDINGS: [&str; 4] = [".ko", ".ko.gz", ".ko.xz", ".ko.zst"];
/// Deeper than any kernel's tree; stops at link cycles.
const DEEPEST: usize = 16;

/// A release directory, read. Names are those the kernel uses: `-` and `_` are the same.
#[derive(Debug, Default)]
pub(super) struct Index {
    builtin: HashSet<String>,
    files: HashMap<String, PathBuf>,
    /// From `modules.dep`; empty where that is missing.
    depends: HashMap<String, Vec<String>>,
    /// The files and directories that all this is from.
    sources: Vec<PathBuf>,
}

impl Index {
    /// Reads `modules.builtin`, `modules.dep`, and where the latter is missing the tree itself.
    pub(super) fn read(directory: &Path) -> Result<Index, PathError> {
        // A list that appears changes the directory itself.
        let mut index = Index { sources: vec![directory.to_owned()], ..Index::default() };
        let builtin = directory.join("modules.builtin");
        if let Some(text) = read_if_there(&builtin)? {
            index.sources.push(builtin);
            index.builtin = text.lines().filter_map(name_of).collect();
        }
        let dependencies = directory.join("modules.dep");
        match read_if_there(&dependencies)? {
            Some(text) => {
                index.sources.push(dependencies);
                index.take_modules_dep(directory, &text);
            }
            None => index.walk(directory, 0)?,
        }
        Ok(index)
    }

    /// Whether it knows no module at all.
    pub(super) fn is_empty(&self) -> bool {
        self.builtin.is_empty() && self.files.is_empty()
    }

    /// The files and directories that decide what it is.
    pub(super) fn sources(&self) -> &[PathBuf] {
        &self.sources
    }

    pub(super) fn is_builtin(&self, name: &str) -> bool {
        self.builtin.contains(&canonical(name))
    }

    pub(super) fn file(&self, name: &str) -> Option<&Path> {
        self.files.get(&canonical(name)).map(PathBuf::as_path)
    }

    /// The names `modules.dep` lists for a module; `None` where it must be asked itself.
    pub(super) fn depends(&self, name: &str) -> Option<&[String]> {
        self.depends.get(&canonical(name)).map(Vec::as_slice)
    }

    /// Lines of `path: path path …`, paths relative to the directory.
    fn take_modules_dep(&mut self, directory: &Path, text: &str) {
        for line in text.lines() {
            let Some((path, depends)) = line.split_once(':') else { continue };
            let Some(name) = name_of(path) else { continue };
            self.files.insert(name.clone(), directory.join(path.trim()));
            self.depends.insert(name, depends.split_whitespace().filter_map(name_of).collect());
        }
    }

    fn walk(&mut self, directory: &Path, depth: usize) -> Result<(), PathError> {
        if depth > DEEPEST {
            return Ok(());
        }
        for entry in std::fs::read_dir(directory).at("list", directory)? {
            let path = entry.at("list", directory)?.path();
            let Some(file_name) = path.file_name().and_then(|name| name.to_str()) else { continue };
            if path.is_dir() {
                // Links to the kernel's sources.
                if depth > 0 || !matches!(file_name, "build" | "source") {
                    self.sources.push(path.clone());
                    self.walk(&path, depth + 1)?;
                }
            } else if let Some(name) = name_of(file_name) {
                self.files.entry(name).or_insert(path);
            }
        }
        Ok(())
    }
}

/// The kernel's name of a module: `-` becomes `_`.
pub(super) fn canonical(name: &str) -> String {
    name.replace('-', "_")
}

/// `kernel/drivers/char/hw_random/virtio-rng.ko.xz` is `virtio_rng`.
fn name_of(path: &str) -> Option<String> {
    let file_name = path.trim().rsplit('/').next()?;
    ENDINGS.iter().find_map(|ending| file_name.strip_suffix(ending)).map(canonical)
}

fn read_if_there(path: &Path) -> Result<Option<String>, PathError> {
    match std::fs::read(path) {
        Ok(bytes) => Ok(Some(String::from_utf8_lossy(&bytes).into_owned())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(PathError { act: "read", path: path.to_owned(), source }),
    }
}
