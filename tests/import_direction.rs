//! Rooms import downwards only: each `use crate::…` is held against the layers of `docs/architecture.md`.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::path::Path;

/// Every room, its layer, and the rooms of its own or a lower layer that it may not use all the same.
const ROOMS: [(&str, u32); 16] = [
    ("foundation", 0),
    ("project", 1),
    ("run_events", 1),
    ("agent_protocol", 1),
    ("guest_agent", 2),
    ("agent_client", 2),
    ("qemu", 2),
    ("fixtures", 2),
    ("disks", 2),
    ("nix_realiser", 2),
    ("switch", 2),
    ("testbed", 3),
    ("lua_api", 4),
    ("scheduler", 4),
    ("reporters", 4),
    ("cli", 5),
];

/// What each room may import; a room of layer 2 knows one protocol at most, so that it can be tested alone.
fn allowed(room: &str) -> &'static [&'static str] {
    match room {
        "project" | "run_events" | "agent_protocol" | "qemu" | "disks" | "fixtures" | "nix_realiser" | "switch" => {
            &["foundation"]
        }
        "guest_agent" | "agent_client" => &["foundation", "agent_protocol"],
        "testbed" => &[
            "foundation",
            "project",
            "run_events",
            "agent_protocol",
            "agent_client",
            "qemu",
            "disks",
            "fixtures",
            "nix_realiser",
            "switch",
        ],
        "lua_api" => &["foundation", "project", "run_events", "agent_protocol", "testbed"],
        "scheduler" => &["foundation", "project", "run_events"],
        "reporters" => &["foundation", "run_events"],
        "cli" => &[
            "foundation",
            "project",
            "run_events",
            "agent_protocol",
            "agent_client",
            "qemu",
            "fixtures",
            "disks",
            "nix_realiser",
            "switch",
            "testbed",
            "lua_api",
            "scheduler",
            "reporters",
        ],
        _ => &[],
    }
}

/// The rooms that a text of `room` names after `crate::`, also in braces: `use crate::{a, b::c}`.
fn imports(text: &str) -> Vec<String> {
    let code: String =
        text.lines().map(|line| line.split("//").next().unwrap_or_default()).collect::<Vec<_>>().join("\n");
    let mut found = Vec::new();
    for (at, _) in code.match_indices("crate::") {
        let rest = code[at + "crate::".len()..].trim_start();
        match rest.strip_prefix('{') {
            None => found.push(word(rest)),
            Some(inside) => {
                let mut depth = 1;
                let mut start = true;
                for (offset, character) in inside.char_indices() {
                    match character {
                        '{' => depth += 1,
                        '}' => depth -= 1,
                        ',' if depth == 1 => start = true,
                        character if start && depth == 1 && !character.is_whitespace() => {
                            found.push(word(&inside[offset..]));
                            start = false;
                        }
                        _ => {}
                    }
                    if depth == 0 {
                        break;
                    }
                }
            }
        }
    }
    found.retain(|word| !word.is_empty());
    found
}

fn word(text: &str) -> String {
    text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
}

/// What is wrong with the imports of a room's text.
fn violations(room: &str, text: &str) -> Vec<String> {
    let layers: BTreeMap<&str, u32> = ROOMS.into_iter().collect();
    imports(text)
        .into_iter()
        .filter(|import| import != room && !allowed(room).contains(&import.as_str()))
        .map(|import| match layers.get(import.as_str()) {
            Some(layer) => format!("`{room}` (layer {}) imports `{import}` (layer {layer})", layers[room]),
            None => format!("`{room}` imports `{import}`, which is no room"),
        })
        .collect()
}

fn rust_files(directory: &Path, found: &mut Vec<std::path::PathBuf>) {
    for entry in std::fs::read_dir(directory).unwrap().flatten() {
        let path = entry.path();
        if path.is_dir() {
            rust_files(&path, found);
        } else if path.extension().is_some_and(|ending| ending == "rs") {
            found.push(path);
        }
    }
}

#[test]
fn rooms_import_downwards_only() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut wrong = Vec::new();
    let mut rooms = Vec::new();
    for entry in std::fs::read_dir(&source).unwrap().flatten().filter(|entry| entry.path().is_dir()) {
        let room = entry.file_name().into_string().unwrap();
        if room == "bin" {
            continue;
        }
        rooms.push(room.clone());
        let mut files = Vec::new();
        rust_files(&entry.path(), &mut files);
        for file in files {
            let text = std::fs::read_to_string(&file).unwrap();
            wrong.extend(violations(&room, &text).into_iter().map(|what| format!("{}: {what}", file.display())));
        }
    }
    rooms.sort();
    let mut known: Vec<String> = ROOMS.iter().map(|(room, _)| (*room).to_owned()).collect();
    known.sort();
    assert_eq!(rooms, known, "every room has a layer");
    assert!(wrong.is_empty(), "imports that point up or to a sibling:\n{}", wrong.join("\n"));
}

#[test]
fn each_room_may_import_lower_layers_only() {
    let layers: BTreeMap<&str, u32> = ROOMS.into_iter().collect();
    for (room, layer) in ROOMS {
        for import in allowed(room) {
            assert!(layers[import] < layer, "`{room}` may import `{import}`");
        }
    }
}

#[test]
fn a_wrong_import_is_seen() {
    assert_eq!(violations("qemu", "use crate::testbed::Vm;").len(), 1);
    assert_eq!(violations("qemu", "use crate::{foundation::size, project::{Profile, Arch}, qemu::x};").len(), 1);
    assert_eq!(violations("reporters", "fn f() { crate::scheduler::run() }").len(), 1);
    assert_eq!(violations("agent_protocol", "use crate::nothing::x;").len(), 1);
    assert_eq!(violations("testbed", "use crate::qemu::{Accel, Qmp}; // use crate::cli::x"), Vec::<String>::new());
}
