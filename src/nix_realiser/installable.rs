//! Nix values as arguments of `nix build`, grouped into as few processes as nix allows.

use std::path::{Path, PathBuf};

use super::request::Wanted;
use crate::foundation::nix_value::NixSource;

/// One argument of `nix build`, and the places in the request that asked for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Installable {
    /// As nix takes it.
    pub(super) text: String,
    /// As an error shows it, and as a map of the sandbox names it.
    pub(super) shown: String,
    /// Indices into the request.
    pub(super) wanted: Vec<usize>,
}

impl Installable {
    /// Whether nix evaluates a flake for it; store paths and derivations need none.
    pub(super) fn is_flake(&self) -> bool {
        !self.text.starts_with('/') || self.text.contains('#') && !self.text.starts_with("/nix/store/")
    }
}

/// What one process is asked for.
///
/// nix reads all installables of one process the same way: with `--file` as attributes of that file, without it as
/// flake references and store paths. So there is one process for the second kind, and one for each distinct file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Batch {
    /// The Nix file whose attributes are asked for.
    pub(super) file: Option<PathBuf>,
    /// Without doubles.
    pub(super) installables: Vec<Installable>,
}

/// Groups what is wanted, flakes and store paths first, the rest in the order of the request.
pub(super) fn batches(wanted: &[Wanted], directory: &Path) -> Vec<Batch> {
    let mut batches = vec![Batch { file: None, installables: Vec::new() }];
    for (index, wanted) in wanted.iter().enumerate() {
        let source = &wanted.value.source;
        let (file, text) = match source {
            NixSource::Installable(text) => (None, text.clone()),
            NixSource::Store(path) => (None, path.to_string()),
            NixSource::Attr { file, attr } => (Some(directory.join(file)), attr.clone()),
        };
        let at = batches.iter().position(|batch| batch.file == file).unwrap_or_else(|| {
            batches.push(Batch { file, installables: Vec::new() });
            batches.len() - 1
        });
        let installables = &mut batches[at].installables;
        match installables.iter_mut().find(|installable| installable.text == text) {
            Some(installable) => installable.wanted.push(index),
            None => installables.push(Installable { text, shown: shown(source), wanted: vec![index] }),
        }
    }
    batches.retain(|batch| !batch.installables.is_empty());
    batches
}

/// A source as errors and maps name it: `.#kernel`, `/nix/store/…`, `--file default.nix kernel`.
pub(super) fn shown(source: &NixSource) -> String {
    match source {
        NixSource::Installable(text) => text.clone(),
        NixSource::Store(path) => path.to_string(),
        NixSource::Attr { file, attr } => format!("--file {} {attr}", file.display()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::foundation::nix_value::NixValue;
    use crate::nix_realiser::request::Role;

    fn wanted(source: NixSource) -> Wanted {
        Wanted { value: NixValue { source, file: None }, role: Role::Kernel, asked_by: "test".to_owned() }
    }

    #[test]
    fn groups_and_deduplicates() {
        let flake = |text: &str| wanted(NixSource::Installable(text.to_owned()));
        let attr = |file: &str, attr: &str| wanted(NixSource::Attr { file: file.into(), attr: attr.to_owned() });
        let batches = batches(
            &[attr("a.nix", "k"), flake(".#k"), flake(".#i"), attr("/p/a.nix", "i"), flake(".#k"), attr("b.nix", "k")],
            Path::new("/p"),
        );
        let found: Vec<_> = batches
            .iter()
            .flat_map(|batch| {
                batch.installables.iter().map(|i| {
                    let file = batch.file.as_ref().map_or_else(String::new, |file| file.display().to_string());
                    format!("{file} {} {:?}", i.text, i.wanted)
                })
            })
            .collect();
        assert_eq!(found, [" .#k [1, 4]", " .#i [2]", "/p/a.nix k [0]", "/p/a.nix i [3]", "/p/b.nix k [5]"]);
        assert_eq!(batches[1].installables[0].shown, "--file a.nix k");
    }

    #[test]
    fn tells_flakes_from_store_paths() {
        let is_flake = |text: &str| {
            batches(&[wanted(NixSource::Installable(text.to_owned()))], Path::new("/"))[0].installables[0].is_flake()
        };
        assert!(is_flake(".#k") && is_flake("linux#k") && is_flake("/home/me/flake#k"));
        assert!(!is_flake("/nix/store/aznlms1lf8368rf7xbmg7814wddb84lg-kernel.drv^out"));
    }
}
