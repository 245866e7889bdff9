# Whether the nixpkgs in use has what nixpkgs-surface.nix lists, and whether that lists all that the flake uses.
{ pkgs }:
let
  inherit (pkgs) lib;
  used = import ./surface.nix;
  listed = import ./nixpkgs-surface.nix;
  scope = { inherit pkgs lib; };
  path = lib.splitString ".";
  missing = builtins.filter (
    name: !lib.hasAttrByPath (path name) scope && !(listed.${name}.fallback or false)
  ) used;
  unlisted = builtins.filter (name: !(listed ? ${name})) used;
  unused = builtins.filter (name: !builtins.elem name used) (builtins.attrNames listed);

  # Arguments that are passed by name to what takes a fixed set of them.
  refused = builtins.concatMap (
    name:
    let
      value = lib.attrByPath (path name) null scope;
      # What can be overridden is a set that can be called, and says which arguments it takes.
      formals =
        value.__functionArgs or (if builtins.isFunction value then builtins.functionArgs value else { });
      wrong = builtins.filter (argument: !(formals ? ${argument})) (listed.${name}.args or [ ]);
    in
    if formals == { } || !(listed.${name}.strict or false) then [ ] else map (argument: "${name}: ${argument}") wrong
  ) (builtins.filter (name: listed ? ${name} && !builtins.elem name missing) used);

  complaint =
    what: names:
    lib.optionalString (names != [ ]) "${what}:\n${lib.concatMapStrings (name: "  ${name}\n") names}";
  complaints =
    complaint "this nixpkgs lacks" missing
    + complaint "nix/nixpkgs-surface.nix does not list" unlisted
    + complaint "nix/nixpkgs-surface.nix lists what is not used" unused
    + complaint "this nixpkgs does not take the argument" refused;
in
pkgs.runCommand "nixpkgs-surface" { inherit complaints; } ''
  printf %s "$complaints" >&2
  [ -z "$complaints" ]
  touch $out
''
