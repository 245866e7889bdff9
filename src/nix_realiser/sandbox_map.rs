//! `PROVIUM_NIX_MAP`: what stands for nix inside a Nix build.
//!
//! A JSON object, installable to store path. Members that are no strings, as the profiles of `from_flake`, are not
//! for this room.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

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
    paths: BTreeMap<String, StorePath>,
}

impl SandboxMap {
    /// Reads the map; without one nothing but plain store paths is known.
    ///
    /// # Errors
    /// The file can't be read, or is not such a map.
    pub(super) fn read(path: Option<&Path>) -> Result<Self, RealiseError> {
        let Some(path) = path else { return Ok(Self { path: None, paths: BTreeMap::new() }) };
        let text = fs::read_to_string(path).at("read", path)?;
        let paths = parse(&text).map_err(|detail| RealiseError::Map { path: path.to_owned(), detail })?;
        Ok(Self { path: Some(path.to_owned()), paths })
    }

    /// The store path of a value. A plain store path that is there needs no entry.
    ///
    /// # Errors
    /// The map does not say.
    pub(super) fn look_up(&self, wanted: &Wanted) -> Result<StorePath, RealiseError> {
        let installable = shown(&wanted.value.source);
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

fn parse(text: &str) -> Result<BTreeMap<String, StorePath>, String> {
    let value: Value = serde_json::from_str(text).map_err(|error| format!("expected JSON, but {error}"))?;
    let Value::Object(members) = value else { return Err("expected an object, installable to store path".to_owned()) };
    let mut paths = BTreeMap::new();
    for (installable, path) in members {
        if let Value::String(path) = path {
            let path = StorePath::parse(&path).map_err(|error| format!("`{installable}`: {error}"))?;
            paths.insert(installable, path);
        }
    }
    Ok(paths)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::foundation::nix_value::NixValue;
    use crate::nix_realiser::request::Role;

    const KERNEL: &str = "/nix/store/0iq8pf4hkb5kqlkgbvk804qf586r0q08-kernel";

    #[test]
    fn looks_up() {
        let paths = parse(&format!(r#"{{".#k": "{KERNEL}", "profiles": {{"a": {{"kernel": "x"}}}}}}"#)).unwrap();
        let map = SandboxMap { path: Some("/map.json".into()), paths };
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
        let none = SandboxMap::read(None).unwrap();
        let error = none.look_up(&wanted(".#k")).unwrap_err().to_string();
        assert!(error.contains("`PROVIUM_NIX_MAP` names no file with `.#k`"), "{error}");
    }

    #[test]
    fn refuses_what_is_no_map() {
        assert!(parse("").unwrap_err().starts_with("expected JSON"));
        assert_eq!(parse("[]").unwrap_err(), "expected an object, installable to store path");
        assert!(parse(r#"{".#k": "bzImage"}"#).unwrap_err().starts_with("`.#k`: "));
    }
}
