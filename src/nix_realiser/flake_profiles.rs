//! `[profiles] from_flake`: the profiles that a flake has in `proviumProfiles`, each as made by `mkProfile`.

use serde_json::{Map, Value};

use super::call_plan::CallPlan;
use super::cancel::Cancel;
use super::error::RealiseError;
use super::installable::{Batch, Installable};
use super::nix_call::{Nix, arguments};
use super::request::{Role, Wanted};
use crate::foundation::nix_value::{NixSource, NixValue};

const ASKED_BY: &str = "`[profiles]`, key `from_flake`";

/// Asks the flake, which evaluates it and builds nothing.
///
/// # Errors
/// It can't be evaluated, or has no such profiles.
pub(super) fn ask(nix: &Nix, reference: &str, cancel: &Cancel) -> Result<Map<String, Value>, RealiseError> {
    let installable = format!("{reference}#proviumProfiles");
    let value = NixValue { source: NixSource::Installable(installable.clone()), file: None };
    // The role is not used: nothing is looked for inside an output.
    let wanted = [Wanted { value, role: Role::CmdlineFile, asked_by: ASKED_BY.to_owned() }];
    let batch = Batch {
        file: None,
        installables: vec![Installable { text: installable.clone(), shown: installable.clone(), wanted: vec![0] }],
    };
    let plan = CallPlan::new(nix, &batch, &wanted, &mut |_| (), cancel)?;
    let mut args = arguments([&"--json", &"--log-format", &"internal-json", &"-v"]);
    args.extend(plan.reading());
    args.extend(arguments([&"--apply", &expression(reference), &"--", &installable]));
    let outcome = nix.run("eval", &args, &mut |_| (), cancel)?;
    if !outcome.status.success() {
        let all: Vec<_> = batch.installables.iter().collect();
        return Err(plan.explain(&outcome, &all, cancel));
    }
    serde_json::from_slice(&outcome.stdout).map_err(|error| RealiseError::Unreadable {
        detail: format!("`{installable}`: expected an attribute set of profiles: {error}"),
        asked_by: vec![ASKED_BY.to_owned()],
    })
}

/// A profile of `mkProfile` to the keys of provium.toml: its derivations become Nix values of this flake.
fn expression(reference: &str) -> String {
    let reference = nix_text(reference);
    format!(
        "builtins.mapAttrs (name: profile: let \
           word = if builtins.match \"[a-zA-Z_][a-zA-Z0-9_'-]*\" name != null then name else \"\\\"${{name}}\\\"\"; \
           value = key: file: {{ nix = {reference} + \"#proviumProfiles.${{word}}.${{key}}\"; }} \
             // (if file == null then {{ }} else {{ inherit file; }}); \
         in profile.settings // builtins.mapAttrs value profile.files)"
    )
}

/// A string literal of the Nix language.
fn nix_text(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\"").replace("${", "\\${"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reference_stays_text() {
        assert_eq!(nix_text("."), "\".\"");
        assert_eq!(nix_text("a\"${b}\\"), "\"a\\\"\\${b}\\\\\"");
        assert!(expression("path:.").contains("nix = \"path:.\" + \"#proviumProfiles.${word}.${key}\""));
    }
}
