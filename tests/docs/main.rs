//! Every Lua example of the documentation runs under the real command, and every binding has one.
//!
//! A block fenced as `lua` that registers tests (`test(` at the beginning of a line) is a test file of its own. Every other block is
//! the body of a test with `t`, and with `vm`, a booted machine that the blocks of a page share. HTML comments before a block say
//! more:
//!
//! - `<!-- raises: TEXT -->`: the block must raise an error that contains TEXT;
//! - `<!-- fails: TEXT -->`: the block is a file whose run must fail and say TEXT;
//! - `<!-- file: NAME -->`: the block is no test but the file NAME, which the page's examples use;
//! - `<!-- own vm -->`: the block has a `vm` of its own, because it ends or changes it;
//! - `<!-- before`, then lines of Lua, then `-->`: runs before the block, in the same scope; `<!-- after`: runs after it.
//!
//! In the files that are made of a page everything stands on the line on which it stands in the page, so that errors lead there.

#![cfg(feature = "host")]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "../common/mod.rs"]
mod common;
mod examples;

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use examples::{Example, Kind, examples};

/// Whether a binding is a function of Lua's own library that a test finds changed.
fn is_luas_own(name: &str) -> bool {
    ["debug.", "io.", "os."].iter().any(|library| name.starts_with(library))
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// The pages with examples: their paths and texts.
fn pages() -> Vec<(String, String)> {
    let mut paths = vec![PathBuf::from("README.md")];
    for entry in std::fs::read_dir(root().join("docs")).unwrap() {
        paths.push(Path::new("docs").join(entry.unwrap().file_name()));
    }
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "md"));
    paths.sort();
    let read = |path: PathBuf| (path.display().to_string(), std::fs::read_to_string(root().join(&path)).unwrap());
    paths.into_iter().map(read).collect()
}

/// A test file with the examples of a page that share a machine.
fn shared_file(page: &str, examples: &[&Example]) -> String {
    let mut lines = vec![String::new(); examples.iter().map(|example| example.last).max().unwrap_or_default() + 1];
    lines[0] = "local shared = provium:vm('guest', 'linux'):boot()".to_owned();
    for example in examples {
        let machine = if example.own_vm { "provium:vm('own', 'linux'):boot()" } else { "shared" };
        let head = format!("test('{page}:{}', function(t) local vm = {machine} ", example.first);
        let (head, foot) = match &example.raises {
            None => (head, "end)".to_owned()),
            Some(text) => (
                format!("{head} local _e = t:assert_raises(function() "),
                format!("end) t:assert_contains(tostring(_e), [==[{text}]==]) end)"),
            ),
        };
        lines[example.first - 1] = head;
        for (line, text) in &example.code {
            text.clone_into(&mut lines[line - 1]);
        }
        lines[example.last - 1] = foot;
    }
    lines.join("\n")
}

/// A test file with one example that registers its own tests.
fn own_file(example: &Example) -> String {
    let mut lines = vec![String::new(); example.last];
    for (line, text) in &example.code {
        text.clone_into(&mut lines[line - 1]);
    }
    lines.join("\n")
}

/// A project with the profiles that the examples name, and files (name, text).
fn project(files: &[(String, String)]) -> tempfile::TempDir {
    let guest = common::guest();
    let newer = common::newer_kernel();
    let mut text = "[provium]\nroots = ['.']\n".to_owned();
    for (name, kernel, modules, cmdline) in [
        ("linux", &guest.kernel, &guest.modules, "quiet"),
        ("debug", &guest.kernel, &guest.modules, "debug loglevel=7"),
        ("mine", &guest.kernel, &guest.modules, "quiet"),
        ("stable", &guest.kernel, &guest.modules, "quiet"),
        ("mainline", &newer.0, &newer.1, "quiet"),
    ] {
        let initrd = &guest.initrd;
        writeln!(
            text,
            "[profiles.{name}]\nkernel = {kernel:?}\ninitrd = {initrd:?}\nmodules = {modules:?}\ncmdline = '{cmdline}'"
        )
        .unwrap();
    }
    let mut all = vec![("provium.toml", text.as_str())];
    all.extend(files.iter().map(|(name, text)| (name.as_str(), text.as_str())));
    common::directory(&all)
}

#[test]
fn every_example_runs_and_every_binding_has_one() {
    let mut files = Vec::new();
    let mut failing = Vec::new();
    for (page, text) in pages() {
        let all = examples(&text).unwrap_or_else(|error| unreachable!("{page}: {error}"));
        let shared: Vec<&Example> = all.iter().filter(|example| example.kind == Kind::Body).collect();
        if !shared.is_empty() {
            files.push((format!("{page}.test.lua"), shared_file(&page, &shared)));
        }
        for example in &all {
            let name = format!("{page}-{}.test.lua", example.first);
            match &example.kind {
                Kind::Body => {}
                Kind::File => files.push((name, own_file(example))),
                Kind::Named(name) => files.push((name.clone(), own_file(example))),
                Kind::FailingFile(says) => failing.push((name, own_file(example), says.clone())),
            }
        }
    }
    let dir = project(&files);
    let record = dir.path().join("record");
    let run = common::finish(common::command(dir.path(), &["test", "."]).env("PROVIUM_API_RECORD", &record));
    run.expect(0);
    for (name, text, says) in failing {
        let dir = project(&[(name, text)]);
        let run = common::finish(common::command(dir.path(), &["test", "."]).env("PROVIUM_API_RECORD", &record));
        run.expect(1).says(&[&says]);
    }
    let recorded = std::fs::read_to_string(&record).unwrap();
    pass_on(&recorded);
    let called: Vec<&str> = recorded.lines().filter_map(|line| line.split(' ').nth(1)).collect();
    let names = provium::lua_api::binding_names().unwrap();
    let without: Vec<_> = names.iter().filter(|name| !called.contains(name) && !is_luas_own(name)).collect();
    assert!(without.is_empty(), "no example calls {without:?}");
}

/// The record of the whole suite has the examples' calls too.
fn pass_on(recorded: &str) {
    use std::io::Write;
    let Some(path) = std::env::var_os("PROVIUM_API_RECORD") else { return };
    let mut file = std::fs::OpenOptions::new().create(true).append(true).open(path).unwrap();
    file.write_all(recorded.as_bytes()).unwrap();
}

#[test]
fn the_reference_has_every_binding() {
    let text = std::fs::read_to_string(root().join("docs/lua-api.md")).unwrap();
    let missing: Vec<&str> = provium::lua_api::binding_names()
        .unwrap()
        .into_iter()
        .filter(|name| {
            !is_luas_own(name) && !text.contains(&format!("`{name}(")) && !text.contains(&format!("`{name}`"))
        })
        .collect();
    assert!(missing.is_empty(), "docs/lua-api.md does not have {missing:?}");
}
