# A project whose checks tests/nix-check builds, changes and compares.
{
  inputs.nixpkgs.url = "github:NixOS/nixpkgs/nixos-26.05";
  inputs.provium.url = "github:provium/provium";
  inputs.provium.inputs.nixpkgs.follows = "nixpkgs";

  outputs =
    {
      self,
      nixpkgs,
      provium,
    }:
    let
      system = "x86_64-linux";
      pkgs = nixpkgs.legacyPackages.${system};
      packages = provium.lib.forPkgs pkgs;
      # A kernel of our own: what stamp.txt says is a part of it, as a kernel option would be.
      own = pkgs.runCommand "own-kernel" { } ''
        mkdir $out
        cp ${pkgs.linux_latest}/bzImage $out
        cp ${./stamp.txt} $out/stamp
      '';
      # Variants of a kernel, each way that there is; tests/nix-check compares their derivations.
      variants =
        let
          yes.tristate = "y";
          no.tristate = "n";
          small = {
            inherit (pkgs.linux_latest) src version;
            base = "tinyconfig";
            structuredExtraConfig = {
              "64BIT" = yes;
              BINFMT_ELF = yes;
              BINFMT_SCRIPT = yes;
              BLK_DEV_INITRD = yes;
              DEVTMPFS = yes;
              EPOLL = yes;
              EVENTFD = yes;
              FUTEX = yes;
              MULTIUSER = yes;
              NET = yes;
              PCI = yes;
              POSIX_TIMERS = yes;
              PRINTK = yes;
              PROC_FS = yes;
              SERIAL_8250 = yes;
              SERIAL_8250_CONSOLE = yes;
              SHMEM = yes;
              SIGNALFD = yes;
              SYSFS = yes;
              TIMERFD = yes;
              TMPFS = yes;
              TTY = yes;
              UNIX = yes;
              VIRTIO_CONSOLE = yes;
              VIRTIO_MENU = yes;
              VIRTIO_PCI = yes;
              LOG_BUF_SHIFT.freeform = "16";
            };
          };
        in
        {
          inherit (pkgs) linux;
          ofPackage = packages.mkKernel {
            kernel = pkgs.linux;
            structuredExtraConfig.KASAN = yes;
          };
          ofSource = packages.mkKernel { inherit (small) src version; };
          ofConfigfile = packages.mkKernel {
            inherit (small) src version;
            configfile = ./stamp.txt;
          };
          small = packages.mkKernel small;
          smallAgain = packages.mkKernel small;
          smallToggled = packages.mkKernel (
            small
            // {
              structuredExtraConfig = small.structuredExtraConfig // {
                SYSVIPC = yes;
                DEVTMPFS_MOUNT = no;
              };
            }
          );
          smallPatched = packages.mkKernel (
            small
            // {
              kernelPatches = [
                {
                  name = "none";
                  patch = null;
                  structuredExtraConfig.SYSVIPC = yes;
                }
              ];
            }
          );
        };
      suite = {
        src = ./.;
        inherit self;
      };
    in
    {
      legacyPackages.${system} = {
        kernels.own = own;
        initrd = packages.mkInitrd { };
        modules = {
          stable = pkgs.linux.modules;
          own = pkgs.linux_latest.modules;
        };
        stable = pkgs.linux;
        inherit variants;
        whole = packages.mkCheck (suite // { name = "whole"; });
      };
      checks.${system} = packages.mkChecks suite;
    };
}
