# What `nix flake show --json` must say: { shown = the JSON's file; } to a list of differences from docs/nix.md's table.
{ shown }:
let
  found = builtins.fromJSON (builtins.readFile shown);
  systems = [
    "aarch64-linux"
    "x86_64-linux"
  ];
  perSystem = names: builtins.listToAttrs (map (name: { inherit name; value = names; }) systems);
  expected = {
    apps = perSystem [
      "default"
      "provium"
    ];
    devShells = perSystem [ "default" ];
    flakeModules = null;
    # `formatter.<system>` is the package itself.
    formatter = systems;
    legacyPackages = systems;
    lib = null;
    nixosModules = [ "default" ];
    overlays = [ "default" ];
    packages = perSystem [
      "default"
      "provium"
      "provium-agent"
    ];
    templates = [ "default" ];
  };
  difference =
    name:
    let
      names = set: builtins.attrNames set;
      shape =
        if builtins.isAttrs expected.${name} then
          builtins.mapAttrs (_: names) found.${name}
        else if builtins.isList expected.${name} then
          names found.${name}
        else
          null;
    in
    if !(found ? ${name}) then
      [ "${name} is not there" ]
    else if shape != expected.${name} then
      [ "${name}: expected ${builtins.toJSON expected.${name}}, found ${builtins.toJSON shape}" ]
    else
      [ ];
  # Checks are named by what they check; these must be among them.
  checks = builtins.filter (name: !(found.checks.x86_64-linux ? ${name})) [
    "build"
    "clippy"
    "docs"
    "fmt"
    "nixpkgs-surface"
    "unit-tests"
    "vm-tests-kernels"
  ];
  known = builtins.attrNames expected ++ [ "checks" ];
in
builtins.concatMap difference (builtins.attrNames expected)
++ map (name: "checks.${name} is not there") checks
++ map (name: "${name} stands in no table") (
  builtins.filter (name: !builtins.elem name known) (builtins.attrNames found)
)
