//! Links `target/<profile>/<binary>` to `target/<triple>/<profile>/<binary>`.
//!
//! `.cargo/config.toml` names a target so that static linking and procedural macros go together; Cargo then
//! writes the binaries one directory deeper than people look. The links cost nothing and are never read by the build.

use std::path::Path;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let (Ok(out), Ok(triple)) = (std::env::var("OUT_DIR"), std::env::var("TARGET")) else { return };
    // OUT_DIR is <target>/<triple>/<profile>/build/<package>/out.
    let Some(profile_dir) = Path::new(&out).ancestors().nth(3) else { return };
    let (Some(profile), Some(triple_dir)) = (profile_dir.file_name(), profile_dir.parent()) else { return };
    if triple_dir.file_name().is_none_or(|name| name != triple.as_str()) {
        return;
    }
    let Some(target_dir) = triple_dir.parent() else { return };
    let link_dir = target_dir.join(profile);
    for binary in ["provium", "provium-agent"] {
        let link = link_dir.join(binary);
        if std::fs::symlink_metadata(&link).is_ok() {
            continue;
        }
        // A link that can't be made only costs the convenience.
        let _ = std::fs::create_dir_all(&link_dir);
        let _ = std::os::unix::fs::symlink(Path::new("..").join(&triple).join(profile).join(binary), &link);
    }
}
