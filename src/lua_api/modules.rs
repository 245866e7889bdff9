//! `require("a.b")`: `a/b.lua` under every test root, then beside the file that asks and beside the test file.

use std::cell::RefCell;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use mlua::chunk::ChunkMode;
use mlua::{Function, Lua, MultiValue, Table, Value};

use super::error::{ApiError, lua_message};
use super::file_state::FileState;
use super::place;
use super::register::function;
use crate::foundation::path_error::describe_io;

/// Modules whose chunks run now, outermost first: their names and files.
type Loading = Rc<RefCell<Vec<(String, PathBuf)>>>;

/// Puts the search for modules into a Lua state; `loader` is the prelude's function that runs a module's chunk between a
/// `begin` and an `end`.
///
/// # Errors
/// Those of Lua's allocator.
pub fn install(lua: &Lua, roots: Vec<PathBuf>, loader: Function) -> mlua::Result<()> {
    let package: Table = lua.globals().get("package")?;
    let old: Table = package.get("searchers")?;
    // An author may add directories of their own to `package.path`; C modules can't be loaded.
    package.set("path", "")?;
    package.set("cpath", "")?;
    let searchers = lua.create_table()?;
    searchers.raw_push(old.get::<Value>(1)?)?; // package.preload
    searchers.raw_push(searcher(lua, roots, loader)?)?;
    searchers.raw_push(recorded(lua, old.get(2)?)?)?; // package.path
    package.set("searchers", searchers)
}

/// Lua's own search along `package.path`; what it finds, a fixture depends on.
fn recorded(lua: &Lua, search: Function) -> mlua::Result<Function> {
    lua.create_function(move |lua, name: Value| {
        let found: MultiValue = search.call(name)?;
        if let (Some(Value::Function(_)), Some(Value::String(path))) = (found.front(), found.get(1)) {
            let state = FileState::of(lua)?;
            if let Some(run) = &state.fixture {
                run.recorder.module(&state.bed.absolute(&path.to_string_lossy()), &[]);
            }
        }
        Ok(found)
    })
}

fn searcher(lua: &Lua, roots: Vec<PathBuf>, loader: Function) -> mlua::Result<Function> {
    let loading = Loading::default();
    let ended = Rc::clone(&loading);
    let end = lua.create_function(move |_, ()| {
        ended.borrow_mut().pop();
        Ok(())
    })?;
    let begun = Rc::clone(&loading);
    let begin = lua.create_function(move |_, (name, path): (String, String)| {
        begun.borrow_mut().push((name, PathBuf::from(path)));
        Ok(())
    })?;
    function(lua, "require", move |lua, state, mut args| {
        let name = args.text("name")?;
        let mut tried = String::new();
        let mut misses: Vec<PathBuf> = Vec::new();
        for candidate in candidates(lua, state, &roots, &name) {
            let shown = state.bed.display(&candidate);
            let text = match std::fs::read(&candidate) {
                Ok(text) => text,
                Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
                    tried.push_str(&format!("\n\tno file `{shown}`"));
                    misses.push(candidate);
                    continue;
                }
                Err(error) => {
                    return Err(ApiError::new(format!("require: can't read `{shown}`: {}", describe_io(&error))));
                }
            };
            if let Some(cycle) = cycle(&loading.borrow(), &name, &candidate) {
                return Err(ApiError::new(format!("require: modules that need each other: {cycle}")));
            }
            if let Some(run) = &state.fixture {
                run.recorder.module(&candidate, &misses);
            }
            let chunk = compile(lua, &text, &shown).map_err(|error| ApiError::new(lua_message(&error)))?;
            let path = candidate.display().to_string();
            let run: Function = loader.call((chunk, name.as_str(), path, begin.clone(), end.clone()))?;
            return Ok((Value::Function(run), Some(shown)));
        }
        Ok((Value::String(lua.create_string(&tried)?), None))
    })
}

fn candidates(lua: &Lua, state: &FileState, roots: &[PathBuf], name: &str) -> Vec<PathBuf> {
    let relative = PathBuf::from(name.replace('.', "/"));
    let beside = state.path.parent().map(Path::to_owned);
    let caller = place::caller(lua).and_then(|place| state.bed.absolute(&place.file).parent().map(Path::to_owned));
    let mut found: Vec<PathBuf> = Vec::new();
    for directory in roots.iter().cloned().chain(caller).chain(beside) {
        for candidate in [directory.join(&relative).with_extension("lua"), directory.join(&relative).join("init.lua")] {
            if !found.contains(&candidate) {
                found.push(candidate);
            }
        }
    }
    found
}

/// `a → b → a`, where the module at `path` is being loaded already.
fn cycle(loading: &[(String, PathBuf)], name: &str, path: &Path) -> Option<String> {
    let first = loading.iter().position(|(_, loaded)| loaded == path)?;
    let mut names: Vec<&str> = loading[first..].iter().map(|(name, _)| name.as_str()).collect();
    names.push(name);
    Some(names.join(" → "))
}

/// Lua text as a function. A first line that begins with `#` is a comment, as in a file that can be executed.
///
/// # Errors
/// A syntax error.
pub fn compile(lua: &Lua, text: &[u8], shown: &str) -> mlua::Result<Function> {
    let text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text);
    let mut source = Vec::with_capacity(text.len() + 2);
    if text.first() == Some(&b'#') {
        source.extend_from_slice(b"--");
    }
    source.extend_from_slice(text);
    lua.load(source).set_name(format!("@{shown}")).set_mode(ChunkMode::Text).into_function()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cycle_is_shown_from_its_beginning() {
        let loading = vec![("m".to_owned(), "/m".into()), ("a".to_owned(), "/a".into()), ("b".to_owned(), "/b".into())];
        assert_eq!(cycle(&loading, "a", Path::new("/a")).as_deref(), Some("a → b → a"));
        assert_eq!(cycle(&loading, "c", Path::new("/c")), None);
    }

    #[test]
    fn text_with_a_first_line_for_the_shell_and_no_binary() {
        let lua = Lua::new();
        let run = |text: &[u8]| compile(&lua, text, "x.lua").and_then(|chunk| chunk.call::<i64>(()));
        assert_eq!(run(b"#!/usr/bin/env lua\nreturn 1").unwrap(), 1);
        assert_eq!(run(b"\xef\xbb\xbfreturn 2").unwrap(), 2);
        assert!(run(b"\x1bLua").is_err());
        let error = lua_message(&compile(&lua, b"#!x\nlocal = 1", "x.lua").unwrap_err());
        assert!(error.starts_with("x.lua:2: "), "{error}");
    }
}
