//! Which file of an output is meant.

use std::fs;
use std::path::{Path, PathBuf};

use super::error::RealiseError;
use super::request::{Realised, Role, Wanted};
use crate::foundation::nix_value::NixSource;
use crate::foundation::path_error::{PathContext, PathError};
use crate::foundation::store_path::StorePath;

const KERNELS: [&str; 5] = ["bzImage", "Image", "zImage", "vmlinuz.efi", "vmlinux"];
/// How many entries of an output are looked at for an error, and how deep.
const HELD: usize = 200;
const DEPTH: usize = 3;

/// Resolves the file inside `store_path` that `wanted` means.
///
/// # Errors
/// The file that was named, or any that the role could mean, is not there; the error lists what the output holds.
pub(super) fn resolve(wanted: &Wanted, store_path: &StorePath) -> Result<Realised, RealiseError> {
    let output = Path::new(store_path.as_str());
    let realised = |file: Option<String>| {
        let path = file.as_ref().map_or_else(|| output.to_owned(), |file| output.join(file));
        Realised { store_path: store_path.clone(), path, file }
    };
    let missing = |looked_for: Vec<String>, hint: Option<String>| RealiseError::NoSuchFile {
        output: store_path.to_string(),
        looked_for,
        holds: holds(output),
        hint: hint.map(Into::into),
        asked_by: vec![wanted.asked_by.clone()],
    };
    if let Some(file) = &wanted.value.file {
        let path = output.join(file);
        return match wanted.role {
            _ if !path.exists() => Err(missing(vec![file.clone()], elsewhere(output, file))),
            Role::Modules if !holds_modules(&path) => Err(missing(modules_in(file), None)),
            Role::Modules => Ok(realised(Some(file.clone()))),
            _ if path.is_dir() => {
                Err(missing(vec![file.clone()], Some(format!("`{file}` is a directory, and a file is needed"))))
            }
            _ => Ok(realised(Some(file.clone()))),
        };
    }
    if !output.exists() {
        return Err(RealiseError::NoSuchStorePath {
            path: store_path.to_string(),
            asked_by: vec![wanted.asked_by.clone()],
        });
    }
    if wanted.role == Role::Modules {
        return if holds_modules(output) { Ok(realised(None)) } else { Err(missing(modules_in(""), None)) };
    }
    if !output.is_dir() {
        return Ok(realised(None));
    }
    let candidates = candidates(&wanted.role, output)?;
    if let Some(file) = candidates.iter().find(|file| output.join(file).is_file()) {
        return Ok(realised(Some(file.clone())));
    }
    let several = wanted.role == Role::Initrd && entries(output)?.iter().any(|name| name.starts_with("initrd."));
    let why = if several { "it holds more than one `initrd.*`; " } else { "" };
    Err(missing(expected(&wanted.role), Some(format!("{why}{}", how_to_name(&wanted.value.source)))))
}

/// How provium.toml names a file inside an output of `source`.
fn how_to_name(source: &NixSource) -> String {
    match source {
        NixSource::Installable(text) => format!("name the file: `{text}//FILE`"),
        NixSource::Store(path) => format!("name the file: `{path}/FILE`"),
        NixSource::Attr { attr, .. } => {
            format!("name an attribute whose output is the file itself, in place of `{attr}`")
        }
    }
}

/// The files that the role could mean, best first.
fn candidates(role: &Role, output: &Path) -> Result<Vec<String>, PathError> {
    Ok(match role {
        Role::Kernel => KERNELS.map(str::to_owned).to_vec(),
        Role::Initrd => {
            let mut found = entries(output)?;
            found.retain(|name| name.starts_with("initrd.") && output.join(name).is_file());
            found.truncate(if found.len() == 1 { 1 } else { 0 });
            found.insert(0, "initrd".to_owned());
            found
        }
        Role::Qemu { arch } => vec![format!("bin/qemu-system-{arch}")],
        Role::Modules | Role::Vmlinux | Role::CmdlineFile | Role::DiskImage => Vec::new(),
    })
}

/// The candidates as an error names them.
fn expected(role: &Role) -> Vec<String> {
    match role {
        Role::Kernel => KERNELS.map(str::to_owned).to_vec(),
        Role::Initrd => vec!["initrd".to_owned(), "initrd.*".to_owned()],
        Role::Qemu { arch } => vec![format!("bin/qemu-system-{arch}")],
        Role::Modules | Role::Vmlinux | Role::CmdlineFile | Role::DiskImage => Vec::new(),
    }
}

fn modules_in(directory: &str) -> Vec<String> {
    let prefix = if directory.is_empty() { String::new() } else { format!("{directory}/") };
    ["lib/modules/<release>", "usr/lib/modules/<release>", "modules.dep"].map(|name| format!("{prefix}{name}")).to_vec()
}

/// `lib/modules/<release>` or `usr/lib/modules/<release>` below, or a release directory itself.
fn holds_modules(directory: &Path) -> bool {
    let is_release = |path: &Path| {
        ["modules.dep", "modules.order", "modules.builtin"].iter().any(|name| path.join(name).is_file())
            || path.join("kernel").is_dir()
    };
    let has_release = |below: &str| {
        fs::read_dir(directory.join(below)).into_iter().flatten().flatten().any(|entry| entry.path().is_dir())
    };
    is_release(directory) || has_release("lib/modules") || has_release("usr/lib/modules")
}

fn entries(directory: &Path) -> Result<Vec<String>, PathError> {
    let mut names = Vec::new();
    for entry in fs::read_dir(directory).at("read", directory)? {
        names.push(entry.at("read", directory)?.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    Ok(names)
}

/// What the output holds, for an error: files by their paths, directories with a `/` behind.
fn holds(output: &Path) -> Vec<String> {
    let mut held = Vec::new();
    let mut open: Vec<(PathBuf, String, usize)> = vec![(output.to_owned(), String::new(), 0)];
    while let Some((directory, prefix, depth)) = open.pop() {
        for name in entries(&directory).unwrap_or_default() {
            let (path, shown) = (directory.join(&name), format!("{prefix}{name}"));
            let descends = path.is_dir() && !path.is_symlink();
            if held.len() >= HELD {
                return held;
            }
            if descends && depth + 1 < DEPTH && !entries(&path).unwrap_or_default().is_empty() {
                open.push((path, format!("{shown}/"), depth + 1));
            } else if descends {
                held.push(format!("{shown}/"));
            } else {
                held.push(shown);
            }
        }
    }
    held.sort();
    held
}

/// A hint when a file of the same name lies elsewhere in the output.
fn elsewhere(output: &Path, file: &str) -> Option<String> {
    let name = file.rsplit('/').next()?;
    let found = holds(output).into_iter().find(|held| held.rsplit('/').next() == Some(name))?;
    Some(format!("did you mean `{found}`?"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::foundation::nix_value::NixValue;

    /// A directory shaped like a store path; the type only checks the text.
    struct Output {
        top: tempfile::TempDir,
    }

    impl Output {
        fn new(files: &[&str]) -> Self {
            let top = tempfile::tempdir().unwrap();
            for file in files {
                let path = top.path().join(file);
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(path, "x").unwrap();
            }
            Self { top }
        }

        fn pick(&self, role: &Role) -> Option<String> {
            let candidates = candidates(role, self.top.path()).unwrap();
            candidates.into_iter().find(|file| self.top.path().join(file).is_file())
        }
    }

    #[test]
    fn kernels_in_order() {
        let pick = |files: &[&str]| Output::new(files).pick(&Role::Kernel);
        assert_eq!(pick(&["vmlinux", "Image", "bzImage"]).as_deref(), Some("bzImage"));
        assert_eq!(pick(&["vmlinux", "vmlinuz.efi"]).as_deref(), Some("vmlinuz.efi"));
        assert_eq!(pick(&["dir/bzImage"]), None);
    }

    #[test]
    fn initrds() {
        let pick = |files: &[&str]| Output::new(files).pick(&Role::Initrd);
        assert_eq!(pick(&["initrd", "initrd.gz"]).as_deref(), Some("initrd"));
        assert_eq!(pick(&["initrd.zst", "prepend"]).as_deref(), Some("initrd.zst"));
        assert_eq!(pick(&["initrd.zst", "initrd.gz"]), None);
        assert_eq!(pick(&["initrd/x"]), None);
    }

    #[test]
    fn qemu_by_architecture() {
        let output = Output::new(&["bin/qemu-system-x86_64"]);
        assert_eq!(output.pick(&Role::Qemu { arch: "x86_64".to_owned() }).as_deref(), Some("bin/qemu-system-x86_64"));
        assert_eq!(output.pick(&Role::Qemu { arch: "aarch64".to_owned() }), None);
    }

    #[test]
    fn modules_in_all_shapes() {
        let holds = |files: &[&str]| holds_modules(Output::new(files).top.path());
        assert!(holds(&["lib/modules/6.1/modules.dep"]));
        assert!(holds(&["usr/lib/modules/6.1/modules.dep"]));
        assert!(holds(&["modules.dep"]));
        assert!(holds(&["kernel/drivers/x.ko"]));
        assert!(!holds(&["lib/modules/readme", "bzImage"]));
    }

    #[test]
    fn lists_what_is_there() {
        let output = Output::new(&["bzImage", "a/b/c/d", "a/x", "lib/modules/1/2/3"]);
        fs::create_dir(output.top.path().join("empty")).unwrap();
        assert_eq!(holds(output.top.path()), ["a/b/c/", "a/x", "bzImage", "empty/", "lib/modules/1/"]);
        assert_eq!(elsewhere(output.top.path(), "boot/x").as_deref(), Some("did you mean `a/x`?"));
        assert_eq!(elsewhere(output.top.path(), "boot/y"), None);
    }

    #[test]
    fn a_store_path_that_is_gone() {
        let path = StorePath::parse("/nix/store/00000000000000000000000000000000-gone").unwrap();
        let wanted = Wanted {
            value: NixValue { source: NixSource::Store(path.clone()), file: None },
            role: Role::Kernel,
            asked_by: "profile `x`, key `kernel`".to_owned(),
        };
        let error = resolve(&wanted, &path).unwrap_err().to_string();
        assert!(error.contains("`/nix/store/00000000000000000000000000000000-gone` is not in the store"), "{error}");
    }
}
