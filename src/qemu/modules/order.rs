//! From wanted names to modules in the order they must be loaded.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use super::decompress::read_module;
use super::index::{Index, canonical};
use super::modinfo::modinfo;
use crate::qemu::error::QemuError;

/// A driver by name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// The module's name; `-` and `_` are the same.
    pub name: String,
    /// Whether its absence is an error; else it is left out.
    pub required: bool,
}

impl Wanted {
    /// A driver without which nothing goes.
    pub fn required(name: impl Into<String>) -> Wanted {
        Wanted { name: name.into(), required: true }
    }

    /// A driver that is left out where the kernel has none.
    pub fn optional(name: impl Into<String>) -> Wanted {
        Wanted { name: name.into(), required: false }
    }
}

/// A module to load.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Module {
    /// The kernel's name of it.
    pub name: String,
    /// The unpacked ELF file, as `finit_module` takes it.
    pub bytes: Vec<u8>,
}

/// Modules in the order to load them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LoadOrder {
    /// They.
    pub modules: Vec<Module>,
    /// The files and directories that it was found in: as long as none of them changes, it is the same.
    pub sources: Vec<PathBuf>,
}

/// Reads the wanted modules and what they depend on, dependencies first. What is built in is left out. Soft
/// dependencies are ignored.
///
/// # Errors
/// A required name, or a dependency, that is neither built in nor there; a file that can't be read, is no module, or is
/// one for another release than `release`.
pub fn load_order(directory: &Path, release: Option<&str>, wanted: &[Wanted]) -> Result<LoadOrder, QemuError> {
    let index = Index::read(directory)?;
    let order = LoadOrder { modules: Vec::new(), sources: index.sources().to_vec() };
    let mut walk = Walk { directory, release, index, seen: HashSet::new(), order };
    for wanted in wanted {
        if wanted.required || walk.index.file(&wanted.name).is_some() {
            walk.visit(&wanted.name, None)?;
        }
    }
    Ok(walk.order)
}

struct Walk<'a> {
    directory: &'a Path,
    release: Option<&'a str>,
    index: Index,
    seen: HashSet<String>,
    order: LoadOrder,
}

impl Walk<'_> {
    fn visit(&mut self, name: &str, needed_by: Option<&str>) -> Result<(), QemuError> {
        let name = canonical(name);
        if self.index.is_builtin(&name) || !self.seen.insert(name.clone()) {
            return Ok(());
        }
        let Some(path) = self.index.file(&name).map(Path::to_owned) else {
            let needed_by = needed_by.map(|other| format!(", which `{other}` needs,")).unwrap_or_default();
            return Err(QemuError::Image(format!(
                "kernel module `{name}`{needed_by} is neither built in nor in `{}`",
                self.directory.display()
            )));
        };
        let bytes = read_module(&path)?;
        let refuse = |problem: String| QemuError::Image(format!("kernel module `{}`: {problem}", path.display()));
        let info = modinfo(&bytes).map_err(refuse)?;
        if let (Some(found), Some(expected)) = (&info.release, self.release)
            && found != expected
        {
            return Err(refuse(format!("expected one for `{expected}`, which the kernel is, found one for `{found}`")));
        }
        let depends = self.index.depends(&name).map_or(info.depends, <[String]>::to_vec);
        for dependency in depends {
            self.visit(&dependency, Some(&name))?;
        }
        self.order.modules.push(Module { name, bytes });
        self.order.sources.push(path);
        Ok(())
    }
}
