//! The nearest known name of a misspelled one.

/// The known name that `word` most probably means; none where all are too far away.
pub fn nearest(word: &str, known: impl IntoIterator<Item = impl AsRef<str>>) -> Option<String> {
    let lower = word.to_lowercase();
    known
        .into_iter()
        .map(|name| (strsim::damerau_levenshtein(&lower, &name.as_ref().to_lowercase()), name))
        .filter(|(distance, name)| *distance <= name.as_ref().chars().count().max(word.chars().count()) / 3)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, name)| name.as_ref().to_owned())
}

/// `did you mean …?` where there is a nearest name, else the list of all.
pub fn hint(word: &str, known: &[impl AsRef<str>]) -> String {
    match nearest(word, known) {
        Some(name) => format!("did you mean `{name}`?"),
        None => {
            let names: Vec<String> = known.iter().map(|name| format!("`{}`", name.as_ref())).collect();
            format!("known are {}", names.join(", "))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_names_only() {
        let known = ["kernel", "initrd", "cmdline", "cpus"];
        assert_eq!(nearest("kernle", known).as_deref(), Some("kernel"));
        assert_eq!(nearest("Initrd", known).as_deref(), Some("initrd"));
        assert_eq!(nearest("zebra", known), None);
        assert_eq!(hint("comdline", &known), "did you mean `cmdline`?");
        assert!(hint("zebra", &known).starts_with("known are `kernel`"));
    }
}
