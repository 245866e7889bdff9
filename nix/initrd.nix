# mkInitrd: a small initrd. The agent needs nothing of it: provium brings that in an archive of its own.
{ pkgs }:
let
  inherit (pkgs) lib;
  defaultInit = ''
    #!/bin/sh
    [ -e /proc/mounts ] || mount -t proc proc /proc
    grep -q ' /sys ' /proc/mounts || mount -t sysfs sysfs /sys
    grep -q ' /dev ' /proc/mounts || mount -t devtmpfs devtmpfs /dev
    trap 'poweroff -f' TERM
    while :; do
        sleep 2147483647 &
        wait # orphans are collected meanwhile
    done
  '';
in
{
  name ? "initrd",
  # Path in the guest -> a file, a directory or a derivation.
  contents ? { },
  # A derivation with lib/modules, such as a kernel's output `modules`, or null.
  modules ? null,
  # The text of /init, or a file.
  init ? defaultInit,
  busybox ? pkgs.pkgsStatic.busybox,
}:
let
  initFile = if builtins.isString init && lib.hasPrefix "#!" init then pkgs.writeText "init" init else init;
  copy = target: source: ''
    mkdir -p "root/$(dirname ${lib.escapeShellArg target})"
    cp -r --no-preserve=ownership ${lib.escapeShellArg "${source}"} root/${lib.escapeShellArg target}
  '';
in
pkgs.runCommand name
  {
    nativeBuildInputs = [
      pkgs.cpio
      pkgs.gzip
    ];
  }
  ''
    mkdir -p root/{bin,sbin,etc,dev,proc,sys,run,mnt,root,tmp,usr/bin,usr/sbin}
    cp ${busybox}/bin/busybox root/bin/busybox
    for applet in $(root/bin/busybox --list-full); do
        [ -e "root/$applet" ] || ln -s /bin/busybox "root/$applet"
    done
    echo 'root:x:0:0:root:/root:/bin/sh' >root/etc/passwd
    echo 'root:x:0:' >root/etc/group
    chmod 1777 root/tmp
    install -m 755 ${initFile} root/init
    ${lib.concatMapStrings (target: copy target contents.${target}) (builtins.attrNames contents)}
    ${lib.optionalString (modules != null) ''
      mkdir -p root/lib
      cp -r ${modules}/lib/modules root/lib/modules
    ''}
    chmod -R u+w root
    find root -exec touch -h -d @1 {} +
    mkdir $out
    (cd root && find . | LC_ALL=C sort | cpio -o -H newc -R +0:+0 --reproducible --quiet) | gzip -9n >$out/initrd
  ''
