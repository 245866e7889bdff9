//! Events of fixtures to lines.

use super::colour::{Paint, Style};
use super::text::{duration, one_line};
use crate::run_events::{EventKind, FixtureBuildDone, FixtureHit};

/// The line for an event of a fixture; none where it is another event, or is shown only with `-v`.
pub(super) fn line(kind: &EventKind, is_verbose: bool, paint: Paint) -> Option<String> {
    Some(match kind {
        EventKind::FixtureBuildStarted(started) => {
            format!("building {}\n", named(&started.fixture, &started.profile))
        }
        EventKind::FixtureBuildWaiting(waiting) => format!(
            "{} is being built for {}: waiting\n",
            named(&waiting.fixture, &waiting.profile),
            one_line(&waiting.holder)
        ),
        EventKind::FixtureBuildDone(FixtureBuildDone { fixture, profile, error, duration: time, .. }) => match error {
            None => format!("built {} in {}\n", named(fixture, profile), duration(*time)),
            Some(_) => {
                format!(
                    "{} after {}: {}\n",
                    paint.paint(Style::Bad, "build failed"),
                    duration(*time),
                    named(fixture, profile)
                )
            }
        },
        EventKind::FixtureHit(FixtureHit { fixture, profile, from: Some(from), .. }) => {
            format!("unpacked {} from {}\n", named(fixture, profile), one_line(from))
        }
        EventKind::FixtureHit(hit) if is_verbose => {
            format!("{} is in the cache: {}\n", named(&hit.fixture, &hit.profile), one_line(&hit.key))
        }
        EventKind::FixtureDamaged(damaged) => format!(
            "{}: fixture `{}`: the entry `{}` is damaged and will be built again: {}\n",
            paint.paint(Style::Careful, "warning"),
            one_line(&damaged.fixture),
            one_line(&damaged.path),
            one_line(&damaged.reason)
        ),
        _ => return None,
    })
}

fn named(fixture: &str, profile: &str) -> String {
    format!("fixture `{}` (profile `{}`)", one_line(fixture), one_line(profile))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run_events::{FixtureBuildStarted, FixtureBuildWaiting, FixtureDamaged};

    #[test]
    fn what_is_shown_of_a_fixture() {
        let (fixture, profile, file) = ("fixtures/base".to_owned(), "p".to_owned(), "a.test.lua".to_owned());
        let shown = |kind: &EventKind, verbose| line(kind, verbose, Paint { colour: false });
        let started = FixtureBuildStarted { fixture: fixture.clone(), profile: profile.clone(), file: file.clone() };
        assert_eq!(
            shown(&EventKind::FixtureBuildStarted(started), false).as_deref(),
            Some("building fixture `fixtures/base` (profile `p`)\n")
        );
        let waiting = FixtureBuildWaiting {
            fixture: fixture.clone(),
            profile: profile.clone(),
            file: file.clone(),
            holder: "b.test.lua".into(),
        };
        assert_eq!(
            shown(&EventKind::FixtureBuildWaiting(waiting), false).as_deref(),
            Some("fixture `fixtures/base` (profile `p`) is being built for b.test.lua: waiting\n")
        );
        let done = |error: Option<&str>| {
            EventKind::FixtureBuildDone(FixtureBuildDone {
                fixture: fixture.clone(),
                profile: profile.clone(),
                file: file.clone(),
                key: None,
                error: error.map(str::to_owned),
                duration: 1.5,
            })
        };
        assert_eq!(
            shown(&done(None), false).as_deref(),
            Some("built fixture `fixtures/base` (profile `p`) in 1.50s\n")
        );
        assert_eq!(
            shown(&done(Some("no")), false).as_deref(),
            Some("build failed after 1.50s: fixture `fixtures/base` (profile `p`)\n")
        );
        let hit = FixtureHit { fixture: fixture.clone(), profile, file, key: "0123".into(), from: None };
        let unpacked = EventKind::FixtureHit(FixtureHit { from: Some("/s/b.fixture".into()), ..hit.clone() });
        assert_eq!(
            shown(&unpacked, false).as_deref(),
            Some("unpacked fixture `fixtures/base` (profile `p`) from /s/b.fixture\n")
        );
        let hit = EventKind::FixtureHit(hit);
        assert_eq!(shown(&hit, false), None);
        assert_eq!(shown(&hit, true).as_deref(), Some("fixture `fixtures/base` (profile `p`) is in the cache: 0123\n"));
        let damaged = FixtureDamaged { fixture, key: "0123".into(), path: "/c/0123".into(), reason: "short".into() };
        let text = shown(&EventKind::FixtureDamaged(damaged), false).unwrap();
        assert!(text.starts_with("warning: fixture `fixtures/base`: the entry `/c/0123` is damaged"), "{text}");
    }
}
