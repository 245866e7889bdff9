# A project whose checks tests/nix-check builds, changes and compares.
{
  inputs.nixpkgs.url = "github:NixOS/nixpkgs/nixos-26.05";
  inputs.provium.url = "github:provium/provium";
  inputs.provium.inputs.nixpkgs.follows = "nixpkgs";
  outputs = inputs: import ./outputs.nix inputs;
}
