//! What a fixture's chunk touches while it is built.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::fixtures::{Built, Entry, Files, Nested, Wish, World};

/// Collects dependencies, each as it is when it is used.
#[derive(Debug)]
pub struct FixtureRecorder {
    files: Files,
    built: Mutex<Built>,
}

impl FixtureRecorder {
    /// Nothing was touched yet but the fixture's own file.
    pub fn new(files: Files, name: &str) -> Self {
        let built = Built { chunk: files.fixture(name), ..Built::default() };
        Self { files, built: Mutex::new(built) }
    }

    fn built(&self) -> MutexGuard<'_, Built> {
        self.built.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn see(&self, path: &Path) -> String {
        let recorded = self.files.recorded(path);
        let value = self.files.file(&recorded);
        // As it was when it was used first.
        self.built().seen.entry(recorded.clone()).or_insert(value);
        recorded
    }

    /// A module was loaded, after it had been looked for at `misses`.
    pub fn module(&self, path: &Path, misses: &[PathBuf]) {
        let recorded = self.see(path);
        let misses: Vec<String> = misses.iter().map(|path| self.files.recorded(path)).collect();
        let record = &mut self.built().record;
        record.modules.insert(recorded);
        record.misses.extend(misses);
    }

    /// A file of the host was used.
    pub fn file(&self, path: &Path) {
        let recorded = self.see(path);
        self.built().record.files.insert(recorded);
    }

    /// A profile was booted.
    pub fn booted(&self, profile: &str) {
        self.built().record.booted.insert(profile.to_owned());
    }

    /// A fixture was restored.
    pub fn restored(&self, wish: &Wish, entry: &Entry) {
        let manifest = entry.manifest();
        let mut built = self.built();
        let nested = Nested { name: wish.name.clone(), profile: wish.profile.clone(), record: manifest.record.clone() };
        built.record.fixtures.insert(nested);
        built.restored.insert(wish.clone(), manifest.key.clone());
    }

    /// All of it.
    pub fn finish(&self) -> Built {
        self.built().clone()
    }
}
