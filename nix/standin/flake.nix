# Stands in for nixpkgs where that can't be fetched: the few attributes that provium's flake uses, made from the programs of the
# host. It proves everything but nixpkgs' own attribute names, for which there is ../nixpkgs-surface.nix.
#
# tests/nix-check makes the copy of this directory that is used: with a host.nix, which says where the crates, the kernels and
# the versions of the host's programs are. The host's programs come into the build sandbox by nix.conf's `sandbox-paths`.
{
  description = "stand-in for nixpkgs, made from host programs";
  outputs =
    { self }:
    let
      lib = import ./lib.nix;
      host = import ./host.nix;
      packages = system: import ./pkgs.nix { inherit lib host system; };
    in
    {
      inherit lib;
      legacyPackages = lib.genAttrs [
        "x86_64-linux"
        "aarch64-linux"
      ] packages;
    };
}
