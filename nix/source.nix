# Parts of a source tree as store paths of their own, so that a build depends on what it reads and on nothing else.
{ lib }:
rec {
  # What provium is compiled from. Not README, docs, tests or nix: editing them builds nothing anew. Not .cargo either: it makes
  # static binaries out of any toolchain, and nixpkgs has its own way for that.
  crate = [
    "Cargo.toml"
    "Cargo.lock"
    "build.rs"
    "clippy.toml"
    "rustfmt.toml"
    "src"
    "benches"
  ];

  # Whether `file` is `part`, below it, or above it. Paths are relative; "" is the whole tree.
  touches =
    part: file:
    part == "" || part == file || lib.hasPrefix "${part}/" file || lib.hasPrefix "${file}/" part;

  # The tree `src` with only `parts` in it, of which `keep file type` may leave out more.
  pick =
    {
      name,
      src,
      parts,
      keep ? (_: _: true),
    }:
    let
      root = toString src;
    in
    builtins.path {
      inherit name;
      path = src;
      filter =
        path: type:
        let
          file = lib.removePrefix "${root}/" path;
        in
        builtins.any (part: touches part file) parts && (type == "directory" || keep file type);
    };
}
