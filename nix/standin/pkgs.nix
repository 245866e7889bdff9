# The packages of nixpkgs that provium's flake uses, by their names there, from the host's programs.
{
  lib,
  host,
  system,
}:
let
  setup = ./setup.sh;
  # A path that was added to the store before; a pure evaluation takes it only with its context.
  stored = path: builtins.appendContext path { ${path}.path = true; };

  mkDerivation =
    given:
    let
      attrs = if builtins.isFunction given then given attrs else given;
      drv = derivation (
        {
          inherit system;
          name = attrs.name or "${attrs.pname}-${attrs.version}";
          builder = "/bin/bash";
          args = [
            "-c"
            ". ${setup}; genericBuild"
          ];
          outputs = attrs.outputs or [ "out" ];
        }
        // removeAttrs attrs [
          "meta"
          "passthru"
          "env"
          "outputs"
        ]
        // attrs.env or { }
      );
    in
    drv
    # An output that is named is the one that `nix build` takes.
    // lib.genAttrs drv.outputs (output: drv.${output} // { outputSpecified = true; })
    // {
      meta = attrs.meta or { };
      passthru = attrs.passthru or { };
      overrideAttrs =
        f: mkDerivation (attrs // (if lib.isDerivation f || !builtins.isFunction f then f else f attrs));
    }
    // attrs.passthru or { };

  runCommand =
    name: env: text:
    mkDerivation (
      {
        inherit name;
        buildCommand = text;
        passAsFile = [ "buildCommand" ];
      }
      // env
      // lib.optionalAttrs (env ? passAsFile) { passAsFile = env.passAsFile ++ [ "buildCommand" ]; }
    );
  writeTextFile =
    {
      name,
      text,
      executable ? false,
      destination ? "",
      meta ? { },
    }:
    runCommand name
      {
        inherit text meta;
        passAsFile = [ "text" ];
      }
      ''
        target=$out${destination}
        mkdir -p "$(dirname "$target")"
        cp "$textPath" "$target"
        ${lib.optionalString executable ''chmod 755 "$target"''}
      '';

  # Programs of the host under the names that they have there.
  programs =
    name: names:
    runCommand "host-${name}" { meta.mainProgram = builtins.head names; } ''
      mkdir -p $out/bin
      for program in ${toString names}; do ln -s "$(command -v "$program")" "$out/bin/$program"; done
    '';

  # nixpkgs' kernels have the image in `out` and the modules in an output of their own.
  kernel =
    it:
    mkDerivation {
      pname = "linux";
      version = it.version;
      outputs = [
        "out"
        "modules"
      ];
      dontUnpack = true;
      files = stored it.files;
      installPhase = ''
        mkdir -p $out $modules/lib
        cp $files/bzImage $files/config $out
        cp -r $files/lib/modules $modules/lib
      '';
      passthru = {
        target = "bzImage";
        modDirVersion = it.release;
      };
    };

  # With `src` and `override`, as nixpkgs' kernels have them, for variants. Debian's source is of another version than the
  # package may be.
  variable =
    it:
    kernel it
    // {
      inherit (kernelSource) src version;
      kernelPatches = [ ];
      override = new: buildLinux (kernelSource // new);
    };
  kernelSource =
    if host.kernelSource == null then
      {
        version = "0.0.0";
        src = runCommand "no-kernel-source" { } ''
          echo 'this stand-in has no source of a kernel: tests/nix-check --kernels gets one' >&2
          exit 1
        '';
      }
    else
      {
        inherit (host.kernelSource) version;
        src = stored host.kernelSource.file;
      };

  # As nixpkgs' build.nix: a kernel from a whole configuration.
  linuxManualConfig = lib.makeOverridable (
    {
      pname ? "linux",
      version,
      src,
      configfile,
      modDirVersion ? null,
      kernelPatches ? [ ],
      extraMakeFlags ? [ ],
      config ? { },
    }:
    mkDerivation {
      inherit pname version src;
      outputs = [
        "out"
        "dev"
      ]
      ++ lib.optional (config.CONFIG_MODULES or "n" == "y") "modules";
      patches = builtins.filter (patch: patch != null) (map (patch: patch.patch) kernelPatches);
      buildPhase = ''
        mkdir build
        cp ${configfile} build/.config
        chmod u+w build/.config
        flags="O=build KBUILD_BUILD_TIMESTAMP=@$SOURCE_DATE_EPOCH KBUILD_BUILD_VERSION=1 KBUILD_BUILD_USER=nixbld \
            KBUILD_BUILD_HOST=localhost ${toString extraMakeFlags}"
        make $flags olddefconfig
        make $flags -j''${NIX_BUILD_CORES:-1} bzImage
      '';
      installPhase = ''
        mkdir -p $out $dev
        cp build/arch/x86/boot/bzImage build/System.map $out
        cp build/.config $out/config
        cp build/vmlinux $dev
        if [ -n "''${modules:-}" ]; then make $flags INSTALL_MOD_PATH=$modules modules_install; fi
      '';
      passthru = {
        target = "bzImage";
        inherit configfile;
        modDirVersion = if modDirVersion == null then lib.versions.pad 3 version else modDirVersion;
      };
    }
  );

  # As nixpkgs' generic.nix, with a small configuration in place of nixpkgs' own.
  buildLinux = lib.makeOverridable (
    {
      src,
      version,
      structuredExtraConfig ? { },
      ...
    }@args:
    let
      line = name: "CONFIG_${name}=${structuredExtraConfig.${name}.tristate}\n";
    in
    linuxManualConfig {
      inherit src version;
      configfile = mkDerivation {
        name = "linux-config";
        inherit src;
        fragment = lib.concatMapStrings line (builtins.attrNames structuredExtraConfig);
        passAsFile = [ "fragment" ];
        buildPhase = ''
          make ${args.defconfig or "defconfig"}
          cat "$fragmentPath" >>.config
          make olddefconfig
        '';
        installPhase = "cp .config $out";
      };
    }
  );

  buildRustPackage =
    args:
    let
      list = name: toString (args.${name} or [ ]);
      features = lib.optionalString (args.buildNoDefaultFeatures or false) "--no-default-features";
    in
    mkDerivation (
      removeAttrs args [
        "cargoLock"
        "cargoBuildFlags"
        "buildNoDefaultFeatures"
      ]
      // {
        vendor = stored host.crates;
        rust = host.rust;
        configurePhase = ''
          PATH=/opt/rust/bin:$PATH
          export CARGO_HOME=$NIX_BUILD_TOP/cargo
          mkdir -p $CARGO_HOME
          printf '[source.crates-io]\nreplace-with = "vendored"\n[source.vendored]\ndirectory = "%s"\n' "$vendor" >$CARGO_HOME/config.toml
        '';
        # Not optimised: what is proved here is the flake, and the time counts.
        buildPhase =
          args.buildPhase or ''
            export CARGO_PROFILE_RELEASE_OPT_LEVEL=0 CARGO_PROFILE_RELEASE_CODEGEN_UNITS=16
            cargo build --frozen --release ${features} ${list "cargoBuildFlags"}
          '';
        installPhase =
          args.installPhase or ''
            mkdir -p $out/bin
            find target -path '*/release/*' -prune -type f -perm -u=x ! -name '*.so' -exec cp {} $out/bin/ \;
          '';
      }
    );
  rustPlatform = { inherit buildRustPackage; };
in
rec {
  inherit
    lib
    system
    runCommand
    writeTextFile
    rustPlatform
    linuxManualConfig
    buildLinux
    ;
  stdenv = {
    inherit mkDerivation;
    hostPlatform = {
      inherit system;
      isx86_64 = system == "x86_64-linux";
      linux-kernel.target = if system == "x86_64-linux" then "bzImage" else "Image";
    };
  };
  writeText = name: text: writeTextFile { inherit name text; };
  writeShellScriptBin =
    name: text:
    writeTextFile {
      inherit name;
      text = "#!/bin/bash\n" + text;
      executable = true;
      destination = "/bin/${name}";
      meta.mainProgram = name;
    };
  makeWrapper = runCommand "make-wrapper" { } "mkdir -p $out/bin";
  mkShell =
    args:
    mkDerivation (
      removeAttrs args [
        "packages"
        "inputsFrom"
      ]
      // {
        name = "nix-shell";
        nativeBuildInputs = args.packages or [ ];
        buildCommand = "touch $out";
      }
    );

  # No musl here: a static glibc stands in for it.
  pkgsStatic = {
    inherit busybox;
    rustPlatform.buildRustPackage =
      args:
      buildRustPackage (
        args
        // {
          RUSTFLAGS = "-C target-feature=+crt-static";
          CARGO_BUILD_TARGET = "x86_64-unknown-linux-gnu";
        }
      );
  };
  busybox = runCommand "busybox" {
    version = host.busybox;
    meta.mainProgram = "busybox";
  } "mkdir -p $out/bin; cp /usr/bin/busybox $out/bin/busybox";

  qemu_test =
    runCommand "qemu-host-cpu-only"
      {
        version = host.qemu;
        meta.mainProgram = "qemu-system-x86_64";
      }
      ''
        mkdir -p $out/bin
        for program in qemu-system-x86_64 qemu-img; do
            [ ! -x /usr/bin/$program ] || ln -s /usr/bin/$program $out/bin/$program
        done
      '';
  passt = runCommand "passt" { meta.mainProgram = "passt"; } ''
    mkdir -p $out/bin
    for program in passt pasta; do
        [ ! -x /usr/bin/$program ] || ln -s /usr/bin/$program $out/bin/$program
    done
  '';

  linux = variable host.kernels.stable;
  linux_latest = variable host.kernels.mainline;

  cargo = programs "cargo" [ "bash" ];
  clippy = cargo;
  rustfmt = cargo;
  rustc = cargo;
  cpio = programs "cpio" [ "cpio" ];
  gzip = programs "gzip" [ "gzip" ];
  zstd = programs "zstd" [ "zstd" ];
  bison = programs "bison" [ "bison" ];
  flex = programs "flex" [ "flex" ];
  bc = programs "bc" [ "bc" ];
  perl = programs "perl" [ "perl" ];
  nixfmt-tree = programs "nixfmt" [ "bash" ];
}
