//! Kernel modules of a guest.

use std::sync::Arc;

use super::error::VmError;
use super::guest::Guest;
use super::images::{NamedModule, named_modules};
use super::vm::Vm;
use crate::agent_client::AgentError;

/// What the kernel says to a module that is loaded already.
const EEXIST: i32 = 17;

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
    /// The guest's errno with the name; a dead guest.
    pub async fn load_module(&self, name: &str, module: &[u8], params: &str) -> Result<(), VmError> {
        self.op("load_module", async |agent| agent.load_module(name, module, params).await).await
    }

    /// Loads the module `name` and all it needs from the profile's `modules`; what is loaded already, or built in, is skipped.
    ///
    /// # Errors
    /// A profile without it, the guest's errno, a dead guest.
    pub async fn load_profile_module(&self, name: &str, params: &str) -> Result<(), VmError> {
        let modules = Arc::clone(self.vm()).profile_modules(name).await?;
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
        self.op("unload_module", async |agent| agent.unload_module(&name).await).await
    }
}

fn is_loaded(error: &VmError) -> bool {
    matches!(error, VmError::Agent { source: AgentError::Op(refused), .. } if refused.errno == EEXIST)
}
