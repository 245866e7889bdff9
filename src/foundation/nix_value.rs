//! nix_value
