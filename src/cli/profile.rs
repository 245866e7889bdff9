//! `provium profile`: what provium.toml comes to. Builds and executes nothing.

use std::fmt::Write as _;
use std::path::Path;

use serde_json::json;

use super::args::{GlobalArgs, OutputFormat, ProfileArgs, ProfileCommand};
use super::error::CommandError;
use super::exit_code::Exit;
use super::{output, session};
use crate::agent_protocol::LAUNCHER_PATH;
use crate::foundation::digest::Digest;
use crate::foundation::nix_value::{NixSource, Value};
use crate::foundation::size::format_size;
use crate::project::{CmdlineRequest, Origin, Profile, Project, effective_cmdline};

/// Shows profiles.
///
/// # Errors
/// Usage, configuration.
pub fn run(global: &GlobalArgs, args: &ProfileArgs) -> Result<Exit, CommandError> {
    let cwd = session::working_directory()?;
    let project = session::need_project(global, &cwd)?;
    match &args.command {
        ProfileCommand::List { format: OutputFormat::Human } => output::print(list(&project))?,
        ProfileCommand::List { format: OutputFormat::Json } => output::print(list_json(&project))?,
        ProfileCommand::Show { name } => {
            let profile = project.profile(name).map_err(CommandError::usage)?;
            output::print(show(&project, profile, &cwd)?)?;
        }
    }
    Ok(Exit::Success)
}

fn list(project: &Project) -> String {
    let width = project.profiles.keys().map(String::len).max().unwrap_or_default();
    project.profiles.values().map(|profile| format!("{:width$}  {}\n", profile.name, profile.kernel.value)).collect()
}

fn list_json(project: &Project) -> String {
    let profiles: Vec<serde_json::Value> = project
        .profiles
        .values()
        .map(|profile| {
            let mut object =
                json!({"name": profile.name, "cmdline": profile.cmdline, "guest_os": profile.guest_os.name()});
            for (key, setting) in profile.values() {
                object[key] = setting.value.to_string().into();
            }
            object
        })
        .collect();
    format!("{}\n", serde_json::Value::from(profiles))
}

fn show(project: &Project, profile: &Profile, cwd: &Path) -> Result<String, CommandError> {
    let mut text = format!("profile {}\n", profile.name);
    let shown = |origin: Option<&Origin>| match origin {
        Some(origin) => {
            let file = origin.file.strip_prefix(cwd).unwrap_or(&origin.file);
            format!("{}:{}", file.display(), origin.line)
        }
        None => "default".to_owned(),
    };
    let mut line = |key: &str, value: &str| {
        let _ = writeln!(text, "  {key:14} {value}  ({})", shown(profile.origins.get(key)));
    };
    for (key, setting) in profile.values() {
        line(key, &setting.value.to_string());
    }
    line("cmdline", &format!("{:?}", profile.cmdline));
    line("guest_os", profile.guest_os.name());
    line("arch", profile.arch.name());
    line("memory", &format_size(profile.memory));
    line("cpus", &profile.cpus.to_string());
    line("fast_boot", &profile.fast_boot.to_string());
    line("inject_agent", &profile.inject_agent.to_string());
    line("timeout_scale", &profile.timeout_scale.to_string());
    line("splats", profile.splats.name());
    for (key, value) in [("machine", &profile.machine), ("cpu", &profile.cpu), ("build", &profile.build)] {
        if let Some(value) = value {
            line(key, value);
        }
    }
    if !profile.qemu_args.is_empty() {
        line("qemu_args", &profile.qemu_args.join(" "));
    }
    text.push_str("identifiers\n");
    for (key, setting) in profile.values().into_iter().filter(|(key, _)| ["kernel", "initrd", "modules"].contains(key))
    {
        let _ = writeln!(text, "  {key:14} {}", identifier(&setting.value));
    }
    let _ = writeln!(text, "effective command line\n  {}", command_line(profile)?);
    if profile.fast_boot {
        text.push_str(
            "fast boot\n  through PVH, from the unpacked kernel: no decompressor runs, hence there is no KASLR\n  \
             (a kernel without a PVH note boots as it is given, which the run then says)\n",
        );
    }
    let _ = writeln!(text, "configuration\n  {}", project.config.display());
    Ok(text)
}

/// What the value is, as far as it is known without building.
fn identifier(value: &Value) -> String {
    match value {
        Value::Path(path) if path.is_dir() => format!("directory {}", path.display()),
        Value::Path(path) => match Digest::of_file(path) {
            Ok(digest) => format!("blake3:{digest}"),
            Err(_) => "absent".to_owned(),
        },
        Value::Nix(value) => match &value.source {
            NixSource::Store(_) => value.to_string(),
            _ => format!("{value} (unknown until built)"),
        },
    }
}

fn command_line(profile: &Profile) -> Result<String, CommandError> {
    let file_text = match profile.cmdline_file.as_ref().map(|setting| &setting.value) {
        Some(Value::Path(path)) => std::fs::read_to_string(path).unwrap_or_default(),
        _ => String::new(),
    };
    let request =
        CmdlineRequest { profile, file_text: &file_text, replace: None, append: None, launcher: LAUNCHER_PATH };
    effective_cmdline(&request).map(|effective| effective.line).map_err(CommandError::usage)
}
