//! The realiser against the real nix, and against a fake one for what the real one can't be made to say.

#![cfg(feature = "host")]
#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

#[path = "../common/mod.rs"]
mod common;
mod fake_nix;
mod real_nix;
mod support;
