//! What every room may use: values, path errors, child processes.

#[cfg(feature = "host")]
pub mod cancel;
#[cfg(feature = "host")]
pub mod digest;
#[cfg(feature = "host")]
pub mod duration;
#[cfg(feature = "host")]
pub mod file_lock;
#[cfg(test)]
pub(crate) mod fuzzing;
#[cfg(feature = "host")]
pub mod group_guard;
#[cfg(feature = "host")]
pub mod nix_value;
#[cfg(feature = "host")]
pub mod path_error;
#[cfg(feature = "host")]
pub mod process;
#[cfg(feature = "host")]
pub mod runtime_dir;
#[cfg(feature = "host")]
pub mod size;
#[cfg(feature = "host")]
pub mod store_path;
#[cfg(feature = "host")]
pub mod suggest;
#[cfg(feature = "host")]
pub mod supervise;
