//! `provium lsp-setup [DIR]`.

use std::path::{Path, PathBuf};

use super::args::GlobalArgs;
use super::error::CommandError;
use super::exit_code::Exit;
use super::{output, session};
use crate::foundation::path_error::describe_io;
use crate::lua_api::STUBS;
use crate::project::Project;

/// Where the type definitions go, below DIR.
const LIBRARY: &str = ".provium/lua";
/// The language server's configuration.
const CONFIGURATION: &str = ".luarc.json";

/// Write type definitions of the Lua API for the Lua language server
///
/// Writes the definitions to DIR/.provium/lua and DIR/.luarc.json, which names them. Editors that use the Lua language server then
/// know every function, option and result. Run it again with --force after an update of provium.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "Examples:
  provium lsp-setup                  for the project in this directory
  provium lsp-setup ../kernel-tests --force")]
pub struct LspSetupArgs {
    /// The directory that the editor opens [default: the working directory]
    #[arg(value_name = "DIR")]
    pub dir: Option<PathBuf>,
    /// Overwrite files that are there and differ
    #[arg(long)]
    pub force: bool,
}

/// Runs the command.
///
/// # Errors
/// Files that are there and differ, without --force; a directory that can't be written to; mistakes in provium.toml.
pub fn run(global: &GlobalArgs, args: &LspSetupArgs) -> Result<Exit, CommandError> {
    let cwd = session::working_directory()?;
    let directory = args.dir.as_ref().map_or_else(|| cwd.clone(), |directory| cwd.join(directory));
    if !directory.is_dir() {
        return Err(CommandError::usage(format!("`{}` is no directory", directory.display())));
    }
    let project = session::find_project(global, Some(&directory), &cwd)?;
    let mut files = vec![(directory.join(CONFIGURATION), configuration(&directory, project.as_deref()))];
    files.extend(STUBS.iter().map(|(name, text)| (directory.join(LIBRARY).join(name), (*text).to_owned())));
    if !args.force {
        let differs =
            |(path, text): &&(PathBuf, String)| std::fs::read(path).is_ok_and(|there| there != text.as_bytes());
        if let Some((path, _)) = files.iter().find(differs) {
            let message = format!("`{}` is there already, with another content", path.display());
            return Err(CommandError::usage(message).hint("--force overwrites it"));
        }
    }
    for (path, text) in &files {
        write(path, text)?;
        output::print(format!("wrote {}\n", path.strip_prefix(&cwd).unwrap_or(path).display()))?;
    }
    Ok(Exit::Success)
}

/// Writes a file, and makes its directory where it is missing.
///
/// # Errors
/// It can't be written.
pub(super) fn write(path: &Path, text: &str) -> Result<(), CommandError> {
    let made = path.parent().map_or(Ok(()), std::fs::create_dir_all);
    made.and_then(|()| std::fs::write(path, text)).map_err(|error| {
        CommandError::environment(format!("can't write `{}`: {}", path.display(), describe_io(&error)))
    })
}

/// The language server's configuration: Lua 5.4, modules where `require` looks for them, the definitions, the globals.
fn configuration(directory: &Path, project: Option<&Project>) -> String {
    let whole = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let directory = whole(directory);
    let mut modules = Vec::new();
    for root in project.iter().flat_map(|project| &project.roots) {
        if let Ok(root) = whole(root).strip_prefix(&directory) {
            modules.extend([root.join("?.lua"), root.join("?/init.lua")].map(|path| path.display().to_string()));
        }
    }
    modules.extend(["?.lua", "?/init.lua"].map(str::to_owned));
    let value = serde_json::json!({
        "runtime.version": "Lua 5.4",
        "runtime.path": modules,
        "workspace.library": [LIBRARY],
        "workspace.checkThirdParty": false,
        "diagnostics.globals": ["test", "todo", "wait_until", "parallel", "sleep", "json", "provium"],
    });
    format!("{value:#}\n")
}
