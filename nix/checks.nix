# mkChecks: one derivation per test file, and what a file's head line says is all that its derivation depends on:
#
#     -- provium: profiles=stable,mainline fixtures=base
{
  pkgs,
  mkCheck,
  mkFixture,
}:
let
  inherit (pkgs) lib;
  suite = import ./suite.nix { inherit pkgs; };

  # Files below a directory, relative to `src`.
  filesBelow =
    src: directory:
    let
      place = if directory == "" then src else src + "/${directory}";
      entries = builtins.readDir place;
      inside = name: if directory == "" then name else "${directory}/${name}";
      each =
        name:
        if entries.${name} == "directory" then
          filesBelow src (inside name)
        else if entries.${name} == "regular" then
          [ (inside name) ]
        else
          [ ];
    in
    builtins.concatMap each (builtins.attrNames entries);

  # { profiles, fixtures } of a head line; null for what is not said, or where there is no such line.
  headOf =
    src: file:
    let
      lines = lib.splitString "\n" (builtins.readFile (src + "/${file}"));
      head = builtins.match "-- provium:(.*)" (builtins.head lines);
      word =
        key:
        let
          found = builtins.match "(.* )?${key}=([^ ]*).*" (builtins.head head);
          value = builtins.elemAt found 1;
        in
        if head == null || found == null then
          null
        else if value == "" then
          [ ]
        else
          lib.splitString "," value;
    in
    {
      stated = head != null;
      profiles = word "profiles";
      fixtures = word "fixtures";
    };

  isTest = lib.hasSuffix ".test.lua";
  isFixture = lib.hasSuffix ".fixture.lua";
  # A name that a derivation may have.
  nameOf =
    file:
    builtins.concatStringsSep "-" (
      builtins.filter builtins.isString (builtins.split "[^a-zA-Z0-9._+-]+" (lib.removeSuffix ".test.lua" file))
    );
in
{
  src,
  name ? "provium",
  tests ? null,
  ...
}@given:
let
  common = removeAttrs given [
    "tests"
    "name"
  ];
  project = suite common;
  roots = map (root: if root == "." then "" else lib.removeSuffix "/" (lib.removePrefix "./" root)) project.roots;
  found = lib.unique (builtins.concatMap (filesBelow src) roots);
  wanted = file: tests == null || builtins.any (test: test == file || lib.hasPrefix "${test}/" file) tests;
  files = builtins.filter (file: isTest file && wanted file) found;

  # The file of the fixture `fixture`: the first root that has it.
  fixtureFile =
    fixture:
    let
      candidates = map (root: if root == "" then "${fixture}.fixture.lua" else "${root}/${fixture}.fixture.lua") roots;
      there = builtins.filter (file: builtins.elem file found) candidates;
    in
    if there == [ ] then throw "mkChecks: there is no fixture `${fixture}`" else builtins.head there;

  # With those that they are built on.
  closure =
    seen: fixtures:
    builtins.foldl' (
      seen: fixture:
      if builtins.elem fixture seen then
        seen
      else
        let
          parents = (headOf src (fixtureFile fixture)).fixtures;
        in
        closure (seen ++ [ fixture ]) (if parents == null then [ ] else parents)
    ) seen fixtures;

  profilesOf = file: (headOf src file).profiles;

  # All profiles that any of these files names; null where one of them does not say.
  profilesOfAll =
    files:
    let
      each = map profilesOf files;
    in
    if builtins.elem null each then null else lib.unique (builtins.concatLists each);

  # A fixture for one profile: the same derivation for every file that asks for it.
  fixtureFor =
    profile: fixture:
    let
      head = headOf src (fixtureFile fixture);
      parents = if head.fixtures == null then [ ] else head.fixtures;
      files = map fixtureFile (closure [ ] [ fixture ]);
      named = profilesOfAll files;
    in
    mkFixture (
      common
      // {
        inherit fixture profile;
        onlyProfiles = if named == null then null else lib.unique ([ profile ] ++ named);
        keyProfiles = "used";
        fixtures = map (fixtureFor profile) parents;
        keep = other: _: !isTest other && (!isFixture other || builtins.elem other files || !head.stated);
      }
    );

  one =
    file:
    let
      head = headOf src file;
      named = if head.fixtures == null then [ ] else head.fixtures;
      fixtureFiles = map fixtureFile (closure [ ] named);
      # A fixture's profiles belong to the file that uses it.
      profiles =
        if head.profiles == null then null else lib.unique (
          builtins.concatMap (file: if profilesOf file == null then [ ] else profilesOf file) ([ file ] ++ fixtureFiles)
        );
      # What `vm_fixture` asks for where it is given no profile.
      first = builtins.head (
        builtins.sort builtins.lessThan (if profiles == null then project.names else profiles)
      );
    in
    mkCheck (
      common
      // {
        name = "${name}-${nameOf file}";
        tests = [ file ];
        onlyProfiles = profiles;
        keyProfiles = "used";
        fixtures = given.fixtures or [ ] ++ map (fixtureFor first) named;
        # Another test is no part of it; nor is another fixture, where the head line names those that are.
        keep =
          other: _:
          if isTest other then
            other == file
          else if isFixture other && head.stated then
            builtins.elem other fixtureFiles
          else
            true;
      }
    );
in
builtins.listToAttrs (
  map (file: {
    name = nameOf file;
    value = one file;
  }) files
)
