//! Events of fixtures. Each `fixture_build_started` has one `fixture_build_done`.

use serde::{Deserialize, Serialize};

/// A fixture is not in the cache; its chunk runs now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FixtureBuildStarted {
    /// The fixture's name.
    pub fixture: String,
    /// The profile it was asked for with.
    pub profile: String,
    /// The file that wants it.
    pub file: String,
}

/// A fixture is being built by somebody else, who is waited for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FixtureBuildWaiting {
    /// The fixture's name.
    pub fixture: String,
    /// The profile it was asked for with.
    pub profile: String,
    /// The file that wants it.
    pub file: String,
    /// The file for which it is built.
    pub holder: String,
}

/// The build of a fixture has ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FixtureBuildDone {
    /// The fixture's name.
    pub fixture: String,
    /// The profile it was asked for with.
    pub profile: String,
    /// The file that wants it.
    pub file: String,
    /// Its key; none where the build failed.
    pub key: Option<String>,
    /// Why it failed.
    pub error: Option<String>,
    /// Seconds.
    pub duration: f64,
}

/// A fixture is in the cache.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FixtureHit {
    /// The fixture's name.
    pub fixture: String,
    /// The profile it was asked for with.
    pub profile: String,
    /// The file that wants it.
    pub file: String,
    /// Its key.
    pub key: String,
    /// The exported file that it was unpacked from; none where the cache had it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
}

/// An entry of the cache can't be used.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FixtureDamaged {
    /// The fixture's name.
    pub fixture: String,
    /// The entry's key.
    pub key: String,
    /// Where it was.
    pub path: String,
    /// What is wrong with it.
    pub reason: String,
}
