//! `provium.toml`: load, check, resolve; which files are tests.
