//! The way out: `passt`, which turns frames into connections of an ordinary process.

use std::ffi::OsString;
use std::io::{self, Read};
use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::attach::refresh;
use super::bridge::Bridge;
use super::error::BridgeError;
use crate::foundation::path_error::describe_io;
use crate::foundation::process::spawn;
use crate::switch::{LONGEST, Net4, Port, arp_request};

/// How long it may take to answer.
const PATIENCE: Duration = Duration::from_secs(60);

/// The host's IPv4 routes. Some versions of `passt` go on without a way out, so that is looked at first.
const ROUTES: &str = "/proc/net/route";
/// What some versions say before each line where there is no system log.
const NOISE: &str = " bytes to syslog";

/// A running `passt`. Dropping it ends the process.
pub struct Uplink {
    child: Child,
    port: Port,
}

impl Drop for Uplink {
    fn drop(&mut self) {
        // Both fail only where it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Uplink {
    /// Ends it; what it said, or how it ended.
    fn last_words(&mut self) -> String {
        // It fails where it has ended already, which is how it has come to this.
        let _ = self.child.kill();
        let status = self.child.wait();
        let mut words = Vec::new();
        // Only what it had to say is lost.
        let _ = self.child.stderr.take().map(|mut stderr| stderr.read_to_end(&mut words));
        told(&String::from_utf8_lossy(&words)).unwrap_or_else(|| match status {
            Ok(status) => status.to_string(),
            Err(error) => describe_io(&error),
        })
    }
}

fn program() -> Option<OsString> {
    let paths = std::env::var_os("PATH")?;
    std::env::split_paths(&paths).map(|path| path.join("passt")).find(|path| path.is_file()).map(OsString::from)
}

/// Gives the members of `bridge` a way out.
///
/// # Errors
/// There is no `passt`, or it says why it can't.
pub async fn enable(bridge: &Arc<Bridge>) -> Result<(), BridgeError> {
    let refuse = |why: String| BridgeError::new(bridge.name(), "enable_uplink", why);
    {
        let mut uplink = bridge.uplink.lock().await;
        if uplink.is_some() {
            return Ok(());
        }
        let program = program().ok_or_else(|| {
            refuse("`passt` is not on PATH\nhint: install it (Debian and Ubuntu: `apt install passt`)".to_owned())
        })?;
        if !has_default_route(&std::fs::read_to_string(ROUTES).unwrap_or_default()) {
            let hint = "a sandbox or an empty network namespace has none: such tests need a place with a network";
            return Err(refuse(format!(
                "the host has no IPv4 default route, so `passt` can reach nothing\nhint: {hint}"
            )));
        }
        let failed = |error: io::Error| refuse(format!("`passt` can't be started: {}", describe_io(&error)));
        let (ours, theirs) = UnixStream::pair().map_err(failed)?;
        let child = start(&program, bridge, OwnedFd::from(theirs)).map_err(failed)?;
        let mut started = Uplink { child, port: bridge.switch().reserve() };
        let ours = match tokio::time::timeout(PATIENCE, greet(bridge, ours)).await {
            Ok(Ok(ours)) => ours,
            Ok(Err(error)) if is_end(&error) => {
                return Err(refuse(format!("`passt` ended at once: {}", started.last_words())));
            }
            Ok(Err(error)) => return Err(failed(error)),
            Err(_) => {
                let said = started.last_words();
                return Err(refuse(format!(
                    "`passt` answered no ARP request within {PATIENCE:?} and was ended: {said}"
                )));
            }
        };
        bridge.switch().plug(started.port, ours).map_err(failed)?;
        bridge.switch().set_uplink(Some(started.port));
        *uplink = Some(started);
    }
    refresh(bridge, "enable_uplink").await
}

/// Takes the way out away.
///
/// # Errors
/// A guest refuses the change of its routes.
pub async fn disable(bridge: &Arc<Bridge>) -> Result<(), BridgeError> {
    let Some(uplink) = bridge.uplink.lock().await.take() else { return Ok(()) };
    bridge.switch().set_uplink(None);
    bridge.switch().remove(uplink.port);
    drop(uplink);
    refresh(bridge, "disable_uplink").await
}

/// The address that `passt` takes for its own: the last one of the bridge's network.
fn own_address(net: Net4) -> Ipv4Addr {
    Ipv4Addr::from_bits(net.broadcast().to_bits() - 1)
}

fn start(program: &OsString, bridge: &Bridge, end: OwnedFd) -> io::Result<Child> {
    let net = bridge.plan().net4;
    // It thinks of the bridge's gateway as its one guest.
    let guest = bridge.plan().gateway().ipv4.to_string();
    let mut command = Command::new(program);
    command
        .args(["--foreground", "--quiet", "--no-dhcp", "--no-dhcpv6", "--no-ra", "-t", "none", "-u", "none"])
        .args(["--mtu", &bridge.options().mtu.to_string()])
        .args(["-a", &guest, "-n", &net.prefix.to_string(), "-g", &own_address(net).to_string()])
        .args(["--fd", &end.as_raw_fd().to_string()])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .process_group(0);
    spawn(command, vec![end])
}

/// Asks it for its hardware address; it answers when it is ready.
async fn greet(bridge: &Bridge, stream: UnixStream) -> io::Result<UnixStream> {
    stream.set_nonblocking(true)?;
    let mut stream = tokio::net::UnixStream::from_std(stream)?;
    let gateway = bridge.plan().gateway();
    let question = arp_request(gateway.mac, gateway.ipv4, own_address(bridge.plan().net4));
    stream.write_u32(u32::try_from(question.len()).map_err(io::Error::other)?).await?;
    stream.write_all(&question).await?;
    // Whole frames, or the switch would take the rest of one for lengths. It says nothing unless it is asked.
    let length = stream.read_u32().await?;
    if usize::try_from(length).unwrap_or(usize::MAX) > LONGEST {
        return Err(io::Error::other(format!("it sent a frame of {length} bytes")));
    }
    tokio::io::copy(&mut (&mut stream).take(length.into()), &mut tokio::io::sink()).await?;
    stream.into_std()
}

fn is_end(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionReset, UnexpectedEof};
    matches!(error.kind(), BrokenPipe | ConnectionReset | UnexpectedEof)
}

/// Its words on one line, where it said any.
fn told(words: &str) -> Option<String> {
    let lines: Vec<&str> =
        words.lines().map(str::trim).filter(|line| !line.is_empty() && !line.ends_with(NOISE)).collect();
    (!lines.is_empty()).then(|| lines.join("; "))
}

/// Whether a routing table in the format of `/proc/net/route` leads anywhere: interface, destination, gateway, flags, three numbers, mask.
fn has_default_route(table: &str) -> bool {
    table.lines().skip(1).any(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        matches!(fields[..], [name, "00000000", _, _, _, _, _, "00000000", ..] if name != "lo")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_default_route_leads_out() {
        let head = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n";
        let net = "eth0\t000200C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\n";
        let default = "eth0\t00000000\t010200C0\t0003\t0\t0\t0\t00000000\t0\t0\t0\n";
        assert!(!has_default_route("") && !has_default_route(head) && !has_default_route(&format!("{head}{net}")));
        assert!(has_default_route(&format!("{head}{net}{default}")));
    }

    #[test]
    fn words_without_the_noise() {
        let words = "Failed to send 46 bytes to syslog\nNo external routable interface for IPv4\n\nExternal interface not usable\n";
        assert_eq!(told(words).unwrap(), "No external routable interface for IPv4; External interface not usable");
        assert_eq!(told("\n"), None);
    }
}
