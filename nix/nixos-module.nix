# A machine that runs checks: the KVM group, and the system features that its Nix offers.
{
  config,
  lib,
  ...
}:
let
  cfg = config.services.provium-ci;
in
{
  options.services.provium-ci = {
    enable = lib.mkEnableOption "building provium's checks on this machine";
    kvm = lib.mkOption {
      type = lib.types.bool;
      default = true;
      description = "Whether builds may use KVM: checks with `requiredSystemFeatures = [ \"kvm\" ]` then come to this machine.";
    };
    users = lib.mkOption {
      type = lib.types.listOf lib.types.str;
      default = [ ];
      description = "Users who may use KVM outside of builds, for `provium test`.";
    };
  };

  config = lib.mkIf cfg.enable {
    nix.settings = {
      sandbox = lib.mkDefault true;
      extra-system-features = lib.optionals cfg.kvm [ "kvm" ];
    };
    users.groups.kvm.members = cfg.users;
  };
}
