//! Bridges and cards of real guests under the real command, in an empty network namespace where one can be had.

mod common;

#[test]
fn three_guests_of_two_kernels() {
    let dir = common::suite(&["network.test.lua"]);
    let plain = common::command(dir.path(), &["test", "--timeout", "20m"]);
    // Neither a network of the host nor a right to make one is needed.
    let mut command = std::process::Command::new("unshare");
    command.args(["-rn", "--"]).arg(plain.get_program()).args(plain.get_args()).current_dir(dir.path());
    for (name, value) in plain.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    command.stdin(std::process::Stdio::null());
    let probe = std::process::Command::new("unshare").args(["-rn", "true"]).status();
    let mut command = if probe.is_ok_and(|status| status.success()) { command } else { plain };
    common::finish(&mut command).expect(0).says(&["PASS tests/network.test.lua: partitions under a running transfer"]);

    // Not in there: the only user of a namespace can become no other, as tcpdump does.
    let mut tcpdump = std::process::Command::new("tcpdump");
    tcpdump.args(["-nr", "tests/captured.pcap"]).current_dir(dir.path());
    common::finish(&mut tcpdump).expect(0).says(&["ICMP echo request"]);
}

#[test]
fn a_failure_tells_the_seed() {
    let text = "test('fails', function(t) provium:bridge('lan'):seed(77) t:fail('no') end)\n";
    let dir = common::project(&[("a.test.lua", text)]);
    common::provium(dir.path(), &["test"]).expect(1).says(&["bridge `lan`: the seed of its random decisions is 77"]);
}
