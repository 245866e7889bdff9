//! What `nix build --json` prints.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::foundation::store_path::StorePath;

/// One element of the printed list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Built {
    /// A store path that was asked for as such.
    Opaque(StorePath),
    /// Outputs of a derivation by name; `None` is not known before it is built.
    Outputs(BTreeMap<String, Option<StorePath>>),
}

/// Reads the list. Fields that are not known here are ignored.
///
/// # Errors
/// A fragment that says what is not as expected.
pub(super) fn parse(stdout: &[u8]) -> Result<Vec<Built>, String> {
    let list: Vec<Value> =
        serde_json::from_slice(stdout).map_err(|error| format!("expected a JSON list, but {error}"))?;
    list.iter().map(element).collect()
}

fn element(value: &Value) -> Result<Built, String> {
    match value {
        Value::String(path) => Ok(Built::Opaque(store_path(path)?)),
        Value::Object(fields) => match (fields.get("outputs"), fields.get("path")) {
            (Some(Value::Object(outputs)), _) => outputs
                .iter()
                .map(|(name, path)| Ok((name.clone(), path.as_str().map(store_path).transpose()?)))
                .collect::<Result<_, String>>()
                .map(Built::Outputs),
            // Before Nix 2.18 a store path was an object.
            (_, Some(Value::String(path))) => Ok(Built::Opaque(store_path(path)?)),
            _ => Err("expected `outputs` in each element".to_owned()),
        },
        _ => Err("expected a store path or outputs in each element".to_owned()),
    }
}

/// A store path as nix prints it: newer versions leave the store's directory off.
fn store_path(text: &str) -> Result<StorePath, String> {
    let whole = if text.starts_with('/') { text.to_owned() } else { format!("/nix/store/{text}") };
    StorePath::parse(&whole).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const KERNEL: &str = "/nix/store/0iq8pf4hkb5kqlkgbvk804qf586r0q08-kernel";

    #[test]
    fn reads_what_nix_printed() {
        let dev = "/nix/store/snz79a9f3pzc04lgh4h5xip0nvdin8gm-multi-dev";
        let text = format!(
            r#"[{{"drvPath":"/nix/store/jlc9cjgydcgyvb5v8qjl4cgv3alqxl1d-multi.drv","outputs":{{"dev":"{dev}"}},"startTime":1795453895,"stopTime":1795453895}},"{KERNEL}"]"#
        );
        let kernel = Built::Opaque(StorePath::parse(KERNEL).unwrap());
        let outputs = [("dev".to_owned(), Some(StorePath::parse(dev).unwrap()))].into();
        assert_eq!(parse(text.as_bytes()).unwrap(), [Built::Outputs(outputs), kernel.clone()]);
        let old = format!(r#"[{{"path":"{KERNEL}"}}]"#);
        assert_eq!(parse(old.as_bytes()).unwrap(), [kernel]);
        let unknown = [("out".to_owned(), None)].into();
        assert_eq!(parse(br#"[{"outputs":{"out":null}}]"#).unwrap(), [Built::Outputs(unknown)]);
        let short = br#"[{"outputs":{"out":"0iq8pf4hkb5kqlkgbvk804qf586r0q08-kernel"}}]"#;
        let found = [("out".to_owned(), Some(StorePath::parse(KERNEL).unwrap()))].into();
        assert_eq!(parse(short).unwrap(), [Built::Outputs(found)]);
    }

    #[test]
    fn says_what_is_odd() {
        assert!(parse(b"").unwrap_err().starts_with("expected a JSON list"));
        assert_eq!(parse(b"[1]").unwrap_err(), "expected a store path or outputs in each element");
        assert_eq!(parse(b"[{}]").unwrap_err(), "expected `outputs` in each element");
        assert!(parse(br#"["/nix/store/x"]"#).is_err());
    }

    proptest! {
        #[test]
        fn takes_any_bytes(bytes in any::<Vec<u8>>(), text in "[\\[\\]{}\",:a-z0-9]{0,40}") {
            drop(parse(&bytes));
            drop(parse(text.as_bytes()));
        }
    }
}
