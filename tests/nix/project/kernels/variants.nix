# Variants of a kernel, in each way that mkKernel makes them; tests/nix-check compares their derivations. Two of them differ by one option.
{ pkgs, packages }:
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
    configfile = ./provium.toml;
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
}
