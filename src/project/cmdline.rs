//! The kernel's command line as it is passed: the harness's words first, so that the profile's win.

use std::fmt;

use super::profile::Profile;

/// The longest line that the architecture's kernel takes, in bytes (`COMMAND_LINE_SIZE` less the final NUL).
const LONGEST: usize = 2047;
/// What `fast_boot` adds (spec, measured.md: FAST).
const FAST: &str = "cryptomgr.notests no_timer_check i8042.noaux quiet";

/// What a command line is made of.
#[derive(Debug, Clone, Copy)]
pub struct CmdlineRequest<'a> {
    /// The profile.
    pub profile: &'a Profile,
    /// The text of its `cmdline_file`, empty without one.
    pub file_text: &'a str,
    /// In place of the profile's words.
    pub replace: Option<&'a str>,
    /// Behind them.
    pub append: Option<&'a str>,
    /// What the kernel starts first where the agent is brought in.
    pub launcher: &'a str,
}

/// A command line, and the words in it that are the launcher's business.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EffectiveCmdline {
    /// What the kernel is given.
    pub line: String,
    /// The profile's own `rdinit=`, which the launcher executes.
    pub guest_rdinit: Option<String>,
    /// The root file system, for guests without an initrd.
    pub root: Option<RootWords>,
}

/// What a command line says of the root file system (Linux `Documentation/admin-guide/kernel-parameters.txt`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RootWords {
    /// `root=`.
    pub device: String,
    /// `rootfstype=`, a list.
    pub fs_types: Vec<String>,
    /// `rootflags=`.
    pub flags: String,
    /// Whether the last of `ro` and `rw` is `rw`.
    pub writable: bool,
    /// `rootwait`.
    pub wait: bool,
    /// `init=`.
    pub init: Option<String>,
}

/// A command line that can't be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CmdlineError {
    length: usize,
}

impl fmt::Display for CmdlineError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the kernel's command line has {} bytes, the kernel reads {LONGEST} at most", self.length)
    }
}

impl std::error::Error for CmdlineError {}

/// Builds the line.
///
/// # Errors
/// It is too long.
pub fn effective_cmdline(request: &CmdlineRequest<'_>) -> Result<EffectiveCmdline, CmdlineError> {
    let profile = request.profile;
    let own = match request.replace {
        Some(replace) => vec![replace],
        None => vec![request.file_text, profile.cmdline.as_str()],
    };
    let text = own.join(" ");
    let words = split(&text);
    // What stands behind `--` goes to init; words for the kernel must not be put there.
    let end = words.iter().position(|word| *word == "--").unwrap_or(words.len());
    let (kernel, init) = words.split_at(end);
    let kernel = [kernel, &split(request.append.unwrap_or_default())].concat();
    let last = |name: &str| kernel.iter().rev().find_map(|word| word.strip_prefix(name)).map(unquote);
    let mut line: Vec<&str> = vec!["panic=-1"];
    let rdinit = format!("rdinit={}", request.launcher);
    if profile.fast_boot {
        line.extend(FAST.split(' '));
    }
    if profile.inject_agent {
        line.push(&rdinit);
        line.extend(kernel.iter().filter(|word| !word.starts_with("rdinit=")));
    } else {
        line.extend(&kernel);
    }
    let console = format!("console={}", profile.arch.serial());
    let has_console = kernel.iter().any(|word| *word == console || word.starts_with(&format!("{console},")));
    if !has_console {
        line.push(&console);
    }
    line.extend(init);
    let line = line.join(" ");
    if line.len() > LONGEST {
        return Err(CmdlineError { length: line.len() });
    }
    Ok(EffectiveCmdline {
        line,
        guest_rdinit: profile.inject_agent.then(|| last("rdinit=")).flatten(),
        root: last("root=").map(|device| RootWords {
            device,
            fs_types: last("rootfstype=")
                .map(|list| list.split(',').filter(|kind| !kind.is_empty()).map(str::to_owned).collect())
                .unwrap_or_default(),
            flags: last("rootflags=").unwrap_or_default(),
            writable: kernel.iter().rev().find(|word| ["ro", "rw"].contains(word)) == Some(&"rw"),
            wait: kernel.contains(&"rootwait"),
            init: last("init="),
        }),
    })
}

fn unquote(text: &str) -> String {
    text.trim_matches('"').to_owned()
}

/// Words at white space, except inside double quotes, as the kernel splits them.
fn split(text: &str) -> Vec<&str> {
    let mut words = Vec::new();
    let (mut start, mut quoted) = (None, false);
    for (at, character) in text.char_indices() {
        if character == '"' {
            quoted = !quoted;
        }
        match (character.is_whitespace() && !quoted, start) {
            (true, Some(from)) => {
                words.push(&text[from..at]);
                start = None;
            }
            (false, None) => start = Some(at),
            _ => {}
        }
    }
    words.extend(start.map(|from| &text[from..]));
    words
}
