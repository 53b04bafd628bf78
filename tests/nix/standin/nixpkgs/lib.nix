# The part of nixpkgs' lib that claw's expressions use, under the same names and with the same meaning.
let
  b = builtins;
in
rec {
  inherit (b)
    attrNames
    attrValues
    concatStringsSep
    elem
    elemAt
    filter
    head
    isFunction
    length
    listToAttrs
    mapAttrs
    removeAttrs
    replaceStrings
    tail
    ;

  importJSON = path: b.fromJSON (b.readFile path);
  importTOML = path: b.fromTOML (b.readFile path);
  fileContents = path: removeSuffix "\n" (b.readFile path);

  # --- functions ---
  id = x: x;
  fix =
    f:
    let
      x = f x;
    in
    x;
  extends =
    overlay: f: final:
    let
      prev = f final;
    in
    prev // overlay final prev;
  makeScope =
    newScope: f:
    let
      self = f self // {
        callPackage = newScope self;
        newScope = extra: newScope (self // extra);
      };
    in
    self;
  callPackageWith =
    scope: fileOrFunction: arguments:
    let
      f = if isFunction fileOrFunction then fileOrFunction else import fileOrFunction;
      wanted = b.functionArgs f;
      missing = filter (name: !(wanted.${name} || scope ? ${name} || arguments ? ${name})) (attrNames wanted);
    in
    if missing == [ ] then
      f (b.intersectAttrs wanted scope // arguments)
    else
      throw "the stand-in package set lacks: ${toString missing}";

  # --- lists ---
  optional = condition: x: if condition then [ x ] else [ ];
  optionals = condition: xs: if condition then xs else [ ];
  concatMap = b.concatMap;
  foldl' = b.foldl';
  unique = b.foldl' (found: x: if elem x found then found else found ++ [ x ]) [ ];
  flatten = x: if b.isList x then concatMap flatten x else [ x ];
  any = b.any;
  all = b.all;
  sort = b.sort;
  toList = x: if b.isList x then x else [ x ];

  # --- attribute sets ---
  nameValuePair = name: value: { inherit name value; };
  genAttrs = names: f: listToAttrs (map (name: nameValuePair name (f name)) names);
  filterAttrs =
    keep: set: listToAttrs (map (name: nameValuePair name set.${name}) (filter (name: keep name set.${name}) (attrNames set)));
  getAttrs = names: set: genAttrs names (name: set.${name});
  mapAttrs' = f: set: listToAttrs (map (name: f name set.${name}) (attrNames set));
  mapAttrsToList = f: set: map (name: f name set.${name}) (attrNames set);
  optionalAttrs = condition: set: if condition then set else { };
  extendDerivation =
    condition: passthru: drv:
    assert condition;
    drv // passthru // { passthru = drv.passthru or { } // passthru; };
  isDerivation = x: x.type or null == "derivation";
  recursiveUpdate =
    left: right:
    left
    // b.mapAttrs (
      name: value: if b.isAttrs value && b.isAttrs (left.${name} or null) then recursiveUpdate left.${name} value else value
    ) right;

  # --- strings ---
  concatMapStrings = f: xs: concatStringsSep "" (map f xs);
  concatMapStringsSep =
    separator: f: xs:
    concatStringsSep separator (map f xs);
  concatStrings = concatStringsSep "";
  concatLines = concatMapStrings (line: line + "\n");
  optionalString = condition: text: if condition then text else "";
  hasPrefix = prefix: text: b.substring 0 (b.stringLength prefix) text == prefix;
  hasSuffix =
    suffix: text:
    let
      rest = b.stringLength text - b.stringLength suffix;
    in
    rest >= 0 && b.substring rest (-1) text == suffix;
  hasInfix = infix: text: length (b.split (escapeRegex infix) text) > 1;
  removePrefix = prefix: text: if hasPrefix prefix text then b.substring (b.stringLength prefix) (-1) text else text;
  removeSuffix =
    suffix: text:
    if hasSuffix suffix text then b.substring 0 (b.stringLength text - b.stringLength suffix) text else text;
  splitString = separator: text: filter b.isString (b.split (escapeRegex separator) text);
  escapeRegex = replaceStrings special (map (c: "\\" + c) special);
  toLower = replaceStrings (chars "ABCDEFGHIJKLMNOPQRSTUVWXYZ") (chars "abcdefghijklmnopqrstuvwxyz");
  escapeShellArg = x: "'${replaceStrings [ "'" ] [ "'\\''" ] (toString x)}'";
  escapeShellArgs = concatMapStringsSep " " escapeShellArg;
  makeBinPath = concatMapStringsSep ":" (package: "${package}/bin");
  versions = {
    major = version: head (splitString "." version);
    majorMinor = version: concatStringsSep "." [ (elemAt (splitString "." version) 0) (elemAt (splitString "." version) 1) ];
  };
  versionAtLeast = version: least: b.compareVersions version least >= 0;

  # --- packages ---
  assertMsg = condition: message: if condition then true else throw message;
  getName = package: package.pname or (b.parseDrvName package.name).name;
  getVersion = package: package.version or (b.parseDrvName package.name).version;
  getExe = package: "${package}/bin/${package.meta.mainProgram or (getName package)}";
  getExe' = package: program: "${package}/bin/${program}";
  licenses = {
    asl20.spdxId = "Apache-2.0";
    mit.spdxId = "MIT";
  };
  platforms.linux = [ "x86_64-linux" ];

  chars = text: b.genList (index: b.substring index 1 text) (b.stringLength text);
  special = [ "\\" "." "[" "]" "{" "}" "(" ")" "^" "$" "*" "+" "?" "|" ];
}
