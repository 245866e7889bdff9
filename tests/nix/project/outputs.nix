inputs:
let
  inherit (inputs) self;
  pkgs = inputs.nixpkgs.legacyPackages.x86_64-linux;
  packages = inputs.provium.lib.forPkgs pkgs;
  initrd = packages.mkInitrd { };
  # A kernel of our own: what stamp.txt says is a part of it, as a kernel option would be.
  own = pkgs.runCommand "own-kernel" { } ''
    mkdir $out
    cp ${pkgs.linux_latest}/bzImage $out
    cp ${./stamp.txt} $out/stamp
  '';
  suite = {
    src = ./.;
    inherit self;
  };
  fixture = packages.mkFixture (suite // { fixture = "prepared"; });
  variants = import ./kernels/variants.nix { inherit pkgs packages; };
in
{
  legacyPackages.x86_64-linux = {
    inherit fixture initrd variants;
    inherit (packages) qemu;
    kernels.own = own;
    modules = {
      stable = pkgs.linux.modules;
      own = pkgs.linux_latest.modules;
    };
    stable = pkgs.linux;
    # With a fixture that is a derivation of its own.
    restoring = packages.mkCheck (
      suite
      // {
        name = "restoring";
        tests = [ "tests/prepared.test.lua" ];
        fixtures = [ fixture ];
      }
    );
    # The tests of two variants. They are no checks: building the kernels takes minutes, and the source of one.
    featureTests = packages.mkChecks {
      src = ./kernels;
      profiles =
        builtins.mapAttrs
          (
            _: kernel:
            packages.mkProfile {
              inherit kernel initrd;
              modules = null;
            }
          )
          {
            before = variants.small;
            after = variants.smallToggled;
          };
    };
  };
  checks.x86_64-linux = packages.mkChecks suite;
}
