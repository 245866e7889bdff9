//! `test` and `todo`: how a file's tests come to be known, and the keys of `meta` that the runner reads.

use std::rc::Rc;
use std::time::Duration;

use mlua::{Function, Lua, Table, Value};

use super::args::{Args, list_of_bytes, to_duration};
use super::error::ApiError;
use super::file_state::FileState;
use super::json;
use super::place::{self, Place};
use super::register::function;
use super::render::short;
use crate::foundation::duration::{from_seconds, parse_duration};

/// The author's table, as JSON.
pub type Meta = serde_json::Map<String, serde_json::Value>;

/// A test as the file registered it.
pub struct Registered {
    /// Its name, unique in the file.
    pub name: String,
    /// The author's table.
    pub meta: Meta,
    /// The body.
    pub body: Function,
    /// Where `test` was called.
    pub place: Option<Place>,
    /// `meta.profiles`: the body runs once for each.
    pub profiles: Vec<String>,
}

/// One run of a test's body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Variant {
    /// `name`, or `name [profile]`.
    pub name: String,
    /// Its profile, where the test runs once per profile.
    pub profile: Option<String>,
}

impl Registered {
    /// What runs of it.
    pub fn variants(&self) -> Vec<Variant> {
        variants(&self.name, &self.profiles)
    }
}

fn variants(name: &str, profiles: &[String]) -> Vec<Variant> {
    if profiles.is_empty() {
        return vec![Variant { name: name.to_owned(), profile: None }];
    }
    let variant = |profile: &String| Variant { name: format!("{name} [{profile}]"), profile: Some(profile.clone()) };
    profiles.iter().map(variant).collect()
}

/// Puts `test` and `todo` into a Lua state.
///
/// # Errors
/// Those of Lua's allocator.
pub fn install(lua: &Lua) -> mlua::Result<()> {
    let globals = lua.globals();
    globals.set("test", function(lua, "test", register)?)?;
    globals.set(
        "todo",
        function(lua, "todo", |_, state, mut args| {
            refuse_in_fixture("todo", state)?;
            if state.loaded.get() {
                return Err(ApiError::new(
                    "todo: called inside a test, but it is about the whole file: call it at file scope\nhint: t:skip(reason) \
                     skips the running test",
                ));
            }
            let reason = args.text_opt("reason")?.unwrap_or_else(|| "todo".to_owned());
            *state.todo.borrow_mut() = Some(reason);
            Ok(())
        })?,
    )
}

fn refuse_in_fixture(function: &str, state: &FileState) -> Result<(), ApiError> {
    match &state.fixture {
        Some(_) => Err(ApiError::new(format!("{function}: a fixture has no tests: it returns a snapshot"))),
        None => Ok(()),
    }
}

fn register(lua: &Lua, state: &Rc<FileState>, mut args: Args) -> Result<(), ApiError> {
    refuse_in_fixture("test", state)?;
    if state.loaded.get() {
        return Err(ApiError::new("test: tests are registered at file scope, not inside a test"));
    }
    let name = args.text("name")?;
    if name.trim().is_empty() {
        return Err(args.bad("name", "expected a name, found an empty string"));
    }
    let (meta, body) = match args.next() {
        Value::Function(body) => (None, body),
        Value::Table(meta) => (Some(meta), args.callable("fn")?),
        Value::Nil => (None, args.callable("fn")?),
        other => return Err(args.wrong("meta", "a table, or the test's function", &other)),
    };
    let place = place::caller(lua);
    let (meta, profiles) = match meta {
        None => (Meta::new(), Vec::new()),
        Some(table) => (check_meta(lua, &table)?, profiles(&table)?),
    };
    let mut tests = state.tests.borrow_mut();
    for variant in variants(&name, &profiles) {
        let same = |test: &&Registered| test.variants().iter().any(|other| other.name == variant.name);
        if let Some(first) = tests.iter().find(same) {
            let first = first.place.as_ref().map(|place| format!(", first at {place}")).unwrap_or_default();
            return Err(ApiError::new(format!("test: there are two tests `{}` in this file{first}", variant.name)));
        }
    }
    tests.push(Registered { name, meta, body, place, profiles });
    Ok(())
}

fn bad(key: &str, expected: &str, value: &Value) -> ApiError {
    ApiError::new(format!("test: `meta.{key}`: expected {expected}, found {}", short(value)))
}

fn check_meta(lua: &Lua, table: &Table) -> Result<Meta, ApiError> {
    let value: Value = table.get("timeout")?;
    if !value.is_nil() {
        to_duration(&value).map_err(|why| ApiError::new(format!("test: `meta.timeout`: {why}")))?;
    }
    let value: Value = table.get("slow")?;
    if !matches!(value, Value::Nil | Value::Boolean(_)) {
        return Err(bad("slow", "true or false", &value));
    }
    let value: Value = table.get("skip")?;
    if !matches!(value, Value::Nil | Value::Boolean(_) | Value::String(_)) {
        return Err(bad("skip", "true, or the reason as a string", &value));
    }
    let value: Value = table.get("tags")?;
    let fine = match &value {
        Value::Nil | Value::String(_) => true,
        Value::Table(tags) => list_of_bytes(tags).is_ok(),
        _ => false,
    };
    if !fine {
        return Err(bad("tags", "a string or an array of strings", &value));
    }
    let value: Value = table.get("splats")?;
    let fine = match &value {
        Value::Nil => true,
        Value::String(text) => matches!(&*text.as_bytes(), b"log" | b"fail"),
        _ => false,
    };
    if !fine {
        return Err(bad("splats", "\"log\" or \"fail\"", &value));
    }
    match json::to_json(lua, &Value::Table(table.clone())) {
        Ok(serde_json::Value::Object(meta)) => Ok(meta),
        Ok(_) => Err(ApiError::new("test: `meta`: expected a table with named keys, found an array")),
        Err(why) => Err(ApiError::new(format!("test: `meta`: {why}"))),
    }
}

fn profiles(meta: &Table) -> Result<Vec<String>, ApiError> {
    let value: Value = meta.get("profiles")?;
    let list = match &value {
        Value::Nil => return Ok(Vec::new()),
        Value::Table(list) => list,
        other => return Err(bad("profiles", "an array of profiles' names", other)),
    };
    let mut names = Vec::new();
    for item in list.sequence_values::<Value>() {
        let name = match item? {
            Value::String(text) => text.to_string_lossy(),
            other => return Err(bad("profiles", "an array of profiles' names", &other)),
        };
        if names.contains(&name) {
            return Err(ApiError::new(format!("test: `meta.profiles`: `{name}` is there twice")));
        }
        names.push(name);
    }
    if names.is_empty() || names.len() != list.pairs::<Value, Value>().count() {
        return Err(bad("profiles", "an array of profiles' names", &value));
    }
    Ok(names)
}

/// Why the metadata skips a test, where it does.
pub fn skip_reason(meta: &Meta) -> Option<String> {
    match meta.get("skip") {
        Some(serde_json::Value::Bool(true)) => Some("skip".to_owned()),
        Some(serde_json::Value::String(reason)) => Some(reason.clone()),
        _ => None,
    }
}

/// The time that a test has: its own, else the default; 0 is no limit.
pub fn time_limit(meta: &Meta, default: Option<Duration>) -> Option<Duration> {
    match meta.get("timeout") {
        Some(serde_json::Value::String(text)) => parse_duration(text).ok(),
        Some(serde_json::Value::Number(seconds)) => seconds.as_f64().and_then(|seconds| from_seconds(seconds).ok()),
        _ => default,
    }
    .filter(|limit| !limit.is_zero())
}

/// The metadata as the selection sees it: with the variant's profile as `profile`, unless the author has that key.
pub fn selectable(meta: &Meta, variant: &Variant) -> Meta {
    let mut meta = meta.clone();
    if let Some(profile) = &variant.profile {
        meta.entry("profile").or_insert_with(|| profile.as_str().into());
    }
    meta
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn meta(value: serde_json::Value) -> Meta {
        value.as_object().unwrap().clone()
    }

    #[test]
    fn a_variant_for_each_profile() {
        let names: Vec<String> = variants("t", &["a".into(), "b".into()]).into_iter().map(|each| each.name).collect();
        assert_eq!(names, ["t [a]", "t [b]"]);
        assert_eq!(variants("t", &[]), [Variant { name: "t".into(), profile: None }]);
    }

    #[test]
    fn the_selection_sees_the_profile() {
        let variant = Variant { name: "t [a]".into(), profile: Some("a".into()) };
        assert_eq!(selectable(&meta(json!({"x": 1})), &variant)["profile"], "a");
        assert_eq!(selectable(&meta(json!({"profile": "own"})), &variant)["profile"], "own");
    }

    #[test]
    fn limits_and_skips() {
        let limit = |value| time_limit(&meta(value), Some(Duration::from_secs(9)));
        assert_eq!(limit(json!({})), Some(Duration::from_secs(9)));
        assert_eq!(limit(json!({"timeout": "2s"})), Some(Duration::from_secs(2)));
        assert_eq!(limit(json!({"timeout": 0.5})), Some(Duration::from_millis(500)));
        assert_eq!(limit(json!({"timeout": 0})), None);
        assert_eq!(skip_reason(&meta(json!({"skip": "why"}))).as_deref(), Some("why"));
        assert_eq!(skip_reason(&meta(json!({"skip": true}))).as_deref(), Some("skip"));
        assert_eq!(skip_reason(&meta(json!({"skip": false}))), None);
    }
}
