//! What can go wrong while values are realised. All of it is the environment's family: exit code 3.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::path::PathBuf;

use crate::foundation::path_error::{PathError, describe_io};

/// Why a value is not there. `asked_by` is who asked for it: "profile `x`, key `kernel`".
#[derive(Debug)]
pub enum RealiseError {
    /// There is no nix.
    NotInstalled {
        /// What was looked for.
        program: PathBuf,
        /// Who asked.
        asked_by: Vec<String>,
    },
    /// nix is there and can't be run.
    Start {
        /// The program.
        program: PathBuf,
        /// Where it should run.
        directory: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// A directory of provium's own can't be used.
    State(PathError),
    /// Somebody cancelled.
    Cancelled,
    /// A store path that neither the store nor a cache has.
    NoSuchStorePath {
        /// The path.
        path: String,
        /// Who asked.
        asked_by: Vec<String>,
    },
    /// A flake or a file has no such attribute.
    NoSuchAttribute {
        /// As written.
        installable: String,
        /// What nix said.
        message: String,
        /// What there is instead: an attribute path (empty for the top) and the names at it.
        there: Vec<(String, Vec<String>)>,
        /// nix's proposals.
        near: Box<[String]>,
        /// Who asked.
        asked_by: Vec<String>,
    },
    /// An expression can't be evaluated.
    Evaluation {
        /// As written; empty when it is not known which.
        installable: String,
        /// The last cause.
        cause: String,
        /// nix's whole text.
        trace: String,
        /// What to do.
        hint: Option<Box<str>>,
        /// Who asked.
        asked_by: Vec<String>,
    },
    /// A derivation did not build.
    Build {
        /// The `.drv`.
        derivation: String,
        /// What nix said of it.
        reason: String,
        /// The last 40 lines of its log; `None` if nix told none.
        log: Option<Vec<String>>,
        /// Who asked for it, or for what needs it.
        asked_by: Vec<String>,
    },
    /// Building was forbidden, and something is not there yet.
    NotBuilt {
        /// What is not there: derivations and store paths.
        missing: Vec<String>,
        /// Who asked for all this.
        asked_by: Vec<String>,
    },
    /// A value has several outputs where one is needed.
    SeveralOutputs {
        /// As written.
        installable: String,
        /// Their names.
        outputs: Vec<String>,
        /// Who asked.
        asked_by: Vec<String>,
    },
    /// A value has no output of the name that was asked for.
    NoSuchOutput {
        /// As written.
        installable: String,
        /// What nix said.
        message: String,
        /// Those there are; empty if nix would not say.
        outputs: Vec<String>,
        /// Who asked.
        asked_by: Vec<String>,
    },
    /// An output has no such file, or none that the role could mean.
    NoSuchFile {
        /// The output.
        output: String,
        /// What was looked for, in order.
        looked_for: Vec<String>,
        /// What the output holds.
        holds: Vec<String>,
        /// What to do.
        hint: Option<Box<str>>,
        /// Who asked.
        asked_by: Vec<String>,
    },
    /// nix succeeded and printed something else than expected.
    Unreadable {
        /// What is odd.
        detail: String,
        /// Who asked.
        asked_by: Vec<String>,
    },
    /// Inside a Nix build: the map names no store path for a value.
    NotInMap {
        /// As written.
        installable: String,
        /// The map's path; `None` if there is no map.
        map: Option<PathBuf>,
        /// Who asked.
        asked_by: Vec<String>,
    },
    /// Inside a Nix build: the map can't be used.
    Map {
        /// The map.
        path: PathBuf,
        /// What is wrong with it.
        detail: String,
    },
    /// Anything else nix said.
    Nix {
        /// The last cause.
        cause: String,
        /// nix's whole text.
        whole: String,
        /// What to do.
        hint: Option<Box<str>>,
        /// Who asked.
        asked_by: Vec<String>,
    },
}

impl From<PathError> for RealiseError {
    fn from(error: PathError) -> Self {
        Self::State(error)
    }
}

impl std::error::Error for RealiseError {}

/// How many names of a list an error shows.
const SHOWN: usize = 40;

impl fmt::Display for RealiseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotInstalled { program, asked_by } => {
                write!(f, "there is no `{}` to run{}", program.display(), asked(asked_by))?;
                hint(
                    f,
                    "install Nix (on Debian and Ubuntu the package `nix-bin`), or name its program in `PROVIUM_NIX`",
                )
            }
            Self::Start { program, directory, source } => {
                let (program, directory) = (program.display(), directory.display());
                write!(f, "can't run `{program}` in `{directory}`: {}", describe_io(source))
            }
            Self::State(error) => error.fmt(f),
            Self::Cancelled => f.write_str("realising was cancelled"),
            Self::NoSuchStorePath { path, asked_by } => {
                write!(f, "`{path}` is not in the store and no cache has it{}", asked(asked_by))?;
                hint(f, "build it again, or name the derivation or flake it came from instead")
            }
            Self::NoSuchAttribute { .. } => self.fmt_attribute(f),
            Self::Evaluation { installable, cause, trace, hint: advice, asked_by } => {
                let what = if installable.is_empty() { "a value".to_owned() } else { format!("`{installable}`") };
                write!(f, "can't evaluate {what}{}: {cause}", asked(asked_by))?;
                details(f, cause, trace)?;
                advice.iter().try_for_each(|advice| hint(f, advice))
            }
            Self::Build { .. } => self.fmt_build(f),
            Self::NotBuilt { missing, asked_by } => {
                write!(f, "`--no-build` was given, but not all is there yet{}; missing:", asked(asked_by))?;
                missing.iter().try_for_each(|path| write!(f, "\n  {path}"))?;
                hint(f, "`provium build` makes them")
            }
            Self::SeveralOutputs { installable, outputs, asked_by } => {
                let names = names(outputs);
                write!(f, "`{installable}` has the outputs {names}, but exactly one is needed{}", asked(asked_by))?;
                let first = outputs.first().map_or("out", String::as_str);
                hint(f, &format!("write `{installable}^{first}`"))
            }
            Self::NoSuchOutput { installable, message, outputs, asked_by } => {
                write!(f, "`{installable}` has no such output{}: {message}", asked(asked_by))?;
                if outputs.is_empty() { Ok(()) } else { hint(f, &format!("it has {}", names(outputs))) }
            }
            Self::NoSuchFile { .. } => self.fmt_file(f),
            Self::Unreadable { detail, asked_by } => {
                write!(f, "nix printed something unexpected{}: {detail}", asked(asked_by))
            }
            Self::NotInMap { .. } => self.fmt_map(f),
            Self::Map { path, detail } => {
                write!(f, "can't use `{}`, which `PROVIUM_NIX_MAP` names: {detail}", path.display())
            }
            Self::Nix { cause, whole, hint: advice, asked_by } => {
                write!(f, "nix failed{}: {cause}", asked(asked_by))?;
                details(f, cause, whole)?;
                advice.iter().try_for_each(|advice| hint(f, advice))
            }
        }
    }
}

impl RealiseError {
    fn fmt_attribute(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self::NoSuchAttribute { installable, message, there, near, asked_by } = self else { return Ok(()) };
        write!(f, "there is no `{installable}`{}: {message}", asked(asked_by))?;
        let wanted = installable.rsplit(['.', '#', ' ']).next().unwrap_or_default();
        for (at, found) in there {
            let place = if at.is_empty() { "its top level".to_owned() } else { format!("`{at}`") };
            match found.as_slice() {
                [] => write!(f, "\n  {place} is empty")?,
                _ => write!(f, "\n  {place} has {}", nearest(found, wanted))?,
            }
        }
        match &near[..] {
            [] => Ok(()),
            [one] => hint(f, &format!("did you mean `{one}`?")),
            several => hint(f, &format!("did you mean one of {}?", names(several))),
        }
    }

    fn fmt_build(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self::Build { derivation, reason, log, asked_by } = self else { return Ok(()) };
        let name = derivation_name(derivation);
        write!(f, "the derivation `{name}` did not build{}: {reason}", asked(asked_by))?;
        write!(f, "\n  {derivation}")?;
        match log.as_deref() {
            None => {}
            Some([]) => write!(f, "\n  its build wrote nothing")?,
            Some(lines) => {
                write!(f, "\n  the last lines of its log:")?;
                lines.iter().try_for_each(|line| write!(f, "\n  | {line}"))?;
            }
        }
        hint(f, &format!("the whole log: nix log {derivation}"))
    }

    fn fmt_file(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self::NoSuchFile { output, looked_for, holds, hint: advice, asked_by } = self else { return Ok(()) };
        write!(f, "`{output}` has no {}{}", alternatives(looked_for), asked(asked_by))?;
        match holds.as_slice() {
            [] => write!(f, "\n  it is empty")?,
            _ => {
                write!(f, "\n  it holds:")?;
                holds.iter().take(SHOWN).try_for_each(|name| write!(f, "\n    {name}"))?;
                if holds.len() > SHOWN {
                    write!(f, "\n    and {} more", holds.len() - SHOWN)?;
                }
            }
        }
        advice.iter().try_for_each(|advice| hint(f, advice))
    }

    fn fmt_map(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self::NotInMap { installable, map, asked_by } = self else { return Ok(()) };
        write!(f, "inside a Nix build nix can't be called, and ")?;
        match map {
            Some(map) => write!(f, "`{}` has no `{installable}`{}", map.display(), asked(asked_by))?,
            None => write!(f, "`PROVIUM_NIX_MAP` names no file with `{installable}`{}", asked(asked_by))?,
        }
        hint(f, &format!("add `{installable}` to the check: its `profiles` must name the derivation (`mkCheck`)"))
    }

    /// Adds who asked, where that is not known yet.
    pub(super) fn asked_by(mut self, who: &[String]) -> Self {
        if let Self::NotInstalled { asked_by, .. } = &mut self
            && asked_by.is_empty()
        {
            asked_by.extend_from_slice(who);
        }
        self
    }
}

fn hint(f: &mut fmt::Formatter<'_>, text: &str) -> fmt::Result {
    write!(f, "\nhint: {text}")
}

/// ", asked for by A and B", or nothing.
fn asked(asked_by: &[String]) -> String {
    match asked_by {
        [] => String::new(),
        [first, rest @ ..] if rest.len() > 3 => {
            format!(" (asked for by {first}, {}, {} and {} more)", rest[0], rest[1], rest.len() - 2)
        }
        several => format!(" (asked for by {})", several.join("; ")),
    }
}

/// nix's own text, indented, unless it says no more than the cause.
fn details(f: &mut fmt::Formatter<'_>, cause: &str, whole: &str) -> fmt::Result {
    if whole.trim() == cause.trim() {
        return Ok(());
    }
    whole.lines().try_for_each(|line| if line.trim().is_empty() { Ok(()) } else { write!(f, "\n  {line}") })
}

fn names<S: AsRef<str>>(names: &[S]) -> String {
    let quoted: Vec<_> = names.iter().map(|name| format!("`{}`", name.as_ref())).collect();
    quoted.join(", ")
}

/// "file `a`", or "file `a`, `b` or `c`".
fn alternatives(looked_for: &[String]) -> String {
    match looked_for.split_last() {
        None => "file for this key".to_owned(),
        Some((last, [])) => format!("`{last}`"),
        Some((last, rest)) => format!("{} or `{last}`", names(rest)),
    }
}

/// All names, or of many those nearest to what was asked for.
fn nearest(found: &[String], wanted: &str) -> String {
    if found.len() <= SHOWN {
        return names(found);
    }
    let mut by_distance = BTreeMap::new();
    for name in found {
        by_distance.insert((strsim::damerau_levenshtein(name, wanted), name.as_str()), name.as_str());
    }
    let near: Vec<_> = by_distance.into_values().take(10).collect();
    format!("{} names, among them {}", found.len(), names(&near))
}

/// `linux-6.12` of `/nix/store/…-linux-6.12.drv`.
pub(super) fn derivation_name(derivation: &str) -> &str {
    let base = derivation.rsplit('/').next().unwrap_or(derivation);
    let name = base.get(33..).unwrap_or(base);
    name.strip_suffix(".drv").unwrap_or(name)
}
