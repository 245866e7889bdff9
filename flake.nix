{
  description = "Boots real virtual machines and runs Lua tests against them";

  inputs.nixpkgs.url = "github:NixOS/nixpkgs/nixos-26.05";

  outputs =
    { self, nixpkgs }:
    let
      inherit (nixpkgs) lib;
      systems = [
        "x86_64-linux"
        "aarch64-linux"
      ];
      forPkgs = import ./nix/lib.nix;
      perSystem =
        f:
        lib.genAttrs systems (
          system:
          let
            pkgs = nixpkgs.legacyPackages.${system};
          in
          f pkgs (forPkgs pkgs)
        );
      own = pkgs: packages: import ./nix/self-checks.nix { inherit pkgs packages; };
    in
    {
      lib = { inherit forPkgs; };

      packages = perSystem (
        _: its: {
          default = its.provium;
          inherit (its) provium provium-agent;
        }
      );

      # The profiles of the flake's own tests; also an example of what `from_flake` reads.
      legacyPackages = perSystem (
        pkgs: its: {
          inherit (its) qemu;
          proviumProfiles = (own pkgs its).kernels;
        }
      );

      apps = perSystem (
        _: its: {
          default = self.apps.${its.system}.provium;
          provium = {
            type = "app";
            program = "${its.provium}/bin/provium";
            meta.description = "Runs Lua tests against real virtual machines";
          };
        }
      );

      checks = perSystem (pkgs: its: (own pkgs its).checks);

      overlays.default = final: _: { inherit (forPkgs final) provium provium-agent; };
      nixosModules.default = ./nix/nixos-module.nix;
      flakeModules.default = import ./nix/flake-module.nix forPkgs;
      templates.default = {
        path = ./nix/template;
        description = "A project with two kernels, a first test, and `nix flake check`";
      };

      devShells = perSystem (pkgs: its: { default = import ./nix/dev-shell.nix { inherit pkgs; packages = its; }; });
      formatter = perSystem (pkgs: _: pkgs.nixfmt-tree);
    };
}
