{
  description = "Tests in virtual machines";

  inputs.nixpkgs.url = "github:NixOS/nixpkgs/nixos-26.05";
  inputs.provium.url = "github:provium/provium";
  inputs.provium.inputs.nixpkgs.follows = "nixpkgs";

  outputs =
    {
      self,
      nixpkgs,
      provium,
    }:
    let
      system = "x86_64-linux";
      pkgs = nixpkgs.legacyPackages.${system};
      inherit (provium.lib.forPkgs pkgs) mkChecks mkInitrd mkProfile;
      initrd = mkInitrd { };
    in
    {
      # `from_flake` in provium.toml reads these.
      legacyPackages.${system}.proviumProfiles = {
        stable = mkProfile {
          kernel = pkgs.linux;
          inherit initrd;
          cmdline = "quiet";
        };
        latest = mkProfile {
          kernel = pkgs.linux_latest;
          inherit initrd;
          cmdline = "quiet";
        };
      };

      # `nix flake check`: one derivation per test file, in the build sandbox.
      checks.${system} = mkChecks {
        src = ./.;
        inherit self;
      };

      # `nix develop`, then `provium test`.
      devShells.${system}.default = pkgs.mkShell { packages = [ provium.packages.${system}.default ]; };
    };
}
