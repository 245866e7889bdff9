//! Waiting for something inside a guest.

use std::time::{Duration, Instant};

use super::error::VmError;
use super::guest::Guest;
use crate::agent_client::{Program, RunOutcome, RunSpec, RunStatus};
use crate::agent_protocol::{Op, OpReply, WaitFor};
use crate::foundation::duration::format_duration;

/// How long is waited where nothing else is said, before the accelerator's factor.
pub const WAIT: Duration = Duration::from_secs(10);
/// How often systemd is asked for a unit's state, at first and at most.
const FIRST_LOOK: Duration = Duration::from_millis(100);
const LAST_LOOK: Duration = Duration::from_secs(1);

impl Guest {
    fn limit(&self, timeout: Option<Duration>) -> Duration {
        timeout.unwrap_or_else(|| self.vm().scaled(WAIT))
    }

    fn timed_out(&self, op: &str, what: &str, limit: Duration, last: &str) -> VmError {
        let limit = format_duration(limit);
        VmError::Failed { vm: self.name(), message: format!("{op}: {what} within {limit}{last}") }
    }

    /// Waits until something listens on a TCP port, of IPv4 or of IPv6.
    ///
    /// # Errors
    /// A time-out, a dead guest.
    pub async fn wait_for_port(&self, port: u16, timeout: Option<Duration>) -> Result<(), VmError> {
        let limit = self.limit(timeout);
        let wait = self.op("wait_for_port", async |agent| agent.wait_for(WaitFor::Port(port)).await);
        match tokio::time::timeout(limit, wait).await {
            Ok(result) => result,
            Err(_) => {
                let what = format!("nothing listened on TCP port {port}");
                let listing = tokio::time::timeout(Duration::from_secs(2), self.listening()).await;
                let last = listing.ok().flatten().unwrap_or_default();
                Err(self.timed_out("wait_for_port", &what, limit, &last))
            }
        }
    }

    /// What is listened on instead, as the end of a message; none where it can't be known.
    async fn listening(&self) -> Option<String> {
        let mut ports = Vec::new();
        for table in ["/proc/net/tcp", "/proc/net/tcp6"] {
            let text = self.read_file(table.as_bytes()).await;
            if let (Err(_), "/proc/net/tcp") = (&text, table) {
                return None;
            }
            ports.extend(listening_ports(&String::from_utf8_lossy(&text.unwrap_or_default())));
        }
        ports.sort_unstable();
        ports.dedup();
        let list = ports.iter().map(u16::to_string).collect::<Vec<_>>().join(", ");
        Some(if list.is_empty() { "; no TCP port is listened on".to_owned() } else { format!("; listened on: {list}") })
    }

    /// Waits until a path is there.
    ///
    /// # Errors
    /// A time-out, a dead guest.
    pub async fn wait_for_file(&self, path: &[u8], timeout: Option<Duration>) -> Result<(), VmError> {
        let limit = self.limit(timeout);
        let wait = self.op("wait_for_file", async |agent| agent.wait_for(WaitFor::File(path.to_vec())).await);
        match tokio::time::timeout(limit, wait).await {
            Ok(result) => result,
            Err(_) => {
                let what = format!("`{}` was not there", String::from_utf8_lossy(path));
                let nearest = tokio::time::timeout(Duration::from_secs(2), self.nearest(path)).await;
                let last = nearest.ok().flatten().unwrap_or_default();
                Err(self.timed_out("wait_for_file", &what, limit, &last))
            }
        }
    }

    /// The first directory above `path` that is there, as the end of a message.
    async fn nearest(&self, path: &[u8]) -> Option<String> {
        let path = String::from_utf8_lossy(path);
        for above in std::path::Path::new(&*path).ancestors().skip(1).filter(|above| !above.as_os_str().is_empty()) {
            let name = above.display().to_string();
            let exists = self
                .op("wait_for_file", async |agent| agent.op(Op::Exists(name.clone().into_bytes())).await)
                .await
                .ok()?;
            if exists == OpReply::Flag(true) {
                return Some(format!("; of its directories `{name}` is"));
            }
        }
        None
    }

    /// Waits until a unit of systemd is active, or has run to its end without a failure.
    ///
    /// # Errors
    /// A unit that failed or does not exist, a guest without systemd, a time-out, a dead guest.
    pub async fn wait_for_unit(&self, unit: &str, timeout: Option<Duration>) -> Result<(), VmError> {
        let limit = self.limit(timeout);
        let deadline = Instant::now().checked_add(limit);
        let refuse = |message: String| Err(VmError::Failed { vm: self.name(), message });
        let mut pause = FIRST_LOOK;
        let mut was_starting = false;
        loop {
            let properties = "LoadState,ActiveState,SubState,Result,ExecMainExitTimestampMonotonic";
            let shown = self.systemctl(&["show", "--property", properties, "--", unit]).await?;
            let errors = String::from_utf8_lossy(&shown.stderr);
            if errors.contains("not been booted with systemd") {
                return refuse(format!("wait_for_unit: `{unit}`: {}", errors.lines().next().unwrap_or_default()));
            }
            let state = UnitState::parse(&String::from_utf8_lossy(&shown.stdout));
            was_starting |= state.active == "activating";
            match state.judge(was_starting) {
                Verdict::Reached => return Ok(()),
                Verdict::Missing => {
                    return refuse(format!("wait_for_unit: there is no unit `{unit}` ({})", state.load));
                }
                Verdict::Failed => {
                    let status = self.systemctl(&["status", "--no-pager", "--full", "--lines=10", "--", unit]).await?;
                    let status = String::from_utf8_lossy(&status.stdout).trim_end().replace('\n', "\n  | ");
                    let result = &state.result;
                    return refuse(format!("wait_for_unit: the unit `{unit}` failed ({result}):\n  | {status}"));
                }
                Verdict::NotYet => {}
            }
            // At least one look, however short the time.
            let left = deadline.map_or(pause, |deadline| deadline.saturating_duration_since(Instant::now()));
            if left.is_zero() {
                let what = format!("the unit `{unit}` was not active");
                let last = match state.active.is_empty() {
                    true => format!("; systemctl said: {}", errors.trim()),
                    false => format!("; it was {} ({})", state.active, state.sub),
                };
                return Err(self.timed_out("wait_for_unit", &what, limit, &last));
            }
            tokio::time::sleep(pause.min(left)).await;
            pause = (pause * 2).min(LAST_LOOK);
        }
    }

    async fn systemctl(&self, words: &[&str]) -> Result<RunOutcome, VmError> {
        let argv = std::iter::once("systemctl").chain(words.iter().copied()).map(|word| word.as_bytes().to_vec());
        let timeout = Some(self.vm().scaled(WAIT));
        let spec = RunSpec { program: Program::Argv(argv.collect()), timeout, ..RunSpec::default() };
        match self.run(spec).await {
            Ok(outcome) if outcome.status == RunStatus::Exited(127) => Err(self.without_systemd()),
            Err(VmError::Agent { source: crate::agent_client::AgentError::Op(refused), .. }) if refused.errno == 2 => {
                Err(self.without_systemd())
            }
            other => other,
        }
    }

    fn without_systemd(&self) -> VmError {
        let message = "wait_for_unit: the guest has no `systemctl`: units are systemd's".to_owned();
        VmError::Failed { vm: self.name(), message }
    }
}

/// Ports that are listened on in a table like `/proc/net/tcp`.
fn listening_ports(table: &str) -> Vec<u16> {
    let port = |line: &str| {
        let mut words = line.split_whitespace().skip(1);
        let (local, _, state) = (words.next()?, words.next()?, words.next()?);
        (state == "0A").then_some(())?;
        u16::from_str_radix(local.rsplit_once(':')?.1, 16).ok()
    };
    table.lines().skip(1).filter_map(port).collect()
}

/// What `systemctl show` says of a unit.
#[derive(Debug, Default, PartialEq, Eq)]
struct UnitState {
    load: String,
    active: String,
    sub: String,
    result: String,
    /// Whether its main process has ended.
    ran: bool,
}

#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    Reached,
    Missing,
    Failed,
    NotYet,
}

impl UnitState {
    fn parse(text: &str) -> Self {
        let mut state = Self::default();
        for (key, value) in text.lines().filter_map(|line| line.split_once('=')) {
            let value = value.trim();
            match key {
                "LoadState" => value.clone_into(&mut state.load),
                "ActiveState" => value.clone_into(&mut state.active),
                "SubState" => value.clone_into(&mut state.sub),
                "Result" => value.clone_into(&mut state.result),
                "ExecMainExitTimestampMonotonic" => state.ran = !matches!(value, "" | "0"),
                _ => {}
            }
        }
        state
    }

    /// `was_starting` says whether it was seen on its way: systemd forgets how a unit ended that nothing refers to.
    fn judge(&self, was_starting: bool) -> Verdict {
        match (self.load.as_str(), self.active.as_str()) {
            (_, "active" | "reloading") => Verdict::Reached,
            (_, "failed") => Verdict::Failed,
            ("not-found" | "bad-setting" | "error" | "masked", _) => Verdict::Missing,
            // A oneshot that has done its work is not active, and will not be.
            (_, "inactive") if (self.ran || was_starting) && self.result == "success" => Verdict::Reached,
            _ => Verdict::NotYet,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units() {
        let judge = |text: &str| UnitState::parse(text).judge(false);
        let loaded = |rest: &str| judge(&format!("LoadState=loaded\n{rest}"));
        assert_eq!(loaded("ActiveState=active\nSubState=running\nResult=success\n"), Verdict::Reached);
        assert_eq!(loaded("ActiveState=failed\nSubState=failed\nResult=exit-code\n"), Verdict::Failed);
        assert_eq!(loaded("ActiveState=activating\nSubState=start\nResult=success\n"), Verdict::NotYet);
        let ended = "ActiveState=inactive\nSubState=dead\nResult=success\nExecMainExitTimestampMonotonic=";
        assert_eq!(loaded(&format!("{ended}0\n")), Verdict::NotYet);
        assert_eq!(loaded(&format!("{ended}12345\n")), Verdict::Reached);
        let forgotten = UnitState::parse(&format!("LoadState=loaded\n{ended}0\n"));
        assert_eq!(forgotten.judge(true), Verdict::Reached);
        assert_eq!(judge("LoadState=not-found\nActiveState=inactive\n"), Verdict::Missing);
        assert_eq!(judge(""), Verdict::NotYet);
    }
}
