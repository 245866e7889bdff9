# The command, the guest agent, and the command wrapped so that the flake's QEMU, agent and passt are its defaults.
{ pkgs }:
let
  inherit (pkgs) lib;
  source = import ./source.nix { inherit lib; };
  manifest = (builtins.fromTOML (builtins.readFile ../Cargo.toml)).package;

  common = {
    inherit (manifest) version;
    src = source.pick {
      name = "provium-source";
      src = ../.;
      parts = source.crate;
    };
    cargoLock.lockFile = ../Cargo.lock;
    doCheck = false;
    meta = {
      inherit (manifest) description;
      license = [
        lib.licenses.mit
        lib.licenses.asl20
      ];
      platforms = lib.platforms.linux;
    };
  };
in
rec {
  unwrapped = pkgs.rustPlatform.buildRustPackage (
    common
    // {
      pname = "provium-unwrapped";
      cargoBuildFlags = [
        "--bin"
        "provium"
      ];
    }
  );

  agent = pkgs.pkgsStatic.rustPlatform.buildRustPackage (
    common
    // {
      pname = "provium-agent";
      buildNoDefaultFeatures = true;
      cargoBuildFlags = [
        "--bin"
        "provium-agent"
      ];
      meta = common.meta // {
        description = "provium's agent, which runs inside the guests";
        mainProgram = "provium-agent";
      };
    }
  );

  # The one QEMU of `provium` and mkCheck: a fixture's key names it. Never overridden, which would lose the public cache.
  qemu = pkgs.qemu_test;

  provium =
    pkgs.runCommand "provium-${manifest.version}"
      {
        nativeBuildInputs = [ pkgs.makeWrapper ];
        passthru = { inherit unwrapped agent qemu; };
        meta = common.meta // {
          mainProgram = "provium";
        };
      }
      ''
        makeWrapper ${unwrapped}/bin/provium $out/bin/provium \
            --set PROVIUM_DEFAULT_QEMU ${qemu} \
            --set-default PROVIUM_AGENT ${agent}/bin/provium-agent \
            --prefix PATH : ${pkgs.passt}/bin
        $out/bin/provium man $out/share/man/man1
        mkdir -p $out/share/bash-completion/completions $out/share/zsh/site-functions $out/share/fish/vendor_completions.d
        $out/bin/provium completions bash >$out/share/bash-completion/completions/provium
        $out/bin/provium completions zsh >$out/share/zsh/site-functions/_provium
        $out/bin/provium completions fish >$out/share/fish/vendor_completions.d/provium.fish
      '';
}
