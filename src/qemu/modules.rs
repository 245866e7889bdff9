//! The drivers that a kernel does not have built in: which files, in which order.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::path::{Path, PathBuf};

use super::error::QemuError;
use crate::foundation::path_error::{PathContext, describe_io};

/// Endings of module files, by compression.
const ENDINGS: [&str; 4] = [".ko", ".ko.xz", ".ko.zst", ".ko.gz"];
/// The largest module that is read, in bytes, unpacked.
const LARGEST: u64 = 256 * 1024 * 1024;

/// A module, unpacked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Module {
    /// Its name, with underscores.
    pub name: String,
    /// Its file's content.
    pub content: Vec<u8>,
}

/// The modules of one kernel.
#[derive(Debug)]
pub struct ModuleTree {
    directory: PathBuf,
    builtin: BTreeSet<String>,
    files: BTreeMap<String, PathBuf>,
    depends: BTreeMap<String, Vec<String>>,
}

/// The name of a module file: `kernel/drivers/virtio/virtio-rng.ko.xz` is `virtio_rng`.
fn module_name(file: &str) -> Option<String> {
    let base = file.rsplit('/').next()?;
    let name = ENDINGS.iter().find_map(|ending| base.strip_suffix(ending))?;
    Some(canonical(name))
}

fn canonical(name: &str) -> String {
    name.replace('-', "_")
}

/// Finds the release directory below `path`: `path` itself, or the one in `lib/modules` or `usr/lib/modules` that
/// is `release`.
///
/// # Errors
/// None, or several of which none is `release`: the message lists them.
pub fn release_directory(path: &Path, release: Option<&str>) -> Result<PathBuf, QemuError> {
    let bad = |why: String| QemuError::Image(why);
    if path.join("modules.dep").is_file() || path.join("kernel").is_dir() {
        return Ok(path.to_owned());
    }
    let mut found = Vec::new();
    for below in ["lib/modules", "usr/lib/modules"] {
        let Ok(entries) = std::fs::read_dir(path.join(below)) else { continue };
        found.extend(entries.flatten().map(|entry| entry.path()).filter(|entry| entry.is_dir()));
    }
    found.sort();
    let name = |path: &Path| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    if let Some(release) = release
        && let Some(matching) = found.iter().find(|path| name(path) == release)
    {
        return Ok(matching.clone());
    }
    match (found.as_slice(), release) {
        ([], _) => {
            let why = match std::fs::metadata(path) {
                Err(error) => describe_io(&error),
                Ok(_) => "expected a directory that holds `lib/modules/<release>`, or a release directory".to_owned(),
            };
            Err(bad(format!("can't use `{}`: {why}", path.display())))
        }
        ([only], None) => Ok(only.clone()),
        (found, release) => {
            let names: Vec<String> = found.iter().map(|path| name(path)).collect();
            let wanted = release
                .map_or_else(|| "the kernel does not tell its release".to_owned(), |r| format!("the kernel is `{r}`"));
            Err(bad(format!("`{}` holds modules for {}, but {wanted}", path.display(), names.join(", "))))
        }
    }
}

impl ModuleTree {
    /// Reads what a release directory holds: `modules.builtin`, `modules.dep`, or without the latter the files.
    ///
    /// # Errors
    /// When it can't be read.
    pub fn open(directory: &Path) -> Result<Self, QemuError> {
        let builtin = match std::fs::read_to_string(directory.join("modules.builtin")) {
            Ok(text) => text.lines().filter_map(module_name).collect(),
            Err(_) => BTreeSet::new(),
        };
        let mut tree =
            Self { directory: directory.to_owned(), builtin, files: BTreeMap::new(), depends: BTreeMap::new() };
        match std::fs::read_to_string(directory.join("modules.dep")) {
            Ok(text) => tree.read_dependencies(&text),
            Err(_) => tree.find_files(directory, 0)?,
        }
        Ok(tree)
    }

    fn read_dependencies(&mut self, text: &str) {
        for line in text.lines() {
            let Some((file, needs)) = line.split_once(':') else { continue };
            let Some(name) = module_name(file) else { continue };
            self.files.insert(name.clone(), self.directory.join(file.trim()));
            self.depends.insert(name, needs.split_whitespace().filter_map(module_name).collect());
        }
    }

    fn find_files(&mut self, directory: &Path, depth: usize) -> Result<(), QemuError> {
        // `build` and `source` link to kernel sources, which may link back.
        if depth > 12 {
            return Ok(());
        }
        for entry in std::fs::read_dir(directory).at("list", directory)?.flatten() {
            let path = entry.path();
            let Ok(kind) = entry.file_type() else { continue };
            if kind.is_dir() {
                self.find_files(&path, depth + 1)?;
            } else if let Some(name) = module_name(&entry.file_name().to_string_lossy()) {
                self.files.insert(name, path);
            }
        }
        Ok(())
    }

    /// The modules for `wanted` and all they need, in the order to load them. What is built in is left out.
    ///
    /// # Errors
    /// One that is neither built in nor there, one that can't be read.
    pub fn load_order(&mut self, wanted: &[&str]) -> Result<Vec<Module>, QemuError> {
        let mut order = Vec::new();
        let mut contents = BTreeMap::new();
        for name in wanted {
            self.visit(&canonical(name), &mut Vec::new(), &mut order, &mut contents)?;
        }
        Ok(order.into_iter().filter_map(|name| Some(Module { content: contents.remove(&name)?, name })).collect())
    }

    /// Whether `name` is a file here or built in.
    pub fn has(&self, name: &str) -> bool {
        let name = canonical(name);
        self.files.contains_key(&name) || self.builtin.contains(&name)
    }

    fn visit(
        &mut self,
        name: &str,
        above: &mut Vec<String>,
        order: &mut Vec<String>,
        contents: &mut BTreeMap<String, Vec<u8>>,
    ) -> Result<(), QemuError> {
        if self.builtin.contains(name) || contents.contains_key(name) || above.iter().any(|other| other == name) {
            return Ok(());
        }
        let Some(path) = self.files.get(name).cloned() else {
            let by = above.last().map(|other| format!(", which `{other}` needs")).unwrap_or_default();
            return Err(QemuError::Image(format!(
                "`{}` has no module `{name}`{by}, and the kernel does not have it built in",
                self.directory.display()
            )));
        };
        let content = read_module(&path)?;
        let needs = match self.depends.get(name) {
            Some(needs) => needs.clone(),
            None => depends_in(&content),
        };
        above.push(name.to_owned());
        for need in needs {
            self.visit(&need, above, order, contents)?;
        }
        above.pop();
        contents.insert(name.to_owned(), content);
        order.push(name.to_owned());
        Ok(())
    }
}

/// A module's file, unpacked.
fn read_module(path: &Path) -> Result<Vec<u8>, QemuError> {
    let file = std::fs::File::open(path).at("open", path)?;
    let unpack: Box<dyn Read> = match path.extension().and_then(|ending| ending.to_str()) {
        Some("xz") => Box::new(liblzma::read::XzDecoder::new(file)),
        Some("gz") => Box::new(flate2::read::GzDecoder::new(file)),
        Some("zst") => Box::new(zstd::stream::read::Decoder::new(file).at("unpack", path)?),
        _ => Box::new(file),
    };
    let mut content = Vec::new();
    unpack.take(LARGEST).read_to_end(&mut content).at("unpack", path)?;
    Ok(content)
}

/// The names in `depends=` of a module's `.modinfo` section.
fn depends_in(content: &[u8]) -> Vec<String> {
    use object::{Object, ObjectSection};
    let Ok(file) = object::File::parse(content) else { return Vec::new() };
    let Some(Ok(info)) = file.section_by_name(".modinfo").map(|section| section.data()) else { return Vec::new() };
    info.split(|byte| *byte == 0)
        .filter_map(|entry| std::str::from_utf8(entry).ok()?.strip_prefix("depends="))
        .flat_map(|names| names.split(','))
        .filter(|name| !name.is_empty())
        .map(canonical)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        let release = dir.path().join("lib/modules/6.1-a");
        std::fs::create_dir_all(release.join("kernel")).unwrap();
        let file = |name: &str, text: &str| std::fs::write(release.join(name), text).unwrap();
        file("modules.builtin", "kernel/drivers/virtio/virtio.ko\n");
        file(
            "modules.dep",
            "kernel/virtio-pci.ko: kernel/ring.ko kernel/dev.ko\nkernel/dev.ko: kernel/ring.ko\nkernel/ring.ko:\n\
             kernel/lost.ko: kernel/gone.ko\n",
        );
        for name in ["virtio-pci", "dev", "ring", "lost"] {
            file(&format!("kernel/{name}.ko"), name);
        }
        dir
    }

    #[test]
    fn what_is_needed_comes_first_and_once() {
        let dir = tree();
        let directory = release_directory(dir.path(), Some("6.1-a")).unwrap();
        let mut tree = ModuleTree::open(&directory).unwrap();
        let order = tree.load_order(&["virtio_pci", "virtio", "dev"]).unwrap();
        let names: Vec<&str> = order.iter().map(|module| module.name.as_str()).collect();
        assert_eq!(names, ["ring", "dev", "virtio_pci"]);
        assert_eq!(order[2].content, b"virtio-pci");
        let text = tree.load_order(&["lost"]).unwrap_err().to_string();
        assert!(text.contains("no module `gone`, which `lost` needs"), "{text}");
    }

    #[test]
    fn the_release_is_picked_or_asked_for() {
        let dir = tree();
        assert!(release_directory(dir.path(), None).is_ok());
        let text = release_directory(dir.path(), Some("6.2")).unwrap_err().to_string();
        assert!(text.contains("6.1-a") && text.contains("the kernel is `6.2`"), "{text}");
        assert!(release_directory(&dir.path().join("lib/modules/6.1-a"), Some("6.2")).is_ok());
        assert!(release_directory(Path::new("/no/such"), None).unwrap_err().to_string().contains("no such file"));
    }
}
