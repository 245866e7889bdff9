//! Against a fake nix that says what the real one was recorded to say.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::sync::mpsc;

use provium::nix_realiser::{Cancel, Environment, Progress, RealiseError, Realiser};

use crate::support::{World, failure, kernel, realise, warnings};

impl World {
    /// A realiser whose nix is a shell script; it writes its arguments to `args`, one a line.
    fn with_fake_nix(&self, script: &str) -> Realiser {
        let args = self.path("args");
        self.write(
            "nix",
            &format!(
                "#!/bin/sh\n[ \"$1\" != --version ] || exit 0\nprintf '%s\\n' \"$@\" >> {}\n{script}\n",
                args.display()
            ),
        );
        fs::set_permissions(self.path("nix"), fs::Permissions::from_mode(0o755)).unwrap();
        // A program that another thread's child still holds open for writing can't be run; wait for that to pass.
        while Command::new(self.path("nix")).arg("--version").output().is_err() {}
        let environment = Environment { nix: Some(self.path("nix")), ..Environment::default() };
        Realiser::with_environment(self.options(), environment).unwrap()
    }
}

const PATH: &str = "/nix/store/0iq8pf4hkb5kqlkgbvk804qf586r0q08-kernel";

#[test]
fn the_command_line() {
    let world = World::new();
    world.write("project/flake.nix", "{ }");
    let script = format!(r#"echo '[{{"drvPath":"/x","outputs":{{"out":"{PATH}"}},"new":1}}]'"#);
    let mut realiser = world.with_fake_nix(&script);
    // The file itself is not there; only how nix was called matters.
    drop(realise(&mut realiser, &[kernel(".#kernel")]));
    let args = fs::read_to_string(world.path("args")).unwrap();
    let args: Vec<_> = args.lines().collect();
    let roots = world.run_roots();
    let link = roots[0].join("r");
    let expected = [
        "--extra-experimental-features",
        "nix-command flakes",
        "build",
        "--json",
        "--out-link",
        link.to_str().unwrap(),
        "--log-format",
        "internal-json",
        "-v",
        "--inputs-from",
        ".",
        "--",
        ".#kernel",
    ];
    assert_eq!(args, expected);
}

#[test]
fn no_nix_at_all() {
    let world = World::new();
    let environment = Environment { nix: Some(world.path("none")), ..Environment::default() };
    let mut realiser = Realiser::with_environment(world.options(), environment).unwrap();
    assert_eq!(realise(&mut realiser, &[]).0.unwrap(), []);
    let text = failure(&mut realiser, &[kernel(".#kernel")]);
    assert!(text.starts_with("there is no `") && text.contains("(asked for by profile `p`, key `kernel`)"), "{text}");
    assert!(text.contains("\nhint: install Nix"), "{text}");
}

#[test]
fn a_daemon_that_is_not_there() {
    let world = World::new();
    let mut realiser = world.with_fake_nix(
        r#"cat >&2 <<'END'
@nix {"action":"msg","level":0,"msg":"\u001b[31;1merror (ignored):\u001b[0m error: nothing","raw_msg":"nothing"}
@nix {"action":"msg","column":null,"file":null,"level":0,"line":null,"msg":"\u001b[31;1merror:\u001b[0m cannot connect to socket at '\u001b[35;1m/nix/var/nix/daemon-socket/socket\u001b[0m': Permission denied","raw_msg":"cannot connect to socket at '\u001b[35;1m/nix/var/nix/daemon-socket/socket\u001b[0m': Permission denied"}
END
exit 1"#,
    );
    let text = failure(&mut realiser, &[kernel(PATH)]);
    let said = "cannot connect to socket at '/nix/var/nix/daemon-socket/socket': Permission denied";
    assert!(text.starts_with(&format!("nix failed (asked for by profile `p`, key `kernel`): {said}")), "{text}");
    assert!(!text.contains("ignored"), "{text}");
}

#[test]
fn a_nix_that_makes_no_sense() {
    let world = World::new();
    let mut realiser = world.with_fake_nix("echo hello");
    let text = failure(&mut realiser, &[kernel(PATH)]);
    assert!(text.starts_with("nix printed something unexpected") && text.contains("expected a JSON list"), "{text}");
    let mut realiser = world.with_fake_nix("echo 'error: unknown setting x' >&2; exit 1");
    let text = failure(&mut realiser, &[kernel(PATH)]);
    assert!(text.contains(": unknown setting x"), "{text}");
    let mut realiser = world.with_fake_nix("kill -9 $$");
    let text = failure(&mut realiser, &[kernel(PATH)]);
    assert!(text.contains("it ended without saying why"), "{text}");
}

#[test]
fn warnings_come_once() {
    let world = World::new();
    let warning = r#"@nix {"action":"msg","level":1,"msg":"\u001b[35;1mwarning:\u001b[0m odd"}"#;
    let mut realiser = world.with_fake_nix(&format!("echo '{warning}' >&2; echo '{warning}' >&2; echo '[\"{PATH}\"]'"));
    let (_, told) = realise(&mut realiser, &[kernel(PATH)]);
    assert_eq!(warnings(&told), ["odd"]);
}

#[test]
fn one_call_at_a_time() {
    let world = World::new();
    let fifo = world.path("fifo");
    assert!(Command::new("mkfifo").arg(&fifo).status().unwrap().success());
    let line = r#"@nix {"action":"start","fields":["/x.drv"],"id":1,"level":3,"text":"","type":105}"#;
    let script = format!("echo '{line}' >&2; read go < {}; echo '[\"{PATH}\"]'", fifo.display());
    let mut first = world.with_fake_nix(&script);
    let options = world.options();
    let environment = Environment { nix: Some(world.path("nix")), ..Environment::default() };
    let (tell, told) = mpsc::channel();
    let (begun, begins) = mpsc::channel();
    let running = std::thread::spawn(move || {
        let mut report = |progress| {
            if matches!(progress, Progress::Building { .. }) {
                begun.send(()).unwrap();
            }
        };
        drop(first.realise(&[kernel(PATH)], &mut report, &Cancel::new()));
    });
    begins.recv().unwrap();
    let mut second = Realiser::with_environment(options, environment).unwrap();
    let (cancel, handle) = (Cancel::new(), Cancel::new());
    let waiting = {
        let cancel = cancel.clone();
        std::thread::spawn(move || {
            second.realise(&[kernel(PATH)], &mut |progress| tell.send(progress).unwrap(), &cancel)
        })
    };
    assert_eq!(told.recv().unwrap(), Progress::Waiting);
    assert!(!handle.is_cancelled());
    cancel.cancel();
    assert!(matches!(waiting.join().unwrap(), Err(RealiseError::Cancelled)));
    fs::write(&fifo, "go\n").unwrap();
    running.join().unwrap();
}
