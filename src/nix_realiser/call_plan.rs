//! The arguments of nix for one batch of installables.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs;

use super::cancel::Cancel;
use super::error::RealiseError;
use super::flake::{self, LocalFlake, Reference};
use super::installable::{Batch, Installable};
use super::nix_call::{Nix, Outcome, arguments};
use super::request::{Progress, Wanted};

/// A flake that nix copies whole and that is larger than this gets a warning: bytes, files.
const LARGE: (u64, usize) = (100 << 20, 20_000);

/// One batch and how nix is told to read it.
#[derive(Debug)]
pub(super) struct CallPlan<'a> {
    pub(super) nix: &'a Nix,
    pub(super) batch: &'a Batch,
    pub(super) wanted: &'a [Wanted],
    /// The flake that the project lies in.
    pub(super) flake: Option<LocalFlake>,
    /// How installables are read: `--file …`, or `--inputs-from .` and what belongs to it.
    reading: Vec<OsString>,
}

impl<'a> CallPlan<'a> {
    /// Decides how nix reads the batch; warns of what is not pinned and what is needlessly slow.
    ///
    /// # Errors
    /// nix can't be run, or somebody cancelled.
    pub(super) fn new(
        nix: &'a Nix,
        batch: &'a Batch,
        wanted: &'a [Wanted],
        progress: &mut dyn FnMut(Progress),
        cancel: &Cancel,
    ) -> Result<Self, RealiseError> {
        let mut plan = Self { nix, batch, wanted, flake: None, reading: Vec::new() };
        if let Some(file) = &batch.file {
            // Flake options would make the evaluation pure, and then the file can't be read.
            plan.reading = arguments([&"--file", file]);
            return Ok(plan);
        }
        let flakes: Vec<_> = batch.installables.iter().filter(|installable| installable.is_flake()).collect();
        if flakes.is_empty() {
            // Store paths alone need no flake, and a broken flake.nix is no reason to refuse them.
            return Ok(plan);
        }
        plan.flake = flake::around(&nix.directory);
        let names = names(&flakes);
        let overrides = overrides(&nix.extra_args, &names);
        let mut known: BTreeSet<String> = overrides.iter().map(|(name, _)| name.clone()).collect();
        if let Some(flake) = &plan.flake {
            known.append(&mut inputs(nix, flake, &names, cancel)?);
        }
        plan.reading = reading(plan.flake.is_some(), &names, &known, &overrides);
        plan.warn(&flakes, &known, progress);
        Ok(plan)
    }

    /// Builds some installables of the batch with `nix build`; `mode` is `--out-link …`, or what makes it a dry run.
    pub(super) fn build(
        &self,
        mode: Vec<OsString>,
        installables: &[&Installable],
        progress: &mut dyn FnMut(Progress),
        cancel: &Cancel,
    ) -> Result<Outcome, RealiseError> {
        let mut args = arguments([&"--json"]);
        args.extend(mode);
        args.extend(arguments([&"--log-format", &"internal-json", &"-v"]));
        args.extend(self.reading());
        args.push("--".into());
        args.extend(installables.iter().map(|installable| OsString::from(&installable.text)));
        self.nix.run("build", &args, progress, cancel)
    }

    /// Evaluates without building or fetching, and lists what is not there.
    pub(super) fn dry_run(&self, installables: &[&Installable], cancel: &Cancel) -> Result<Outcome, RealiseError> {
        let mode: [&dyn AsRef<std::ffi::OsStr>; 7] =
            [&"--dry-run", &"--offline", &"--no-link", &"--max-jobs", &"0", &"--builders", &""];
        self.build(arguments(mode), installables, &mut |_| (), cancel)
    }

    /// How the batch is read, and what is passed on.
    pub(super) fn reading(&self) -> Vec<OsString> {
        let mut args = self.reading.clone();
        if self.nix.offline {
            args.push("--offline".into());
        }
        args.extend(self.nix.extra_args.iter().map(OsString::from));
        args
    }

    /// Who asked for an installable.
    pub(super) fn askers(&self, installable: &Installable) -> Vec<String> {
        let mut askers: Vec<_> = installable.wanted.iter().map(|index| self.wanted[*index].asked_by.clone()).collect();
        askers.dedup();
        askers
    }

    /// Who asked for anything in the batch.
    pub(super) fn all_askers(&self) -> Vec<String> {
        let mut askers: Vec<_> =
            self.batch.installables.iter().flat_map(|installable| self.askers(installable)).collect();
        askers.dedup();
        askers
    }

    fn warn(&self, flakes: &[&Installable], known: &BTreeSet<String>, progress: &mut dyn FnMut(Progress)) {
        let mut uses_local = false;
        for installable in flakes {
            let advice = match flake::reference(&installable.text) {
                Reference::Local => {
                    uses_local = true;
                    continue;
                }
                Reference::Name { pinned: true, .. } | Reference::Remote { pinned: true } => continue,
                Reference::Name { name, .. } if known.contains(&name) => continue,
                Reference::Name { name, .. } => {
                    format!(
                        "`{name}` is no input of the project's flake, so what it means may change; make it an input"
                    )
                }
                Reference::Remote { .. } => {
                    "it names no revision, so what it means may change; make it an input of the project's flake, \
                     or write the revision"
                        .to_owned()
                }
            };
            let askers = self.askers(installable).join("; ");
            progress(Progress::Warning(format!("`{}` ({askers}): {advice}", installable.text)));
        }
        if let Some(LocalFlake { directory, git_root: None }) = &self.flake
            && uses_local
            && flake::is_large(directory, LARGE.0, LARGE.1)
        {
            let directory = directory.display();
            progress(Progress::Warning(format!(
                "`{directory}` is a large flake outside git, so nix copies all of it each time; \
                 `git init` and `git add` make it copy only what git knows"
            )));
        }
    }
}

/// The names that nix would look up in its registries.
fn names(flakes: &[&Installable]) -> BTreeSet<String> {
    let names = flakes.iter().filter_map(|installable| match flake::reference(&installable.text) {
        Reference::Name { name, .. } => Some(name),
        _ => None,
    });
    names.collect()
}

/// `--inputs-from .` and what goes with it.
///
/// `--inputs-from` alone still fetches nix's global registry, and follows the lock even where `--override-input` says
/// something else. So the registry is left out when every name is known without it, and an override of an input that is
/// named directly is given as an override of the name as well; the first match wins.
fn reading(
    has_flake: bool,
    names: &BTreeSet<String>,
    known: &BTreeSet<String>,
    overrides: &[(String, String)],
) -> Vec<OsString> {
    let mut args = Vec::new();
    for (name, reference) in overrides {
        args.extend(arguments([&"--override-flake", name, reference]));
    }
    if has_flake {
        args.extend(arguments([&"--inputs-from", &"."]));
    }
    if !names.is_empty() && names.is_subset(known) {
        args.extend(arguments([&"--option", &"flake-registry", &""]));
    }
    args
}

/// The inputs of the project's flake: those of its lock and, where that lacks a name, those of flake.nix.
fn inputs(
    nix: &Nix,
    flake: &LocalFlake,
    names: &BTreeSet<String>,
    cancel: &Cancel,
) -> Result<BTreeSet<String>, RealiseError> {
    let lock = fs::read_to_string(flake.directory.join("flake.lock")).unwrap_or_default();
    let mut inputs = flake::locked_inputs(&lock);
    if !names.is_subset(&inputs) {
        let file = flake.directory.join("flake.nix");
        let args = arguments([&"--json", &"--file", &file, &"inputs", &"--apply", &"builtins.attrNames"]);
        // A flake that can't be evaluated, or has no inputs, adds none; the build will say what is wrong with it.
        let outcome = nix.run("eval", &args, &mut |_| (), cancel)?;
        inputs.extend(serde_json::from_slice::<Vec<String>>(&outcome.stdout).unwrap_or_default());
    }
    Ok(inputs)
}

/// Overrides among the extra arguments that are for one of `names`.
fn overrides(extra_args: &[String], names: &BTreeSet<String>) -> Vec<(String, String)> {
    let found = extra_args.windows(3).filter(|args| args[0] == "--override-input" && names.contains(&args[1]));
    found.map(|args| (args[1].clone(), args[2].clone())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn the_registry_is_asked_only_for_what_nobody_else_knows() {
        let read = |names: &[&str], known: &[&str]| {
            let args = reading(true, &set(names), &set(known), &[]);
            args.iter().map(|arg| arg.to_string_lossy().into_owned()).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(read(&[], &[]), "--inputs-from .");
        assert_eq!(read(&["linux"], &["linux", "x"]), "--inputs-from . --option flake-registry ");
        assert_eq!(read(&["linux", "other"], &["linux"]), "--inputs-from .");
    }

    #[test]
    fn overrides_of_names() {
        let args: Vec<_> = "--x --override-input linux path:/l --override-input a/b c --override-input"
            .split(' ')
            .map(str::to_owned)
            .collect();
        let found = overrides(&args, &set(&["linux"]));
        assert_eq!(found, [("linux".to_owned(), "path:/l".to_owned())]);
        let read = reading(true, &set(&["linux"]), &set(&["linux"]), &found);
        assert_eq!(read[..5], ["--override-flake", "linux", "path:/l", "--inputs-from", "."].map(OsString::from));
    }
}
