# mkKernel: a kernel variant, its arguments named as nixpkgs' buildLinux names them.
#
#     mkKernel { kernel = pkgs.linux; structuredExtraConfig = { KASAN = lib.kernel.yes; }; }        a variant of a packaged kernel
#     mkKernel { src = ./linux.tar.xz; version = "6.12.1"; structuredExtraConfig = { … }; }          your source, nixpkgs' configuration
#     mkKernel { src = …; version = …; base = "tinyconfig"; structuredExtraConfig = { … }; }         your source, a small kernel
#     mkKernel { src = …; version = …; configfile = ./config; }                                      your source, your configuration
{ pkgs }:
let
  inherit (pkgs) lib;

  line =
    name: value:
    if builtins.isString value then
      "CONFIG_${name}=${value}"
    # As nixpkgs answers the question that the kernel's configuration asks: a number stands without quotation marks.
    else if value ? freeform then
      "CONFIG_${name}=${
        if builtins.match "-?[0-9]+|0x[0-9a-fA-F]+" (toString value.freeform) != null then
          toString value.freeform
        else
          builtins.toJSON value.freeform
      }"
    else if value.tristate or null == "n" then
      "# CONFIG_${name} is not set"
    else
      "CONFIG_${name}=${value.tristate}";
  fragment = settings: lib.concatMapStrings (name: line name settings.${name} + "\n") (builtins.attrNames settings);

  # `make BASE` with the settings over it. An option that the kernel's own rules take back is an error.
  configOf =
    {
      pname,
      version,
      src,
      base,
      settings,
      patches,
      ignoreConfigErrors,
    }:
    pkgs.stdenv.mkDerivation {
      pname = "${pname}-config";
      inherit version src patches;
      nativeBuildInputs = [
        pkgs.bison
        pkgs.flex
        pkgs.perl
      ];
      fragment = fragment settings;
      passAsFile = [ "fragment" ];
      buildPhase = ''
        make ${base}
        cat "$fragmentPath" >>.config
        make olddefconfig
        lost=0
        while read -r setting; do
            case $setting in
                CONFIG_*) grep -qxF -- "$setting" .config || { echo "not taken: $setting" >&2; lost=1; } ;;
                '# CONFIG_'*) name=''${setting#\# }; name=''${name%% *}
                    ! grep -q "^$name=" .config || { echo "not taken: $setting" >&2; lost=1; } ;;
            esac
        done <"$fragmentPath"
        [ $lost = 0 ] || [ -n "${toString ignoreConfigErrors}" ] || exit 1
      '';
      installPhase = "cp .config $out";
    };
in
{
  kernel ? null,
  pname ? "linux",
  src ? kernel.src,
  version ? kernel.version,
  modDirVersion ? null,
  # `tinyconfig`, `allnoconfig`, `defconfig`: the configuration that is changed, in place of nixpkgs'.
  base ? null,
  structuredExtraConfig ? { },
  kernelPatches ? [ ],
  configfile ? null,
  ignoreConfigErrors ? false,
  ...
}@args:
let
  own = [
    "kernel"
    "base"
    "configfile"
    "structuredExtraConfig"
    "ignoreConfigErrors"
  ];
  patches = builtins.filter (patch: patch != null) (map (patch: patch.patch or null) kernelPatches);
  fromPatches = builtins.foldl' (
    settings: patch: settings // (patch.structuredExtraConfig or patch.extraStructuredConfig or { })
  ) { } kernelPatches;
  settings = structuredExtraConfig // fromPatches;
  whole = {
    inherit
      pname
      version
      src
      modDirVersion
      kernelPatches
      ;
  };
in
if configfile != null then
  pkgs.linuxManualConfig (whole // { inherit configfile; } // removeAttrs args (own ++ builtins.attrNames whole))
else if base != null then
  pkgs.linuxManualConfig (
    whole
    // {
      configfile = configOf {
        inherit
          pname
          version
          src
          base
          settings
          patches
          ignoreConfigErrors
          ;
      };
      # What build.nix would read from the file, which would be an import from a derivation.
      config = {
        CONFIG_MODULES = settings.MODULES.tristate or "n";
      };
    }
    // removeAttrs args (own ++ builtins.attrNames whole)
  )
else if kernel != null then
  kernel.override (
    {
      inherit structuredExtraConfig ignoreConfigErrors;
      kernelPatches = (kernel.kernelPatches or [ ]) ++ kernelPatches;
    }
    // removeAttrs args (own ++ [ "kernelPatches" ])
  )
else
  pkgs.buildLinux (whole // { inherit structuredExtraConfig ignoreConfigErrors; } // removeAttrs args (own ++ builtins.attrNames whole))
