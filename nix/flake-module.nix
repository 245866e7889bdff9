# For flake-parts: `perSystem.provium.suites.<name> = { … }` takes mkChecks' arguments and gives one check per test file,
# `perSystem.provium.profiles` is what `from_flake` reads.
forPkgs:
{
  lib,
  flake-parts-lib,
  self,
  ...
}:
{
  options.perSystem = flake-parts-lib.mkPerSystemOption (
    { config, pkgs, ... }:
    let
      cfg = config.provium;
      suite = name: arguments: (forPkgs pkgs).mkChecks ({ inherit name self; } // arguments);
      named =
        name:
        let
          checks = suite name cfg.suites.${name};
        in
        map (check: {
          name = "${name}-${check}";
          value = checks.${check};
        }) (builtins.attrNames checks);
    in
    {
      options.provium = {
        suites = lib.mkOption {
          type = lib.types.lazyAttrsOf lib.types.raw;
          default = { };
          description = "Test suites: mkChecks' arguments, by name.";
        };
        profiles = lib.mkOption {
          type = lib.types.lazyAttrsOf lib.types.raw;
          default = { };
          description = "Profiles, as made by mkProfile.";
        };
      };
      config = {
        checks = builtins.listToAttrs (builtins.concatMap named (builtins.attrNames cfg.suites));
        legacyPackages.proviumProfiles = cfg.profiles;
      };
    }
  );
}
