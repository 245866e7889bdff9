//! stub
#![allow(missing_docs)]
use crate::foundation::{nix_value::NixValue, store_path::StorePath};
use std::path::PathBuf;
#[derive(Clone, Debug)]
pub enum Role {
    Kernel,
    Initrd,
    Modules,
    Vmlinux,
    CmdlineFile,
    Qemu { arch: String },
}
#[derive(Clone, Debug)]
pub struct Wanted {
    pub value: NixValue,
    pub role: Role,
    pub asked_by: String,
}
#[derive(Clone, Debug, Default)]
pub struct Options {
    pub directory: PathBuf,
    pub extra_args: Vec<String>,
    pub offline: bool,
    pub no_build: bool,
    pub state_dir: PathBuf,
}
#[derive(Clone, Debug)]
pub struct Realised {
    pub store_path: StorePath,
    pub path: PathBuf,
    pub file: Option<String>,
}
pub enum Progress {
    Waiting,
    Started { installables: Vec<String> },
    Building { derivation: String },
    Phase { derivation: String, phase: String },
    LogLine { derivation: String, line: String },
    Ended { derivation: String },
    Counts { done: u64, expected: u64, running: u64 },
    Downloading { what: String, done: u64, expected: u64 },
    Warning(String),
}
#[derive(Clone, Default)]
pub struct Cancel;
impl Cancel {
    pub fn new() -> Self {
        Self
    }
    pub fn cancel(&self) {}
}
pub struct Realiser;
impl Realiser {
    pub fn new(_: Options) -> Result<Self, String> {
        Ok(Self)
    }
    pub fn realise(&mut self, _: &[Wanted], _: &mut dyn FnMut(Progress), _: &Cancel) -> Result<Vec<Realised>, String> {
        Err("no nix yet".to_owned())
    }
}
pub fn split_like_shell(t: &str) -> Result<Vec<String>, String> {
    Ok(t.split_whitespace().map(str::to_owned).collect())
}
