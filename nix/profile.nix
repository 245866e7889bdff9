# mkProfile: one profile out of derivations. A set of them is what `from_flake` reads and what mkCheck takes.
{ pkgs }:
let
  inherit (pkgs) lib;
in
{
  kernel,
  # The image inside `kernel`.
  kernelFile ? if lib.isDerivation kernel then
    kernel.target or pkgs.stdenv.hostPlatform.linux-kernel.target
  else
    null,
  initrd ? null,
  initrdFile ? null,
  modules ? if lib.isDerivation kernel then kernel.modules or null else null,
  vmlinux ? null,
  vmlinuxFile ? null,
  cmdline ? "",
  # Any other key of a profile in provium.toml: memory, cpus, guest_os, splats, fast_boot, …
  ...
}@args:
let
  values =
    lib.optionalAttrs (kernel != null) { inherit kernel; }
    // lib.optionalAttrs (initrd != null) { inherit initrd; }
    // lib.optionalAttrs (modules != null) { inherit modules; }
    // lib.optionalAttrs (vmlinux != null) { inherit vmlinux; };
  files = {
    kernel = kernelFile;
    initrd = initrdFile;
    modules = null;
    vmlinux = vmlinuxFile;
  };
in
values
// {
  # What is no derivation, by the names of provium.toml.
  settings = {
    inherit cmdline;
  }
  // removeAttrs args [
    "kernel"
    "kernelFile"
    "initrd"
    "initrdFile"
    "modules"
    "vmlinux"
    "vmlinuxFile"
    "cmdline"
  ];
  # The file meant inside each value; null where its role decides.
  files = builtins.mapAttrs (key: _: files.${key}) values;
}
