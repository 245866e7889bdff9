# mkChecks: one derivation per test file, and what a file's head line says is all that its derivation depends on:
#
#     -- provium: profiles=stable,mainline fixtures=base
{ pkgs, mkCheck }:
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

  one =
    file:
    let
      head = headOf src file;
      fixtures = if head.fixtures == null then [ ] else closure [ ] head.fixtures;
      fixtureFiles = map fixtureFile fixtures;
      # A fixture's profiles belong to the file that uses it.
      profiles = lib.unique (
        builtins.concatMap (file: if profilesOf file == null then [ ] else profilesOf file) (
          [ file ] ++ fixtureFiles
        )
      );
    in
    mkCheck (
      common
      // {
        name = "${name}-${nameOf file}";
        tests = [ file ];
        onlyProfiles = if head.stated && head.profiles != null then profiles else null;
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
