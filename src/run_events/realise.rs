//! Events of making what profiles name: Nix values and `build` hooks.

use serde::{Deserialize, Serialize};

/// Nix values or `build` hooks of profiles are about to be realised.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProfileRealiseStarted {
    /// The profiles that asked.
    pub profiles: Vec<String>,
    /// What is realised: installables, store paths, hook commands.
    pub values: Vec<String>,
}

/// What a line of progress is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RealiseStep {
    /// A derivation is being built; `text` is its name.
    Building,
    /// A path is being fetched; `text` is its name.
    Fetching,
    /// A line of a builder's log.
    Log,
    /// A profile's `build` command runs; `text` is the command.
    Hook,
}

/// Something moved while realising.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProfileRealiseProgress {
    /// What this line is about.
    pub step: RealiseStep,
    /// The derivation, path, command or log line.
    pub text: String,
    /// Steps done, where known.
    pub done: Option<u64>,
    /// Steps expected, where known.
    pub expected: Option<u64>,
}

/// One realised value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RealisedPath {
    /// The profile.
    pub profile: String,
    /// Its key: `kernel`, `initrd`, …
    pub key: String,
    /// What stands in provium.toml.
    pub value: String,
    /// The store path or file that it became.
    pub path: String,
}

/// All values are there.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ProfileRealiseDone {
    /// Seconds.
    pub duration: f64,
    /// Each value and what became of it.
    pub paths: Vec<RealisedPath>,
}

/// A value could not be realised; the run ends with the environment's exit code.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ProfileRealiseFailed {
    /// Seconds.
    pub duration: f64,
    /// The whole message, with the builder's last log lines.
    pub message: String,
}
