//! Where provium.toml is.

use std::path::{Path, PathBuf};

/// Its name.
const NAME: &str = "provium.toml";

/// Looks beside `first` (a PATH of the command line) and in its parents, then in `cwd` and its parents.
pub fn find_config(first: Option<&Path>, cwd: &Path) -> Option<PathBuf> {
    let first = first.map(|path| cwd.join(path));
    // A directory is looked into, a file beside.
    let start = first.as_deref().map(|path| if path.is_dir() { path } else { path.parent().unwrap_or(path) });
    start
        .into_iter()
        .chain([cwd])
        .flat_map(Path::ancestors)
        .map(|directory| directory.join(NAME))
        .find(|candidate| candidate.is_file())
        .map(|found| found.components().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn beside_the_path_first_then_here() {
        let dir = tempfile::tempdir().unwrap();
        let (here, there) = (dir.path().join("here"), dir.path().join("there"));
        std::fs::create_dir_all(here.join("sub")).unwrap();
        std::fs::create_dir_all(there.join("tests")).unwrap();
        std::fs::write(here.join(NAME), "").unwrap();
        assert_eq!(find_config(None, &here.join("sub")), Some(here.join(NAME)));
        assert_eq!(find_config(Some(Path::new("../there/tests")), &here), Some(here.join(NAME)));
        std::fs::write(there.join(NAME), "").unwrap();
        assert_eq!(find_config(Some(&there.join("tests/a.test.lua")), &here), Some(there.join(NAME)));
    }
}
