//! Third pass: inheritance, defaults, directories of profiles.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::check::{Checker, Draft, Profiles, Provium};
use super::document::{self, Node};
use super::error::{Diagnostic, ProjectError};
use super::profile::{Arch, Origin, Profile, Project, Setting};
use crate::foundation::nix_value::Value;
use crate::foundation::path_error::{PathContext, PathError};
use crate::foundation::suggest;

/// Lies beside provium.toml and over it.
const LOCAL: &str = "provium.local.toml";
/// One profile in a directory of profiles.
const PROFILE_FILE: &str = "profile.provium.toml";
/// Defaults.
const MEMORY: u64 = 512 << 20;
const CACHE_MAX_SIZE: u64 = 20 << 30;

/// The profiles of a flake by name, each in the form of provium.toml; asked with the flake's reference and the directory
/// that it is relative to. An error is a message.
pub type FlakeProfiles<'a> =
    &'a mut dyn FnMut(&str, &Path) -> Result<serde_json::Map<String, serde_json::Value>, String>;

/// Loads a provium.toml and all it refers to; `flake` is asked only where it says `from_flake`.
///
/// # Errors
/// A file that can't be read, all mistakes at once, or a flake that can't be asked.
pub fn load(config: &Path, flake: FlakeProfiles<'_>) -> Result<Project, ProjectError> {
    let config = std::path::absolute(config).at("find", config)?;
    let directory = config.parent().unwrap_or(Path::new("/")).to_owned();
    let mut mistakes = Vec::new();
    let mut root = read(&config, &mut mistakes)?;
    let local = directory.join(LOCAL);
    if local.is_file() && local != config {
        document::overlay(&mut root, read(&local, &mut mistakes)?);
    }
    let mut checker = Checker { mistakes };
    let (provium, profiles) = checker.root(&root);
    let drafts = collect(&mut checker, profiles, &root.at, &directory, flake)?;
    let resolved = resolve_all(&mut checker, &drafts, &directory);
    if !checker.mistakes.is_empty() {
        let mut mistakes = checker.mistakes;
        mistakes.sort_by_key(|mistake| (mistake.at.file.to_path_buf(), mistake.at.line, mistake.at.column));
        mistakes.dedup();
        return Err(ProjectError::Mistakes(mistakes));
    }
    Ok(project(config, directory, provium, resolved))
}

fn read(path: &Path, mistakes: &mut Vec<Diagnostic>) -> Result<Node, PathError> {
    let bytes = std::fs::read(path).at("read", path)?;
    let (root, found) = match String::from_utf8(bytes) {
        Ok(text) => document::parse(path, &text),
        Err(error) => {
            let end = error.utf8_error().valid_up_to();
            let before = String::from_utf8_lossy(&error.as_bytes()[..end]).into_owned();
            document::not_text(path, &before)
        }
    };
    mistakes.extend(found);
    Ok(root)
}

/// All drafts by name: those of the file, those of its directory of profiles, and those of its flake.
fn collect(
    checker: &mut Checker,
    profiles: Profiles,
    root: &Origin,
    directory: &Path,
    flake: FlakeProfiles<'_>,
) -> Result<BTreeMap<String, Draft>, ProjectError> {
    let mut drafts: BTreeMap<String, Draft> = profiles.named.into_iter().collect();
    let mut found = Vec::new();
    if let Some(directory) = &profiles.from_dir {
        found = read_directory(checker, directory)?;
    }
    // Asking a flake takes a while, and mistakes are better told at once.
    if let Some(reference) = profiles.from_flake.filter(|_| checker.mistakes.is_empty()) {
        let theirs = flake(&reference.value, directory).map_err(ProjectError::Flake)?;
        for (name, profile) in theirs {
            checker.name_in_flake(&name, &reference.origin);
            let draft = checker.profile(&document::from_json(&profile, &reference.origin), &reference.origin);
            found.push((name, draft));
        }
    }
    for (name, draft) in found {
        match (drafts.get(&name).and_then(|first| first.at.as_ref()), &draft.at) {
            (Some(first), Some(second)) => {
                let message = format!("the profile `{name}` is defined twice: here and at {second}");
                let first = first.clone();
                checker.mistake(&first, message, Some("rename one of the two".to_owned()));
            }
            _ => {
                drafts.insert(name, draft);
            }
        }
    }
    if drafts.is_empty() && checker.mistakes.is_empty() {
        checker.mistake(
            root,
            "there is no profile".to_owned(),
            Some("a profile is written as `[profiles.NAME]` with at least `kernel = \"…\"`".to_owned()),
        );
    }
    Ok(drafts)
}

fn read_directory(checker: &mut Checker, directory: &Setting<PathBuf>) -> Result<Vec<(String, Draft)>, ProjectError> {
    let entries = match std::fs::read_dir(&directory.value).at("list", &directory.value) {
        Ok(entries) => entries,
        Err(error) => {
            checker.mistake(&directory.origin, format!("`from_dir`: {error}"), None);
            return Ok(Vec::new());
        }
    };
    let mut files: Vec<PathBuf> =
        entries.flatten().map(|entry| entry.path().join(PROFILE_FILE)).filter(|file| file.is_file()).collect();
    files.sort();
    if files.is_empty() {
        let message = format!("`from_dir`: `{}` holds no profile", directory.value.display());
        checker.mistake(
            &directory.origin,
            message,
            Some(format!("each profile is a directory with a `{PROFILE_FILE}`")),
        );
    }
    let mut found = Vec::new();
    for file in files {
        let name = file.parent().and_then(Path::file_name).unwrap_or_default().to_string_lossy().into_owned();
        let node = read(&file, &mut checker.mistakes)?;
        let draft = checker.profile(&node, &node.at);
        found.push((name, draft));
    }
    Ok(found)
}

fn resolve_all(checker: &mut Checker, drafts: &BTreeMap<String, Draft>, directory: &Path) -> BTreeMap<String, Profile> {
    let mut resolved = BTreeMap::new();
    for (name, draft) in drafts {
        let Some(whole) = inherit(checker, drafts, name, draft) else { continue };
        if let Some(profile) = finish(checker, name, whole, directory) {
            resolved.insert(name.clone(), profile);
        }
    }
    resolved
}

/// The draft with its parents' keys as defaults.
fn inherit(checker: &mut Checker, drafts: &BTreeMap<String, Draft>, name: &str, draft: &Draft) -> Option<Draft> {
    let mut whole = draft.clone();
    let mut chain = vec![name.to_owned()];
    let mut extends = draft.extends.clone();
    while let Some(parent) = extends {
        if chain.contains(&parent.value) {
            chain.push(parent.value.clone());
            // The cycle is told once, where its first member by name stands.
            if chain.iter().min().is_some_and(|first| first == name) {
                let cycle: Vec<String> = chain.iter().map(|name| format!("`{name}`")).collect();
                checker.mistake(
                    &parent.origin,
                    format!("`extends` goes round in a circle: {}", cycle.join(" → ")),
                    None,
                );
            }
            return None;
        }
        let Some(next) = drafts.get(&parent.value) else {
            let names: Vec<&String> = drafts.keys().filter(|other| *other != name).collect();
            let hint = (!names.is_empty()).then(|| suggest::hint(&parent.value, &names));
            // A profile further down tells the same at the same place, which is told once.
            checker.mistake(&parent.origin, format!("`extends`: there is no profile `{}`", parent.value), hint);
            return None;
        };
        whole = laid_over(whole, next);
        extends = next.extends.clone();
        chain.push(parent.value);
    }
    Some(whole)
}

fn laid_over(own: Draft, parent: &Draft) -> Draft {
    let mut origins = parent.origins.clone();
    origins.extend(own.origins);
    let base = parent.clone();
    Draft {
        at: own.at,
        origins,
        kernel: own.kernel.or(base.kernel),
        initrd: own.initrd.or(base.initrd),
        modules: own.modules.or(base.modules),
        vmlinux: own.vmlinux.or(base.vmlinux),
        cmdline: own.cmdline.or(base.cmdline),
        cmdline_file: own.cmdline_file.or(base.cmdline_file),
        fast_boot: own.fast_boot.or(base.fast_boot),
        guest_os: own.guest_os.or(base.guest_os),
        arch: own.arch.or(base.arch),
        memory: own.memory.or(base.memory),
        cpus: own.cpus.or(base.cpus),
        timeout_scale: own.timeout_scale.or(base.timeout_scale),
        splats: own.splats.or(base.splats),
        machine: own.machine.or(base.machine),
        cpu: own.cpu.or(base.cpu),
        qemu_args: own.qemu_args.or(base.qemu_args),
        disks: own.disks.or(base.disks),
        inject_agent: own.inject_agent.or(base.inject_agent),
        build: own.build.or(base.build),
        build_out: own.build_out.or(base.build_out),
        extends: own.extends,
    }
}

/// Defaults, and `{out}` in paths.
fn finish(checker: &mut Checker, name: &str, draft: Draft, directory: &Path) -> Option<Profile> {
    let broken = draft.origins.contains_key("kernel");
    let Some(kernel) = draft.kernel else {
        if let (false, Some(at)) = (broken, &draft.at) {
            let hint = "write kernel = \"path/to/bzImage\", or a Nix value such as \".#kernel\"".to_owned();
            checker.mistake(at, format!("the profile `{name}` has no `kernel`"), Some(hint));
        }
        return None;
    };
    let build_out = draft.build_out.unwrap_or_else(|| directory.join(".provium/build").join(name));
    let out = |setting: Setting<Value>| match setting.value {
        Value::Path(path) if path.to_string_lossy().contains("{out}") => {
            let text = path.to_string_lossy().replace("{out}", &build_out.to_string_lossy());
            let base = setting.origin.file.parent().unwrap_or(Path::new("/"));
            Setting { value: Value::Path(super::profile::join(base, text)), origin: setting.origin }
        }
        value => Setting { value, origin: setting.origin },
    };
    Some(Profile {
        name: name.to_owned(),
        kernel: out(kernel),
        initrd: draft.initrd.map(out),
        modules: draft.modules.map(out),
        vmlinux: draft.vmlinux.map(out),
        cmdline: draft.cmdline.unwrap_or_default(),
        cmdline_file: draft.cmdline_file.map(out),
        fast_boot: draft.fast_boot.unwrap_or(false),
        guest_os: draft.guest_os.unwrap_or_default(),
        arch: draft.arch.unwrap_or_else(Arch::host),
        memory: draft.memory.unwrap_or(MEMORY),
        cpus: draft.cpus.unwrap_or(1),
        timeout_scale: draft.timeout_scale.unwrap_or(1.0),
        splats: draft.splats.unwrap_or_default(),
        machine: draft.machine,
        cpu: draft.cpu,
        qemu_args: draft.qemu_args.unwrap_or_default(),
        disks: draft.disks.unwrap_or_default().into_iter().map(|disk| disk.with_out(out)).collect(),
        inject_agent: draft.inject_agent.unwrap_or(true),
        build: draft.build,
        build_out,
        origins: draft.origins,
    })
}

fn project(config: PathBuf, directory: PathBuf, provium: Provium, profiles: BTreeMap<String, Profile>) -> Project {
    let tests = directory.join("tests");
    let default_root = if tests.is_dir() { tests } else { directory.clone() };
    Project {
        roots: provium.roots.unwrap_or_else(|| vec![default_root]),
        cache_dir: provium.cache_dir,
        cache_max_size: provium.cache_max_size.unwrap_or(CACHE_MAX_SIZE),
        qemu: provium.qemu,
        fixture_stores: provium.fixture_stores.unwrap_or_default(),
        key_profiles: provium.key_profiles.unwrap_or_default(),
        profiles,
        config,
        directory,
    }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
