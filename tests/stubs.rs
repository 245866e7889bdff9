//! The editor's type definitions have every binding of the Lua API, and nothing else.

#![cfg(feature = "host")]

use std::collections::BTreeSet;

use provium::lua_api::STUBS;

/// Lua's own library, of which some functions behave otherwise in a test; the language server knows them.
const LUAS_OWN: &[&str] = &["io.", "os.", "require"];

/// Defined before their bindings came; empty in the end.
const NOT_YET: &[&str] = &[
    "clock:freeze_on_restore",
    "vm:power_cut",
    "provium.timeout",
    "provium.reset_between_tests",
    "lab:depends_on_file",
    "batch:exists",
    "batch:ioctl",
    "batch:listdir",
    "batch:lstat",
    "batch:mkdir",
    "batch:read_file",
    "batch:read_mem",
    "batch:rename",
    "batch:run",
    "batch:stat",
    "batch:syscall",
    "batch:unlink",
    "batch:write_file",
    "call:await",
    "clock:advance",
    "clock:get",
    "clock:get_ns",
    "clock:set",
    "clock:set_ns",
    "clock:sleep",
    "console:close",
    "console:expect",
    "console:read",
    "console:write",
    "file:close",
    "file:fd",
    "file:read",
    "file:read_all",
    "file:seek",
    "file:sync",
    "file:tail_stream",
    "file:tell",
    "file:truncate",
    "file:write",
    "lab:barrier",
    "lab:bridge_names",
    "lab:claim",
    "lab:include",
    "lab:lab",
    "lab:members",
    "lab:pack",
    "lab:remove",
    "lab:sub_lab_names",
    "lab:unpack",
    "process:close",
    "process:close_stdin",
    "process:handle",
    "process:kill",
    "process:pid",
    "process:signal",
    "process:status",
    "process:stderr_stream",
    "process:stdin_write",
    "process:stdout_stream",
    "process:wait",
    "t.profile",
    "t:attach",
    "t:ktap",
    "t:step",
    "vm:batch",
    "vm:clock",
    "vm:dmesg",
    "vm:dump",
    "vm:exists",
    "vm:expect_splat",
    "vm:fd_stream",
    "vm:gdb",
    "vm:ioctl",
    "vm:is_quiescent",
    "vm:listdir",
    "vm:load_module",
    "vm:lstat",
    "vm:mkdir",
    "vm:open_file",
    "vm:open_file_count",
    "vm:open_stream_count",
    "vm:pause",
    "vm:power_button",
    "vm:pull_file",
    "vm:push_dir",
    "vm:push_file",
    "vm:qmp",
    "vm:read_mem",
    "vm:rename",
    "vm:reset",
    "vm:resume",
    "vm:run_async",
    "vm:screenshot",
    "vm:spawn_worker",
    "vm:stat",
    "vm:syscall",
    "vm:syscall_async",
    "vm:tail_file",
    "vm:unlink",
    "vm:unload_module",
    "vm:wait_for_file",
    "vm:wait_for_port",
    "vm:wait_for_unit",
    "vm:wait_reboot",
    "vm:wait_shutdown",
    "vm:wakeup",
    "worker:close",
    "worker:handle",
    "worker:ioctl",
    "worker:join",
    "worker:kill",
    "worker:open_file",
    "worker:read_file",
    "worker:run",
    "worker:run_async",
    "worker:stat",
    "worker:syscall",
    "worker:syscall_async",
    "worker:write_file",
];

/// One documented thing of a definition file.
#[derive(Debug, PartialEq, Eq)]
struct Declared {
    name: String,
    documented: bool,
}

/// The names that a definition file declares, as bindings are called: `vm:run`, `result.stdout`, `json.encode`. Fields count where the
/// class has an object: a line `local result = {}` or `json = {}` below it.
fn declared(text: &str) -> Vec<Declared> {
    let mut found = Vec::new();
    let mut fields: Vec<(String, bool)> = Vec::new();
    let mut documented = false;
    for line in text.lines() {
        if let Some(field) = line.strip_prefix("---@field ") {
            let mut words = field.split_whitespace();
            let name = words.next().unwrap_or_default().trim_end_matches('?').to_owned();
            fields.push((name, words.nth(1).is_some()));
        } else if line.starts_with("---@class") {
            fields.clear();
        } else if line.starts_with("---@") {
        } else if let Some(words) = line.strip_prefix("---") {
            documented = !words.trim().is_empty();
        } else if let Some(object) = line.strip_suffix(" = {}") {
            let object = object.strip_prefix("local ").unwrap_or(object);
            let of_object = |(name, documented)| Declared { name: format!("{object}.{name}"), documented };
            found.extend(fields.drain(..).map(of_object));
            documented = false;
        } else if let Some(function) = line.strip_prefix("function ") {
            let name = function.split('(').next().unwrap_or_default().to_owned();
            found.push(Declared { name, documented });
            documented = false;
        } else if line.is_empty() {
            fields.clear();
            documented = false;
        }
    }
    // Keys of any name: a lab's members.
    found.retain(|declared| !declared.name.ends_with(".[string]"));
    found
}

#[test]
fn the_definitions_are_read() {
    let text = "---@meta x\n\n---@class A\n---@field size integer Bytes.\n\n---A b.\n---@class B\n---@field name? string Its name.\n\
                ---@field pid integer\n---@field [string] A\nlocal b = {}\n\n---Runs.\n---@param x string\nfunction b:run(x) end\n\n\
                function sleep(t) end\n";
    let of = |name: &str, documented| Declared { name: name.to_owned(), documented };
    assert_eq!(declared(text), [of("b.name", true), of("b.pid", false), of("b:run", true), of("sleep", false)]);
}

#[test]
fn the_definitions_are_those_of_the_bindings() {
    let declared: Vec<Declared> = STUBS.iter().flat_map(|(_, text)| declared(text)).collect();
    let undocumented: Vec<&Declared> = declared.iter().filter(|declared| !declared.documented).collect();
    assert!(undocumented.is_empty(), "without a line of documentation: {undocumented:?}");
    let stubs: BTreeSet<&str> = declared.iter().map(|declared| declared.name.as_str()).collect();
    assert_eq!(stubs.len(), declared.len(), "declared twice");
    let mut bindings = provium::lua_api::binding_names().unwrap();
    bindings.retain(|name| !LUAS_OWN.iter().any(|own| name.starts_with(own)));
    let missing: Vec<_> = bindings.difference(&stubs).collect();
    let stale: Vec<_> = stubs.difference(&bindings).filter(|name| !NOT_YET.contains(name)).collect();
    assert!(missing.is_empty(), "bindings without a definition in src/lua_api/stubs: {missing:?}");
    assert!(stale.is_empty(), "definitions in src/lua_api/stubs without a binding: {stale:?}");
}

/// Every type that is named is defined, and nothing is left as `any` unless any value is right.
#[test]
fn the_types_are_there() {
    let all: String = STUBS.iter().map(|(_, text)| *text).collect();
    let defined: BTreeSet<&str> = all
        .lines()
        .filter_map(|line| line.strip_prefix("---@class ").or_else(|| line.strip_prefix("---@alias ")))
        .map(|rest| rest.split([' ', ':']).next().unwrap_or_default())
        .collect();
    for line in all.lines().filter(|line| line.starts_with("---@")) {
        for (at, _) in line.match_indices("provium.") {
            let rest = &line[at + "provium.".len()..];
            let name = rest.split(|c: char| !c.is_ascii_alphanumeric()).next().unwrap_or_default();
            let a_type = name.starts_with(|c: char| c.is_ascii_uppercase());
            assert!(!a_type || defined.contains(format!("provium.{name}").as_str()), "`{name}` is not defined: {line}");
        }
    }
    let values = [
        "a any",
        "b any",
        "needle any",
        "value any",
        "error any",
        "@return any error",
        "@return any ... Strings",
        "s: string): any",
    ];
    let loose: Vec<&str> = all
        .lines()
        .filter(|line| line.starts_with("---@") && line.split(|c: char| !c.is_alphanumeric()).any(|word| word == "any"))
        .filter(|line| !values.iter().any(|value| line.contains(value)))
        .collect();
    assert!(loose.is_empty(), "{loose:?}");
}
