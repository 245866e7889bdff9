//! Looking into a machine from outside: QMP, gdb, a dump of its memory, its display. All of it works on a panicked guest too.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};

use super::error::VmError;
use super::vm::Vm;
use crate::foundation::path_error::PathContext;
use crate::qemu::QmpError;

/// How long a command of the test's own may take.
const ANY_COMMAND: Duration = Duration::from_secs(300);
/// How long a dump may take, and how many bytes it writes in a second at least; before the accelerator's factor.
const DUMP: Duration = Duration::from_secs(60);
const DUMP_SPEED: u64 = 20 * 1024 * 1024;
/// The longest path of a socket, in bytes (`sockaddr_un`).
const LONGEST_SOCKET: usize = 107;

/// gdb's stub of a machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GdbStub {
    /// Its socket.
    pub socket: PathBuf,
    /// What to type.
    pub command: String,
}

impl Vm {
    /// Runs a QMP command as it is.
    ///
    /// # Errors
    /// A machine without a QEMU, QEMU's refusal.
    pub async fn qmp(&self, command: &str, arguments: Value) -> Result<Value, VmError> {
        let running = self.with_qemu("qmp")?;
        let result = running.qmp().execute_within(command, arguments, ANY_COMMAND).await;
        result.map_err(|error| self.qemu_error("qmp", error))
    }

    fn qemu_error(&self, op: &'static str, error: QmpError) -> VmError {
        VmError::Qemu { vm: self.name().to_owned(), op, source: error.into() }
    }

    fn refused(&self, op: &'static str, why: String) -> VmError {
        VmError::Refused { vm: self.name().to_owned(), op, why }
    }

    /// A path for a file of this machine that goes with the run.
    fn private_file(&self, name: &str) -> PathBuf {
        self.bed().shared.settings.runtime_dir.join(format!("vm-{}.{name}", self.reference().vm_id))
    }

    /// Opens gdb's stub, once for each QEMU.
    ///
    /// # Errors
    /// A machine without a QEMU, a socket that can't be made.
    pub async fn gdb(&self) -> Result<GdbStub, VmError> {
        const OP: &str = "gdb";
        let running = self.with_qemu(OP)?;
        let images = self.profile_images().await?;
        let mut open = running.gdb().lock().await;
        let socket = match &*open {
            Some(socket) => socket.clone(),
            None => {
                let socket = self.private_file("gdb");
                let text = socket.to_str().filter(|text| text.len() <= LONGEST_SOCKET && !text.contains([',', '"']));
                let Some(text) = text else {
                    let why = format!(
                        "`{}` can't be the path of a socket: it is longer than {LONGEST_SOCKET} bytes, or has characters that \
                         QEMU can't read\nhint: a shorter XDG_RUNTIME_DIR helps",
                        socket.display()
                    );
                    return Err(self.refused(OP, why));
                };
                // QEMU refuses to use a socket that an earlier machine of the same name left.
                let _ = std::fs::remove_file(&socket);
                let line = format!("gdbserver \"unix:{text},server=on,wait=off\"");
                let arguments = json!({"command-line": line});
                let said = running.qmp().execute("human-monitor-command", arguments).await;
                let said = said.map_err(|error| self.qemu_error(OP, error))?;
                if !socket.exists() {
                    let why = format!("QEMU opened no stub: {}", said.as_str().unwrap_or_default().trim());
                    return Err(self.refused(OP, why));
                }
                open.insert(socket).clone()
            }
        };
        let symbols = images.vmlinux.map(|path| format!(" {}", quoted(&path))).unwrap_or_default();
        let command = format!("gdb -ex 'target remote {}'{symbols}", socket.display());
        Ok(GdbStub { socket, command })
    }

    /// Writes the guest's memory as an ELF core to `path`, else to a file that goes with the run. Returns where.
    ///
    /// # Errors
    /// A machine without a QEMU, a file that can't be written.
    pub async fn dump(&self, path: Option<PathBuf>) -> Result<PathBuf, VmError> {
        const OP: &str = "dump";
        let running = self.with_qemu(OP)?;
        let path = path.unwrap_or_else(|| self.private_file("core"));
        let unfinished = Unfinished::beside(&path)?;
        let _held = running.hold();
        let limit = self.scaled(DUMP + Duration::from_secs(self.memory() / DUMP_SPEED));
        let arguments = json!({"paging": false, "protocol": format!("file:{}", unfinished.text(self, OP)?)});
        let result = running.qmp().execute_within("dump-guest-memory", arguments, limit).await;
        result.map_err(|error| self.qemu_error(OP, error))?;
        unfinished.finish()?;
        Ok(path)
    }

    /// Writes what the display shows as a PNG to `path`, else to a file that goes with the run. Returns where.
    ///
    /// # Errors
    /// A machine without a QEMU or without a display, a file that can't be written.
    pub async fn screenshot(&self, path: Option<PathBuf>) -> Result<PathBuf, VmError> {
        const OP: &str = "screenshot";
        let running = self.with_qemu(OP)?;
        let path = path.unwrap_or_else(|| self.private_file("png"));
        let unfinished = Unfinished::beside(&path)?;
        let arguments = json!({"filename": unfinished.text(self, OP)?, "format": "png"});
        match running.qmp().execute("screendump", arguments).await {
            Ok(_) => {}
            Err(QmpError::Refused { description, .. }) if description.contains("no console") => {
                let why = format!(
                    "profile `{}` gives its machines no display\nhint: set qemu_args = [\"-device\", \"VGA\"] in the profile",
                    self.profile()
                );
                return Err(self.refused(OP, why));
            }
            Err(error) => return Err(self.qemu_error(OP, error)),
        }
        unfinished.finish()?;
        Ok(path)
    }
}

/// A path for a shell to read.
fn quoted(path: &Path) -> String {
    let text = path.display().to_string();
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+@%,:".contains(c);
    if text.chars().all(plain) { text } else { format!("'{}'", text.replace('\'', "'\\''")) }
}

/// A file that QEMU writes: it gets its name once it is whole, and is removed where that does not happen.
struct Unfinished {
    temporary: PathBuf,
    path: PathBuf,
}

impl Unfinished {
    fn beside(path: &Path) -> Result<Self, VmError> {
        use std::os::unix::fs::OpenOptionsExt;
        let mut name = path.file_name().unwrap_or_default().to_owned();
        name.push(format!(".{}.part", std::process::id()));
        let temporary = path.with_file_name(name);
        // A leftover of this very name can only be of a process that is gone.
        let _ = std::fs::remove_file(&temporary);
        // Made here: what is wrong with the directory is said in the words of all other files.
        std::fs::File::options()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&temporary)
            .at("create", path)
            .map_err(VmError::File)?;
        Ok(Self { temporary, path: path.to_owned() })
    }

    fn text(&self, vm: &Vm, op: &'static str) -> Result<&str, VmError> {
        let text = self.temporary.to_str();
        text.ok_or_else(|| vm.refused(op, format!("`{}` is not UTF-8, which QEMU needs", self.temporary.display())))
    }

    fn finish(self) -> Result<(), VmError> {
        std::fs::rename(&self.temporary, &self.path).at("create", &self.path).map_err(VmError::File)
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        // After `finish` there is nothing of this name.
        let _ = std::fs::remove_file(&self.temporary);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_there_once_it_is_whole() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("core");
        drop(Unfinished::beside(&path).unwrap());
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
        let unfinished = Unfinished::beside(&path).unwrap();
        std::fs::write(&unfinished.temporary, "x").unwrap();
        unfinished.finish().unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"x");
        let error = Unfinished::beside(Path::new("/no/such/directory/core")).err().unwrap().to_string();
        assert!(error.contains("/no/such/directory/core"), "{error}");
    }

    #[test]
    fn paths_for_a_shell() {
        assert_eq!(quoted(Path::new("/a/vmlinux-6.1")), "/a/vmlinux-6.1");
        assert_eq!(quoted(Path::new("/a b/it's")), "'/a b/it'\\''s'");
    }
}
