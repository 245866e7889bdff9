//! A machine's state on its way to a file or from one, without the RAM that lies in a file of its own.

use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};

use super::error::{QemuError, QmpError};
use super::process::QemuProcess;

/// How long a transfer may take: one of devices takes milliseconds, one with RAM its time to write that.
const LIMIT: Duration = Duration::from_secs(120);

impl QemuProcess {
    /// Writes the state of a machine that stands still to `path`; with `with_ram` also RAM that is not shared.
    ///
    /// # Errors
    /// QEMU's refusal or end, a path that is not text.
    pub async fn save(&self, path: &Path, with_ram: bool) -> Result<(), QemuError> {
        self.transfer("migrate", path, with_ram).await
    }

    /// Gives a QEMU that was started as `incoming` the state in `path`. The machine stands still afterwards.
    ///
    /// # Errors
    /// As [`QemuProcess::save`].
    pub async fn load(&self, path: &Path, with_ram: bool) -> Result<(), QemuError> {
        self.transfer("migrate-incoming", path, with_ram).await
    }

    async fn transfer(&self, command: &str, path: &Path, with_ram: bool) -> Result<(), QemuError> {
        let Some(file) = path.to_str() else {
            return Err(QemuError::Transfer(format!("`{}` is not UTF-8, which QEMU needs", path.display())));
        };
        let mut condition = self.qmp().condition();
        let before = condition.borrow().transfers;
        let capability = |name: &str, state: bool| json!({"capability": name, "state": state});
        let capabilities = [capability("events", true), capability("x-ignore-shared", !with_ram)];
        self.qmp().execute("migrate-set-capabilities", json!({"capabilities": capabilities})).await?;
        let address = json!({"transport": "file", "filename": file, "offset": 0});
        let channels = json!({"channels": [{"channel-type": "main", "addr": address}]});
        self.qmp().execute(command, channels).await?;
        let transferred = tokio::select! {
            ended = tokio::time::timeout(LIMIT, condition.wait_for(|now| now.transfers > before)) => match ended {
                Ok(Ok(now)) => now.transferred,
                Ok(Err(_)) => false,
                Err(_) => {
                    let last = "the transfer's start".to_owned();
                    return Err(QmpError::Deadline { awaited: "the end of the transfer".to_owned(), after: LIMIT, last }.into());
                }
            },
            exit = self.wait() => return Err(QemuError::Transfer(format!("QEMU {exit}"))),
        };
        if transferred { Ok(()) } else { Err(QemuError::Transfer(self.why_failed().await)) }
    }

    async fn why_failed(&self) -> String {
        let told = self.qmp().execute("query-migrate", Value::Null).await;
        let why = told.ok().and_then(|state| state["error-desc"].as_str().map(str::to_owned));
        why.unwrap_or_else(|| "QEMU does not say why".to_owned())
    }
}
