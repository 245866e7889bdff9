//! `PROVIUM_NIX_MAP`: what stands for nix inside a Nix build.
//!
//! A JSON object, installable to store path. Its member `profiles` is what `from_flake` reads: an object, a profile's name to
//! its keys. A file of the project is named relative to it: `--file default.nix kernel`.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use super::error::RealiseError;
use super::installable::shown;
use super::request::Wanted;
use crate::foundation::nix_value::NixSource;
use crate::foundation::path_error::PathContext;
use crate::foundation::store_path::StorePath;

/// The map, read and checked.
#[derive(Debug)]
pub(super) struct SandboxMap {
    path: Option<PathBuf>,
    /// The project's.
    directory: PathBuf,
    paths: BTreeMap<String, StorePath>,
    profiles: Option<Map<String, Value>>,
}

impl SandboxMap {
    /// Reads the map; without one nothing but plain store paths is known.
    ///
    /// # Errors
    /// The file can't be read, or is not such a map.
    pub(super) fn read(path: Option<&Path>, directory: &Path) -> Result<Self, RealiseError> {
        let mut map = Self { path: None, directory: directory.to_owned(), paths: BTreeMap::new(), profiles: None };
        let Some(path) = path else { return Ok(map) };
        let text = fs::read_to_string(path).at("read", path)?;
        (map.paths, map.profiles) =
            parse(&text).map_err(|detail| RealiseError::Map { path: path.to_owned(), detail })?;
        map.path = Some(path.to_owned());
        Ok(map)
    }

    /// The profiles of `from_flake`.
    ///
    /// # Errors
    /// The map has none.
    pub(super) fn profiles(&self, reference: &str) -> Result<Map<String, Value>, RealiseError> {
        self.profiles.clone().ok_or_else(|| RealiseError::NotInMap {
            installable: format!("{reference}#proviumProfiles"),
            map: self.path.clone(),
            asked_by: vec!["`[profiles]`, key `from_flake`".to_owned()],
        })
    }

    /// As the map names it.
    fn key(&self, source: &NixSource) -> String {
        match source {
            NixSource::Attr { file, attr } => {
                let file = file.strip_prefix(&self.directory).unwrap_or(file);
                shown(&NixSource::Attr { file: file.to_owned(), attr: attr.clone() })
            }
            source => shown(source),
        }
    }

    /// The store path of a value. A plain store path that is there needs no entry.
    ///
    /// # Errors
    /// The map does not say.
    pub(super) fn look_up(&self, wanted: &Wanted) -> Result<StorePath, RealiseError> {
        let installable = self.key(&wanted.value.source);
        if let Some(path) = self.paths.get(&installable) {
            return Ok(path.clone());
        }
        match &wanted.value.source {
            NixSource::Store(path) if Path::new(path.as_str()).exists() => Ok(path.clone()),
            _ => Err(RealiseError::NotInMap {
                installable,
                map: self.path.clone(),
                asked_by: vec![wanted.asked_by.clone()],
            }),
        }
    }
}

type Parsed = (BTreeMap<String, StorePath>, Option<Map<String, Value>>);

fn parse(text: &str) -> Result<Parsed, String> {
    let value: Value = serde_json::from_str(text).map_err(|error| format!("expected JSON, but {error}"))?;
    let Value::Object(members) = value else { return Err("expected an object, installable to store path".to_owned()) };
    let (mut paths, mut profiles) = (BTreeMap::new(), None);
    for (installable, value) in members {
        match value {
            Value::String(path) => {
                let path = StorePath::parse(&path).map_err(|error| format!("`{installable}`: {error}"))?;
                paths.insert(installable, path);
            }
            Value::Object(members) if installable == "profiles" => profiles = Some(members),
            _ => return Err(format!("`{installable}`: expected a store path")),
        }
    }
    Ok((paths, profiles))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::foundation::nix_value::NixValue;
    use crate::nix_realiser::request::Role;

    const KERNEL: &str = "/nix/store/0iq8pf4hkb5kqlkgbvk804qf586r0q08-kernel";

    #[test]
    fn looks_up() {
        let paths = parse(&format!(
            r#"{{".#k": "{KERNEL}", "--file x.nix k": "{KERNEL}", "profiles": {{"a": {{"kernel": "x"}}}}}}"#
        ))
        .unwrap();
        let (paths, profiles) = paths;
        let map = SandboxMap { path: Some("/map.json".into()), directory: "/build/project".into(), paths, profiles };
        let wanted = |text: &str| Wanted {
            value: NixValue { source: NixSource::Installable(text.to_owned()), file: None },
            role: Role::Kernel,
            asked_by: "profile `x`, key `kernel`".to_owned(),
        };
        assert_eq!(map.look_up(&wanted(".#k")).unwrap().as_str(), KERNEL);
        assert_eq!(
            map.look_up(&wanted(".#other")).unwrap_err().to_string(),
            "inside a Nix build nix can't be called, and `/map.json` has no `.#other` (asked for by profile `x`, key \
             `kernel`)\nhint: add `.#other` to the check: its `profiles` must name the derivation (`mkCheck`)"
        );
        let file = NixSource::Attr { file: "/build/project/x.nix".into(), attr: "k".to_owned() };
        let in_file = Wanted { value: NixValue { source: file, file: None }, ..wanted(".#k") };
        assert_eq!(map.look_up(&in_file).unwrap().as_str(), KERNEL);
        assert_eq!(map.profiles(".").unwrap()["a"]["kernel"], "x");
        let none = SandboxMap::read(None, Path::new("/")).unwrap();
        let error = none.profiles(".").unwrap_err().to_string();
        assert!(error.contains(".#proviumProfiles") && error.contains("from_flake"), "{error}");
        let error = none.look_up(&wanted(".#k")).unwrap_err().to_string();
        assert!(error.contains("`PROVIUM_NIX_MAP` names no file with `.#k`"), "{error}");
    }

    #[test]
    fn refuses_what_is_no_map() {
        assert!(parse("").unwrap_err().starts_with("expected JSON"));
        assert_eq!(parse("[]").unwrap_err(), "expected an object, installable to store path");
        assert_eq!(parse(r#"{".#k": 1}"#).unwrap_err(), "`.#k`: expected a store path");
        assert!(parse(r#"{".#k": "bzImage"}"#).unwrap_err().starts_with("`.#k`: "));
    }
}
