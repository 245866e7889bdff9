# The flake's own checks.
{ pkgs, packages }:
let
  inherit (pkgs) lib;
  source = import ./source.nix { inherit lib; };

  # Runs cargo over the source with everything that tests read.
  cargo =
    name: parts: command:
    pkgs.rustPlatform.buildRustPackage {
      pname = "provium-${name}";
      inherit (packages.provium-unwrapped) version;
      src = source.pick {
        name = "provium-${name}-source";
        src = ../.;
        parts = [
          "Cargo.toml"
          "Cargo.lock"
          "build.rs"
          "clippy.toml"
          "rustfmt.toml"
          "src"
          "benches"
        ]
        ++ parts;
      };
      cargoLock.lockFile = ../Cargo.lock;
      nativeBuildInputs = [
        pkgs.clippy
        pkgs.rustfmt
      ];
      doCheck = false;
      buildPhase = command;
      installPhase = "touch $out";
    };

  initrd = packages.mkInitrd { };
  kernels = {
    stable = packages.mkProfile {
      kernel = pkgs.linux;
      inherit initrd;
      cmdline = "quiet";
    };
    mainline = packages.mkProfile {
      kernel = pkgs.linux_latest;
      inherit initrd;
      cmdline = "quiet";
    };
  };
  suite = packages.mkChecks {
    name = "vm";
    src = ./tests;
    profiles = kernels;
  };
in
{
  inherit kernels;
  checks = {
    build = packages.provium;
    agent = packages.provium-agent;
    fmt = cargo "fmt" [ "tests" ] "cargo fmt --check";
    # One compilation serves both.
    clippy = cargo "clippy" [ "tests" ] "cargo clippy --frozen --all-targets -- -D warnings";
    docs = cargo "docs" [ ] ''RUSTDOCFLAGS="-D warnings" cargo doc --frozen --no-deps'';
    unit-tests = cargo "unit-tests" [ ] "cargo test --frozen --lib";
    nixpkgs-surface = import ./surface-check.nix { inherit pkgs; };
  }
  // builtins.listToAttrs (
    map (name: {
      name = "vm-${name}";
      value = suite.${name};
    }) (builtins.attrNames suite)
  );
}
