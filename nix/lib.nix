# Everything that the flake offers for one package set.
pkgs:
let
  packages = import ./package.nix { inherit pkgs; };
  inherit (packages) provium qemu;
  mkKernel = import ./kernel.nix { inherit pkgs; };
  mkInitrd = import ./initrd.nix { inherit pkgs; };
  mkProfile = import ./profile.nix { inherit pkgs; };
  mkCheck = import ./check.nix { inherit pkgs provium; };
  mkFixture = import ./fixture.nix { inherit pkgs provium; };
  mkChecks = import ./checks.nix { inherit pkgs mkCheck mkFixture; };
in
{
  inherit
    provium
    qemu
    mkKernel
    mkInitrd
    mkProfile
    mkCheck
    mkChecks
    mkFixture
    ;
  inherit (pkgs.stdenv.hostPlatform) system;
  provium-agent = packages.agent;
  provium-unwrapped = packages.unwrapped;
}
