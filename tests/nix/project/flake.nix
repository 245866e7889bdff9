# A project whose checks tests/nix-check builds, changes and compares.
{
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
      packages = provium.lib.forPkgs pkgs;
      # A kernel of our own: what stamp.txt says is a part of it, as a kernel option would be.
      own = pkgs.runCommand "own-kernel" { } ''
        mkdir $out
        cp ${pkgs.linux_latest}/bzImage $out
        cp ${./stamp.txt} $out/stamp
      '';
      suite = {
        src = ./.;
        inherit self;
      };
    in
    {
      legacyPackages.${system} = {
        kernels.own = own;
        initrd = packages.mkInitrd { };
        modules = {
          stable = pkgs.linux.modules;
          own = pkgs.linux_latest.modules;
        };
        stable = pkgs.linux;
        fixture = packages.mkFixture (suite // { fixture = "prepared"; });
        # With a fixture that is a derivation of its own.
        restoring = packages.mkCheck (
          suite
          // {
            name = "restoring";
            tests = [ "tests/prepared.test.lua" ];
            fixtures = [ self.legacyPackages.${system}.fixture ];
          }
        );
      };
      checks.${system} = packages.mkChecks suite;
    };
}
