# The attributes of nixpkgs that the flake uses, as surface.nix finds them in its files: the file of nixpkgs that defines each, and the
# arguments that it is given by name. `strict` says that it refuses others; `fallback` that it is asked for only where something
# newer is not there, and may be missing. surface-check.nix compares this with the nixpkgs in use.
#
# Each file was looked up in copies of nixpkgs from several times, not in the revision that flake.lock names: files move. Read, and not
# only found, were those of linuxManualConfig and buildLinux.
{
  "lib.attrByPath" = {
    file = "lib/attrsets.nix";
  };
  "lib.concatMapStrings" = {
    file = "lib/strings.nix";
  };
  "lib.concatMapStringsSep" = {
    file = "lib/strings.nix";
  };
  "lib.escapeShellArg" = {
    file = "lib/strings.nix";
  };
  "lib.escapeShellArgs" = {
    file = "lib/strings.nix";
  };
  "lib.genAttrs" = {
    file = "lib/attrsets.nix";
  };
  "lib.hasAttrByPath" = {
    file = "lib/attrsets.nix";
  };
  "lib.hasPrefix" = {
    file = "lib/strings.nix";
  };
  "lib.hasSuffix" = {
    file = "lib/strings.nix";
  };
  "lib.isDerivation" = {
    file = "lib/attrsets.nix";
  };
  "lib.licenses.asl20" = {
    file = "lib/licenses.nix";
  };
  "lib.licenses.mit" = {
    file = "lib/licenses.nix";
  };
  "lib.mkDefault" = {
    file = "lib/modules.nix";
  };
  "lib.mkEnableOption" = {
    file = "lib/options.nix";
  };
  "lib.mkIf" = {
    file = "lib/modules.nix";
  };
  "lib.mkOption" = {
    file = "lib/options.nix";
  };
  "lib.optionalAttrs" = {
    file = "lib/attrsets.nix";
  };
  "lib.optionalString" = {
    file = "lib/strings.nix";
  };
  "lib.optionals" = {
    file = "lib/lists.nix";
  };
  "lib.platforms.linux" = {
    file = "lib/systems/doubles.nix";
  };
  "lib.removePrefix" = {
    file = "lib/strings.nix";
  };
  "lib.removeSuffix" = {
    file = "lib/strings.nix";
  };
  "lib.splitString" = {
    file = "lib/strings.nix";
  };
  "lib.types.bool" = {
    file = "lib/types.nix";
  };
  "lib.types.lazyAttrsOf" = {
    file = "lib/types.nix";
  };
  "lib.types.listOf" = {
    file = "lib/types.nix";
  };
  "lib.types.raw" = {
    file = "lib/types.nix";
  };
  "lib.types.str" = {
    file = "lib/types.nix";
  };
  "lib.unique" = {
    file = "lib/lists.nix";
  };
  "pkgs.bison" = {
    file = "pkgs/by-name/bi/bison/package.nix";
  };
  "pkgs.buildLinux" = {
    file = "pkgs/os-specific/linux/kernel/generic.nix";
    args = [
      "src"
      "version"
      "modDirVersion"
      "pname"
      "kernelPatches"
      "structuredExtraConfig"
      "ignoreConfigErrors"
    ];
  };
  "pkgs.cargo" = {
    file = "pkgs/development/compilers/rust/cargo.nix";
  };
  "pkgs.clippy" = {
    file = "pkgs/development/compilers/rust/clippy.nix";
  };
  "pkgs.cpio" = {
    file = "pkgs/by-name/cp/cpio/package.nix";
  };
  "pkgs.flex" = {
    file = "pkgs/development/tools/parsing/flex/default.nix";
  };
  "pkgs.gzip" = {
    file = "pkgs/by-name/gz/gzip/package.nix";
  };
  "pkgs.linux" = {
    file = "pkgs/top-level/linux-kernels.nix";
  };
  "pkgs.linuxManualConfig" = {
    file = "pkgs/os-specific/linux/kernel/build.nix";
    args = [
      "src"
      "version"
      "modDirVersion"
      "pname"
      "kernelPatches"
      "configfile"
      "config"
    ];
    strict = true;
  };
  "pkgs.linux_latest" = {
    file = "pkgs/top-level/linux-kernels.nix";
  };
  "pkgs.makeWrapper" = {
    file = "pkgs/build-support/setup-hooks/make-wrapper.sh";
  };
  "pkgs.mkShell" = {
    file = "pkgs/build-support/mkshell/default.nix";
    args = [
      "packages"
    ];
  };
  "pkgs.nixfmt-tree" = {
    file = "pkgs/by-name/ni/nixfmt-tree/package.nix";
  };
  "pkgs.passt" = {
    file = "pkgs/by-name/pa/passt/package.nix";
  };
  "pkgs.perl" = {
    file = "pkgs/development/interpreters/perl/default.nix";
  };
  "pkgs.pkgsStatic.busybox" = {
    file = "pkgs/os-specific/linux/busybox/default.nix";
  };
  "pkgs.pkgsStatic.rustPlatform.buildRustPackage" = {
    file = "pkgs/build-support/rust/build-rust-package/default.nix";
    args = [
      "pname"
      "version"
      "src"
      "cargoLock"
      "buildNoDefaultFeatures"
      "cargoBuildFlags"
      "doCheck"
      "meta"
    ];
  };
  "pkgs.qemu_test" = {
    file = "pkgs/top-level/all-packages.nix";
  };
  "pkgs.runCommand" = {
    file = "pkgs/build-support/trivial-builders/default.nix";
  };
  "pkgs.rustPlatform.buildRustPackage" = {
    file = "pkgs/build-support/rust/build-rust-package/default.nix";
    args = [
      "pname"
      "version"
      "src"
      "cargoLock"
      "cargoBuildFlags"
      "doCheck"
      "nativeBuildInputs"
      "buildPhase"
      "installPhase"
      "meta"
    ];
  };
  "pkgs.rustc" = {
    file = "pkgs/development/compilers/rust/rustc.nix";
  };
  "pkgs.rustfmt" = {
    file = "pkgs/development/compilers/rust/rustfmt.nix";
  };
  "pkgs.stdenv.hostPlatform" = {
    file = "lib/systems/default.nix";
  };
  "pkgs.stdenv.hostPlatform.linux-kernel.target" = {
    file = "lib/systems/platforms.nix";
    fallback = true;
  };
  "pkgs.stdenv.hostPlatform.system" = {
    file = "lib/systems/default.nix";
  };
  "pkgs.stdenv.mkDerivation" = {
    file = "pkgs/stdenv/generic/make-derivation.nix";
    args = [
      "pname"
      "version"
      "src"
      "patches"
      "nativeBuildInputs"
      "passAsFile"
      "buildPhase"
      "installPhase"
    ];
  };
  "pkgs.writeText" = {
    file = "pkgs/build-support/trivial-builders/default.nix";
  };
  "pkgs.zstd" = {
    file = "pkgs/tools/compression/zstd/default.nix";
  };
}
