//! `provium profile`: what provium.toml comes to. Builds nothing and runs no `build` command; of Nix values one dry run
//! tells what is known.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use serde_json::json;

use super::args::{GlobalArgs, OutputFormat, ProfileArgs, ProfileCommand};
use super::error::CommandError;
use super::exit_code::Exit;
use super::images::known_values;
use super::{output, session};
use crate::agent_protocol::LAUNCHER_PATH;
use crate::foundation::digest::Digest;
use crate::foundation::nix_value::{NixSource, Value};
use crate::foundation::path_error::PathContext;
use crate::foundation::size::format_size;
use crate::nix_realiser::Known;
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
            output::print(show(global, &project, profile, &cwd)?)?;
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
            for (key, setting) in profile.values().into_iter().filter(|(key, _)| *key != "disks") {
                object[key] = setting.value.to_string().into();
            }
            if !profile.disks.is_empty() {
                object["disks"] = profile.disks.iter().map(|disk| disk.describe()).collect::<Vec<_>>().into();
            }
            object
        })
        .collect();
    format!("{}\n", serde_json::Value::from(profiles))
}

fn show(global: &GlobalArgs, project: &Project, profile: &Profile, cwd: &Path) -> Result<String, CommandError> {
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
    for (key, setting) in profile.values().into_iter().filter(|(key, _)| *key != "disks") {
        line(key, &setting.value.to_string());
    }
    for disk in &profile.disks {
        line("disks", &disk.describe());
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
    if profile.build.is_some() {
        line("build_out", &profile.build_out.display().to_string());
    }
    if !profile.qemu_args.is_empty() {
        line("qemu_args", &profile.qemu_args.join(" "));
    }
    let known = known_values(profile, session::nix_options(global, &project.directory, false)?)
        .map_err(|error| error.to_string().lines().next().unwrap_or_default().to_owned());
    text.push_str("identifiers\n");
    for (key, setting) in profile.values().into_iter().filter(|(key, _)| ["kernel", "initrd", "modules"].contains(key))
    {
        let _ = writeln!(text, "  {key:14} {}", identifier(key, &setting.value, &known));
    }
    let (line, notice) = command_line(profile, &known)?;
    let _ = writeln!(text, "effective command line\n  {line}");
    if let Some(notice) = notice {
        let _ = writeln!(text, "  ({notice})");
    }
    if profile.fast_boot {
        text.push_str(
            "fast boot\n  through PVH, from the unpacked kernel: no decompressor runs, hence there is no KASLR\n  \
             (a kernel without a PVH note boots as it is given, which the run then says)\n",
        );
    }
    let _ = writeln!(text, "configuration\n  {}", project.config.display());
    Ok(text)
}

/// What is known of the profile's Nix values by key, or why nothing is.
type KnownValues = Result<BTreeMap<&'static str, Option<Known>>, String>;

/// What the value is, as far as it is known without building.
fn identifier(key: &str, value: &Value, known: &KnownValues) -> String {
    let value = match value {
        Value::Path(path) if path.is_dir() => return format!("directory {}", path.display()),
        Value::Path(path) => {
            return Digest::of_file(path).map_or_else(|_| "absent".to_owned(), |digest| format!("blake3:{digest}"));
        }
        Value::Nix(value) => value,
    };
    match known.as_ref().map(|known| known.get(key).and_then(Option::as_ref)) {
        Ok(Some(Known { realised: Some(realised), .. })) => realised.path.display().to_string(),
        Ok(Some(Known { store_path, realised: None })) => match &value.file {
            Some(file) => format!("{store_path}/{file} (not built yet)"),
            None => format!("{store_path} (not built yet)"),
        },
        Ok(None) => "unknown until built".to_owned(),
        Err(_) if matches!(value.source, NixSource::Store(_)) => value.to_string(),
        Err(why) => format!("unknown: {why}"),
    }
}

/// The line, and what is missing in it.
fn command_line(profile: &Profile, known: &KnownValues) -> Result<(String, Option<String>), CommandError> {
    let read = |path: &Path| std::fs::read_to_string(path).at("read", path).map_err(|error| error.to_string());
    let text = match profile.cmdline_file.as_ref().map(|setting| &setting.value) {
        None => Ok(String::new()),
        Some(Value::Path(path)) => read(path),
        Some(Value::Nix(_)) => {
            let known = known.as_ref().ok().and_then(|known| known.get("cmdline_file")?.as_ref()?.realised.as_ref());
            known.map_or_else(|| Err("it is unknown until built".to_owned()), |realised| read(&realised.path))
        }
    };
    let notice = text.as_ref().err().map(|why| format!("without the text of `cmdline_file`: {why}"));
    let file_text = text.unwrap_or_default();
    let request =
        CmdlineRequest { profile, file_text: &file_text, replace: None, append: None, launcher: LAUNCHER_PATH };
    let effective = effective_cmdline(&request).map_err(CommandError::usage)?;
    Ok((effective.line, notice))
}
