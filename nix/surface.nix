# The attributes of nixpkgs that the flake uses, found by reading its files: every `pkgs.…` and `lib.…` in them. The files write
# them in full, without `with`, and take them from nowhere else, so that this finds them all.
let
  files = map (name: ./. + "/${name}") (
    builtins.filter (name: builtins.match "[a-z-]+\\.nix" name != null) (
      builtins.attrNames (builtins.readDir ./.)
    )
  );
  # A comment names attributes without using them.
  code =
    file:
    builtins.concatStringsSep "\n" (
      builtins.filter (line: builtins.isString line && builtins.match " *#.*" line == null) (
        builtins.split "\n" (builtins.readFile file)
      )
    );
  attributes =
    file:
    map (found: "${builtins.elemAt found 1}${builtins.elemAt found 2}") (
      builtins.filter builtins.isList (
        builtins.split "(^|[^a-zA-Z0-9_./\"-])(pkgs|lib)((\\.[a-zA-Z_][a-zA-Z0-9_'-]*)+)" (code file)
      )
    );
  all = builtins.concatMap attributes (files ++ [ ../flake.nix ]);
in
builtins.attrNames (
  builtins.listToAttrs (
    map (name: {
      inherit name;
      value = null;
    }) all
  )
)
