# mkFixture: a fixture as a derivation, so that a binary cache serves ready snapshots.
{ pkgs, provium }:
let
  inherit (pkgs) lib;
  suite = import ./suite.nix { inherit pkgs; };

  fixture =
    {
      # As tests name it: its path from the root without `.fixture.lua`.
      fixture,
      name ? "provium-fixture",
      # The profile that `provium.profile` of the fixture is; the first by sorted name where it is null.
      profile ? null,
      # Fixtures that it is built on.
      fixtures ? [ ],
      accel ? "tcg",
      # A CPU that every machine can restore.
      cpu ? "Nehalem",
      requiredSystemFeatures ? [ ],
      memory ? "2G",
      keep ? (_: _: true),
      ...
    }@given:
    let
      project = suite given;
    in
    pkgs.runCommand name
      {
        inherit requiredSystemFeatures;
        source = project.source "${name}-source" keep;
        configFile = project.config;
        mapFile = project.map;
        nativeBuildInputs = [ provium ];
      }
      ''
        cp -r $source project
        chmod -R u+w project
        cd project
        cp $configFile provium.toml
        export PROVIUM_NIX_MAP=$mapFile PROVIUM_FIXTURE_PATH=${lib.concatMapStringsSep ":" toString fixtures}
        provium fixture build ${lib.escapeShellArg fixture} --accel ${accel} --cpu-model ${cpu} \
            ${lib.optionalString (profile != null) "--profile ${lib.escapeShellArg profile}"}
        mkdir $out
        provium fixture export ${lib.escapeShellArg fixture} $out
      '';
in
fixture
