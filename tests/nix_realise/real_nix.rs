//! Against the real nix.

use std::path::Path;
use std::process::{Command, Stdio};

use provium::nix_realiser::{Cancel, Environment, Progress, RealiseError, Realiser, Role};

use crate::common;
use crate::support::{World, attr, failure, kernel, read, realise, wanted_as, warnings};

/// Ends the test with a printed reason where there is no nix.
macro_rules! need_nix {
    () => {
        for program in ["nix", "git"] {
            if Command::new(program).arg("--version").stdout(Stdio::null()).status().is_err() {
                eprintln!("SKIP {}: `{program}` is not installed", std::thread::current().name().unwrap_or("?"));
                return;
            }
        }
    };
}

const OUTPUTS: &str = r#"
    packages.${system} = rec {
        kernel = drv "kernel" "mkdir $out; echo kernel > $out/bzImage; echo map > $out/System.map";
        alias = kernel;
        initrd = drv "initrd" "mkdir $out; echo initrd > $out/initrd.zst";
        initrds = drv "initrds" "mkdir $out; touch $out/initrd.gz $out/initrd.xz";
        modules = drv "modules" "mkdir -p $out/lib/modules/6.1; touch $out/lib/modules/6.1/modules.dep";
        multi = more "multi" "mkdir $out $dev; echo out > $out/bzImage; echo dev > $dev/vmlinux" { outputs = [ "out" "dev" ]; };
        both = multi // { meta.outputsToInstall = [ "out" "dev" ]; };
        disk = drv "disk" "echo disk > $out";
        qemu = drv "qemu" "mkdir -p $out/bin; echo qemu > $out/bin/qemu-system-x86_64";
        fails = drv "fails" "for i in $(seq 60); do echo line $i; done; exit 3";
        needs = more "needs" "cat $dependency" { dependency = fails; };
        throws = throw "my eval error";
        number = 5;
        text = "hello";
        untracked = import ./untracked.nix;
    };
    kernels.debug = drv "debug" "mkdir $out; echo debug > $out/vmlinux";
"#;

#[test]
fn every_form_and_role_in_one_process() {
    need_nix!();
    let world = World::with_flake(OUTPUTS);
    let input = world.flake("", r#"packages.${system}.vmlinux = drv "vmlinux" "echo vmlinux > $out";"#);
    world.write("linux/flake.nix", &input);
    let inputs = format!("inputs.linux.url = \"path:{}\";", world.path("linux").display());
    world.write("project/flake.nix", &world.flake(&inputs, OUTPUTS));

    let mut realiser = world.realiser();
    let wanted = [
        kernel(".#kernel"),
        kernel(".#alias"),
        kernel(".#kernels.debug"),
        wanted_as(".#multi^dev//vmlinux", Role::Vmlinux, "vmlinux"),
        kernel(".#multi"),
        wanted_as(".#initrd", Role::Initrd, "initrd"),
        wanted_as(".#modules", Role::Modules, "modules"),
        wanted_as(".#disk", Role::DiskImage, "disks"),
        wanted_as(".#qemu", Role::Qemu { arch: "x86_64".to_owned() }, "qemu"),
        wanted_as("linux#vmlinux", Role::Vmlinux, "vmlinux"),
        wanted_as(".#kernel//System.map", Role::CmdlineFile, "cmdline_file"),
    ];
    let (result, told) = realise(&mut realiser, &wanted);
    let realised = result.unwrap();
    let texts: Vec<_> =
        realised.iter().map(|one| if one.path.is_dir() { "directory\n".to_owned() } else { read(&one.path) }).collect();
    assert_eq!(texts.concat(), "kernel\nkernel\ndebug\ndev\nout\ninitrd\ndirectory\ndisk\nqemu\nvmlinux\nmap\n");
    let files: Vec<_> = realised.iter().map(|one| one.file.as_deref().unwrap_or("-")).collect();
    assert_eq!(
        files.join(" "),
        "bzImage bzImage vmlinux vmlinux bzImage initrd.zst - - bin/qemu-system-x86_64 - System.map"
    );
    assert_eq!(realised[0].store_path, realised[1].store_path);
    assert!(
        told.iter().any(
            |progress| matches!(progress, Progress::Building { derivation } if derivation.ends_with("-kernel.drv"))
        )
    );
    assert!(told.iter().any(|progress| matches!(progress, Progress::Counts { expected: 1.., .. })), "{told:?}");
    assert_eq!(warnings(&told).iter().find(|text| text.contains("no input")), None);

    // The same again by what nix printed, and without a registry, a network or a build.
    let out = realised[0].store_path.to_string();
    let derivation = world.nix_program("nix-store", &["--query", "--deriver", &out]);
    let derivation = String::from_utf8(derivation.stdout).unwrap();
    let mut again = world.realiser_with(|options| (options.no_build, options.offline) = (true, true));
    let by_path = [
        kernel(&out),
        kernel(&format!("{out}//System.map")),
        kernel(&format!("{}^out//bzImage", derivation.trim())),
        wanted_as("linux#vmlinux", Role::Vmlinux, "vmlinux"),
    ];
    let (result, told) = realise(&mut again, &by_path);
    let realised = result.unwrap();
    let texts: Vec<_> = realised.iter().map(|one| read(&one.path)).collect();
    assert_eq!(texts.concat(), "kernel\nmap\nkernel\nvmlinux\n");
    assert!(!told.iter().any(|progress| matches!(progress, Progress::Building { .. })));
}

#[test]
fn distinct_values_take_one_process() {
    need_nix!();
    let world = World::with_flake(OUTPUTS);
    let (result, told) = realise(&mut world.realiser(), &[kernel(".#kernel"), kernel(".#kernel"), kernel(".#multi")]);
    assert_eq!(result.unwrap().len(), 3);
    let started: Vec<_> = told.iter().filter(|progress| matches!(progress, Progress::Started { .. })).collect();
    let both = vec![".#kernel".to_owned(), ".#multi".to_owned()];
    assert_eq!(started, [&Progress::Started { installables: both }]);
}

#[test]
fn without_a_flake() {
    need_nix!();
    let world = World::new();
    let expression = format!(
        r#"let {} in {{ kernel = drv "plain" "mkdir $out; echo plain > $out/Image"; deep.kernel = drv "deep" "echo deep > $out"; }}"#,
        world.functions()
    );
    world.write("project/default.nix", &expression);
    world.write("project/sub/other.nix", &expression.replace("plain", "other"));
    let mut realiser = world.realiser();
    let wanted = [attr("default.nix", "kernel"), attr("sub/other.nix", "kernel"), attr("default.nix", "deep.kernel")];
    let realised = realise(&mut realiser, &wanted).0.unwrap();
    let texts: Vec<_> = realised.iter().map(|one| read(&one.path)).collect();
    assert_eq!(texts.concat(), "plain\nother\ndeep\n");

    let out = realised[0].store_path.to_string();
    let mixed = realise(&mut realiser, &[kernel(&out), attr("default.nix", "kernel")]).0.unwrap();
    assert_eq!(mixed[0], mixed[1]);

    let text = failure(&mut realiser, &[attr("default.nix", "kernl")]);
    assert!(
        text.starts_with("there is no `--file default.nix kernl` (asked for by profile `q`, key `kernel`)"),
        "{text}"
    );
    assert!(text.contains("its top level has `deep`, `kernel`"), "{text}");
    assert!(text.ends_with("hint: did you mean `kernel`?"), "{text}");

    let text = failure(&mut realiser, &[kernel(".#kernel")]);
    assert!(text.contains("neither `") && text.contains("holds a flake.nix"), "{text}");
}

#[test]
fn attributes_that_are_not_there() {
    need_nix!();
    let world = World::with_flake(OUTPUTS);
    let mut realiser = world.realiser();
    let text = failure(&mut realiser, &[kernel(".#multi"), wanted_as(".#kernl", Role::Kernel, "vmlinux")]);
    assert!(text.starts_with("there is no `.#kernl` (asked for by profile `p`, key `vmlinux`): flake '"), "{text}");
    assert!(text.contains("-linux` has `alias`, `both`, `disk`, `fails`, `initrd`, `initrds`, `kernel`"), "{text}");
    assert!(
        text.contains(
            "
hint: did you mean one of `kernel`"
        ),
        "{text}"
    );

    let text = failure(&mut realiser, &[kernel(".#kernels.debig")]);
    assert!(text.contains("\n  `kernels` has `debug`\n"), "{text}");
    assert!(text.contains("`debug`"), "{text}");

    let text = failure(&mut realiser, &[kernel(".#multi^lib")]);
    assert!(text.contains("`.#multi^lib` has no such output"), "{text}");
    assert!(text.ends_with("hint: it has `dev`, `out`"), "{text}");

    let text = failure(&mut realiser, &[kernel(".#both")]);
    assert!(text.contains("`.#both` has the outputs `dev`, `out`, but exactly one is needed"), "{text}");
}

#[test]
fn expressions_that_are_wrong() {
    need_nix!();
    let world = World::with_flake(OUTPUTS);
    world.write("project/untracked.nix", "5");
    let mut realiser = world.realiser();
    let text = failure(&mut realiser, &[kernel(".#kernel"), wanted_as(".#throws", Role::Initrd, "initrd")]);
    assert!(
        text.starts_with("can't evaluate `.#throws` (asked for by profile `p`, key `initrd`): my eval error\n"),
        "{text}"
    );
    assert!(text.contains("while calling the 'throw' builtin"), "{text}");

    let text = failure(&mut realiser, &[kernel(".#number")]);
    assert!(text.contains("to be a derivation or path but found an integer: 5"), "{text}");
    let text = failure(&mut realiser, &[kernel(".#text")]);
    assert!(text.contains("string 'hello'"), "{text}");

    let text = failure(&mut realiser, &[kernel(".#untracked")]);
    assert!(text.contains("git does not know `untracked.nix`"), "{text}");
    assert!(text.contains("add -N untracked.nix"), "{text}");

    world.git(&["rm", "-q", "--cached", "flake.nix"]);
    let text = failure(&mut realiser, &[kernel(".#kernel")]);
    assert!(text.contains("add -N flake.nix"), "{text}");
}

#[test]
fn a_derivation_that_fails() {
    need_nix!();
    let world = World::with_flake(OUTPUTS);
    let mut realiser = world.realiser();
    let wanted = [kernel(".#multi"), wanted_as(".#needs", Role::Initrd, "initrd")];
    let (result, told) = realise(&mut realiser, &wanted);
    let error = result.unwrap_err();
    let RealiseError::Build { log: Some(log), asked_by, .. } = &error else { panic!("{error}") };
    assert_eq!((log.len(), log[0].as_str(), log[39].as_str()), (40, "line 21", "line 60"));
    assert_eq!(asked_by, &["profile `p`, key `initrd`"]);
    let text = error.to_string();
    assert!(
        text.starts_with(
            "the derivation `fails` did not build (asked for by profile `p`, key `initrd`): failed with exit code 3\n"
        ),
        "{text}"
    );
    let last = text.lines().last().unwrap();
    assert!(last.starts_with("hint: the whole log: nix log /nix/store/") && last.ends_with("-fails.drv"), "{text}");
    assert!(told.iter().any(|progress| matches!(progress, Progress::LogLine { line, .. } if line == "line 1")));

    let wanted = [attr("fail.nix", "a")];
    let expression = format!("let {} in {{ a = drv \"silent\" \"exit 1\"; }}", world.functions());
    world.write("project/fail.nix", &expression);
    let text = failure(&mut realiser, &wanted);
    assert!(
        text.contains("the derivation `silent` did not build") && text.contains("its build wrote nothing"),
        "{text}"
    );
}

#[test]
fn files_and_paths_that_are_not_there() {
    need_nix!();
    let world = World::with_flake(OUTPUTS);
    let mut realiser = world.realiser();
    let text = failure(&mut realiser, &[kernel(".#kernel//boot/bzImage")]);
    assert!(text.contains("-kernel` has no `boot/bzImage` (asked for by profile `p`, key `kernel`)"), "{text}");
    assert!(text.contains("\n  it holds:\n    System.map\n    bzImage\nhint: did you mean `bzImage`?"), "{text}");
    let text = failure(&mut realiser, &[kernel(".#modules")]);
    assert!(text.contains("has no `bzImage`, `Image`, `zImage`, `vmlinuz.efi` or `vmlinux`"), "{text}");
    assert!(text.ends_with("\nhint: name the file: `.#modules//FILE`"), "{text}");
    let text = failure(&mut realiser, &[wanted_as(".#initrds", Role::Initrd, "initrd")]);
    assert!(text.contains("hint: it holds more than one `initrd.*`; name the file"), "{text}");
    let text = failure(&mut realiser, &[wanted_as(".#kernel", Role::DiskImage, "disks")]);
    assert!(text.contains("-kernel` has no file for this key") && text.contains("System.map"), "{text}");
    let text = failure(&mut realiser, &[wanted_as(".#kernel", Role::Modules, "modules")]);
    assert!(text.contains("`lib/modules/<release>`"), "{text}");

    let gone = "/nix/store/0iq8pf4hkb5kqlkgbvk804qf586r0q09-gone";
    let text = failure(&mut realiser, &[kernel(".#kernel"), wanted_as(gone, Role::Initrd, "initrd")]);
    assert!(text.starts_with(&format!("`{gone}` is not in the store")), "{text}");
    assert!(text.contains("key `initrd`") && !text.contains("key `kernel`"), "{text}");
    let text = failure(&mut realiser, &[kernel(&format!("{gone}.drv^out"))]);
    assert!(text.contains(&format!("`{gone}.drv` is not in the store")), "{text}");
}

#[test]
fn building_and_fetching_forbidden() {
    need_nix!();
    let world = World::with_flake(OUTPUTS);
    let mut realiser = world.realiser_with(|options| options.no_build = true);
    let text = failure(&mut realiser, &[kernel(".#kernel"), kernel(".#needs")]);
    assert!(text.starts_with("`--no-build` was given, but not all is there yet"), "{text}");
    for name in ["-kernel.drv", "-needs.drv", "-fails.drv"] {
        assert!(text.contains(name), "{text}");
    }
    realise(&mut world.realiser(), &[kernel(".#kernel")]).0.unwrap();
    realise(&mut realiser, &[kernel(".#kernel")]).0.unwrap();

    let mut offline = world.realiser_with(|options| options.offline = true);
    let (result, told) = realise(&mut offline, &[kernel("github:provium-test/nothing#kernel")]);
    let text = result.unwrap_err().to_string();
    assert!(text.contains("`--offline` was given, so nothing is fetched"), "{text}");
    assert!(warnings(&told)[0].contains("names no revision"), "{told:?}");
    let (result, told) = realise(&mut offline, &[kernel("nothing#kernel")]);
    assert!(result.unwrap_err().to_string().contains("`--offline` was given"));
    assert!(warnings(&told)[0].contains("`nothing` is no input of the project's flake"), "{told:?}");
}

#[test]
fn paths_before_building() {
    need_nix!();
    let world = World::with_flake(OUTPUTS);
    let mut realiser = world.realiser();
    let wanted = [kernel(".#fails"), kernel(".#alias"), kernel(".#kernel"), kernel(".#multi^dev")];
    let paths = realiser.paths_without_building(&wanted).unwrap();
    let paths: Vec<_> = paths.into_iter().map(|path| path.unwrap().to_string()).collect();
    assert!(paths[0].ends_with("-fails") && paths[3].ends_with("-multi-dev"), "{paths:?}");
    assert_eq!(paths[1], paths[2]);
    assert!(paths.iter().all(|path| !Path::new(path).exists()));
    assert!(world.run_roots().is_empty());
    let built = realise(&mut realiser, &wanted[1..]).0.unwrap();
    let built: Vec<_> = built.iter().map(|one| one.store_path.to_string()).collect();
    assert_eq!(built, paths[1..]);
    let text = realiser.paths_without_building(&[kernel(".#throws")]).unwrap_err().to_string();
    assert!(text.starts_with("can't evaluate `.#throws`"), "{text}");
}

#[test]
fn overrides_of_inputs() {
    need_nix!();
    let world = World::new();
    for name in ["one", "two"] {
        let outputs = format!(r#"packages.${{system}}.k = drv "{name}" "echo {name} > $out";"#);
        world.write(&format!("{name}/flake.nix"), &world.flake("", &outputs));
    }
    let inputs = format!("inputs.linux.url = \"path:{}\";", world.path("one").display());
    let outputs = "packages.${system}.k = inputs.linux.packages.${system}.k;";
    world.write("project/flake.nix", &world.flake(&inputs, outputs));
    let read_both = |realiser: &mut Realiser| {
        let realised = realise(realiser, &[kernel(".#k"), kernel("linux#k")]).0.unwrap();
        realised.iter().map(|one| read(&one.path)).collect::<Vec<_>>().concat()
    };
    assert_eq!(read_both(&mut world.realiser()), "one\none\n");
    let reference = format!("path:{}", world.path("two").display());
    let args = ["--override-input".to_owned(), "linux".to_owned(), reference];
    let mut overridden = world.realiser_with(|options| options.extra_args = args.to_vec());
    assert_eq!(read_both(&mut overridden), "two\ntwo\n");
}

#[test]
fn cancelling_stops_nix_and_its_builder() {
    need_nix!();
    let world = World::with_flake(
        r#"packages.${system}.slow = drv "slow" "trap '' TERM; echo $$; sleep 1000; echo more; sleep 1000";"#,
    );
    let mut realiser = world.realiser();
    let (cancel, mut builder) = (Cancel::new(), None);
    let handle = cancel.clone();
    let result = realiser.realise(
        &[kernel(".#slow")],
        &mut |progress| {
            if let Progress::LogLine { line, .. } = progress {
                builder = Some(line);
                handle.cancel();
            }
        },
        &cancel,
    );
    assert!(matches!(result, Err(RealiseError::Cancelled)));
    common::wait_for_end_of(&builder.unwrap());
    // A cancelled handle starts nothing.
    let result = realiser.realise(&[kernel(".#slow")], &mut |_| (), &cancel);
    assert!(matches!(result, Err(RealiseError::Cancelled)));
}

#[test]
fn what_is_realised_is_kept_for_as_long_as_the_realiser_lives() {
    need_nix!();
    let world = World::with_flake(OUTPUTS);
    let mut realiser = world.realiser();
    let realised = realise(&mut realiser, &[kernel(".#kernel"), kernel(".#alias"), kernel(".#multi^dev//vmlinux")]);
    let realised = realised.0.unwrap();
    // Only these paths are asked to go, as a collection would: the store is everybody's.
    let delete = |path: &str| world.nix_program("nix-store", &["--delete", path]).status.success();
    for one in &realised {
        let path = one.store_path.to_string();
        assert!(!delete(&path) && one.path.exists(), "{path} was collected");
    }
    let roots = world.run_roots();
    assert_eq!(roots.len(), 1);
    drop(realiser);
    assert!(world.run_roots().is_empty());
    assert!(delete(&realised[0].store_path.to_string()));
    assert!(!realised[0].path.exists());
}

/// No test of its own: with the variable set it is the run that [`a_killed_runs_roots_go_with_the_next_start`] kills.
#[test]
fn helper_a_run_that_is_killed() {
    let Some(top) = std::env::var_os("PROVIUM_TEST_STATE") else { return };
    let world = World::with_flake(OUTPUTS);
    let mut realiser = world.realiser_with(|options| options.state_dir = top.into());
    realise(&mut realiser, &[kernel(".#kernel")]).0.unwrap();
    println!("realised");
    // SAFETY: raises a signal, nothing else.
    unsafe {
        libc::raise(libc::SIGKILL);
    }
}

#[test]
fn a_killed_runs_roots_go_with_the_next_start() {
    need_nix!();
    let world = World::with_flake(OUTPUTS);
    let mut living = world.realiser();
    realise(&mut living, &[kernel(".#kernel")]).0.unwrap();
    let own = world.run_roots();
    let killed = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "real_nix::helper_a_run_that_is_killed", "--nocapture"])
        .env("PROVIUM_TEST_STATE", world.path("provium"))
        // What it can't tidy itself goes with this test's own directory.
        .env("TMPDIR", world.path("home"))
        .output()
        .unwrap();
    assert!(String::from_utf8_lossy(&killed.stdout).contains("realised"));
    assert_eq!(world.run_roots().len(), 2);
    let _next = world.realiser();
    assert_eq!(world.run_roots(), own);
}

#[test]
fn inside_a_nix_build_the_map_decides() {
    need_nix!();
    let world = World::with_flake(OUTPUTS);
    let out = realise(&mut world.realiser(), &[kernel(".#kernel")]).0.unwrap().remove(0);
    world.write("map.json", &format!(r#"{{".#k": "{}", "profiles": {{}}}}"#, out.store_path));
    let environment = Environment {
        nix: Some("/nonexistent/nix".into()),
        inside_build: true,
        map: Some(world.path("map.json")),
        ..Environment::default()
    };
    let options = provium::nix_realiser::Options { state_dir: "/nonexistent".into(), ..world.options() };
    let mut realiser = Realiser::with_environment(options, environment).unwrap();
    let by_path = kernel(&out.store_path.to_string());
    let realised = realise(&mut realiser, &[kernel(".#k"), by_path]).0.unwrap();
    assert_eq!(realised, [out.clone(), out.clone()]);
    assert_eq!(realiser.paths_without_building(&[kernel(".#k")]).unwrap(), [Some(out.store_path)]);
    let text = failure(&mut realiser, &[kernel(".#other")]);
    assert!(text.contains("has no `.#other`") && text.contains("add `.#other` to the check"), "{text}");
}

#[test]
fn profiles_of_a_flake() {
    need_nix!();
    let outputs = r#"
    legacyPackages.${system}.proviumProfiles = {
        plain = { kernel = drv "k" "mkdir $out; echo kernel > $out/bzImage"; files.kernel = "bzImage"; settings = { cmdline = "quiet"; cpus = 2; }; };
        "a.b" = { kernel = drv "k2" "mkdir $out; echo other > $out/bzImage"; files.kernel = null; settings = { }; };
    };"#;
    let world = World::with_flake(outputs);
    let mut realiser = world.realiser();
    let profiles = realiser.flake_profiles(".", &Cancel::new()).unwrap();
    assert_eq!(
        serde_json::Value::Object(profiles.clone()).to_string(),
        "{\"a.b\":{\"kernel\":{\"nix\":\".#proviumProfiles.\\\"a.b\\\".kernel\"}},\
         \"plain\":{\"cmdline\":\"quiet\",\"cpus\":2,\"kernel\":{\"file\":\"bzImage\",\"nix\":\".#proviumProfiles.plain.kernel\"}}}"
    );
    // What it names can be built as it stands there.
    let values: Vec<_> = profiles.values().map(|profile| kernel(profile["kernel"]["nix"].as_str().unwrap())).collect();
    let realised = realise(&mut realiser, &values).0.unwrap();
    assert_eq!(realised.iter().map(|one| read(&one.path)).collect::<String>(), "other\nkernel\n");
    assert!(world.run_roots().len() == 1, "asking for profiles registers no roots");

    let world = World::with_flake("packages.${system}.kernel = drv \"k\" \"mkdir $out\";");
    let error = world.realiser().flake_profiles(".", &Cancel::new()).unwrap_err().to_string();
    assert!(error.contains(".#proviumProfiles") && error.contains("from_flake"), "{error}");
}
