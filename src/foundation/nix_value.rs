//! A value of provium.toml that is a path or a Nix value.

use std::fmt;
use std::path::PathBuf;

use super::store_path::{StorePath, is_in_store, is_output_name};

/// A path, or something that Nix makes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// A file or directory.
    Path(PathBuf),
    /// A Nix value.
    Nix(NixValue),
}

/// Something that Nix makes, and optionally a file inside it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NixValue {
    /// What makes it.
    pub source: NixSource,
    /// A file inside the output; without it the role decides.
    pub file: Option<String>,
}

/// What makes a Nix value.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum NixSource {
    /// `flakeref#attribute[^output]`, or `/nix/store/….drv^output`.
    Installable(String),
    /// A store path as it is.
    Store(StorePath),
    /// An attribute of a Nix file, without flakes.
    Attr {
        /// The file, absolute.
        file: PathBuf,
        /// The attribute path.
        attr: String,
    },
}

/// A value that is refused: what is wrong, and what to write instead.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ValueError {
    /// What is wrong.
    pub message: String,
    /// What to write instead.
    pub hint: String,
}

impl fmt::Display for ValueError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}\nhint: {}", self.message, self.hint)
    }
}

impl std::error::Error for ValueError {}

fn refuse<T>(message: String, hint: impl Into<String>) -> Result<T, ValueError> {
    Err(ValueError { message, hint: hint.into() })
}

impl Value {
    /// The string form: what contains `#` or begins with `/nix/store/` is a Nix value, anything else a path.
    ///
    /// # Errors
    /// An empty text, and Nix values that do not name exactly one output or that leave it.
    pub fn parse(text: &str) -> Result<Self, ValueError> {
        if text.is_empty() {
            return refuse("the value is empty".to_owned(), "write a path, or a Nix value such as `.#kernel`");
        }
        if is_in_store(text) || text.contains('#') {
            return NixValue::parse(text).map(Self::Nix);
        }
        Ok(Self::Path(PathBuf::from(text)))
    }
}

impl NixValue {
    /// A Nix value from its string form, `{ nix = "…" }` included.
    ///
    /// # Errors
    /// As [`Value::parse`]; also a bare word, which has no `#`.
    pub fn parse(text: &str) -> Result<Self, ValueError> {
        if text.starts_with('-') {
            return refuse(
                format!("`{text}` begins with `-`, which Nix would take for an option"),
                "write a reference such as `.#kernel`",
            );
        }
        if is_in_store(text) {
            return Self::parse_store(text);
        }
        let Some(hash) = text.find('#') else {
            return refuse(
                format!("`{text}` is a bare word, not a Nix value"),
                format!("write `.#{text}` for an attribute of this flake, or `{{ path = \"{text}\" }}` for a file"),
            );
        };
        // A reference may hold `//` itself (`git+file:///x`): a file is looked for only after the `#`.
        let (installable, file) = match text[hash..].find("//") {
            Some(at) => (&text[..hash + at], Some(&text[hash + at + 2..])),
            None => (text, None),
        };
        let attribute = &installable[hash + 1..];
        let name = attribute.split('^').next().unwrap_or_default();
        if name.is_empty() {
            return refuse(
                format!("`{text}` names no attribute"),
                format!("write one after the `#`, such as `{}kernel`", &text[..=hash]),
            );
        }
        if let Some((_, output)) = attribute.split_once('^') {
            check_output(text, installable, output)?;
        }
        Ok(Self {
            source: NixSource::Installable(installable.to_owned()),
            file: file.map(|file| check_file(text, file)).transpose()?,
        })
    }

    fn parse_store(text: &str) -> Result<Self, ValueError> {
        let path = |text: &str| {
            StorePath::split(text).map_err(|error| ValueError {
                message: error.to_string(),
                hint: "a store path is `/nix/store/<hash>-<name>`, as `nix build --print-out-paths` prints it"
                    .to_owned(),
            })
        };
        let (text_before, file) = match text.split_once("//") {
            Some((before, file)) => (before, Some(check_file(text, file)?)),
            None => (text, None),
        };
        if let Some((derivation, output)) = text_before.split_once('^') {
            check_output(text, text_before, output)?;
            return match path(derivation)? {
                (derivation, None) if derivation.is_derivation() => {
                    Ok(Self { source: NixSource::Installable(text_before.to_owned()), file })
                }
                _ => refuse(
                    format!("`{text}` selects an output of what is no derivation"),
                    "`^output` goes behind a `.drv`; a store path is written as it is",
                ),
            };
        }
        let (store, inside) = path(text_before)?;
        if store.is_derivation() {
            return refuse(
                format!("`{text}` is a derivation, not what it builds"),
                format!("write `{store}^out` for its output"),
            );
        }
        Ok(Self { source: NixSource::Store(store), file: file.or(inside) })
    }

    /// `{ nix = "…", file = "…" }`.
    ///
    /// # Errors
    /// As [`NixValue::parse`]; a file that is named twice.
    pub fn with_file(text: &str, file: Option<&str>) -> Result<Self, ValueError> {
        let value = Self::parse(text)?;
        match (file, &value.file) {
            (None, _) => Ok(value),
            (Some(file), None) => Ok(Self { file: Some(check_file(file, file)?), ..value }),
            (Some(_), Some(_)) => {
                refuse(format!("`{text}` names a file inside, and `file` another"), "keep one of the two")
            }
        }
    }

    /// Whether it is fetched from elsewhere without a fixed revision: what it is can change from run to run.
    pub fn is_unlocked_remote(&self) -> bool {
        let NixSource::Installable(text) = &self.source else { return false };
        let reference = text.split('#').next().unwrap_or_default();
        let Some((scheme, rest)) = reference.split_once(':') else { return false };
        let remote = match scheme {
            "github" | "gitlab" | "sourcehut" => {
                // The third part is a branch, a tag or a revision.
                let third = rest.split(['?', '#']).next().unwrap_or_default().split('/').nth(2);
                return !third.is_some_and(is_revision) && !rest.contains("rev=");
            }
            "git+https" | "git+ssh" | "git+http" | "hg+https" | "hg+ssh" => true,
            "https" | "http" | "tarball+https" | "tarball+http" => return !rest.contains("narHash="),
            _ => false,
        };
        remote && !rest.contains("rev=")
    }
}

fn is_revision(text: &str) -> bool {
    text.len() == 40 && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

fn check_output(text: &str, installable: &str, output: &str) -> Result<(), ValueError> {
    let base = installable.split('^').next().unwrap_or_default();
    if output == "*" {
        return refuse(format!("`{text}` asks for all outputs"), format!("name exactly one, such as `{base}^out`"));
    }
    if let Some((first, _)) = output.split_once(',') {
        return refuse(
            format!("`{text}` asks for several outputs"),
            format!("name exactly one, such as `{base}^{first}`"),
        );
    }
    if !is_output_name(output) {
        return refuse(format!("`{output}` in `{text}` is no name of an output"), format!("write `{base}^out`"));
    }
    Ok(())
}

fn check_file(text: &str, file: &str) -> Result<String, ValueError> {
    let parts: Vec<&str> = file.split('/').filter(|part| !part.is_empty() && *part != ".").collect();
    if parts.contains(&"..") {
        return refuse(format!("`{text}` leads out of the output with `..`"), "name a file inside the output");
    }
    if parts.is_empty() || file.starts_with('/') {
        return refuse(
            format!("`{text}` names no file after `//`"),
            "write it relative to the output, such as `//bzImage`",
        );
    }
    Ok(parts.join("/"))
}

impl fmt::Display for NixSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Installable(text) => f.write_str(text),
            Self::Store(path) => path.fmt(f),
            Self::Attr { file, attr } => write!(f, "{} {attr}", file.display()),
        }
    }
}

impl fmt::Display for NixValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.source, &self.file) {
            (source, None) => source.fmt(f),
            (NixSource::Store(path), Some(file)) => write!(f, "{path}/{file}"),
            (source, Some(file)) => write!(f, "{source}//{file}"),
        }
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Path(path) => path.display().fmt(f),
            Self::Nix(value) => value.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const STORE: &str = "/nix/store/1rz4g4znpzjwh1xymhjpm42vipw92pr7-linux-6.12";

    fn installable(text: &str, file: Option<&str>) -> Value {
        Value::Nix(NixValue { source: NixSource::Installable(text.to_owned()), file: file.map(str::to_owned) })
    }

    #[test]
    fn every_form() {
        let store = |file: Option<&str>| {
            Value::Nix(NixValue {
                source: NixSource::Store(StorePath::parse(STORE).unwrap()),
                file: file.map(str::to_owned),
            })
        };
        let cases = [
            ("images/bzImage".to_owned(), Value::Path("images/bzImage".into())),
            (".#kernels.debug".to_owned(), installable(".#kernels.debug", None)),
            (".#linux^dev//vmlinux".to_owned(), installable(".#linux^dev", Some("vmlinux"))),
            (
                "git+file:///a/b?ref=x#k^dev//d/vmlinux".to_owned(),
                installable("git+file:///a/b?ref=x#k^dev", Some("d/vmlinux")),
            ),
            ("linux#vmlinux".to_owned(), installable("linux#vmlinux", None)),
            (STORE.to_owned(), store(None)),
            (format!("{STORE}/bzImage"), store(Some("bzImage"))),
            (format!("{STORE}.drv^out//bzImage"), installable(&format!("{STORE}.drv^out"), Some("bzImage"))),
        ];
        for (text, value) in cases {
            assert_eq!(Value::parse(&text).as_ref(), Ok(&value), "{text}");
            assert_eq!(value.to_string(), text);
        }
    }

    #[test]
    fn refusals_say_what_to_write() {
        let cases = [
            ("-x#y".to_owned(), "begins with `-`", ".#kernel"),
            (".#k^*".to_owned(), "all outputs", ".#k^out"),
            (".#k^a,b".to_owned(), "several outputs", ".#k^a"),
            (".#k//../x".to_owned(), "..", "inside the output"),
            (".#k//".to_owned(), "no file", "//bzImage"),
            (".#".to_owned(), "no attribute", ".#kernel"),
            (format!("{STORE}.drv"), "is a derivation", ".drv^out"),
            (format!("{STORE}^out"), "no derivation", "as it is"),
            ("/nix/store/short-x".to_owned(), "not a store path", "/nix/store/<hash>"),
            (String::new(), "empty", "path"),
        ];
        for (text, message, hint) in cases {
            let error = Value::parse(&text).unwrap_err();
            assert!(error.message.contains(message) && error.hint.contains(hint), "{text}: {error}");
        }
        let error = NixValue::parse("kernel").unwrap_err();
        assert!(error.message.contains("bare word") && error.hint.contains("`.#kernel`"), "{error}");
        assert!(NixValue::with_file(".#k//a", Some("b")).is_err());
    }

    #[test]
    fn remote_references_without_a_revision() {
        let rev = "21a67dc470149f337cecafbe965d8d252a390518";
        let unlocked = |text: &str| NixValue::parse(text).unwrap().is_unlocked_remote();
        assert!(unlocked("github:o/r#linux") && unlocked("github:o/r/main#linux") && unlocked("git+https://h/r#x"));
        assert!(!unlocked(&format!("github:o/r/{rev}#linux")) && !unlocked(&format!("git+https://h/r?rev={rev}#x")));
        assert!(!unlocked(".#linux") && !unlocked("linux#vmlinux") && !unlocked("path:/x#y"));
    }

    proptest! {
        #[test]
        fn any_text_is_survived_and_comes_back(text in "[-a-z.#^/,*]{0,40}") {
            if let Ok(value) = Value::parse(&text) {
                prop_assert_eq!(Value::parse(&value.to_string()), Ok(value));
            }
        }
    }
}
