//! From Nix values to store paths.
