//! Flake references, and the flake that a project lies in.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use serde_json::Value;

/// What stands before the `#` of an installable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Reference {
    /// A directory of this machine.
    Local,
    /// A name that nix looks up in the project's inputs, then in its registries; `pinned` with a revision behind it.
    Name { name: String, pinned: bool },
    /// Fetched from elsewhere; `pinned` if it can only ever mean one revision.
    Remote { pinned: bool },
}

/// Classifies an installable by its flake reference.
pub(super) fn reference(installable: &str) -> Reference {
    let reference = installable.split('#').next().unwrap_or_default();
    let (reference, query) = reference.split_once('?').unwrap_or((reference, ""));
    let pinned = query.split('&').any(|pair| {
        pair.split_once('=').is_some_and(|(key, value)| key == "narHash" || key == "rev" && is_revision(value))
    });
    let (scheme, rest) = reference.split_once(':').unwrap_or(("", reference));
    match scheme {
        "" if reference.is_empty() || reference.starts_with(['.', '/', '~']) => Reference::Local,
        "path" | "git+file" | "hg+file" | "file" => Reference::Local,
        "" | "flake" => {
            let mut parts = rest.split('/');
            let name = parts.next().unwrap_or_default().to_owned();
            Reference::Name { name, pinned: pinned || parts.any(is_revision) }
        }
        "github" | "gitlab" | "sourcehut" => {
            Reference::Remote { pinned: pinned || rest.split('/').nth(2).is_some_and(is_revision) }
        }
        _ => Reference::Remote { pinned },
    }
}

fn is_revision(text: &str) -> bool {
    matches!(text.len(), 40 | 64) && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// A flake on this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct LocalFlake {
    /// Where flake.nix lies.
    pub(super) directory: PathBuf,
    /// The work tree it belongs to; without one nix copies the whole directory.
    pub(super) git_root: Option<PathBuf>,
}

/// The flake that `.` means in `directory`, found as nix finds it: upwards, until the work tree or the file system ends.
pub(super) fn around(directory: &Path) -> Option<LocalFlake> {
    let device = fs::metadata(directory).ok()?.dev();
    let directory = fs::canonicalize(directory).ok()?;
    for candidate in directory.ancestors() {
        if fs::metadata(candidate).ok()?.dev() != device {
            return None;
        }
        if candidate.join("flake.nix").exists() {
            let git_root = candidate.ancestors().find(|above| above.join(".git").exists()).map(Path::to_owned);
            return Some(LocalFlake { directory: candidate.to_owned(), git_root });
        }
        if candidate.join(".git").exists() {
            return None;
        }
    }
    None
}

/// The names of a flake's own inputs by the text of its flake.lock; empty where that says nothing.
pub(super) fn locked_inputs(lock: &str) -> BTreeSet<String> {
    let Ok(lock) = serde_json::from_str::<Value>(lock) else { return BTreeSet::new() };
    let root = lock.get("root").and_then(Value::as_str).unwrap_or("root");
    lock.get("nodes")
        .and_then(|nodes| nodes.get(root)?.get("inputs")?.as_object())
        .map(|inputs| inputs.keys().cloned().collect())
        .unwrap_or_default()
}

/// Whether `directory` holds more than `limit` bytes or `limit_entries` files; looks no further than that.
pub(super) fn is_large(directory: &Path, limit: u64, limit_entries: usize) -> bool {
    let (mut bytes, mut entries) = (0_u64, 0_usize);
    let mut open = vec![directory.to_owned()];
    while let Some(directory) = open.pop() {
        // What can't be read costs nothing here; nix will say what it can't read.
        for entry in fs::read_dir(&directory).into_iter().flatten().flatten() {
            let Ok(data) = entry.metadata() else { continue };
            entries += 1;
            if data.is_dir() {
                open.push(entry.path());
            } else {
                bytes = bytes.saturating_add(data.len());
            }
            if bytes > limit || entries > limit_entries {
                return true;
            }
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const REV: &str = "21a67dc470149f337cecafbe965d8d252a390518";

    #[test]
    fn classifies() {
        for local in [".#k", "#k", "./sub#k", "/abs#k", "path:/x#k", "git+file:///x?ref=y#k", "~/x#k"] {
            assert_eq!(reference(local), Reference::Local, "{local}");
        }
        let named = |name: &str, pinned| Reference::Name { name: name.to_owned(), pinned };
        assert_eq!(reference("linux#vmlinux"), named("linux", false));
        assert_eq!(reference("flake:nixpkgs/nixos-26.05#x"), named("nixpkgs", false));
        assert_eq!(reference(&format!("nixpkgs/nixos-26.05/{REV}#x")), named("nixpkgs", true));
        for (remote, pinned) in [
            ("github:o/r#linux".to_owned(), false),
            ("github:o/r/main#linux".to_owned(), false),
            (format!("github:o/r/{REV}#linux"), true),
            (format!("github:o/r?rev={REV}#linux"), true),
            ("github:o/r?rev=main#linux".to_owned(), false),
            (format!("git+https://host/r.git?ref=x&rev={REV}#linux"), true),
            ("git+ssh://git@host/r#linux".to_owned(), false),
            ("https://host/x.tar.gz#linux".to_owned(), false),
            ("https://host/x.tar.gz?narHash=sha256-x#linux".to_owned(), true),
        ] {
            assert_eq!(reference(&remote), Reference::Remote { pinned }, "{remote}");
        }
    }

    #[test]
    fn finds_the_flake_as_nix_does() {
        let top = tempfile::tempdir().unwrap();
        let root = fs::canonicalize(top.path()).unwrap();
        let sub = root.join("repo/a/b");
        fs::create_dir_all(&sub).unwrap();
        fs::write(root.join("flake.nix"), "").unwrap();
        assert_eq!(around(&sub), Some(LocalFlake { directory: root.clone(), git_root: None }));
        fs::create_dir(root.join("repo/.git")).unwrap();
        assert_eq!(around(&sub), None);
        fs::write(root.join("repo/a/flake.nix"), "").unwrap();
        let found = LocalFlake { directory: root.join("repo/a"), git_root: Some(root.join("repo")) };
        assert_eq!(around(&sub), Some(found));
    }

    #[test]
    fn reads_locks() {
        let lock = r#"{"nodes":{"linux":{"locked":{}},"root":{"inputs":{"linux":"linux","nixpkgs":["a","b"]}}},"root":"root","version":7}"#;
        assert_eq!(locked_inputs(lock).into_iter().collect::<Vec<_>>(), ["linux", "nixpkgs"]);
        assert_eq!(locked_inputs("{}"), BTreeSet::new());
        assert_eq!(locked_inputs("no"), BTreeSet::new());
    }

    #[test]
    fn measures_no_more_than_it_must() {
        let top = tempfile::tempdir().unwrap();
        fs::create_dir(top.path().join("d")).unwrap();
        fs::write(top.path().join("d/f"), [0; 100]).unwrap();
        assert!(!is_large(top.path(), 100, 2));
        assert!(is_large(top.path(), 99, 2));
        assert!(is_large(top.path(), 100, 1));
    }

    proptest! {
        #[test]
        fn takes_any_text(text in any::<String>()) {
            reference(&text);
            locked_inputs(&text);
        }
    }
}
