# Nix values of provium.toml, as its documentation defines them, resolved without calling nix: what stands for `nix build` inside
# a check. Each resolves to a store path with its context, so that whoever uses it depends on it.
{
  lib,
  system,
  src,
  self,
  inputs,
}:
let
  # `a."b.c".d` -> [ "a" "b.c" "d" ]
  attributePath =
    text:
    let
      words = builtins.filter builtins.isList (builtins.split ''"([^"]*)"|([^."]+)'' text);
      word = groups: if builtins.head groups != null then builtins.head groups else builtins.elemAt groups 1;
    in
    map word words;

  # The output that is meant, as text with context.
  output =
    what: wanted: value:
    if lib.isDerivation value then
      if wanted == null then
        "${value}"
      else
        "${value.${wanted} or (throw "mkCheck: ${what}: there is no output `${wanted}`")}"
    else if builtins.isString value || builtins.isPath value then
      "${value}"
    else
      throw "mkCheck: ${what} is no derivation";

  # As nix looks an attribute up: packages, legacyPackages, then the flake itself.
  inFlake =
    what: flake: path:
    let
      places = [
        [
          "packages"
          system
        ]
        [
          "legacyPackages"
          system
        ]
        [ ]
      ];
      found = builtins.filter (place: lib.hasAttrByPath (place ++ path) flake) places;
    in
    if found == [ ] then
      throw "mkCheck: ${what}: the flake does not provide it, neither in packages.${system} nor in legacyPackages.${system}"
    else
      lib.attrByPath (builtins.head found ++ path) null flake;

  flakeOf =
    what: reference:
    if builtins.elem reference [ "" "." "self" ] then
      if self == null then throw "mkCheck: ${what} needs `self`" else self
    else if inputs ? ${reference} then
      inputs.${reference}
    else if builtins.match ".*[0-9a-f]{40}.*" reference != null then
      builtins.getFlake reference
    else
      throw "mkCheck: ${what}: `${reference}` is none of `inputs` and names no revision, so what it means may change; make it an input of the flake";

  # `/nix/store/…` and `/nix/store/….drv^out`.
  inStore =
    what: text:
    let
      parts = builtins.match "(/nix/store/[^/^]+)(\\^([^/]+))?" text;
      path = builtins.elemAt parts 0;
      wanted = builtins.elemAt parts 2;
    in
    if parts == null then
      throw "mkCheck: ${what} is no store path"
    else if wanted == null then
      builtins.appendContext path { ${path}.path = true; }
    else
      throw "mkCheck: ${what}: a derivation can't be named by its path inside a check; write an attribute of the flake";

  # { key, path, file } of a value in its string form; `key` as the map of the sandbox names it.
  ofText =
    text:
    let
      at = builtins.match "([^#]*)#(.*)" text;
      rest = lib.splitString "//" (if at == null then text else builtins.elemAt at 1);
      file =
        if builtins.length rest > 1 then
          builtins.concatStringsSep "//" (builtins.tail rest)
        else
          null;
      stored = builtins.match "(/nix/store/[^/]+)/*(.*)" text;
      reference = builtins.elemAt at 0;
      named = builtins.match "([^^]*)(\\^(.*))?" (builtins.head rest);
      attribute = builtins.elemAt named 0;
      what = "`${text}`";
    in
    if lib.hasPrefix "/nix/store/" text then
      {
        key = builtins.elemAt stored 0;
        path = inStore what (builtins.elemAt stored 0);
        file = if builtins.elemAt stored 1 == "" then null else builtins.elemAt stored 1;
      }
    else if at == null then
      throw "mkCheck: ${what} is a bare word, not a Nix value; write `.#${text}` for an attribute of this flake"
    else
      {
        key = "${reference}#${builtins.head rest}";
        path = output what (builtins.elemAt named 2) (
          inFlake what (flakeOf what reference) (attributePath attribute)
        );
        inherit file;
      };

  # `{ file = "default.nix", attr = "kernel" }`
  ofFile =
    { file, attr, ... }:
    let
      what = "`${attr}` of `${file}`";
      content = import (src + "/${file}");
      set = if builtins.isFunction content then content { inherit system; } else content;
    in
    {
      key = "--file ${file} ${attr}";
      path = output what null (
        lib.attrByPath (attributePath attr) (throw "mkCheck: there is no ${what}") set
      );
      file = null;
    };
in
# What a value of provium.toml resolves to; null for a path.
value:
if builtins.isString value then
  if lib.hasPrefix "/nix/store/" value || builtins.match ".*#.*" value != null then
    ofText value
  else
    null
else if value ? attr then
  ofFile value
else if value ? nix then
  ofText value.nix // (if value ? file then { inherit (value) file; } else { })
else
  null
