//! Turns a failed nix into an error that says who asked, and what there is instead. It may ask nix again: an error has
//! time.

use std::ffi::OsString;

use serde::Deserialize;

use super::build_log::NixError;
use super::call_plan::CallPlan;
use super::cancel::Cancel;
use super::error::RealiseError;
use super::failure::{self, Failure};
use super::installable::Installable;
use super::nix_call::{Outcome, arguments};
use super::outputs::{self, Built};

impl CallPlan<'_> {
    /// The error of a call for `installables` that failed.
    pub(super) fn explain(&self, outcome: &Outcome, installables: &[&Installable], cancel: &Cancel) -> RealiseError {
        self.try_explain(outcome, installables, cancel).unwrap_or_else(|error| error)
    }

    fn try_explain(
        &self,
        outcome: &Outcome,
        installables: &[&Installable],
        cancel: &Cancel,
    ) -> Result<RealiseError, RealiseError> {
        match failure::judge(&outcome.log.errors()) {
            Failure::Build { derivation, reason } => {
                let asked_by = self.who_needs(&derivation, installables, cancel)?;
                let log = outcome.log.tail(&derivation);
                return Ok(RealiseError::Build { derivation, reason, log, asked_by });
            }
            Failure::NoSuchStorePath { path } => {
                let named = installables.iter().find(|installable| installable.text.starts_with(&path));
                let asked_by = named.map_or_else(|| self.all_askers(), |installable| self.askers(installable));
                return Ok(RealiseError::NoSuchStorePath { path, asked_by });
            }
            _ => {}
        }
        match self.culprit(outcome, installables, cancel)? {
            Culprit::One(installable, None) => self.explain_one(installable, outcome, cancel),
            Culprit::One(installable, Some(outcome)) => self.explain_one(installable, &outcome, cancel),
            Culprit::Unknown => {
                let error = last(outcome);
                Ok(self.other(error, "", self.all_askers()))
            }
        }
    }

    fn explain_one(
        &self,
        installable: &Installable,
        outcome: &Outcome,
        cancel: &Cancel,
    ) -> Result<RealiseError, RealiseError> {
        let asked_by = self.askers(installable);
        let shown = installable.shown.clone();
        Ok(match failure::judge(&outcome.log.errors()) {
            Failure::NoSuchAttribute { message, tried, near } => {
                let there = self.attributes(installable, &tried, cancel)?;
                let near = near.into();
                RealiseError::NoSuchAttribute { installable: shown, message, there, near, asked_by }
            }
            Failure::NoSuchOutput { derivation, message } => {
                let outputs = self.outputs_of(&derivation, cancel)?;
                RealiseError::NoSuchOutput { installable: shown, message, outputs, asked_by }
            }
            Failure::NoSuchStorePath { path } => RealiseError::NoSuchStorePath { path, asked_by },
            Failure::Build { derivation, reason } => {
                let log = outcome.log.tail(&derivation);
                RealiseError::Build { derivation, reason, log, asked_by }
            }
            Failure::Other(error) => self.other(error, &shown, asked_by),
        })
    }

    fn other(&self, error: NixError, installable: &str, asked_by: Vec<String>) -> RealiseError {
        let NixError { cause, whole } = error;
        if cause.is_empty() {
            let cause = "it ended without saying why".to_owned();
            return RealiseError::Nix { whole: cause.clone(), cause, hint: None, asked_by };
        }
        let hint = self.advice(&cause).map(Into::into);
        let is_store =
            ["/nix/var/nix", "daemon", "Permission denied", "unknown setting", "unrecognised flag", "experimental"]
                .iter()
                .any(|sign| cause.contains(sign));
        if is_store || failure::is_network(&cause) {
            return RealiseError::Nix { cause, whole, hint, asked_by };
        }
        RealiseError::Evaluation { installable: installable.to_owned(), cause, trace: whole, hint, asked_by }
    }

    fn advice(&self, cause: &str) -> Option<String> {
        let git_root = self.flake.as_ref().and_then(|flake| flake.git_root.as_deref());
        if let Some(root) = git_root
            && let Some(file) = failure::untracked(cause, root)
        {
            let root = root.display();
            return Some(format!("git does not know `{file}`, so nix does not see it: git -C {root} add -N {file}"));
        }
        if failure::is_network(cause) {
            let offline = "`--offline` was given, so nothing is fetched; run once without it";
            let online = "the network can't be reached; `--offline` uses only what is there";
            return Some(if self.nix.offline { offline } else { online }.to_owned());
        }
        if cause.contains("could not find a flake.nix file") || cause.contains("is not part of a flake") {
            let directory = self.nix.directory.display();
            return Some(format!("neither `{directory}` nor a directory above it holds a flake.nix"));
        }
        cause
            .contains("in the flake registries")
            .then(|| "a name in front of `#` is an input of the project's flake; `.#…` is the flake itself".to_owned())
    }

    /// Who asked for `derivation`, or for something that needs it.
    fn who_needs(
        &self,
        derivation: &str,
        installables: &[&Installable],
        cancel: &Cancel,
    ) -> Result<Vec<String>, RealiseError> {
        let mut askers = Vec::new();
        for installable in installables.iter().filter(|_| installables.len() > 1) {
            let mut args = arguments([&"--recursive", &"--derivation"]);
            args.extend(self.reading());
            args.extend([OsString::from("--"), OsString::from(&installable.text)]);
            let outcome = self.nix.run("path-info", &args, &mut |_| (), cancel)?;
            if String::from_utf8_lossy(&outcome.stdout).lines().any(|line| line.trim() == derivation) {
                askers.extend(self.askers(installable));
            }
        }
        askers.dedup();
        Ok(if askers.is_empty() { self.all_askers() } else { askers })
    }

    /// Which installable can't be evaluated: each is tried alone, the one that nix read last before the others.
    fn culprit<'i>(
        &self,
        outcome: &Outcome,
        installables: &[&'i Installable],
        cancel: &Cancel,
    ) -> Result<Culprit<'i>, RealiseError> {
        if let [only] = installables {
            return Ok(Culprit::One(only, None));
        }
        let fragment = |text: &str| text.split_once('#').map(|(_, fragment)| fragment.to_owned());
        let last_read = outcome.log.evaluating().and_then(fragment);
        let mut candidates = installables.to_vec();
        candidates.sort_by_key(|installable| fragment(&installable.text) != last_read);
        for installable in candidates {
            let alone = self.dry_run(&[installable], cancel)?;
            if !alone.status.success() {
                return Ok(Culprit::One(installable, Some(Box::new(alone))));
            }
        }
        Ok(Culprit::Unknown)
    }

    /// The names at the deepest level that exists of each attribute path nix tried; of several levels those that come
    /// nearest to what was asked for.
    fn attributes(
        &self,
        installable: &Installable,
        tried: &[String],
        cancel: &Cancel,
    ) -> Result<Vec<(String, Vec<String>)>, RealiseError> {
        let tried: Vec<_> = tried.iter().map(|path| failure::attribute_parts(path)).collect();
        let mut args = arguments([&"--json"]);
        args.extend(self.reading());
        args.extend(arguments([&"--apply", &listing(&tried)]));
        if self.batch.file.is_none() {
            let reference = installable.text.split('#').next().filter(|text| !text.is_empty()).unwrap_or(".");
            args.extend([OsString::from("--"), OsString::from(format!("{reference}#."))]);
        }
        let outcome = self.nix.run("eval", &args, &mut |_| (), cancel)?;
        let levels: Vec<Level> = serde_json::from_slice(&outcome.stdout).unwrap_or_default();
        Ok(nearest_levels(&tried, levels))
    }

    fn outputs_of(&self, derivation: &str, cancel: &Cancel) -> Result<Vec<String>, RealiseError> {
        let every = format!("{derivation}^*");
        let args = arguments([&"--dry-run", &"--offline", &"--no-link", &"--json", &"--", &every]);
        let outcome = self.nix.run("build", &args, &mut |_| (), cancel)?;
        Ok(match outputs::parse(&outcome.stdout).unwrap_or_default().pop() {
            Some(Built::Outputs(outputs)) => outputs.into_keys().collect(),
            _ => Vec::new(),
        })
    }
}

enum Culprit<'i> {
    /// This one, with the outcome of trying it alone.
    One(&'i Installable, Option<Box<Outcome>>),
    Unknown,
}

fn last(outcome: &Outcome) -> NixError {
    match failure::judge(&outcome.log.errors()) {
        Failure::Other(error) => error,
        _ => outcome.log.errors().pop().unwrap_or_default(),
    }
}

#[derive(Clone, Debug, Deserialize)]
struct Level {
    at: Vec<String>,
    names: Option<Vec<String>>,
}

/// A Nix function from a flake's outputs to the deepest existing level of each path, with the names there.
fn listing(paths: &[Vec<String>]) -> String {
    let list = |parts: &[String]| parts.iter().map(|part| nix_string(part)).collect::<Vec<_>>().join(" ");
    let paths: Vec<_> = paths.iter().map(|path| format!("[ {} ]", list(path))).collect();
    format!(
        "root: let descend = at: rest: x: \
           if rest != [ ] && builtins.isAttrs x && builtins.hasAttr (builtins.head rest) x \
           then descend (at ++ [ (builtins.head rest) ]) (builtins.tail rest) (builtins.getAttr (builtins.head rest) x) \
           else {{ inherit at; names = if builtins.isAttrs x && (x.type or null) != \"derivation\" \
                                    then builtins.attrNames x else null; }}; \
         in map (path: descend [ ] path root) [ {} ]",
        paths.join(" ")
    )
}

fn nix_string(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\"").replace("${", "\\${"))
}

/// Of the levels found for the paths that were tried, those that match most of what was asked for.
fn nearest_levels(tried: &[Vec<String>], levels: Vec<Level>) -> Vec<(String, Vec<String>)> {
    // nix puts `packages.<system>` and the like in front; the shortest path is what was asked for.
    let asked = tried.iter().map(Vec::len).min().unwrap_or(0);
    let matched = |path: &[String], level: &Level| (level.at.len() + asked).checked_sub(path.len());
    let found: Vec<_> = tried
        .iter()
        .zip(levels)
        .filter_map(|(path, level)| Some((matched(path, &level)?, level.at.join("."), level.names?)))
        .collect();
    let best = found.iter().map(|(matched, ..)| *matched).max();
    let mut nearest: Vec<_> =
        found.into_iter().filter(|(matched, ..)| Some(*matched) == best).map(|(_, at, names)| (at, names)).collect();
    // The top level says least; it is shown where there is nothing else.
    if nearest.iter().any(|(at, names)| !at.is_empty() && !names.is_empty()) {
        nearest.retain(|(at, names)| !at.is_empty() && !names.is_empty());
    }
    nearest
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(path: &str) -> Vec<String> {
        failure::attribute_parts(path)
    }

    fn level(at: &str, names: &[&str]) -> Level {
        Level { at: parts(at), names: Some(names.iter().map(|name| (*name).to_owned()).collect()) }
    }

    #[test]
    fn shows_the_level_that_was_meant() {
        let tried = ["packages.s.kernl", "legacyPackages.s.kernl", "kernl"].map(parts);
        let levels = vec![level("packages.s", &["kernel"]), level("", &["packages"]), level("", &["packages"])];
        assert_eq!(nearest_levels(&tried, levels), [("packages.s".to_owned(), vec!["kernel".to_owned()])]);

        let tried = ["packages.s.kernels.debig", "legacyPackages.s.kernels.debig", "kernels.debig"].map(parts);
        let levels = vec![level("packages.s", &["kernel"]), level("", &["kernels"]), level("kernels", &["debug"])];
        assert_eq!(nearest_levels(&tried, levels), [("kernels".to_owned(), vec!["debug".to_owned()])]);

        let tried = ["packages.s.x", "x"].map(parts);
        let levels = vec![level("", &["lib"]), level("", &["lib"])];
        assert_eq!(nearest_levels(&tried, levels), [(String::new(), vec!["lib".to_owned()])]);
    }

    #[test]
    fn quotes_for_nix() {
        assert_eq!(nix_string(r#"a"b\${c}"#), r#""a\"b\\\${c}""#);
    }
}
