# The kernel and the initrd of the profile `mainline`, built by Nix.
#
# A project would take both from nixpkgs. This file uses nothing but Nix itself and a static busybox, which is the
# builder of both derivations, so that it builds without a network. tests/setup puts the inputs into .images.
let
  busybox = "${./.images/bin}/busybox"; # the name matters: busybox is what its name says

  build = name: script: derivation {
    inherit name;
    system = builtins.currentSystem;
    builder = busybox;
    args = [ "sh" "-euc" script ];
    allowSubstitutes = false; # nobody else has these: don't ask
  };

  # Makes `tar`, `cp` and so on available: busybox acts as the applet it is called by.
  tools = ''
    ${busybox} mkdir -p "$NIX_BUILD_TOP/tools"
    ${busybox} --install -s "$NIX_BUILD_TOP/tools"
    export PATH="$NIX_BUILD_TOP/tools"
  '';
in
{
  # $out/bzImage, $out/config and $out/lib/modules/<release>, from the distribution's own package.
  kernel = build "example-kernel" ''
    ${tools}
    for package in ${./.images/mainline/packages}/*.tar; do tar -xf "$package"; done
    mkdir -p "$out/lib"
    cp boot/vmlinuz-* "$out/bzImage"
    cp boot/config-* "$out/config"
    if [ -d usr/lib/modules ]; then cp -R usr/lib/modules "$out/lib"; else cp -R lib/modules "$out/lib"; fi
  '';

  # $out/initrd.cpio.gz: the same bytes as .images/guest/initrd.cpio.gz.
  initrd = build "example-initrd" ''
    ${tools}
    mkdir "$out"
    sh ${./guest/make-initrd} ${busybox} ${./guest/init} "$out/initrd.cpio.gz"
  '';
}
