//! What a failed nix means, by the text of its errors.

use std::path::Path;

use super::build_log::NixError;

/// The kind of a failure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Failure {
    /// A derivation did not build.
    Build { derivation: String, reason: String },
    /// A flake or a file has no such attribute; the attribute paths that nix tried, and its proposals.
    NoSuchAttribute { message: String, tried: Vec<String>, near: Vec<String> },
    /// A store path is not there.
    NoSuchStorePath { path: String },
    /// A derivation has no such output.
    NoSuchOutput { derivation: String, message: String },
    /// Something else; evaluation, most likely, when nothing was being built.
    Other(NixError),
}

/// Judges the errors of one failed call.
pub(super) fn judge(errors: &[NixError]) -> Failure {
    // The first failure is the cause; "dependencies of derivation … failed to build" only follows from it.
    if let Some(failure) = errors.iter().find_map(build) {
        return failure;
    }
    errors.iter().find_map(known).unwrap_or_else(|| Failure::Other(errors.last().cloned().unwrap_or_default()))
}

fn build(error: &NixError) -> Option<Failure> {
    const SIGNS: [&str; 7] = [
        "builder for",
        "Cannot build",
        "hash mismatch in fixed-output derivation",
        "is required to build",
        "unable to build",
        "build of",
        "failed to produce output",
    ];
    let derivation = quoted(&error.cause).find(|path| is_derivation(path))?;
    if error.cause.contains("dependencies of derivation") || !SIGNS.iter().any(|sign| error.cause.contains(sign)) {
        return None;
    }
    // Our own log comes with the error, so nix's excerpt would say it twice.
    let text = error.cause.split("last 10 log lines").next().unwrap_or_default();
    let text = text.split("\nLast ").next().unwrap_or_default();
    let reason = match text.split_once("Reason:") {
        Some((_, reason)) => reason.lines().next().unwrap_or_default(),
        None => text.strip_prefix(&format!("builder for '{derivation}' ")).unwrap_or(text),
    };
    let reason = reason.trim().trim_end_matches([';', '.', ':']).to_owned();
    Some(Failure::Build { derivation: derivation.to_owned(), reason })
}

fn known(error: &NixError) -> Option<Failure> {
    let cause = error.cause.as_str();
    if let Some((_, tried)) = cause.split_once("does not provide attribute") {
        let tried = quoted(tried).map(str::to_owned).collect();
        return Some(Failure::NoSuchAttribute { message: cause.to_owned(), tried, near: near(&error.whole) });
    }
    if cause.starts_with("attribute '") && cause.contains("in selection path") {
        let tried = quoted(cause).nth(1).map(str::to_owned).into_iter().collect();
        return Some(Failure::NoSuchAttribute { message: cause.to_owned(), tried, near: near(&error.whole) });
    }
    if cause.contains("does not have wanted outputs") {
        let derivation = quoted(cause).next()?.to_owned();
        return Some(Failure::NoSuchOutput { derivation, message: cause.to_owned() });
    }
    let absent = cause.contains("no substituter that can build it")
        || cause.starts_with("cannot build missing derivation")
        || cause.starts_with("don't know how to build these paths")
        || cause.ends_with("is not valid");
    let path = quoted(cause).find(|path| path.starts_with("/nix/store/"))?;
    absent.then(|| Failure::NoSuchStorePath { path: path.to_owned() })
}

/// The parts of `text` between single quotes.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.split('\'').skip(1).step_by(2)
}

fn is_derivation(path: &str) -> bool {
    path.starts_with("/nix/store/") && path.ends_with(".drv")
}

/// The names of "Did you mean one of a, b or c?".
fn near(text: &str) -> Vec<String> {
    let Some((_, rest)) = text.split_once("Did you mean ") else { return Vec::new() };
    let list = rest.split('?').next().unwrap_or_default();
    let list = list.strip_prefix("one of ").unwrap_or(list);
    let names = list.split(", ").flat_map(|part| part.split(" or "));
    names.map(|name| name.trim().to_owned()).filter(|name| !name.is_empty()).collect()
}

/// A file that nix did not find in its copy of the work tree though it lies in the tree itself: git does not know it.
pub(super) fn untracked(cause: &str, git_root: &Path) -> Option<String> {
    if cause.contains("is not tracked by Git") {
        let file = quoted(cause).next()?;
        return Some(file.to_owned());
    }
    if !cause.contains("does not exist") {
        return None;
    }
    let path = quoted(cause).find_map(|path| path.strip_prefix("/nix/store/"))?;
    let (_, file) = path.split_once('/')?;
    git_root.join(file).exists().then(|| file.to_owned())
}

/// Whether something could not be fetched.
pub(super) fn is_network(cause: &str) -> bool {
    ["unable to download", "Could not resolve host", "cannot connect", "Failed to connect"]
        .iter()
        .any(|sign| cause.contains(sign))
}

/// An attribute path's parts: `a."b.c".d`.
pub(super) fn attribute_parts(path: &str) -> Vec<String> {
    let (mut parts, mut part, mut in_quotes) = (Vec::new(), String::new(), false);
    for c in path.chars() {
        match c {
            '"' => in_quotes = !in_quotes,
            '.' if !in_quotes => parts.push(std::mem::take(&mut part)),
            c => part.push(c),
        }
    }
    parts.push(part);
    parts.retain(|part| !part.is_empty());
    parts
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn error(cause: &str, whole: &str) -> NixError {
        NixError { cause: cause.to_owned(), whole: whole.to_owned() }
    }

    fn judge_one(cause: &str) -> Failure {
        judge(&[error(cause, cause)])
    }

    const DRV: &str = "/nix/store/54v8s7wdm90v4i25dwbhbz5d18bybypm-fail.drv";

    #[test]
    fn builds() {
        let expected = |reason: &str| Failure::Build { derivation: DRV.to_owned(), reason: reason.to_owned() };
        let first = error(&format!("builder for '{DRV}' failed with exit code 3"), "");
        let second = error(
            "1 dependencies of derivation '/nix/store/j79sjn1vl3phr6rmf6v713rv51qxdgnb-n.drv' failed to build",
            "",
        );
        assert_eq!(judge(&[first, second]), expected("failed with exit code 3"));
        assert_eq!(
            judge_one(&format!("builder for '{DRV}' failed with exit code 1;\n       last 10 log lines:\n       > x")),
            expected("failed with exit code 1")
        );
        assert_eq!(
            judge_one(&format!(
                "Cannot build '{DRV}'.\nReason: builder failed with exit code 1.\nOutput paths:\n  /nix/store/x\nLast 2 log lines:\n> a"
            )),
            expected("builder failed with exit code 1")
        );
        let Failure::Build { reason, .. } =
            judge_one(&format!("hash mismatch in fixed-output derivation '{DRV}':\n  specified: a\n  got: b"))
        else {
            panic!()
        };
        assert!(reason.ends_with("got: b"), "{reason}");
        let system = format!(
            "a 'aarch64-linux' with features {{}} is required to build '{DRV}', but I am a 'x86_64-linux' with features {{kvm}}"
        );
        assert_eq!(judge_one(&system), expected(&system));
    }

    #[test]
    fn attributes() {
        let cause = "flake 'git+file:///tmp/nx/p' does not provide attribute 'packages.x86_64-linux.kernl', 'legacyPackages.x86_64-linux.kernl' or 'kernl'";
        let whole = format!("{cause}\n       Did you mean one of kernel or kernels?");
        let Failure::NoSuchAttribute { tried, near, .. } = judge(&[error(cause, &whole)]) else { panic!() };
        assert_eq!(tried, ["packages.x86_64-linux.kernl", "legacyPackages.x86_64-linux.kernl", "kernl"]);
        assert_eq!(near, ["kernel", "kernels"]);
        let cause = "attribute 'kernl' in selection path 'a.kernl' not found";
        let Failure::NoSuchAttribute { tried, near, .. } =
            judge(&[error(cause, &format!("{cause}\n Did you mean kernel?"))])
        else {
            panic!()
        };
        assert_eq!((tried, near), (vec!["a.kernl".to_owned()], vec!["kernel".to_owned()]));
    }

    #[test]
    fn paths_and_outputs() {
        let path = "/nix/store/0iq8pf4hkb5kqlkgbvk804qf586r0q09-kernel".to_owned();
        assert_eq!(
            judge_one(&format!("path '{path}' is required, but there is no substituter that can build it")),
            Failure::NoSuchStorePath { path: path.clone() }
        );
        assert_eq!(judge_one(&format!("path '{path}' is not valid")), Failure::NoSuchStorePath { path });
        let cause = format!("derivation '{DRV}' does not have wanted outputs 'nope'");
        assert_eq!(judge_one(&cause), Failure::NoSuchOutput { derivation: DRV.to_owned(), message: cause.clone() });
        assert_eq!(judge_one("my eval error"), Failure::Other(error("my eval error", "my eval error")));
        assert_eq!(judge(&[]), Failure::Other(NixError::default()));
    }

    #[test]
    fn files_git_does_not_know() {
        let top = tempfile::tempdir().unwrap();
        std::fs::create_dir(top.path().join("nix")).unwrap();
        std::fs::write(top.path().join("nix/x.nix"), "").unwrap();
        let cause =
            |file: &str| format!("path '/nix/store/flz8r2na19ckpsr62ywarp9s1g0knyjw-source/{file}' does not exist");
        assert_eq!(untracked(&cause("nix/x.nix"), top.path()).as_deref(), Some("nix/x.nix"));
        assert_eq!(untracked(&cause("nix/y.nix"), top.path()), None);
        assert_eq!(untracked("path '/etc/x' does not exist", top.path()), None);
        let newer = "Path 'flake.nix' in the repository \"/p\" is not tracked by Git.";
        assert_eq!(untracked(newer, top.path()).as_deref(), Some("flake.nix"));
    }

    #[test]
    fn splits_attribute_paths() {
        assert_eq!(attribute_parts(r#"a."b.c".d"#), ["a", "b.c", "d"]);
        assert_eq!(attribute_parts(""), Vec::<String>::new());
    }

    proptest! {
        #[test]
        fn takes_any_text(cause in "(\\PC|\n|'|/nix/store/x.drv| builder for ){0,30}", whole in "(Did you mean |\\PC){0,9}") {
            judge(&[error(&cause, &whole)]);
            untracked(&cause, Path::new("/nonexistent"));
        }
    }
}
