//! Nix store paths: the one place that knows their form.
//!
//! The form is that of Nix's manual ("Store Path"): the store directory, 32 characters of Nix's base 32, a dash and a
//! name. The registry's `nix-compat` crate is an empty reservation; this module is where it would be put in.

use std::fmt;
use std::path::PathBuf;

/// Where stores live.
const STORE: &str = "/nix/store/";
/// Nix's base 32: no e, o, t, u.
const BASE32: &str = "0123456789abcdfghijklmnpqrsvwxyz";
/// Characters of the hash.
const HASH: usize = 32;
/// Longest name.
const LONGEST_NAME: usize = 211;

/// A path directly in the store.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StorePath(String);

/// A text that is no store path, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StorePathError {
    text: String,
    why: String,
}

impl fmt::Display for StorePathError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` is not a store path: {}", self.text, self.why)
    }
}

impl std::error::Error for StorePathError {}

impl fmt::Display for StorePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Whether a text can only mean a store path.
pub fn is_in_store(text: &str) -> bool {
    text.starts_with(STORE)
}

/// Whether Nix allows a name: letters, digits and `+-._?=`, 1 to 211 of them, and neither `.` nor `..` alone or before
/// a dash.
fn check_name(name: &str) -> Result<(), String> {
    if name.is_empty() || name.len() > LONGEST_NAME {
        return Err(format!("expected a name of 1 to {LONGEST_NAME} characters after the hash"));
    }
    if let Some(bad) = name.chars().find(|c| !c.is_ascii_alphanumeric() && !"+-._?=".contains(*c)) {
        return Err(format!("the character `{bad}` is not allowed in a name"));
    }
    if matches!(name, "." | "..") || name.starts_with(".-") || name.starts_with("..-") {
        return Err(format!("the name `{name}` is not allowed"));
    }
    Ok(())
}

/// Whether a text can be the name of an output.
pub fn is_output_name(text: &str) -> bool {
    check_name(text).is_ok()
}

impl StorePath {
    /// A store path and what follows it inside (without the slash, empty parts left out).
    ///
    /// # Errors
    /// The text is no store path, or what follows holds `..`.
    pub fn split(text: &str) -> Result<(Self, Option<String>), StorePathError> {
        let error = |why: String| StorePathError { text: text.to_owned(), why };
        let inside = text.strip_prefix(STORE).ok_or_else(|| error(format!("it does not begin with `{STORE}`")))?;
        let (base, rest) = match inside.split_once('/') {
            Some((base, rest)) => (base, rest),
            None => (inside, ""),
        };
        let hash_end = base.char_indices().nth(HASH).map_or(base.len(), |(at, _)| at);
        let (hash, name) = base.split_at(hash_end);
        if let Some(bad) = hash.chars().find(|c| !BASE32.contains(*c)) {
            return Err(error(format!("the character `{bad}` is not one of Nix's base 32")));
        }
        if hash.len() != HASH {
            return Err(error(format!("expected a hash of {HASH} characters, found {}", hash.len())));
        }
        let name = name.strip_prefix('-').ok_or_else(|| error("expected `-` and a name after the hash".to_owned()))?;
        check_name(name).map_err(error)?;
        let parts: Vec<&str> = rest.split('/').filter(|part| !part.is_empty() && *part != ".").collect();
        if parts.contains(&"..") {
            return Err(error("`..` leads out of it".to_owned()));
        }
        Ok((Self(format!("{STORE}{base}")), (!parts.is_empty()).then(|| parts.join("/"))))
    }

    /// A store path with nothing behind it.
    ///
    /// # Errors
    /// The text is something else.
    pub fn parse(text: &str) -> Result<Self, StorePathError> {
        match Self::split(text)? {
            (path, None) => Ok(path),
            (_, Some(_)) => Err(StorePathError { text: text.to_owned(), why: "it goes on behind the name".to_owned() }),
        }
    }

    /// Whether it is a derivation: a recipe, not a result.
    pub fn is_derivation(&self) -> bool {
        self.0.ends_with(".drv")
    }

    /// As text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// As a path of the file system.
    pub fn to_path_buf(&self) -> PathBuf {
        PathBuf::from(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Printed by `nix-store --add` and `nix-instantiate` of Nix 2.26.
    const PRINTED: [&str; 3] = [
        "/nix/store/1rz4g4znpzjwh1xymhjpm42vipw92pr7-hello-2.12.1",
        "/nix/store/b6gvzjyb2pg0kjfwrjmg1vfhh54ad73z-linux-6.12.40.drv",
        "/nix/store/00bgd045z0d4icpbc2yyz4gx48ak44la-net-tools-1.60_p20170221182432?=x",
    ];

    #[test]
    fn what_nix_prints() {
        for text in PRINTED {
            let path = StorePath::parse(text).unwrap();
            assert_eq!(path.as_str(), text);
            assert_eq!(path.is_derivation(), text.ends_with(".drv"));
            let (same, rest) = StorePath::split(&format!("{text}/lib//modules/")).unwrap();
            assert_eq!((same, rest.as_deref()), (path, Some("lib/modules")));
        }
    }

    #[test]
    fn what_it_does_not_print() {
        let hash = "1rz4g4znpzjwh1xymhjpm42vipw92pr7";
        let cases = [
            ("/usr/bin".to_owned(), "does not begin"),
            ("/nix/store/short-x".to_owned(), "base 32"),
            ("/nix/store/abc".to_owned(), "32 characters"),
            (format!("/nix/store/{}e-x", &hash[1..]), "base 32"),
            (format!("/nix/store/{hash}"), "expected `-`"),
            (format!("/nix/store/{hash}-"), "expected a name"),
            (format!("/nix/store/{hash}-a b"), "not allowed"),
            (format!("/nix/store/{hash}-.."), "not allowed"),
            (format!("/nix/store/{hash}-x/../y"), "leads out"),
        ];
        for (text, why) in cases {
            let error = StorePath::split(&text).unwrap_err().to_string();
            assert!(error.contains(why) && error.contains(&text), "{error}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_survived(text in ".*") {
            let _ = StorePath::split(&text);
            let _ = StorePath::split(&format!("/nix/store/{text}"));
        }
    }
}
