//! Which files and tests the command line selects. Pure: a path or a test's metadata in, a decision out.
//!
//! A test is *slow* when its metadata has a truthy `slow` or the tag `slow`; both mean the same. Slow tests are left
//! out unless `--include-slow` or `--only-slow` is given; a `--tag` does not bring them back.

use serde_json::Value;

use super::error::SchedulerError;
use crate::foundation::digest::Digest;

/// What happens with slow tests.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum SlowTests {
    /// Left out.
    #[default]
    Exclude,
    /// Run with the others.
    Include,
    /// Run alone.
    Only,
}

/// `KEY=VALUE` of `--tag-meta`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MetaPair {
    /// A key of the test's metadata.
    pub key: String,
    /// The value's text.
    pub value: String,
}

impl std::str::FromStr for MetaPair {
    type Err = SchedulerError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.split_once('=') {
            Some((key, value)) if !key.is_empty() => Ok(Self { key: key.to_owned(), value: value.to_owned() }),
            _ => Err(SchedulerError::MetaPair(text.to_owned())),
        }
    }
}

/// `I/N` of `--shard`: the files of one part of N.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shard {
    index: u64,
    count: u64,
}

impl Shard {
    /// Whether a file belongs to this part. `path` must be the same on every machine: relative to the project.
    pub fn takes(self, path: &str) -> bool {
        let digest = Digest::of(path.as_bytes()).to_string();
        let hash = digest.get(..16).and_then(|digits| u64::from_str_radix(digits, 16).ok()).unwrap_or_default();
        hash % self.count == self.index - 1
    }
}

impl std::str::FromStr for Shard {
    type Err = SchedulerError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parts = text.split_once('/').and_then(|(index, count)| Some((index.parse().ok()?, count.parse().ok()?)));
        match parts {
            Some((index, count)) if (1..=count).contains(&index) => Ok(Self { index, count }),
            _ => Err(SchedulerError::Shard(text.to_owned())),
        }
    }
}

/// What is decided about a test.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// It runs.
    Run,
    /// It would run, but it is slow: `--include-slow` brings it back.
    LeftOutAsSlow,
    /// Tags, metadata or `--only-slow` leave it out.
    LeftOut,
}

/// The selection of one run; the default selects everything that is not slow.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Selection {
    /// Parts of paths; a file needs one of them.
    pub filters: Vec<String>,
    /// A test needs one of these tags.
    pub tags: Vec<String>,
    /// A test with one of these tags is left out, whatever else holds.
    pub no_tags: Vec<String>,
    /// Of each key named here a test needs one of the values.
    pub tag_meta: Vec<MetaPair>,
    /// A test for which one of these holds is left out.
    pub no_tag_meta: Vec<MetaPair>,
    /// Slow tests.
    pub slow: SlowTests,
}

impl Selection {
    /// Whether a file of this path, as it is shown to people, is selected.
    pub fn selects_file(&self, path: &str) -> bool {
        self.filters.is_empty() || self.filters.iter().any(|filter| path.contains(filter.as_str()))
    }

    /// Whether a test with this metadata (a JSON object, or null for none) is selected.
    pub fn decide(&self, meta: &Value) -> Decision {
        let left_out = self.no_tags.iter().any(|tag| has_tag(meta, tag))
            || self.no_tag_meta.iter().any(|pair| holds(meta, pair))
            || !(self.tags.is_empty() || self.tags.iter().any(|tag| has_tag(meta, tag)))
            || !self.tag_meta.iter().all(|wanted| self.has_one_of(meta, &wanted.key));
        match (left_out, self.slow, is_slow(meta)) {
            (true, _, _) | (_, SlowTests::Only, false) => Decision::LeftOut,
            (_, SlowTests::Exclude, true) => Decision::LeftOutAsSlow,
            _ => Decision::Run,
        }
    }

    fn has_one_of(&self, meta: &Value, key: &str) -> bool {
        self.tag_meta.iter().any(|pair| pair.key == key && holds(meta, pair))
    }
}

fn has_tag(meta: &Value, tag: &str) -> bool {
    meta.get("tags").is_some_and(|tags| matches(tags, tag))
}

fn is_slow(meta: &Value) -> bool {
    // Truthy as in Lua: everything but nil and false.
    let marked = meta.get("slow").is_some_and(|slow| !matches!(slow, Value::Null | Value::Bool(false)));
    marked || has_tag(meta, "slow")
}

fn holds(meta: &Value, pair: &MetaPair) -> bool {
    meta.get(&pair.key).is_some_and(|value| matches(value, &pair.value))
}

/// Whether a value of the metadata is what the command line says: a list by one of its members.
fn matches(value: &Value, wanted: &str) -> bool {
    match value {
        Value::Array(members) => members.iter().any(|member| matches(member, wanted)),
        Value::String(text) => text == wanted,
        Value::Bool(flag) => wanted == if *flag { "true" } else { "false" },
        Value::Number(number) => {
            number.to_string() == wanted
                || (number.is_f64() && wanted.parse().is_ok_and(|wanted: f64| number.as_f64() == Some(wanted)))
        }
        Value::Null | Value::Object(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pairs(texts: &[&str]) -> Vec<MetaPair> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    fn strings(texts: &[&str]) -> Vec<String> {
        texts.iter().map(|text| (*text).to_owned()).collect()
    }

    fn runs(selection: &Selection, meta: &Value) -> bool {
        selection.decide(meta) == Decision::Run
    }

    #[test]
    fn shards_are_a_partition_that_stays() {
        let paths: Vec<String> = (0..100).map(|number| format!("tests/{number}.test.lua")).collect();
        let shards: Vec<Shard> = ["1/3", "2/3", "3/3"].iter().map(|text| text.parse().unwrap()).collect();
        for path in &paths {
            assert_eq!(shards.iter().filter(|shard| shard.takes(path)).count(), 1, "{path}");
        }
        for shard in &shards {
            assert!(paths.iter().filter(|path| shard.takes(path)).count() > 20);
        }
        // Other machines and later versions must agree.
        let first: Vec<&str> = paths[..8].iter().filter(|path| shards[0].takes(path)).map(String::as_str).collect();
        assert_eq!(first, ["tests/3.test.lua", "tests/5.test.lua"]);
        for text in ["", "1", "0/2", "3/2", "1/0", "a/b", "-1/2", "1/2/3"] {
            assert!(text.parse::<Shard>().is_err(), "{text}");
        }
    }

    #[test]
    fn any_filter_selects_by_part_of_the_path() {
        let selection = Selection { filters: strings(&["net", "disk"]), ..Selection::default() };
        assert!(selection.selects_file("tests/net/a.test.lua"));
        assert!(selection.selects_file("tests/disks.test.lua"));
        assert!(!selection.selects_file("tests/boot.test.lua"));
        assert!(Selection::default().selects_file("anything"));
    }

    #[test]
    fn tags_are_either_and_no_tag_wins() {
        let selection = Selection { tags: strings(&["a", "b"]), no_tags: strings(&["c"]), ..Selection::default() };
        assert!(runs(&selection, &json!({"tags": "a"})));
        assert!(runs(&selection, &json!({"tags": ["x", "b"]})));
        assert!(!runs(&selection, &json!({"tags": ["a", "c"]})));
        assert!(!runs(&selection, &json!({"tags": ["x"]})));
        assert!(!runs(&selection, &Value::Null));
    }

    #[test]
    fn same_key_is_either_and_different_keys_are_all() {
        let selection = Selection { tag_meta: pairs(&["spec=4.1", "spec=4.2", "area=net"]), ..Selection::default() };
        assert!(runs(&selection, &json!({"spec": "4.2", "area": "net"})));
        assert!(runs(&selection, &json!({"spec": ["1", "4.1"], "area": ["disk", "net"]})));
        assert!(!runs(&selection, &json!({"spec": "4.1"})));
        assert!(!runs(&selection, &json!({"spec": "4.3", "area": "net"})));
    }

    #[test]
    fn any_excluded_pair_excludes() {
        let selection = Selection { no_tag_meta: pairs(&["spec=1", "area=net"]), ..Selection::default() };
        assert!(!runs(&selection, &json!({"area": ["net"]})));
        assert!(!runs(&selection, &json!({"spec": "1", "area": "x"})));
        assert!(runs(&selection, &json!({"spec": "2"})));
        assert!(runs(&selection, &Value::Null));
    }

    #[test]
    fn numbers_and_flags_match_by_their_text() {
        let holds = |meta: Value, pair: &str| super::holds(&meta, &pair.parse().unwrap());
        assert!(holds(json!({"n": 5}), "n=5"));
        assert!(holds(json!({"n": 5.0}), "n=5"));
        assert!(holds(json!({"n": 0.5}), "n=0.5"));
        assert!(!holds(json!({"n": 5}), "n=five"));
        assert!(holds(json!({"n": true}), "n=true"));
        assert!(holds(json!({"n": "a=b"}), "n=a=b"));
        assert!(holds(json!({"n": ""}), "n="));
    }

    #[test]
    fn slow_by_flag_or_tag() {
        let by_flag = json!({"slow": true});
        let by_tag = json!({"tags": ["slow", "debug"]});
        let quick = json!({"slow": false});
        let choose = |slow| Selection { slow, ..Selection::default() };
        for meta in [&by_flag, &by_tag] {
            assert_eq!(choose(SlowTests::Exclude).decide(meta), Decision::LeftOutAsSlow);
            assert_eq!(choose(SlowTests::Include).decide(meta), Decision::Run);
            assert_eq!(choose(SlowTests::Only).decide(meta), Decision::Run);
        }
        assert_eq!(choose(SlowTests::Exclude).decide(&quick), Decision::Run);
        assert_eq!(choose(SlowTests::Include).decide(&quick), Decision::Run);
        assert_eq!(choose(SlowTests::Only).decide(&quick), Decision::LeftOut);
    }

    #[test]
    fn a_slow_test_that_is_not_wanted_anyway_is_not_called_slow() {
        let selection = Selection { tags: strings(&["net"]), ..Selection::default() };
        assert_eq!(selection.decide(&json!({"slow": true})), Decision::LeftOut);
        assert_eq!(selection.decide(&json!({"slow": true, "tags": "net"})), Decision::LeftOutAsSlow);
    }

    #[test]
    fn a_pair_needs_a_key() {
        for bad in ["spec", "=4.1", ""] {
            let error = bad.parse::<MetaPair>().unwrap_err();
            assert_eq!(error.to_string(), format!("expected `KEY=VALUE`, found `{bad}`"));
        }
    }
}
