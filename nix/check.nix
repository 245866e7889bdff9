# mkCheck: one derivation that runs tests in the build sandbox and fails when one of them fails.
{ pkgs, provium }:
let
  inherit (pkgs) lib;
  suite = import ./suite.nix { inherit pkgs; };

  check =
    {
      name ? "provium-check",
      # Files or directories, relative to src; the roots of provium.toml where none is given.
      tests ? [ ],
      requiredSystemFeatures ? [ ],
      # CPUs; those of NIX_BUILD_CORES where it is null.
      cores ? null,
      memory ? "2G",
      # What mkFixture made: restored instead of built.
      fixtures ? [ ],
      # For each file, as `--timeout` takes it.
      timeout ? null,
      # Further arguments of `provium test`.
      args ? [ ],
      # Which files of the source the tests can see.
      keep ? (_: _: true),
      ...
    }@given:
    let
      project = suite given;
      arguments =
        args
        ++ [
          "--memory"
          memory
        ]
        ++ lib.optionals (timeout != null) [
          "--timeout"
          timeout
        ]
        ++ [ "--" ]
        ++ tests;
      run = ''
        cp -r $source project
        chmod -R u+w project
        cd project
        cp $configFile provium.toml
        export PROVIUM_NIX_MAP=$mapFile
        ${lib.optionalString (cores != null) "export NIX_BUILD_CORES=${toString cores}"}
      '';
      environment = {
        inherit requiredSystemFeatures;
        source = project.source "${name}-source" keep;
        configFile = project.config;
        mapFile = project.map;
        nativeBuildInputs = [ provium ];
        PROVIUM_FIXTURE_PATH = builtins.concatStringsSep ":" (map toString fixtures);
      };
      report = pkgs.runCommand "${name}-report" environment ''
        ${run}
        mkdir -p $out/artifacts $out/nix-support
        status=0
        provium test --junit $out/junit.xml --html $out/report.html --save-events $out/events.jsonl --artifacts $out/artifacts \
            ${lib.escapeShellArgs arguments} || status=$?
        # That tests fail is no reason to have no report; that nothing could run is.
        case $status in 0 | 1) ;; *) exit $status ;; esac
        echo $status >$out/exit-code
        echo "report provium $out report.html" >>$out/nix-support/hydra-build-products
        echo "file junit $out/junit.xml" >>$out/nix-support/hydra-build-products
        echo "file events $out/events.jsonl" >>$out/nix-support/hydra-build-products
      '';
    in
    pkgs.runCommand name
      (
        environment
        // {
          passthru = { inherit report fixtures; };
        }
      )
      ''
        ${run}
        provium test ${lib.escapeShellArgs arguments}
        touch $out
      '';
in
check
