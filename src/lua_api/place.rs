//! Where in the test author's own files a call comes from.

use std::path::PathBuf;

use mlua::Lua;

use super::file_state::FileState;

/// A line in a Lua file of the test author.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The file as it is shown: relative to the working directory where it lies below it.
    pub file: String,
    /// 1-based.
    pub line: usize,
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.file, self.line)
    }
}

/// All frames of the running call that lie in the author's files, innermost first.
pub fn stack(lua: &Lua) -> Vec<Place> {
    (0..200)
        .map_while(|level| {
            lua.inspect_stack(level, |frame| {
                let source = frame.source();
                let file = source.source.as_deref()?.strip_prefix('@')?.to_owned();
                Some(Place { file, line: frame.current_line()? })
            })
        })
        .flatten()
        .collect()
}

/// The innermost frame that lies in the author's files.
pub fn caller(lua: &Lua) -> Option<Place> {
    (0..50)
        .map_while(|level| {
            lua.inspect_stack(level, |frame| {
                let source = frame.source();
                let file = source.source.as_deref()?.strip_prefix('@')?.to_owned();
                Some(Place { file, line: frame.current_line()? })
            })
        })
        .flatten()
        .next()
}

/// A path on the host as an author writes it: relative to the Lua file that names it.
pub fn host_path(lua: &Lua, state: &FileState, path: &str) -> PathBuf {
    let file = caller(lua).map_or_else(|| state.path.clone(), |place| state.bed.absolute(&place.file));
    match file.parent() {
        Some(directory) => directory.join(path),
        None => PathBuf::from(path),
    }
}
