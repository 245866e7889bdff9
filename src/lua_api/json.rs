//! The `json` module, and Lua values as JSON for events.
//!
//! 64-bit integers are exact; unsigned ones above `i64::MAX` wrap; `null` inside containers is dropped. A table whose
//! keys are integers from 1 on is an array (gaps become `null`), an empty table is an object unless it was made by
//! `json.array{}`.

use mlua::{Lua, Table, Value};
use serde_json::{Map, Number};

use super::args::Args;
use super::error::ApiError;
use super::register;
use super::render::short;

/// Deepest nesting that is encoded; deeper means a table that holds itself.
const DEEPEST: usize = 128;
/// The longest array that may be made of gaps.
const LONGEST_SPARSE: i64 = 1 << 20;
/// Registry key of the metatable that `json.array` gives.
const ARRAY_METATABLE: &str = "provium.json.array";

/// The `json` table.
///
/// # Errors
/// Those of Lua's allocator.
pub fn module(lua: &Lua) -> mlua::Result<Table> {
    let array = lua.create_table()?;
    array.raw_set("__name", "json.array")?;
    lua.set_named_registry_value(ARRAY_METATABLE, array)?;
    let module = lua.create_table()?;
    module.raw_set(
        "encode",
        register::function(lua, "json.encode", |lua, _, mut args| {
            let value = args.next();
            let json = to_json(lua, &value).map_err(|why| ApiError::new(format!("json.encode: {why}")))?;
            Ok(Value::String(lua.create_string(json.to_string())?))
        })?,
    )?;
    module.raw_set(
        "decode",
        register::function(lua, "json.decode", |lua, _, mut args| {
            let text = args.bytes("text")?;
            decode(lua, &text).map_err(|why| ApiError::new(format!("json.decode: {why}")))
        })?,
    )?;
    module.raw_set(
        "array",
        register::function(lua, "json.array", |lua, _, mut args: Args| {
            let table = match args.next() {
                Value::Nil => lua.create_table()?,
                Value::Table(table) => table,
                other => return Err(args.wrong("values", "a table", &other)),
            };
            for pair in table.pairs::<Value, Value>() {
                let (key, _) = pair?;
                if key.as_integer().is_none_or(|index| index < 1) {
                    return Err(args.bad("values", &format!("expected indices from 1, found the key {}", short(&key))));
                }
            }
            table.set_metatable(Some(lua.named_registry_value(ARRAY_METATABLE)?))?;
            Ok(Value::Table(table))
        })?,
    )?;
    Ok(module)
}

/// JSON text as a Lua value.
///
/// # Errors
/// A message with line and column where the text is not JSON.
pub fn decode(lua: &Lua, text: &[u8]) -> Result<Value, String> {
    let json: serde_json::Value = serde_json::from_slice(text).map_err(|error| error.to_string())?;
    from_json(lua, &json).map_err(|error| error.to_string())
}

/// A JSON value as a Lua value.
///
/// # Errors
/// Those of Lua's allocator.
pub fn from_json(lua: &Lua, json: &serde_json::Value) -> mlua::Result<Value> {
    Ok(match json {
        serde_json::Value::Null => Value::Nil,
        serde_json::Value::Bool(flag) => Value::Boolean(*flag),
        serde_json::Value::Number(number) => match (number.as_i64(), number.as_u64()) {
            (Some(integer), _) => Value::Integer(integer),
            (None, Some(unsigned)) => Value::Integer(unsigned.cast_signed()),
            (None, None) => Value::Number(number.as_f64().unwrap_or(f64::NAN)),
        },
        serde_json::Value::String(text) => Value::String(lua.create_string(text)?),
        serde_json::Value::Array(items) => {
            let table = lua.create_table()?;
            for item in items.iter().filter(|item| !item.is_null()) {
                table.raw_push(from_json(lua, item)?)?;
            }
            table.set_metatable(Some(lua.named_registry_value(ARRAY_METATABLE)?))?;
            Value::Table(table)
        }
        serde_json::Value::Object(entries) => {
            let table = lua.create_table()?;
            for (key, item) in entries.iter().filter(|(_, item)| !item.is_null()) {
                table.raw_set(key.as_str(), from_json(lua, item)?)?;
            }
            Value::Table(table)
        }
    })
}

/// A Lua value as JSON.
///
/// # Errors
/// A message when a value has no JSON form (a function, bytes that are no text, a table with mixed keys, one that
/// holds itself, NaN or an infinity).
pub fn to_json(lua: &Lua, value: &Value) -> Result<serde_json::Value, String> {
    encode(lua, value, 0)
}

fn encode(lua: &Lua, value: &Value, depth: usize) -> Result<serde_json::Value, String> {
    if depth > DEEPEST {
        return Err(format!("nested more than {DEEPEST} levels deep (does the table hold itself?)"));
    }
    Ok(match value {
        Value::Nil => serde_json::Value::Null,
        Value::Boolean(flag) => (*flag).into(),
        Value::Integer(number) => (*number).into(),
        Value::Number(number) => Number::from_f64(*number)
            .map(serde_json::Value::Number)
            .ok_or_else(|| format!("the number {number} has no JSON form"))?,
        Value::String(text) => match text.to_str() {
            Ok(text) => text.to_owned().into(),
            Err(_) => return Err(format!("the string {} is not UTF-8", short(value))),
        },
        Value::Table(table) => encode_table(lua, table, depth)?,
        other => return Err(format!("{} has no JSON form", short(other))),
    })
}

fn encode_table(lua: &Lua, table: &Table, depth: usize) -> Result<serde_json::Value, String> {
    let entries: Vec<(Value, Value)> = table.pairs().collect::<mlua::Result<_>>().map_err(|error| error.to_string())?;
    let array: Option<Table> = lua.named_registry_value(ARRAY_METATABLE).ok();
    let marked = array.is_some() && table.metatable() == array;
    let largest = entries
        .iter()
        .map(|(key, _)| key.as_integer().filter(|index| *index >= 1))
        .try_fold(0, |largest: i64, index| index.map(|index| largest.max(index)));
    match largest {
        Some(largest) if largest > 0 || marked => {
            if largest > LONGEST_SPARSE && largest > 2 * i64::try_from(entries.len()).unwrap_or(i64::MAX) {
                return Err(format!("an array with {} entries has the index {largest}", entries.len()));
            }
            let mut items = vec![serde_json::Value::Null; usize::try_from(largest).unwrap_or_default()];
            for (key, item) in &entries {
                let index = key.as_integer().and_then(|index| usize::try_from(index - 1).ok()).unwrap_or_default();
                if let Some(slot) = items.get_mut(index) {
                    *slot = encode(lua, item, depth + 1)?;
                }
            }
            Ok(items.into())
        }
        _ => {
            let mut object = Map::new();
            for (key, item) in &entries {
                let name = match key {
                    Value::String(text) => match text.to_str() {
                        Ok(text) => text.to_owned(),
                        Err(_) => return Err(format!("the key {} is not UTF-8", short(key))),
                    },
                    Value::Integer(_) | Value::Number(_) => short(key),
                    other => return Err(format!("a key that is {} has no JSON form", short(other))),
                };
                if let Some(clash) = object.insert(name, encode(lua, item, depth + 1)?) {
                    return Err(format!("two keys become {} (one of them has the value {clash})", short(key)));
                }
            }
            // Lua's tables have no order; sorted keys make the text the same in every run.
            object.sort_keys();
            Ok(object.into())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn state() -> Lua {
        let lua = Lua::new();
        let array = lua.create_table().unwrap();
        lua.set_named_registry_value(ARRAY_METATABLE, array).unwrap();
        lua
    }

    fn encoded(lua: &Lua, code: &str) -> Result<String, String> {
        to_json(lua, &lua.load(code).eval::<Value>().unwrap()).map(|json| json.to_string())
    }

    #[test]
    fn arrays_objects_and_what_is_neither() {
        let lua = state();
        let text = |code| encoded(&lua, code).unwrap();
        assert_eq!(text("{1, nil, 3, nil, nil}"), "[1,null,3]");
        assert_eq!(text("{[2] = 'b'}"), "[null,\"b\"]");
        assert_eq!((text("{}"), text("{a = {}}")), ("{}".to_owned(), "{\"a\":{}}".to_owned()));
        assert_eq!(text("{[0] = 1, [2] = 2}"), "{\"0\":1,\"2\":2}");
        assert_eq!(text("{9007199254740993, 1.5, -0.0, true}"), "[9007199254740993,1.5,-0.0,true]");
        for code in
            ["{print}", "{[true] = 1}", "{0/0}", "{1/0}", "'\\xff'", "{['\\xff'] = 1}", "{[1] = 1, ['1'] = 2, a = 3}"]
        {
            assert!(encoded(&lua, code).is_err(), "{code}");
        }
        assert!(encoded(&lua, "(function() local t = {} t.t = t return t end)()").unwrap_err().contains("itself"));
        assert!(encoded(&lua, "{[1] = 1, [1 << 40] = 2}").unwrap_err().contains("index"));
    }

    /// JSON without null inside containers, and without integers that wrap.
    fn any_json() -> impl Strategy<Value = serde_json::Value> {
        let leaf = prop_oneof![
            any::<bool>().prop_map(serde_json::Value::from),
            any::<i64>().prop_map(serde_json::Value::from),
            any::<f64>().prop_filter("finite", |number| number.is_finite()).prop_map(serde_json::Value::from),
            any::<String>().prop_map(serde_json::Value::from),
        ];
        leaf.prop_recursive(4, 40, 6, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..6).prop_map(serde_json::Value::from),
                proptest::collection::btree_map("[a-z]{1,4}", inner, 0..6)
                    .prop_map(|entries| serde_json::Value::Object(entries.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn what_is_decoded_encodes_to_the_same(json in any_json()) {
            let lua = state();
            let value = decode(&lua, json.to_string().as_bytes()).unwrap();
            prop_assert_eq!(to_json(&lua, &value).unwrap(), json);
        }

        #[test]
        fn unsigned_numbers_wrap(number in (1_u64 << 63)..) {
            let value = decode(&state(), number.to_string().as_bytes()).unwrap();
            prop_assert_eq!(value, Value::Integer(number.cast_signed()));
        }

        #[test]
        fn any_text_is_survived(text in any::<Vec<u8>>()) {
            let _ = decode(&state(), &text);
        }
    }
}
