# What working on provium takes.
{ pkgs, packages }:
pkgs.mkShell {
  packages = [
    pkgs.cargo
    pkgs.rustc
    pkgs.clippy
    pkgs.rustfmt
    packages.qemu
    pkgs.passt
    pkgs.cpio
    pkgs.zstd
  ];
  PROVIUM_DEFAULT_QEMU = "${packages.qemu}";
}
