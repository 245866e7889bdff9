# The flake's own checks.
{ pkgs, packages }:
let
  inherit (pkgs) lib;
  source = import ./source.nix { inherit lib; };

  # One derivation for all that cargo says of the source, because they share nearly all of their compilation.
  rust = pkgs.rustPlatform.buildRustPackage {
    pname = "provium-source-checks";
    inherit (packages.provium-unwrapped) version;
    src = source.pick {
      name = "provium-checked-source";
      src = ../.;
      parts = source.crate ++ [
        # Compiled by clippy, and run elsewhere: they take machines, Nix and the network's packages.
        "tests"
        # Tests compare it with the protocol.
        "docs/agent-protocol.md"
      ];
      keep =
        file: _:
        !lib.hasPrefix "tests/" file || lib.hasPrefix "tests/ktap/" file || lib.hasSuffix ".rs" file;
    };
    cargoLock.lockFile = ../Cargo.lock;
    nativeBuildInputs = [
      pkgs.clippy
      pkgs.rustfmt
    ];
    doCheck = false;
    # Nobody debugs what is built here, and without it the tests compile faster.
    CARGO_PROFILE_DEV_DEBUG = "0";
    CARGO_INCREMENTAL = "0";
    buildPhase = ''
      cargo fmt --check
      cargo clippy --frozen --all-targets -- -D warnings
      RUSTDOCFLAGS="-D warnings" cargo doc --frozen --no-deps
      # The sandbox refuses to set setgid bits, and what is tested here is no static program, as an agent must be.
      cargo test --frozen --lib -- \
          --skip guest_agent::paths::tests::directories_get_exactly_what_is_asked_for \
          --skip testbed::host_files::tests::a_tree_comes_in_order_and_without_sockets \
          --skip qemu::agent_program::tests
    '';
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
    fmt = rust;
    clippy = rust;
    docs = rust;
    unit-tests = rust;
    nixpkgs-surface = import ./surface-check.nix { inherit pkgs; };
  }
  // builtins.listToAttrs (
    map (name: {
      name = "vm-${name}";
      value = suite.${name};
    }) (builtins.attrNames suite)
  );
}
