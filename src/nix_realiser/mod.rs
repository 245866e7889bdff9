//! From Nix values to files: one `nix build` for all of a run's values, garbage-collector roots for as long as the
//! run lives, progress, and errors that say who asked for what.

mod build_log;
mod call_plan;
mod cancel;
mod environment;
mod error;
mod explain;
mod failure;
mod file_lock;
mod flake;
mod flake_profiles;
mod installable;
mod log_line;
mod nix_call;
mod outputs;
mod realiser;
mod request;
mod role_file;
mod roots;
mod sandbox_map;
mod shell_words;

pub use cancel::{Cancel, Listening};
pub use environment::Environment;
pub use error::RealiseError;
pub use file_lock::lock as lock_file;
pub use realiser::Realiser;
pub use request::{Known, Options, Progress, Realised, Role, Wanted};
pub use shell_words::{SplitError, split_like_shell};
