//! Kernel modules of a guest.

use std::path::Path;

use super::error::VmError;
use super::guest::Guest;
use super::images::{NamedModule, named_modules};
use super::vm::Vm;
use crate::agent_client::{AgentError, OpError};
use crate::qemu::{modinfo, read_module};

const ENOENT: i32 = 2;
const ENOEXEC: i32 = 8;
const EAGAIN: i32 = 11;
const EBUSY: i32 = 16;
const EEXIST: i32 = 17;
/// How many of the kernel's lines an error shows.
const SHOWN: usize = 5;

impl Vm {
    /// The module `name` and all it needs, unpacked and in the order to load them, from the profile's `modules`; empty where
    /// the kernel has it built in. The VM must be booted: the modules are those of the guest's own release.
    ///
    /// # Errors
    /// A wrong state; a profile without `modules`, or without this one.
    pub async fn profile_modules(&self, name: &str) -> Result<Vec<NamedModule>, VmError> {
        let release = self.booted("load_module")?.agent().hello().kernel_release.clone();
        let images = self.profile_images().await?;
        let wanted = name.to_owned();
        let found = tokio::task::spawn_blocking(move || named_modules(&images, &release, &wanted)).await;
        let message = match found {
            Ok(Ok(modules)) => return Ok(modules),
            Ok(Err(error)) => error.to_string(),
            Err(error) => format!("the search for `{name}` failed: {error}"),
        };
        let profile = self.profile().to_owned();
        Err(VmError::Image { vm: self.name().to_owned(), profile, key: "modules", message })
    }
}

impl Guest {
    /// Loads an unpacked module. One that is loaded already is an error (`EEXIST`).
    ///
    /// # Errors
    /// The guest's errno with the name, and what the kernel said about it; a dead guest.
    pub async fn load_module(&self, name: &str, module: &[u8], params: &str) -> Result<(), VmError> {
        let booted = self.vm().booted("load_module")?;
        let position = booted.running.log().position();
        let result = self.op("load_module", async |agent| agent.load_module(name, module, params).await).await;
        let Err(VmError::Agent { vm, source: AgentError::Op(refused) }) = result else { return result };
        if refused.errno == EEXIST {
            return Err(VmError::Agent { vm, source: AgentError::Op(refused) });
        }
        self.vm().settle_log().await;
        let said = about(name, &booted.running.log().since(position));
        let release = &booted.agent().hello().kernel_release;
        let hint = hint(&refused, module, release);
        Err(VmError::Failed { vm, message: format!("{refused}{said}{hint}") })
    }

    /// Loads a module from a file of the host, compressed or not.
    ///
    /// # Errors
    /// A file that can't be read or is no module; the guest's errno; a dead guest.
    pub async fn load_module_file(&self, path: &Path, params: &str) -> Result<(), VmError> {
        self.vm().booted("load_module")?;
        let refuse = |message: String| VmError::Failed { vm: self.name(), message: format!("load_module: {message}") };
        let file = path.to_owned();
        let read = tokio::task::spawn_blocking(move || read_module(&file)).await;
        let module = match read {
            Ok(Ok(module)) => module,
            Ok(Err(error)) => return Err(refuse(error.to_string())),
            Err(error) => return Err(refuse(format!("reading `{}` failed: {error}", path.display()))),
        };
        let info = modinfo(&module).map_err(|why| refuse(format!("`{}`: {why}", path.display())))?;
        let stem = path.file_name().unwrap_or_default().to_string_lossy();
        let stem = stem.split(".ko").next().unwrap_or_default().replace('-', "_");
        self.load_module(&info.name.unwrap_or(stem), &module, params).await
    }

    /// Loads the module `name` and all it needs from the profile's `modules`; what is loaded already, or built in, is skipped.
    ///
    /// # Errors
    /// A profile without it, parameters for a module that is loaded or built in, the guest's errno, a dead guest.
    pub async fn load_profile_module(&self, name: &str, params: &str) -> Result<(), VmError> {
        let modules = self.vm().profile_modules(name).await?;
        if modules.is_empty() && !params.is_empty() {
            let message =
                format!("load_module: `{name}` is built into the kernel, which takes no parameters for it now");
            return Err(VmError::Failed { vm: self.name(), message });
        }
        let last = modules.len().saturating_sub(1);
        for (index, (name, module)) in modules.iter().enumerate() {
            let params = if index == last { params } else { "" };
            match self.load_module(name, module, params).await {
                Err(error) if params.is_empty() && is_loaded(&error) => {}
                other => other?,
            }
        }
        Ok(())
    }

    /// Removes a module.
    ///
    /// # Errors
    /// The guest's errno with the name; a dead guest.
    pub async fn unload_module(&self, name: &str) -> Result<(), VmError> {
        let name = name.replace('-', "_");
        let result = self.op("unload_module", async |agent| agent.unload_module(&name).await).await;
        let Err(VmError::Agent { vm, source: AgentError::Op(refused) }) = result else { return result };
        let hint = match refused.errno {
            ENOENT => "\nhint: it is not loaded",
            EAGAIN => "\nhint: it is in use, or another module needs it",
            EBUSY => "\nhint: it can't be unloaded, or is about to be loaded or unloaded",
            _ => "",
        };
        Err(VmError::Failed { vm, message: format!("{refused}{hint}") })
    }
}

fn is_loaded(error: &VmError) -> bool {
    matches!(error, VmError::Agent { source: AgentError::Op(refused), .. } if refused.errno == EEXIST)
}

/// What the kernel said about the module `name`, as the end of a message.
fn about(name: &str, lines: &[String]) -> String {
    let own: Vec<&String> = lines
        .iter()
        .filter(|line| line.split_once("] ").is_some_and(|(_, text)| text.starts_with(&format!("{name}: "))))
        .collect();
    own[own.len().saturating_sub(SHOWN)..].iter().map(|line| format!("\n  | {line}")).collect()
}

fn hint(refused: &OpError, module: &[u8], release: &str) -> String {
    let info = modinfo(module).unwrap_or_default();
    match (refused.errno, info.release) {
        (ENOEXEC, Some(built)) if built != release => {
            format!("\nhint: it was built for `{built}`, and the guest's kernel is `{release}`")
        }
        (ENOEXEC, _) => "\nhint: it was built for another kernel, or is no module".to_owned(),
        (ENOENT, _) if !info.depends.is_empty() => {
            format!("\nhint: it needs what is not there; it depends on {}", info.depends.join(", "))
        }
        (ENOENT, _) => "\nhint: it needs a symbol that the kernel does not have".to_owned(),
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_module_s_own_lines_are_shown() {
        let lines = [
            "[    1.000000] hello: Unknown symbol x (err -2)",
            "[    1.000001] hello_dep: hi",
            "[    1.2] other: hello: x",
        ];
        let lines: Vec<String> = lines.iter().map(|line| (*line).to_owned()).collect();
        assert_eq!(about("hello", &lines), "\n  | [    1.000000] hello: Unknown symbol x (err -2)");
    }
}
