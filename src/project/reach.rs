//! Which profiles the selected tests can reach: those whose names stand as strings in their files.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::profile::Project;

/// How a fixture names the profile that it is asked for with.
const ASKED_FOR: &[u8] = b"provium.profile";

/// The profiles that test files can reach.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reach {
    /// Their names.
    pub profiles: BTreeSet<String>,
    /// Whether no name stands anywhere, so that these are all there are.
    pub guessed: bool,
}

/// The profiles of `project` whose names stand as string literals in `files`, in what those `require`, or in the fixtures
/// they name; and the first by sorted name where a fixture boots what it is asked for with. Where no name stands anywhere, all of them:
/// the name is computed.
pub fn profiles_named_in(project: &Project, files: &[PathBuf]) -> Reach {
    let mut waiting: Vec<PathBuf> = files.to_vec();
    let mut seen: BTreeSet<PathBuf> = BTreeSet::new();
    let mut named = BTreeSet::new();
    while let Some(file) = waiting.pop() {
        if !seen.insert(file.clone()) {
            continue;
        }
        let Ok(text) = std::fs::read(&file) else { continue };
        if file.to_string_lossy().ends_with(".fixture.lua") && memchr::memmem::find(&text, ASKED_FOR).is_some() {
            named.extend(project.first_profile().map(|profile| profile.name.clone()));
        }
        for (before, literal) in literals(&text) {
            if project.profiles.contains_key(&literal) {
                named.insert(literal.clone());
            }
            let beside = file.parent().unwrap_or(Path::new("/"));
            match before.as_str() {
                "require" => {
                    let relative = PathBuf::from(literal.replace('.', "/"));
                    for base in project.roots.iter().map(PathBuf::as_path).chain([beside]) {
                        waiting.extend([
                            base.join(&relative).with_extension("lua"),
                            base.join(&relative).join("init.lua"),
                        ]);
                    }
                }
                "vm_fixture" | "lab_fixture" => {
                    waiting.extend(project.roots.iter().map(|root| root.join(format!("{literal}.fixture.lua"))));
                }
                _ => {}
            }
        }
    }
    let guessed = named.is_empty();
    Reach { profiles: if guessed { project.profiles.keys().cloned().collect() } else { named }, guessed }
}

/// The string literals of a Lua text, each with the name that stands right before it.
fn literals(text: &[u8]) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut word = Vec::new();
    let mut at = 0;
    while let Some(&byte) = text.get(at) {
        match byte {
            b'-' if text.get(at + 1) == Some(&b'-') => {
                at += 2;
                at = match long_bracket(text, at) {
                    Some((_, end)) => end,
                    None => text[at..].iter().position(|byte| *byte == b'\n').map_or(text.len(), |end| at + end),
                };
            }
            b'"' | b'\'' => {
                let (literal, end) = quoted(text, at);
                found.push((String::from_utf8_lossy(&word).into_owned(), literal));
                word.clear();
                at = end;
            }
            b'[' if long_bracket(text, at).is_some() => {
                if let Some((literal, end)) = long_bracket(text, at) {
                    found.push((String::from_utf8_lossy(&word).into_owned(), literal));
                    at = end;
                }
                word.clear();
            }
            b' ' | b'\t' | b'(' | b'\n' | b'\r' => at += 1,
            byte if byte.is_ascii_alphanumeric() || byte == b'_' => {
                let end = text[at..]
                    .iter()
                    .position(|byte| !byte.is_ascii_alphanumeric() && *byte != b'_')
                    .map_or(text.len(), |end| at + end);
                word = text[at..end].to_vec();
                at = end;
            }
            _ => {
                word.clear();
                at += 1;
            }
        }
    }
    found
}

/// The literal that opens at `at` with a quote, and where it ends. Escapes are taken as the character itself.
fn quoted(text: &[u8], at: usize) -> (String, usize) {
    let quote = text[at];
    let mut content = Vec::new();
    let mut at = at + 1;
    while let Some(&byte) = text.get(at) {
        match byte {
            b'\\' => {
                content.extend(text.get(at + 1));
                at += 2;
            }
            b'\n' => break,
            byte if byte == quote => {
                at += 1;
                break;
            }
            byte => {
                content.push(byte);
                at += 1;
            }
        }
    }
    (String::from_utf8_lossy(&content).into_owned(), at.min(text.len()))
}

/// The long bracket (`[[…]]`, `[=[…]=]`) that opens at `at`, and where it ends.
fn long_bracket(text: &[u8], at: usize) -> Option<(String, usize)> {
    let rest = text.get(at..)?.strip_prefix(b"[")?;
    let level = rest.iter().take_while(|byte| **byte == b'=').count();
    let content = rest[level..].strip_prefix(b"[")?;
    let close = [b"]" as &[u8], &vec![b'='; level], b"]"].concat();
    let end = content.windows(close.len()).position(|window| window == close).unwrap_or(content.len());
    let from = at + 2 + level;
    Some((String::from_utf8_lossy(&content[..end]).into_owned(), (from + end + close.len()).min(text.len())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn literals_but_not_comments() {
        let text = br#"-- "no"
--[[ 'no' ]] local x = provium:vm('v', "stable") -- 'no'
require "lib.a"; require('lib.b') x = [==[ long ]] ]==] .. "a\"b""#;
        let expected =
            [("vm", "v"), ("", "stable"), ("require", "lib.a"), ("require", "lib.b"), ("", " long ]] "), ("", "a\"b")];
        let expected: Vec<(String, String)> = expected.map(|(word, text)| (word.to_owned(), text.to_owned())).to_vec();
        assert_eq!(literals(text), expected);
    }

    #[test]
    fn what_is_required_counts() {
        let dir = tempfile::tempdir().unwrap();
        let file = |name: &str, text: &str| {
            let path = dir.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(&path, text).unwrap();
            path
        };
        let config =
            file("provium.toml", "[profiles.a]\nkernel='k'\n[profiles.b]\nkernel='k'\n[profiles.c]\nkernel='k'\n");
        let project = super::super::load(&config, &mut |_, _| Err(String::new())).unwrap();
        let one = file("tests/one.test.lua", "require('lib.help') require('lib.loop')");
        file("tests/lib/help.lua", "return provium:vm('x', 'b')");
        file("tests/lib/loop.lua", "require('lib.loop') vm_fixture('base')");
        let project = super::super::Project { roots: vec![dir.path().join("tests")], ..project };
        let reach = profiles_named_in(&project, std::slice::from_ref(&one));
        assert_eq!(reach, Reach { profiles: BTreeSet::from(["b".to_owned()]), guessed: false });
        file("tests/base.fixture.lua", "provium:vm('x', 'c')");
        assert_eq!(profiles_named_in(&project, &[one]).profiles.len(), 2);
        let none = file("tests/none.test.lua", "provium:vm('x', 'a' .. 'b')  -- computed");
        assert_eq!(profiles_named_in(&project, &[none]).profiles.len(), 2);
        let none = file("tests/none.test.lua", "provium:vm(x, y)");
        let reach = profiles_named_in(&project, &[none]);
        assert_eq!((reach.profiles.len(), reach.guessed), (3, true));
    }

    proptest! {
        #[test]
        fn any_text_is_survived(text in any::<Vec<u8>>(), lua in "[-\\[\\]='\"a\\\\\n]{0,60}") {
            let _ = literals(&text);
            let _ = literals(lua.as_bytes());
        }
    }
}
