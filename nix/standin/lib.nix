# The functions of nixpkgs' lib that are used here, by their names there.
let
  inherit (builtins)
    attrNames
    concatStringsSep
    elemAt
    filter
    foldl'
    hasAttr
    isAttrs
    isBool
    isString
    length
    listToAttrs
    map
    stringLength
    substring
    ;
in
rec {
  inherit (builtins) concatStringsSep;
  genAttrs =
    names: value:
    listToAttrs (
      map (name: {
        inherit name;
        value = value name;
      }) names
    );
  mapAttrsToList = f: set: map (name: f name set.${name}) (attrNames set);
  concatMapStrings = f: list: concatStringsSep "" (map f list);
  concatMapStringsSep =
    separator: f: list:
    concatStringsSep separator (map f list);
  optionalString = condition: text: if condition then text else "";
  optional = condition: value: if condition then [ value ] else [ ];
  optionals = condition: values: if condition then values else [ ];
  optionalAttrs = condition: set: if condition then set else { };
  hasPrefix = prefix: text: substring 0 (stringLength prefix) text == prefix;
  hasSuffix =
    suffix: text:
    let
      from = stringLength text - stringLength suffix;
    in
    from >= 0 && substring from (stringLength text) text == suffix;
  removePrefix =
    prefix: text:
    if hasPrefix prefix text then
      substring (stringLength prefix) (stringLength text) text
    else
      text;
  removeSuffix =
    suffix: text:
    if hasSuffix suffix text then substring 0 (stringLength text - stringLength suffix) text else text;
  splitString = separator: text: filter isString (builtins.split (escapeRegex separator) text);
  escapeRegex =
    builtins.replaceStrings
      [ "\\" "." "*" "+" "?" "(" ")" "[" "{" "^" "$" "|" "]" "}" ]
      [ "\\\\" "\\." "\\*" "\\+" "\\?" "\\(" "\\)" "\\[" "\\{" "\\^" "\\$" "\\|" "\\]" "\\}" ];
  escapeShellArg = text: "'" + builtins.replaceStrings [ "'" ] [ "'\\''" ] (toString text) + "'";
  escapeShellArgs = concatMapStringsSep " " escapeShellArg;
  makeBinPath = concatMapStringsSep ":" (package: "${package}/bin");
  hasAttrByPath =
    path: set:
    path == [ ]
    || isAttrs set
      && hasAttr (builtins.head path) set
      && hasAttrByPath (builtins.tail path) set.${builtins.head path};
  attrByPath =
    path: default: set:
    if path == [ ] then
      set
    else if isAttrs set && hasAttr (builtins.head path) set then
      attrByPath (builtins.tail path) default set.${builtins.head path}
    else
      default;
  unique = foldl' (seen: value: if builtins.elem value seen then seen else seen ++ [ value ]) [ ];
  isDerivation = value: isAttrs value && value.type or null == "derivation";
  # As there, the function is a set that tells which arguments it takes.
  makeOverridable = f: {
    __functionArgs = builtins.functionArgs f;
    __functor =
      _: args:
      let
        result = f args;
        again = new: makeOverridable f (args // (if builtins.isFunction new then new args else new));
      in
      if isAttrs result then result // { override = again; } else result;
  };
  composeExtensions =
    f: g: final: prev:
    let
      first = f final prev;
    in
    first // g final (prev // first);
  versions.pad =
    count: version:
    let
      parts = splitString "." version;
      zeros = builtins.genList (_: "0") (count - length parts);
    in
    concatStringsSep "." (builtins.genList (elemAt (parts ++ zeros)) count);
  licenses = {
    mit.spdxId = "MIT";
    asl20.spdxId = "Apache-2.0";
  };
  platforms.linux = [
    "x86_64-linux"
    "aarch64-linux"
  ];
  kernel = {
    yes.tristate = "y";
    no.tristate = "n";
    module.tristate = "m";
    freeform = text: { freeform = text; };
  };

  # Of the module system only as much as declares options; tests/nix-check evaluates modules with it.
  mkOption = options: options // { _type = "option"; };
  mkEnableOption =
    name:
    mkOption {
      default = false;
      description = "Whether to enable ${name}.";
      type = types.bool;
    };
  mkIf = condition: content: optionalAttrs condition content;
  mkDefault = value: value;
  types = genAttrs [ "bool" "str" "path" "raw" "package" "int" ] (name: {
    inherit name;
  })
  // {
    listOf = of: {
      name = "listOf";
      inherit of;
    };
    attrsOf = of: {
      name = "attrsOf";
      inherit of;
    };
    lazyAttrsOf = of: {
      name = "lazyAttrsOf";
      inherit of;
    };
  };
  generators.isBool = isBool;
}
