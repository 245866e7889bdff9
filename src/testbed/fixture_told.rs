//! What a run's events say of its fixtures.

use std::path::Path;

use crate::fixtures::{Change, Step, Wish};
use crate::run_events::{
    EventKind, FixtureBuildDone, FixtureBuildStarted, FixtureBuildWaiting, FixtureDamaged, FixtureHit, Warning,
};

/// The event of a step.
pub(super) fn event(wish: &Wish, holder: &str, step: Step) -> EventKind {
    let (fixture, profile, file) = (wish.name.clone(), wish.profile.clone(), holder.to_owned());
    match step {
        Step::Hit { key } => {
            EventKind::FixtureHit(FixtureHit { fixture, profile, file, key: key.to_string(), from: None })
        }
        Step::Unpacked { key, from } => {
            let (key, from) = (key.to_string(), Some(from.display().to_string()));
            EventKind::FixtureHit(FixtureHit { fixture, profile, file, key, from })
        }
        Step::Misfit { place, changes } => misfit(&fixture, &place, &changes),
        Step::Waiting { holder } => {
            EventKind::FixtureBuildWaiting(FixtureBuildWaiting { fixture, profile, file, holder })
        }
        Step::Started => EventKind::FixtureBuildStarted(FixtureBuildStarted { fixture, profile, file }),
        Step::Done { key, duration } => EventKind::FixtureBuildDone(FixtureBuildDone {
            fixture,
            profile,
            file,
            key: Some(key.to_string()),
            error: None,
            duration,
        }),
        Step::Damaged { key, place, why } => EventKind::FixtureDamaged(FixtureDamaged {
            fixture,
            key: key.to_string(),
            path: place.display().to_string(),
            reason: why,
        }),
        Step::Again { changed } => {
            let message = format!("fixture `{fixture}`: {} changed while it was built", changed.join(", "));
            EventKind::Warning(Warning { message, hint: None })
        }
    }
}

/// What is said where an exported fixture was made on what this run does not have.
fn misfit(fixture: &str, place: &Path, changes: &[Change]) -> EventKind {
    let all = changes.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
    let accelerator = changes.iter().find_map(|change| match change {
        Change::Changed { ingredient, before, .. } if ingredient == "accelerator" => Some(before),
        _ => None,
    });
    EventKind::Warning(Warning {
        message: format!(
            "fixture `{fixture}` is built here, as `{}` was made on another machine: {all}",
            place.display()
        ),
        hint: accelerator.map(|name| format!("`--accel {name}` runs on what it was made on")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_snapshot_of_another_machine_is_named_with_what_would_use_it() {
        let changed = |ingredient: &str, before: &str, now: &str| Change::Changed {
            ingredient: ingredient.to_owned(),
            before: before.to_owned(),
            now: now.to_owned(),
        };
        let said = |changes: &[Change]| match misfit("base", Path::new("/s/base.fixture"), changes) {
            EventKind::Warning(Warning { message, hint }) => (message, hint),
            other => panic!("{other:?}"),
        };
        let (message, hint) = said(&[changed("accelerator", "tcg", "kvm")]);
        assert!(
            message.contains("`/s/base.fixture`") && message.ends_with("accelerator: was tcg, is kvm"),
            "{message}"
        );
        assert_eq!(hint.as_deref(), Some("`--accel tcg` runs on what it was made on"));
        let (message, hint) = said(&[changed("profile `a` cpu", "Nehalem", "none")]);
        assert!(message.ends_with("profile `a` cpu: was Nehalem, is none"), "{message}");
        assert_eq!(hint, None);
    }
}
