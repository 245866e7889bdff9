//! Bridges and cards of real guests under the real command, in an empty network namespace where one can be had.

mod common;

use std::path::Path;
use std::process::{Command, Stdio};

/// Neither a network of the host nor a right to make one is needed.
const EMPTY: &str = "exec \"$@\"";

/// A network with one address of its own, where a web server shows the directory, and a default route that leads to nobody.
const WITH_A_WAY_OUT: &str = "PATH=$PATH:/usr/sbin:/sbin
set -e
ip link set lo up
ip link add way type veth peer name out
ip address add 192.0.2.2/24 dev way
ip link set way up
ip link set out up
ip route add default via 192.0.2.1
\"$BUSYBOX\" httpd -f -p 8099 -h . &
server=$!
set +e
\"$@\"
code=$?
kill $server
exit $code";

/// `provium test` in a network namespace of its own that `script` sets up.
fn in_namespace(dir: &Path, script: &str) -> Command {
    let plain = common::command(dir, &["test", "--timeout", "20m"]);
    let mut command = Command::new("unshare");
    command.args(["-rn", "--", "sh", "-c", script, "sh"]).arg(plain.get_program()).args(plain.get_args());
    for (name, value) in plain.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    command.env("BUSYBOX", common::images().join("bin/busybox")).current_dir(dir).stdin(Stdio::null());
    command
}

#[test]
fn three_guests_of_two_kernels() {
    let dir = common::suite(&["network.test.lua"]);
    common::finish(&mut in_namespace(dir.path(), EMPTY))
        .expect(0)
        .says(&["PASS tests/network.test.lua: partitions under a running transfer"]);

    // Not in there: the only user of a namespace can become no other, as tcpdump does.
    let mut tcpdump = Command::new("tcpdump");
    tcpdump.args(["-nr", "tests/captured.pcap"]).current_dir(dir.path());
    common::finish(&mut tcpdump).expect(0).says(&["ICMP echo request"]);
}

#[test]
fn the_way_out() {
    let dir = common::suite(&["network_uplink.test.lua"]);
    common::finish(&mut in_namespace(dir.path(), WITH_A_WAY_OUT)).expect(0).says(&["1 passed"]);
}

#[test]
fn no_way_out_of_an_empty_network() {
    let text = "provium:bridge('lan'):enable_uplink()\n";
    let dir = common::project(&[("a.test.lua", text)]);
    common::finish(&mut in_namespace(dir.path(), EMPTY))
        .expect(1)
        .says(&["bridge `lan`: enable_uplink: the host has no IPv4 default route", "hint: a sandbox"]);
}

#[test]
fn a_failure_tells_the_seed() {
    let text = "test('fails', function(t) provium:bridge('lan'):seed(77) t:fail('no') end)\n";
    let dir = common::project(&[("a.test.lua", text)]);
    common::provium(dir.path(), &["test"]).expect(1).says(&["bridge `lan`: the seed of its random decisions is 77"]);
}
