//! What several commands begin with: the project, the runtime, where things are.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::args::{AccelArg, GlobalArgs};
use super::error::{CommandError, Problem};
use super::exit_code::Exit;
use super::images::ImageFinder;
use crate::foundation::path_error::describe_io;
use crate::lua_api::CallRecord;
use crate::nix_realiser::{self, Cancel, Realiser, split_like_shell};
use crate::project::{self, Project, ProjectError};
use crate::testbed::{AccelRequest, Candidates, MachineRequest};

/// The working directory.
///
/// # Errors
/// When it is gone.
pub fn working_directory() -> Result<PathBuf, CommandError> {
    std::env::current_dir().map_err(|error| {
        CommandError::environment(format!("can't tell the working directory: {}", describe_io(&error)))
    })
}

/// The project that `--config` names, or the nearest one; `first` is the first PATH of the command line.
///
/// # Errors
/// A configuration that is not there or has mistakes.
pub fn find_project(
    global: &GlobalArgs,
    first: Option<&Path>,
    cwd: &Path,
) -> Result<Option<Arc<Project>>, CommandError> {
    let config = match &global.config {
        Some(config) => Some(cwd.join(config)),
        None => project::find_config(first, cwd),
    };
    match config {
        None => Ok(None),
        Some(config) => {
            let mut flake = |reference: &str, directory: &Path| flake_profiles(global, reference, directory);
            project::load(&config, &mut flake).map(|project| Some(Arc::new(project))).map_err(configuration)
        }
    }
}

/// As `find_project`, where there must be one.
///
/// # Errors
/// As `find_project`; none.
pub fn need_project(global: &GlobalArgs, cwd: &Path) -> Result<Arc<Project>, CommandError> {
    find_project(global, None, cwd)?.ok_or_else(|| {
        CommandError::usage(format!("there is no provium.toml in `{}` or above it", cwd.display()))
            .hint("write one, or name one with --config")
    })
}

/// The profiles of a flake; the error is a message.
fn flake_profiles(
    global: &GlobalArgs,
    reference: &str,
    directory: &Path,
) -> Result<serde_json::Map<String, serde_json::Value>, String> {
    let options = nix_options(global, directory, false).map_err(|error| error.to_string())?;
    let realiser = Realiser::new(options).map_err(|error| error.to_string())?;
    realiser.flake_profiles(reference, &Cancel::new()).map_err(|error| error.to_string())
}

fn configuration(error: ProjectError) -> CommandError {
    match error {
        ProjectError::Flake(message) => CommandError::environment(message),
        ProjectError::File(error) => CommandError::usage(error),
        ProjectError::Mistakes(mistakes) => {
            let problem = |mistake: &project::Diagnostic| Problem {
                message: format!("{}: {}", mistake.at, mistake.message),
                hints: mistake.hint.iter().cloned().collect(),
            };
            CommandError::several(Exit::Usage, mistakes.iter().map(problem).collect())
        }
    }
}

/// How nix is called.
///
/// # Errors
/// `PROVIUM_NIX_ARGS` that can't be split into words.
pub fn nix_options(
    global: &GlobalArgs,
    directory: &Path,
    no_build: bool,
) -> Result<nix_realiser::Options, CommandError> {
    let mut extra_args = Vec::new();
    if let Ok(text) = std::env::var("PROVIUM_NIX_ARGS") {
        extra_args = split_like_shell(&text)
            .map_err(|error| CommandError::usage(format!("PROVIUM_NIX_ARGS can't be split into words: {error}")))?;
    }
    extra_args.extend(global.nix_arg.iter().cloned());
    for (name, reference) in global.input_overrides() {
        extra_args.extend(["--override-input".to_owned(), name.to_owned(), reference.to_owned()]);
    }
    Ok(nix_realiser::Options {
        directory: directory.to_owned(),
        extra_args,
        offline: global.offline,
        no_build,
        state_dir: base_directory("XDG_STATE_HOME", ".local/state").join("provium"),
    })
}

/// A directory of the XDG base directory specification.
pub fn base_directory(variable: &str, below_home: &str) -> PathBuf {
    let given = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    if let Some(build) = given("NIX_BUILD_TOP") {
        return build.join(below_home);
    }
    given(variable)
        .or_else(|| given("HOME").map(|home| home.join(below_home)))
        .unwrap_or_else(|| std::env::temp_dir().join("provium-home").join(below_home))
}

/// The guest agent: `PROVIUM_AGENT`, beside this program, or in `../libexec`.
///
/// # Errors
/// Nowhere.
pub fn find_agent() -> Result<PathBuf, CommandError> {
    if let Some(path) = std::env::var_os("PROVIUM_AGENT") {
        return Ok(PathBuf::from(path));
    }
    let program = std::env::current_exe().map_err(|error| {
        CommandError::environment(format!("can't tell where provium lies: {}", describe_io(&error)))
    })?;
    let beside = program.with_file_name("provium-agent");
    let candidates =
        [Some(beside.clone()), program.parent().map(|directory| directory.join("../libexec/provium-agent"))];
    candidates.into_iter().flatten().find(|path| path.is_file()).ok_or_else(|| {
        CommandError::environment(format!("the guest agent is missing: expected `{}`", beside.display()))
            .hint("`cargo build` makes both programs; keep them together, or name the agent with PROVIUM_AGENT")
    })
}

/// Where `provium test` notes which of the Lua API's bindings returned and which raised: the file that `PROVIUM_API_RECORD`
/// names, for provium's own test suite.
///
/// # Errors
/// A file that can't be opened.
pub fn call_record() -> Result<Option<Arc<CallRecord>>, CommandError> {
    let Some(path) = std::env::var_os("PROVIUM_API_RECORD").filter(|path| !path.is_empty()) else { return Ok(None) };
    match CallRecord::open(Path::new(&path)) {
        Ok(record) => Ok(Some(Arc::new(record))),
        Err(error) => Err(CommandError::environment(format!(
            "PROVIUM_API_RECORD: `{}`: {}",
            Path::new(&path).display(),
            describe_io(&error)
        ))),
    }
}

/// The runtime that all I/O happens on.
///
/// # Errors
/// When the system has no threads left.
pub fn runtime() -> Result<tokio::runtime::Runtime, CommandError> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .thread_name("io")
        .enable_all()
        .build()
        .map_err(|error| CommandError::environment(format!("can't start the runtime: {}", describe_io(&error))))
}

/// Which QEMU and accelerator are asked for.
pub fn machine(
    accel: AccelArg,
    qemu: Option<&Path>,
    finder: &ImageFinder,
    project: Option<&Project>,
) -> MachineRequest {
    let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    MachineRequest {
        qemu: Candidates {
            flag: qemu.map(Path::to_owned),
            user: variable("PROVIUM_QEMU"),
            config: project.and_then(|project| finder.qemu(project)),
            default: variable("PROVIUM_DEFAULT_QEMU"),
            path: std::env::var_os("PATH"),
        },
        accel: match accel {
            AccelArg::Auto => AccelRequest::Auto,
            AccelArg::Kvm => AccelRequest::Kvm,
            AccelArg::Tcg => AccelRequest::Tcg,
        },
    }
}
