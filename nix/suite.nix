# What mkCheck and mkChecks have in common: a project's configuration as the sandbox gets it, and the part of its source
# that tests can see.
{ pkgs }:
let
  inherit (pkgs) lib;
  system = pkgs.stdenv.hostPlatform.system;
  source = import ./source.nix { inherit lib; };
  keysOfFiles = [
    "kernel"
    "initrd"
    "modules"
    "vmlinux"
    "cmdline_file"
  ];
in
{
  src,
  self ? null,
  inputs ? (if self == null then { } else self.inputs or { }),
  # A set of mkProfile's, in place of those of provium.toml.
  profiles ? null,
  # Further paths that tests read, relative to src; the roots and the profiles' files are always there.
  files ? [ ],
  # Names of the profiles to keep; null for all.
  onlyProfiles ? null,
  # Which profiles are part of the fixtures' keys, where provium.toml does not say: one that is not here can't be.
  keyProfiles ? (if onlyProfiles == null then null else "used"),
  # The CPU model of the profiles that name none.
  cpu ? null,
  ...
}:
let
  text = builtins.readFile (src + "/provium.toml");
  hasConfig = builtins.pathExists (src + "/provium.toml");
  config = if hasConfig then builtins.fromTOML text else { };
  provium = config.provium or { };
  written = config.profiles or { };
  resolve = import ./values.nix {
    inherit
      lib
      system
      src
      self
      inputs
      ;
  };

  fromDirectory =
    let
      directory = written.from_dir;
      entries = builtins.readDir (src + "/${directory}");
      has = name: builtins.pathExists (src + "/${directory}/${name}/profile.provium.toml");
      names = builtins.filter has (builtins.attrNames entries);
      # Relative paths of such a file are relative to it.
      read =
        name:
        let
          profile = builtins.fromTOML (
            builtins.readFile (src + "/${directory}/${name}/profile.provium.toml")
          );
          place =
            value:
            if builtins.isString value && resolve value == null && !lib.hasPrefix "/" value then
              "${directory}/${name}/${value}"
            else
              value;
        in
        builtins.mapAttrs (key: value: if builtins.elem key keysOfFiles then place value else value) profile;
    in
    lib.optionalAttrs (written ? from_dir) (lib.genAttrs names read);

  fromFlake =
    let
      flake = if written.from_flake == "." then self else inputs.${written.from_flake};
    in
    lib.optionalAttrs (written ? from_flake) flake.legacyPackages.${system}.proviumProfiles;

  # A profile of mkProfile in the form of provium.toml.
  made =
    profile:
    profile.settings
    // builtins.mapAttrs (
      key: file:
      { nix = "${profile.${key}}"; } // lib.optionalAttrs (file != null) { inherit file; }
    ) profile.files;

  all =
    if profiles != null then
      builtins.mapAttrs (_: made) profiles
    else
      removeAttrs written [
        "from_dir"
        "from_flake"
      ]
      // fromDirectory
      // builtins.mapAttrs (_: made) fromFlake;

  # With the keys of what it extends.
  whole =
    name:
    let
      own = all.${name} or (throw "there is no profile `${name}`; there are: ${toString (builtins.attrNames all)}");
    in
    if own ? extends then
      removeAttrs (whole own.extends) [ "extends" ] // removeAttrs own [ "extends" ]
    else
      own;

  names = if onlyProfiles == null then builtins.attrNames all else onlyProfiles;

  # A Nix value as a store path, which needs no entry of the map.
  realised =
    value:
    let
      it = resolve value;
      file = it.file or null;
    in
    if builtins.isAttrs value && lib.hasPrefix "/nix/store/" (value.nix or "") then
      value
    else if it == null then
      value
    else
      { nix = it.path; } // lib.optionalAttrs (file != null) { inherit file; };

  settled = lib.genAttrs names (
    name:
    lib.optionalAttrs (cpu != null) { inherit cpu; }
    // builtins.mapAttrs (
      key: value: if builtins.elem key keysOfFiles then realised value else value
    ) (whole name)
  );

  # Paths inside src that profiles name.
  localFiles = builtins.concatMap (
    name:
    let
      profile = settled.${name};
      pathOf = value: if builtins.isString value then value else value.path or null;
      local = key: pathOf (profile.${key} or { });
      isLocal = key: local key != null && !lib.hasPrefix "/" (local key);
    in
    map local (builtins.filter isLocal keysOfFiles)
  ) names;

  roots = provium.roots or [ (if builtins.pathExists (src + "/tests") then "tests" else "") ];
  normal = path: lib.removeSuffix "/" (lib.removePrefix "./" (if path == "." then "" else path));

  qemu = lib.optionalAttrs (provium ? qemu) { qemu = realised provium.qemu; };
  setting = key: value: "${key} = ${toml value}\n";
  toml =
    value:
    if builtins.isAttrs value then
      "{ ${builtins.concatStringsSep ", " (map (key: "${key} = ${toml value.${key}}") (builtins.attrNames value))} }"
    else if builtins.isList value then
      "[${lib.concatMapStringsSep ", " toml value}]"
    else
      builtins.toJSON value;
  kept = removeAttrs provium [
    "cache_dir"
    "fixture_stores"
  ];
in
{
  inherit roots names;

  # provium.toml as the sandbox gets it: all profiles come from the map, by `from_flake`.
  config = pkgs.writeText "provium.toml" (
    "[provium]\n"
    + lib.concatMapStrings (key: setting key (kept // qemu).${key}) (builtins.attrNames (kept // qemu))
    + lib.optionalString (keyProfiles != null && !(kept ? key_profiles)) (
      setting "key_profiles" keyProfiles
    )
    + "\n[profiles]\nfrom_flake = \".\"\n"
  );
  map = pkgs.writeText "nix-map.json" (builtins.toJSON { profiles = settled; });

  # Only what tests can see. `keep file type` decides which files stay.
  source =
    name: keep:
    source.pick {
      inherit name src keep;
      parts = map normal (roots ++ localFiles ++ files);
    };
}
