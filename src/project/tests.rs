use super::*;
use crate::foundation::nix_value::NixSource;
use crate::project::{CmdlineRequest, DiskSetting, Splats, effective_cmdline};

fn with(files: &[(&str, &str)]) -> (tempfile::TempDir, Result<Project, String>) {
    let dir = tempfile::tempdir().unwrap();
    for (name, text) in files {
        let path = dir.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }
    let project = load(&dir.path().join("provium.toml"), &mut no_flake);
    let prefix = format!("{}/", dir.path().display());
    let project = project.map_err(|error| error.to_string().replace(&prefix, ""));
    (dir, project)
}

/// For files that name no flake.
fn no_flake(reference: &str, _: &Path) -> Result<serde_json::Map<String, serde_json::Value>, String> {
    panic!("nobody asked for the flake `{reference}`")
}

fn refused(text: &str) -> String {
    with(&[("provium.toml", text)]).1.unwrap_err()
}

#[test]
fn the_seed_s_own_file() {
    let (_dir, project) = with(&[(
        "provium.toml",
        "[profiles.peios]\nkernel   = \"/build/peios/bzImage\"\ninitrd   = \"/build/peios/initrd.cpio.gz\"\n\
         cmdline  = \"console=hvc0 quiet\"\n\n[profiles.peios-debug]\nextends = \"peios\"\nmemory = \"1G\"\n\
         cmdline  = \"console=hvc0 debug loglevel=7 nokaslr\"\nsplats = \"fail\"\nkernel = \".#kernels.debug\"\n",
    )]);
    let project = project.unwrap();
    assert_eq!(project.first_profile().unwrap().name, "peios");
    let debug = project.profile("peios-debug").unwrap();
    assert_eq!((debug.memory, debug.cpus, debug.splats), (1 << 30, 1, Splats::Fail));
    assert_eq!(debug.initrd.as_ref().unwrap().value, Value::Path("/build/peios/initrd.cpio.gz".into()));
    assert!(
        matches!(&debug.kernel.value, Value::Nix(value) if value.source == NixSource::Installable(".#kernels.debug".into()))
    );
    assert_eq!(debug.origins["initrd"].line, 3);
    let unknown = project.profile("peios-debgu").unwrap_err().to_string();
    assert!(unknown.contains("did you mean `peios-debug`?"), "{unknown}");
}

#[test]
fn all_mistakes_at_once_with_their_places() {
    let text = refused(
        "[provium]\nroot = [\"a\"]\ncache_max_size = \"much\"\n[profiles.x]\nkernle = \"k\"\nmemory = true\ncpus = 0\n\
         guest_os = \"bsd\"\nextends = \"z\"\n[profiles.y]\nkernel = \".#k^*\"\n[profile.z]\n",
    );
    let expected = "\
provium.toml:2:1: unknown key `root`
  hint: did you mean `roots`?
provium.toml:3:18: `cache_max_size`: `much` is not a size, expected bytes or a number with K, M, G or T (such as `512M`)
provium.toml:5:1: unknown key `kernle`
  hint: did you mean `kernel`?
provium.toml:6:10: `memory`: expected a size (bytes, or a string such as \"512M\"), found true
provium.toml:7:8: `cpus`: expected a whole number from 1 to 255, found the number 0
provium.toml:8:12: `guest_os`: expected \"linux\" or \"peios\", found the string \"bsd\"
provium.toml:9:11: `extends`: there is no profile `z`
  hint: known are `y`
provium.toml:11:10: `kernel`: `.#k^*` asks for all outputs
  hint: name exactly one, such as `.#k^out`
provium.toml:12:2: unknown table `profile`
  hint: did you mean `profiles`?";
    assert_eq!(text, expected);
}

#[test]
fn syntax_errors_show_the_line() {
    let text = refused("[profiles.x]\nkernel = \"k\ncmdline = \"y\"\n");
    assert!(text.starts_with("provium.toml:2:"), "{text}");
    assert!(text.contains("| kernel = \"k") && text.contains('^'), "{text}");
}

#[test]
fn other_bytes_than_text_are_told_with_their_place() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("provium.toml");
    std::fs::write(&path, b"[profiles.x]\nkernel = \"\xff\"\n").unwrap();
    let text = load(&path, &mut no_flake).unwrap_err().to_string();
    assert!(text.contains("provium.toml:2:11: expected UTF-8 text"), "{text}");
}

#[test]
fn what_is_missing_or_goes_round() {
    assert!(refused("").contains("there is no profile"));
    assert!(refused("[profiles.x]\ncmdline = \"\"\n").contains("the profile `x` has no `kernel`"));
    let text = refused("[profiles.a]\nkernel='k'\nextends='b'\n[profiles.b]\nkernel='k'\nextends='a'\n");
    assert!(text.contains("circle: `a` → `b` → `a`") && text.matches("circle").count() == 1, "{text}");
    assert!(refused("[profiles]\nx = 1\n").contains("expected a table with the profile's keys, found the number 1"));
}

#[test]
fn local_settings_lie_over_the_file_key_by_key() {
    let (dir, project) = with(&[
        ("provium.toml", "[profiles.x]\nkernel = \"k\"\ncmdline = \"quiet\"\n"),
        ("provium.local.toml", "[profiles.x]\nkernel = \"/mine/bzImage\"\n"),
    ]);
    let project = project.unwrap();
    let profile = project.profile("x").unwrap();
    assert_eq!(profile.kernel.value, Value::Path("/mine/bzImage".into()));
    assert_eq!(*profile.kernel.origin.file, dir.path().join("provium.local.toml"));
    assert_eq!((profile.cmdline.as_str(), profile.origins["cmdline"].line), ("quiet", 3));
}

#[test]
fn profiles_from_a_directory() {
    let (dir, project) = with(&[
        ("provium.toml", "[profiles]\nfrom_dir = \"profiles\"\n"),
        ("profiles/one/profile.provium.toml", "kernel = \"bzImage\"\n"),
        ("profiles/two/other.toml", ""),
    ]);
    let project = project.unwrap();
    assert_eq!(project.profiles.keys().collect::<Vec<_>>(), ["one"]);
    assert_eq!(project.profiles["one"].kernel.value, Value::Path(dir.path().join("profiles/one/bzImage")));
    let (_dir, twice) = with(&[
        ("provium.toml", "[profiles]\nfrom_dir = \"profiles\"\n[profiles.one]\nkernel = \"k\"\n"),
        ("profiles/one/profile.provium.toml", "kernel = \"k\"\n"),
    ]);
    let text = twice.unwrap_err();
    assert!(text.contains("`one` is defined twice: here and at profiles/one/profile.provium.toml:1:1"), "{text}");
    let (_dir, none) = with(&[("provium.toml", "[profiles]\nfrom_dir = \"profiles\"\n"), ("profiles/x/y", "")]);
    assert!(none.unwrap_err().contains("holds no profile"));
}

#[test]
fn table_forms_and_build_output() {
    let (dir, project) = with(&[(
        "provium.toml",
        "[profiles.x]\nkernel = { file = \"default.nix\", attr = \"kernel\" }\ninitrd = { path = \"odd#name\" }\n\
         modules = { nix = \".#k\", file = \"lib\" }\nvmlinux = \"{out}/vmlinux\"\nbuild = \"make\"\n",
    )]);
    let profile = project.unwrap().profiles.remove("x").unwrap();
    let file = dir.path().join("default.nix");
    assert!(matches!(&profile.kernel.value, Value::Nix(value)
        if value.source == NixSource::Attr { file: file.clone(), attr: "kernel".into() }));
    assert_eq!(profile.initrd.unwrap().value, Value::Path(dir.path().join("odd#name")));
    assert_eq!(profile.modules.unwrap().value.to_string(), ".#k//lib");
    assert_eq!(profile.vmlinux.unwrap().value, Value::Path(dir.path().join(".provium/build/x/vmlinux")));
    let text = refused("[profiles.x]\nkernel = { nix = \".#k\", path = \"p\" }\n");
    assert!(text.contains("make no value together"), "{text}");
}

#[test]
fn the_effective_command_line() {
    let (_dir, project) = with(&[("provium.toml", "[profiles.x]\nkernel = \"k\"\ncmdline = \"console=hvc0 quiet\"\n")]);
    let profile = project.unwrap().profiles.remove("x").unwrap();
    let line = |profile: &Profile, replace: Option<&str>, append: Option<&str>| {
        let request = CmdlineRequest { profile, file_text: "first=1\n", replace, append, launcher: "/l" };
        effective_cmdline(&request).unwrap()
    };
    assert_eq!(line(&profile, None, None).line, "panic=-1 rdinit=/l first=1 console=hvc0 quiet console=ttyS0");
    let replaced =
        line(&profile, Some("console=ttyS0,115200 rdinit=/a rdinit=/b root=/dev/vda x=\"a b\" -- single"), Some("y"));
    assert_eq!(replaced.line, "panic=-1 rdinit=/l console=ttyS0,115200 root=/dev/vda x=\"a b\" y -- single");
    assert_eq!(replaced.guest_rdinit.as_deref(), Some("/b"));
    let root = replaced.root.unwrap();
    assert_eq!((root.device.as_str(), root.writable, root.wait, root.init), ("/dev/vda", false, false, None));
    let words = "root=/dev/vdb1 ro rootwait rw rootfstype=ext4,xfs rootflags=data=ordered init=/sbin/start -- rw ro";
    let root = line(&profile, Some(words), None).root.unwrap();
    assert_eq!((root.writable, root.wait, root.flags.as_str()), (true, true, "data=ordered"));
    assert_eq!((root.fs_types, root.init.as_deref()), (vec!["ext4".to_owned(), "xfs".to_owned()], Some("/sbin/start")));
    let fast = Profile { fast_boot: true, inject_agent: false, ..profile.clone() };
    let fast = line(&fast, Some("rdinit=/x"), None);
    assert_eq!(fast.line, "panic=-1 cryptomgr.notests no_timer_check i8042.noaux quiet rdinit=/x console=ttyS0");
    assert_eq!(fast.guest_rdinit, None);
    let long = "x".repeat(2040);
    let request =
        CmdlineRequest { profile: &profile, file_text: "", replace: Some(&long), append: None, launcher: "/l" };
    assert!(effective_cmdline(&request).unwrap_err().to_string().contains("2047"));
}

#[test]
fn profiles_of_a_flake_join_those_of_the_file() {
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("provium.toml");
    let text = "[profiles]\nfrom_flake = \".\"\n[profiles.child]\nextends = \"base\"\ncmdline = \"x\"\n";
    std::fs::write(&config, text).unwrap();
    let mut flake = |reference: &str, directory: &Path| {
        assert_eq!((reference, directory), (".", dir.path()));
        let profile = serde_json::json!({
            "kernel": {"nix": ".#proviumProfiles.base.kernel", "file": "bzImage"}, "initrd": {"path": "initrd"},
            "cmdline": "quiet", "cpus": 2, "timeout_scale": 1.5, "fast_boot": true, "qemu_args": ["-device", "VGA"],
        });
        Ok([("base".to_owned(), profile)].into_iter().collect())
    };
    let project = load(&config, &mut flake).unwrap();
    let base = &project.profiles["base"];
    assert_eq!(base.kernel.value.to_string(), ".#proviumProfiles.base.kernel//bzImage");
    assert_eq!(base.initrd.as_ref().unwrap().value, Value::Path(dir.path().join("initrd")));
    assert_eq!((base.cpus, base.fast_boot, base.qemu_args.len()), (2, true, 2));
    assert_eq!(project.profiles["child"].cmdline, "x");
    assert_eq!(project.profiles["child"].kernel.value, base.kernel.value);
}

#[test]
fn what_a_flake_can_get_wrong() {
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("provium.toml");
    let told = |text: &str, profiles: serde_json::Value| {
        std::fs::write(&config, text).unwrap();
        let mut flake = |_: &str, _: &Path| match &profiles {
            serde_json::Value::Object(members) => Ok(members.clone()),
            _ => Err("no such flake".to_owned()),
        };
        load(&config, &mut flake).unwrap_err().to_string().replace(&format!("{}/", dir.path().display()), "")
    };
    let file = "[profiles]\nfrom_flake = \".\"\n[profiles.a]\nkernel = \"k\"\n";
    let twice = told(file, serde_json::json!({"a": {"kernel": "k"}}));
    assert!(twice.contains("`a` is defined twice: here and at provium.toml:2:14"), "{twice}");
    let wrong = told(file, serde_json::json!({"b": {"kernel": 1, "colour": "red"}, "c/d": {"kernel": "k"}}));
    assert!(
        wrong.contains("provium.toml:2:14: unknown key `colour`") && wrong.contains("`c/d` can't be the name"),
        "{wrong}"
    );
    assert_eq!(told(file, serde_json::Value::Null), "no such flake");
    assert!(told("[profiles]\nfrom_flake = \".#x\"\n", serde_json::Value::Null).contains("names an attribute"));
    assert!(told("[profiles]\nfrom_flake = \"-x\"\n", serde_json::Value::Null).contains("begins with `-`"));
}

#[test]
fn disks_of_a_profile() {
    let (_dir, project) = with(&[(
        "provium.toml",
        "[profiles.x]\nkernel = \"k\"\nbuild_out = \"out\"\ndisks = [{ image = \"{out}/root.img\", id = \"root\" }, { scratch = \"1M\", \
         bus = \"nvme\", cache = \"none\" }, { path = \"raw.img\", format = \"raw\" }]\n[profiles.y]\nextends = \"x\"\n",
    )]);
    let project = project.unwrap();
    let disks = &project.profile("y").unwrap().disks;
    let shown: Vec<String> = disks.iter().map(DiskSetting::describe).collect();
    assert!(shown[0].starts_with("id = root, image = ") && shown[0].ends_with("/out/root.img"), "{}", shown[0]);
    assert_eq!(shown[1], "size = 1M, bus = nvme, cache = none");
    assert!(shown[2].ends_with("/raw.img, format = raw, write_through"), "{}", shown[2]);
    assert_eq!(project.profile("y").unwrap().values().iter().filter(|(key, _)| *key == "disks").count(), 2);
    let text = refused(
        "[profiles.x]\nkernel = \"k\"\ndisks = [\n{ sise = 1 },\n{ size = 100 },\n{ bus = \"ide\" },\n\
         { id = \"a-name-of-21-letters-\" },\n{ image = \"a\", path = \"b\" },\n{ write_through = true },\n3]\n",
    );
    for part in [
        "provium.toml:4:3: unknown key `sise`\n  hint: did you mean `size`?",
        "`size`: expected whole sectors of 512 bytes, at least one",
        "`bus`: expected \"virtio\" or \"scsi\" or \"nvme\"",
        "`id`: expected 1 to 20 printable ASCII characters",
        "a disk has one source, found `image` and `path`",
        "`write_through` needs an `image`",
        "a disk: expected a table",
    ] {
        assert!(text.contains(part), "{part} is missing in\n{text}");
    }
}
