//! What is asked of the realiser, what it answers, and what it tells meanwhile.

use std::path::PathBuf;

use crate::foundation::nix_value::NixValue;
use crate::foundation::store_path::StorePath;

/// What a value is used as; it decides which file of an output is meant when none is named.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Role {
    /// `bzImage`, `Image`, `zImage`, `vmlinuz.efi` or `vmlinux`.
    Kernel,
    /// `initrd`, or the only `initrd.*`.
    Initrd,
    /// A directory that holds `lib/modules/<release>` or `usr/lib/modules/<release>`, or a release directory itself.
    Modules,
    /// The kernel with symbols: the output itself.
    Vmlinux,
    /// Text in front of the command line: the output itself.
    CmdlineFile,
    /// A disk's image: the output itself.
    DiskImage,
    /// `bin/qemu-system-<arch>`, or the output itself.
    Qemu {
        /// As QEMU spells it: `x86_64`, `aarch64`.
        arch: String,
    },
}

/// One value to realise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// What to realise.
    pub value: NixValue,
    /// What it is for.
    pub role: Role,
    /// Who asked, as a fragment of an error: "profile `x`, key `kernel`".
    pub asked_by: String,
}

/// How to call nix.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Where nix runs: the directory of provium.toml.
    pub directory: PathBuf,
    /// Arguments passed on to `nix build`: `--nix-arg`, `--override-input`, `PROVIUM_NIX_ARGS` (see
    /// [`split_like_shell`](super::split_like_shell)).
    pub extra_args: Vec<String>,
    /// Fetch nothing.
    pub offline: bool,
    /// Fail instead of building or fetching.
    pub no_build: bool,
    /// `$XDG_STATE_HOME/provium`: roots and locks lie there.
    pub state_dir: PathBuf,
}

/// A value that is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Realised {
    /// The output.
    pub store_path: StorePath,
    /// The file or directory meant, resolved by role.
    pub path: PathBuf,
    /// Its path inside the output; `None` for the output itself.
    pub file: Option<String>,
}

/// A value whose store path is known, built or not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Known {
    /// The output.
    pub store_path: StorePath,
    /// The file meant, where the output is there and has it.
    pub realised: Option<Realised>,
}

/// What happens while values are realised.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Progress {
    /// Another provium on this machine is calling nix; this one waits for its turn.
    Waiting,
    /// nix was started for these installables.
    Started {
        /// As written in provium.toml.
        installables: Vec<String>,
    },
    /// A derivation's build began.
    Building {
        /// The store path of the `.drv`.
        derivation: String,
    },
    /// A derivation's build entered a phase (`buildPhase`).
    Phase {
        /// The store path of the `.drv`.
        derivation: String,
        /// Its name.
        phase: String,
    },
    /// A derivation's build wrote a line.
    LogLine {
        /// The store path of the `.drv`.
        derivation: String,
        /// Without escape sequences.
        line: String,
    },
    /// A derivation's build ended, well or badly.
    Ended {
        /// The store path of the `.drv`.
        derivation: String,
    },
    /// Builds so far.
    Counts {
        /// Builds that ended well.
        done: u64,
        /// Builds in all, as far as nix knows.
        expected: u64,
        /// Builds under way.
        running: u64,
    },
    /// A download or a copy from a cache.
    Downloading {
        /// The address or the store path.
        what: String,
        /// Bytes so far.
        done: u64,
        /// Bytes in all; 0 when not known.
        expected: u64,
    },
    /// Something the user should know; a sentence.
    Warning(String),
}
