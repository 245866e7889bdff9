//! `provium lsp-setup`.

#![cfg(feature = "host")]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::path::Path;

fn configuration(dir: &Path) -> serde_json::Value {
    serde_json::from_str(&std::fs::read_to_string(dir.join(".luarc.json")).unwrap()).unwrap()
}

#[test]
fn writes_definitions_and_a_configuration_that_names_them() {
    let project = "[provium]\nroots = ['spec']\n[profiles.a]\nkernel = 'bzImage'\n";
    let dir = common::directory(&[("provium.toml", project), ("spec/a.test.lua", "")]);
    let run = common::provium(dir.path(), &["lsp-setup"]);
    run.expect(0).says(&["wrote .luarc.json\n", "wrote .provium/lua/globals.lua\n", "wrote .provium/lua/vm.lua\n"]);
    let configuration = configuration(dir.path());
    assert_eq!(configuration["runtime.version"], "Lua 5.4");
    assert_eq!(configuration["runtime.path"][0], "spec/?.lua");
    for library in configuration["workspace.library"].as_array().unwrap() {
        let names = std::fs::read_dir(dir.path().join(library.as_str().unwrap())).unwrap();
        assert_eq!(names.count(), provium::lua_api::STUBS.len());
    }
    let globals = configuration["diagnostics.globals"].as_array().unwrap();
    assert!(globals.iter().any(|name| name == "provium") && globals.iter().any(|name| name == "test"));
    // The same again changes nothing, and so needs no --force.
    common::provium(dir.path(), &["lsp-setup"]).expect(0);
}

#[test]
fn overwrites_only_when_told_to() {
    let dir = common::directory(&[("sub/.luarc.json", "{}"), ("sub/.provium/lua/vm.lua", "mine")]);
    let read = |name: &str| std::fs::read_to_string(dir.path().join("sub").join(name)).unwrap();
    let run = common::provium(dir.path(), &["lsp-setup", "sub"]);
    run.expect(2).says(&["sub/.luarc.json", "hint: --force"]);
    assert_eq!((read(".luarc.json").as_str(), read(".provium/lua/vm.lua").as_str()), ("{}", "mine"));
    assert!(!dir.path().join("sub/.provium/lua/test.lua").exists(), "nothing is written where something is refused");
    common::provium(dir.path(), &["lsp-setup", "sub", "--force"]).expect(0).says(&["wrote sub/.luarc.json"]);
    assert_eq!(configuration(&dir.path().join("sub"))["runtime.version"], "Lua 5.4");
    assert!(read(".provium/lua/vm.lua").contains("function vm:boot("));
}

#[test]
fn a_directory_that_is_not_there() {
    let dir = common::directory(&[("file", "")]);
    common::provium(dir.path(), &["lsp-setup", "no/such"]).expect(2).says(&["no/such", "is no directory"]);
    common::provium(dir.path(), &["lsp-setup", "file"]).expect(2).says(&["file", "is no directory"]);
}
