//! Which release directory of a profile's `modules` belongs to the kernel.

use std::path::{Path, PathBuf};

use super::index::Index;
use crate::foundation::path_error::PathContext;
use crate::qemu::error::QemuError;

/// Where modules lie under a root.
const PLACES: [&str; 2] = ["lib/modules", "usr/lib/modules"];
/// What only a release directory has.
const MARKS: [&str; 3] = ["modules.dep", "modules.order", "modules.builtin"];

/// Finds the release directory in `modules`, which is one itself or holds `lib/modules/<release>` or
/// `usr/lib/modules/<release>`. Without a known release there must be exactly one.
///
/// # Errors
/// It can't be read, holds none, or none for this kernel (all are listed).
pub fn release_directory(modules: &Path, release: Option<&str>) -> Result<PathBuf, QemuError> {
    std::fs::metadata(modules).at("read the modules in", modules)?;
    if is_release_directory(modules) {
        return Ok(modules.to_owned());
    }
    let mut found: Vec<(String, PathBuf)> = Vec::new();
    for place in PLACES.map(|place| modules.join(place)) {
        for (name, path) in release_directories(&place)? {
            // `lib` is often a link to `usr/lib`: the same release twice is one.
            if !found.iter().any(|(other, _)| *other == name) {
                found.push((name, path));
            }
        }
    }
    found.sort();
    pick(&found, release).map_err(|problem| QemuError::Image(format!("modules in `{}`: {problem}", modules.display())))
}

fn pick(found: &[(String, PathBuf)], release: Option<&str>) -> Result<PathBuf, String> {
    let listed = || found.iter().map(|(name, _)| format!("`{name}`")).collect::<Vec<_>>().join(", ");
    match (found, release) {
        ([], _) => Err("expected `lib/modules/<release>`, `usr/lib/modules/<release>` or a release directory, \
                        found none of them"
            .to_owned()),
        (_, Some(release)) => found
            .iter()
            .find(|(name, _)| name == release)
            .map(|(_, path)| path.clone())
            .ok_or_else(|| format!("expected release `{release}`, which the kernel has, found {}", listed())),
        ([(_, only)], None) => Ok(only.clone()),
        (_, None) => Err(format!("found several releases ({}), and the kernel does not tell its own", listed())),
    }
}

/// Other directories have a `kernel` in them too (`/etc`): without depmod's files there must be modules below it.
fn is_release_directory(path: &Path) -> bool {
    MARKS.iter().any(|mark| path.join(mark).exists())
        || (path.join("kernel").is_dir() && Index::read(path).is_ok_and(|index| !index.is_empty()))
}

fn release_directories(place: &Path) -> Result<Vec<(String, PathBuf)>, QemuError> {
    if !place.is_dir() {
        return Ok(Vec::new());
    }
    let mut directories = Vec::new();
    for entry in std::fs::read_dir(place).at("list", place)? {
        let path = entry.at("list", place)?.path();
        if let Some(name) = path.file_name().filter(|_| path.is_dir() && is_release_directory(&path)) {
            directories.push((name.to_string_lossy().into_owned(), path));
        }
    }
    Ok(directories)
}
