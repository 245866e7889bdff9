//! The realiser: values in, files out.

use std::fs;
use std::path::PathBuf;

use super::call_plan::CallPlan;
use super::cancel::Cancel;
use super::environment::Environment;
use super::error::RealiseError;
use super::file_lock;
use super::flake_profiles;
use super::installable::{Batch, Installable, batches};
use super::nix_call::{Nix, Outcome, arguments};
use super::outputs::{self, Built};
use super::request::{Known, Options, Progress, Realised, Wanted};
use super::role_file;
use super::roots::{self, RunRoots};
use super::sandbox_map::SandboxMap;
use crate::foundation::path_error::PathContext;
use crate::foundation::store_path::StorePath;

/// Realises a run's Nix values, and keeps what it realised from being collected for as long as it lives.
#[derive(Debug)]
pub struct Realiser {
    no_build: bool,
    state_dir: PathBuf,
    nix: Nix,
    /// What stands for nix inside a Nix build.
    map: Option<SandboxMap>,
    /// Made with the first value.
    roots: Option<RunRoots>,
}

impl Realiser {
    /// A realiser by this process's environment (`PROVIUM_NIX`, `NIX_BUILD_TOP`, `PROVIUM_NIX_MAP`). Prunes the roots of
    /// runs that were killed.
    ///
    /// # Errors
    /// Inside a Nix build: the map can't be used.
    pub fn new(options: Options) -> Result<Self, RealiseError> {
        Self::with_environment(options, Environment::of_this_process())
    }

    /// As [`Realiser::new`], by another environment.
    ///
    /// # Errors
    /// As [`Realiser::new`].
    pub fn with_environment(options: Options, environment: Environment) -> Result<Self, RealiseError> {
        let map = environment
            .inside_build
            .then(|| SandboxMap::read(environment.map.as_deref(), &options.directory))
            .transpose()?;
        if map.is_none() {
            // A state directory that can't be used matters once a value is asked for, and is told then.
            drop(roots::prune(&options.state_dir, &Cancel::new()));
        }
        let nix = Nix {
            program: environment.nix.unwrap_or_else(|| "nix".into()),
            directory: options.directory,
            extra_args: options.extra_args,
            offline: options.offline,
            variables: environment.child_variables,
        };
        Ok(Self { no_build: options.no_build, state_dir: options.state_dir, nix, map, roots: None })
    }

    /// Realises all that is wanted, in as few nix processes as there can be, and resolves the file inside each. The
    /// answers are in the order of the request.
    ///
    /// # Errors
    /// Anything that keeps one of them from being there, and [`RealiseError::Cancelled`].
    pub fn realise(
        &mut self,
        wanted: &[Wanted],
        progress: &mut dyn FnMut(Progress),
        cancel: &Cancel,
    ) -> Result<Vec<Realised>, RealiseError> {
        let paths = match &self.map {
            Some(map) => wanted.iter().map(|wanted| map.look_up(wanted)).collect::<Result<Vec<_>, _>>()?,
            None if wanted.is_empty() => Vec::new(),
            None => {
                let asked_by: Vec<_> = wanted.iter().map(|wanted| wanted.asked_by.clone()).collect();
                self.build(wanted, progress, cancel).map_err(|error| error.asked_by(&asked_by))?
            }
        };
        wanted.iter().zip(&paths).map(|(wanted, path)| role_file::resolve(wanted, path)).collect()
    }

    /// The profiles of a flake by name, each in the form of provium.toml; inside a Nix build those of the map.
    ///
    /// # Errors
    /// The flake can't be evaluated or has no `proviumProfiles`; the map has no profiles.
    pub fn flake_profiles(
        &self,
        reference: &str,
        cancel: &Cancel,
    ) -> Result<serde_json::Map<String, serde_json::Value>, RealiseError> {
        if let Some(map) = &self.map {
            return map.profiles(reference);
        }
        let _turn = self.take_turn(&mut |_| (), cancel)?;
        flake_profiles::ask(&self.nix, reference, cancel)
    }

    /// The store paths of all that is wanted by one dry run, which builds, fetches and roots nothing. `None` is a path
    /// that is not known before it is built.
    ///
    /// # Errors
    /// Something can't be evaluated.
    pub fn paths_without_building(&mut self, wanted: &[Wanted]) -> Result<Vec<Option<StorePath>>, RealiseError> {
        if let Some(map) = &self.map {
            return wanted.iter().map(|wanted| map.look_up(wanted).map(Some)).collect();
        }
        if wanted.is_empty() {
            return Ok(Vec::new());
        }
        let asked_by: Vec<_> = wanted.iter().map(|wanted| wanted.asked_by.clone()).collect();
        self.evaluate(wanted).map_err(|error| error.asked_by(&asked_by))
    }

    /// As [`Realiser::paths_without_building`], with the file inside each that is there already.
    ///
    /// # Errors
    /// As [`Realiser::paths_without_building`].
    pub fn known_without_building(&mut self, wanted: &[Wanted]) -> Result<Vec<Option<Known>>, RealiseError> {
        let paths = self.paths_without_building(wanted)?;
        let known = |(wanted, path): (&Wanted, Option<StorePath>)| {
            let store_path = path?;
            let realised = role_file::resolve(wanted, &store_path).ok();
            Some(Known { store_path, realised })
        };
        Ok(wanted.iter().zip(paths).map(known).collect())
    }

    fn evaluate(&self, wanted: &[Wanted]) -> Result<Vec<Option<StorePath>>, RealiseError> {
        let cancel = Cancel::new();
        let _turn = self.take_turn(&mut |_| (), &cancel)?;
        let mut paths = vec![None; wanted.len()];
        for batch in batches(wanted, &self.nix.directory) {
            let plan = CallPlan::new(&self.nix, &batch, wanted, &mut |_| (), &cancel)?;
            let mut call = |installables: &[&Installable]| plan.dry_run(installables, &cancel);
            for (installable, path) in results(&plan, &batch, &mut call, &cancel)? {
                for index in &installable.wanted {
                    paths[*index].clone_from(&path);
                }
            }
        }
        Ok(paths)
    }

    fn build(
        &mut self,
        wanted: &[Wanted],
        progress: &mut dyn FnMut(Progress),
        cancel: &Cancel,
    ) -> Result<Vec<StorePath>, RealiseError> {
        let _turn = self.take_turn(progress, cancel)?;
        if self.roots.is_none() {
            self.roots = Some(RunRoots::create(&self.state_dir, cancel)?);
        }
        let batches = batches(wanted, &self.nix.directory);
        let plans = batches
            .iter()
            .map(|batch| CallPlan::new(&self.nix, batch, wanted, progress, cancel))
            .collect::<Result<Vec<_>, _>>()?;
        if self.no_build {
            refuse_to_build(&plans, cancel)?;
        }
        let mut paths = vec![None; wanted.len()];
        for plan in &plans {
            let roots = &mut self.roots;
            let mut call = |installables: &[&Installable]| {
                let shown = installables.iter().map(|installable| installable.shown.clone()).collect();
                progress(Progress::Started { installables: shown });
                let mode = match roots.as_mut().map(RunRoots::next_link) {
                    Some(link) => arguments([&"--out-link", &link]),
                    None => arguments([&"--no-link"]),
                };
                plan.build(mode, installables, progress, cancel)
            };
            for (installable, path) in results(plan, plan.batch, &mut call, cancel)? {
                let path = path.ok_or_else(|| RealiseError::Unreadable {
                    detail: format!("`{}` was built, but its path is not told", installable.shown),
                    asked_by: plan.askers(installable),
                })?;
                for index in &installable.wanted {
                    paths[*index] = Some(path.clone());
                }
            }
        }
        let paths = paths.into_iter().collect::<Option<Vec<_>>>();
        Ok(paths.expect("every place of the request belongs to one installable of one batch"))
    }

    /// Concurrent calls would lose nix's evaluation cache, so provium's own wait for each other.
    fn take_turn(&self, progress: &mut dyn FnMut(Progress), cancel: &Cancel) -> Result<fs::File, RealiseError> {
        fs::create_dir_all(&self.state_dir).at("create", &self.state_dir)?;
        file_lock::lock(&self.state_dir.join("nix.lock"), || progress(Progress::Waiting), cancel)
    }
}

type Paths<'b> = Vec<(&'b Installable, Option<StorePath>)>;

/// Calls nix for a batch and finds the path of each installable: by position where there are as many results, else (two
/// installables of one derivation give doubled results) by one call for each.
fn results<'b>(
    plan: &CallPlan<'_>,
    batch: &'b Batch,
    call: &mut dyn FnMut(&[&Installable]) -> Result<Outcome, RealiseError>,
    cancel: &Cancel,
) -> Result<Paths<'b>, RealiseError> {
    let mut run = |installables: &[&Installable]| {
        let outcome = call(installables)?;
        if !outcome.status.success() {
            return Err(plan.explain(&outcome, installables, cancel));
        }
        outputs::parse(&outcome.stdout)
            .map_err(|detail| RealiseError::Unreadable { detail, asked_by: plan.all_askers() })
    };
    let all: Vec<_> = batch.installables.iter().collect();
    let built = run(&all)?;
    if built.len() == all.len() {
        return all.into_iter().zip(built).map(|(one, built)| Ok((one, single(plan, one, built)?))).collect();
    }
    let mut paths = Vec::new();
    for one in all {
        let mut built = run(&[one])?;
        match (built.pop(), built.is_empty()) {
            (Some(built), true) => paths.push((one, single(plan, one, built)?)),
            _ => {
                let detail = format!("`{}` gave not one result", one.shown);
                return Err(RealiseError::Unreadable { detail, asked_by: plan.askers(one) });
            }
        }
    }
    Ok(paths)
}

/// The one output of a result.
fn single(plan: &CallPlan<'_>, installable: &Installable, built: Built) -> Result<Option<StorePath>, RealiseError> {
    match built {
        Built::Opaque(path) => Ok(Some(path)),
        Built::Outputs(outputs) if outputs.len() == 1 => Ok(outputs.into_values().next().flatten()),
        Built::Outputs(outputs) => Err(RealiseError::SeveralOutputs {
            installable: installable.shown.clone(),
            outputs: outputs.into_keys().collect(),
            asked_by: plan.askers(installable),
        }),
    }
}

/// With `--no-build`: an error that names all that is not there, if anything is not.
fn refuse_to_build(plans: &[CallPlan<'_>], cancel: &Cancel) -> Result<(), RealiseError> {
    let (mut missing, mut asked_by) = (Vec::new(), Vec::new());
    for plan in plans {
        let all: Vec<_> = plan.batch.installables.iter().collect();
        let outcome = plan.dry_run(&all, cancel)?;
        if !outcome.status.success() {
            return Err(plan.explain(&outcome, &all, cancel));
        }
        if !outcome.log.missing().is_empty() {
            missing.extend_from_slice(outcome.log.missing());
            asked_by.extend(plan.all_askers());
        }
    }
    if missing.is_empty() { Ok(()) } else { Err(RealiseError::NotBuilt { missing, asked_by }) }
}
