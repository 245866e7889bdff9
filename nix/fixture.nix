# mkFixture: a fixture as a derivation, whose output is a directory that `[provium] fixture_stores` and PROVIUM_FIXTURE_PATH take.
{ pkgs, provium }:
let
  inherit (pkgs) lib;
  suite = import ./suite.nix { inherit pkgs; };
in
{
  # The fixture's name, as tests give it.
  fixture,
  # The profile it is asked for with; the first by sorted name where it is null.
  profile ? null,
  # Of mkFixture, those that it is built on.
  fixtures ? [ ],
  # `kvm` takes a machine that has it, and a run on such a machine.
  accel ? "tcg",
  # The CPU model of profiles that name none. TCG's own is the same on every machine; KVM's is the machine's.
  cpu ? (if accel == "kvm" then "Nehalem" else null),
  requiredSystemFeatures ? [ ],
  # CPUs; those of NIX_BUILD_CORES where it is null.
  cores ? null,
  # Which files of the source it can see. No test is part of a fixture.
  keep ? (file: _: !lib.hasSuffix ".test.lua" file),
  ...
}@given:
let
  project = suite (given // { inherit cpu; });
  words = builtins.filter builtins.isString (builtins.split "[^a-zA-Z0-9._+-]+" fixture);
  name = builtins.concatStringsSep "-" (words ++ lib.optionals (profile != null) [ profile ]);
  which = lib.escapeShellArgs (
    [
      "--accel"
      accel
    ]
    ++ lib.optionals (profile != null) [
      "--profile"
      profile
    ]
    ++ [
      "--"
      fixture
    ]
  );
in
pkgs.runCommand "provium-fixture-${name}"
  {
    requiredSystemFeatures = lib.unique (requiredSystemFeatures ++ lib.optionals (accel == "kvm") [ "kvm" ]);
    source = project.source "provium-fixture-source" keep;
    configFile = project.config;
    mapFile = project.map;
    nativeBuildInputs = [ provium ];
    PROVIUM_FIXTURE_PATH = builtins.concatStringsSep ":" (map toString fixtures);
  }
  ''
    cp -r $source project
    chmod -R u+w project
    cd project
    cp $configFile provium.toml
    export PROVIUM_NIX_MAP=$mapFile
    ${lib.optionalString (cores != null) "export NIX_BUILD_CORES=${toString cores}"}
    provium fixture build ${which}
    mkdir $out
    provium fixture export ${which} $out/${name}.fixture
  ''
