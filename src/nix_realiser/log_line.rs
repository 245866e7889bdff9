//! Lines that nix writes with `--log-format internal-json`: `@nix {…}`, one JSON object a line.
//!
//! The numbers are those of nix's own `logging.hh` (enums `ActivityType` and `ResultType`), unchanged since Nix 2.4.
//! What is not known here, an action, a type or a field, is left out and never an error.

use serde_json::Value;

/// Activity: bytes are copied between stores; fields: path, from, to.
pub(super) const COPY_PATH: u64 = 100;
/// Activity: a download; fields: address.
pub(super) const FILE_TRANSFER: u64 = 101;
/// Activity: the sum of all builds.
pub(super) const BUILDS: u64 = 104;
/// Activity: one build; fields: derivation, machine, round, rounds.
pub(super) const BUILD: u64 = 105;

/// Result: a line of a build's log.
const BUILD_LOG_LINE: u64 = 101;
/// Result: a build entered a phase.
const SET_PHASE: u64 = 104;
/// Result: done, expected, running, failed.
const PROGRESS: u64 = 105;
/// Result: a line of a post-build hook's log.
const POST_BUILD_LOG_LINE: u64 = 107;

/// One line, understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum LogLine {
    /// An activity began.
    Start { id: u64, kind: u64, text: String, fields: Vec<String> },
    /// An activity ended.
    Stop { id: u64 },
    /// A build wrote a line.
    BuildOutput { id: u64, line: String },
    /// A build entered a phase.
    Phase { id: u64, phase: String },
    /// An activity moved on.
    Moved { id: u64, done: u64, expected: u64, running: u64 },
    /// An error; `cause` is the last of its causes, `whole` the text with the trace.
    Error { cause: String, whole: String },
    /// A warning.
    Warning(String),
    /// Another message, as of a dry run's list.
    Notice(String),
    /// Not `@nix`: nix before its logger was set up, or a program that nix started.
    Plain(String),
    /// Nothing of interest.
    Other,
}

/// Understands one line, without its line end.
pub(super) fn parse(line: &str) -> LogLine {
    let Some(json) = line.strip_prefix("@nix ") else { return LogLine::Plain(strip_escapes(line)) };
    let Ok(value) = serde_json::from_str::<Value>(json) else { return LogLine::Plain(strip_escapes(line)) };
    let id = number(&value, "id");
    match value.get("action").and_then(Value::as_str) {
        Some("start") => LogLine::Start {
            id,
            kind: number(&value, "type"),
            text: text(&value, "text"),
            fields: fields(&value).iter().map(|field| field.as_str().map(strip_escapes).unwrap_or_default()).collect(),
        },
        Some("stop") => LogLine::Stop { id },
        Some("result") => result(id, &value),
        Some("msg") => message(&value),
        _ => LogLine::Other,
    }
}

fn result(id: u64, value: &Value) -> LogLine {
    let fields = fields(value);
    let text = || fields.first().and_then(Value::as_str).map(strip_escapes).unwrap_or_default();
    let count = |index: usize| fields.get(index).and_then(Value::as_u64).unwrap_or(0);
    match number(value, "type") {
        BUILD_LOG_LINE | POST_BUILD_LOG_LINE => LogLine::BuildOutput { id, line: text() },
        SET_PHASE => LogLine::Phase { id, phase: text() },
        PROGRESS => LogLine::Moved { id, done: count(0), expected: count(1), running: count(2) },
        _ => LogLine::Other,
    }
}

fn message(value: &Value) -> LogLine {
    let msg = text(value, "msg");
    // Level 0 also carries notices (a dry run's list); only errors have `raw_msg`.
    let level = value.get("level").and_then(Value::as_u64).unwrap_or(u64::MAX);
    let raw = value.get("raw_msg").and_then(Value::as_str).map(strip_escapes);
    if level == 0 && (raw.is_some() || msg.starts_with("error")) {
        if msg.starts_with("error (ignored)") {
            return LogLine::Other;
        }
        let whole = without_prefix(&msg, "error:");
        let cause = raw.map_or_else(|| whole.clone(), |raw| raw.trim().to_owned());
        return LogLine::Error { cause, whole };
    }
    match msg.strip_prefix("warning:") {
        Some(warning) if level <= 1 => LogLine::Warning(without_prefix(warning, "error:")),
        _ if level <= 3 => LogLine::Notice(msg),
        _ => LogLine::Other,
    }
}

fn without_prefix(text: &str, prefix: &str) -> String {
    let text = text.trim();
    text.strip_prefix(prefix).unwrap_or(text).trim().to_owned()
}

fn number(value: &Value, key: &str) -> u64 {
    value.get(key).and_then(Value::as_u64).unwrap_or(0)
}

fn text(value: &Value, key: &str) -> String {
    value.get(key).and_then(Value::as_str).map(strip_escapes).unwrap_or_default()
}

fn fields(value: &Value) -> &[Value] {
    value.get("fields").and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// The text without terminal escape sequences (ECMA-48 control sequences and operating system commands) and without
/// control characters other than tab and newline; of a line that was overwritten by carriage returns the last text.
pub(super) fn strip_escapes(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '\u{1b}' => skip_sequence(&mut chars),
            '\r' if chars.peek().is_some_and(|next| *next != '\n') => {
                out.truncate(out.rfind('\n').map_or(0, |newline| newline + 1));
            }
            '\n' | '\t' => out.push(c),
            c if c.is_control() => {}
            c => out.push(c),
        }
    }
    out
}

fn skip_sequence(chars: &mut std::iter::Peekable<std::str::Chars<'_>>) {
    match chars.next() {
        // A control sequence ends with a byte of `@` to `~`.
        Some('[') => while chars.next().is_some_and(|c| !('@'..='~').contains(&c)) {},
        // A command ends with BEL or with `ESC \`.
        Some(']') => {
            while let Some(c) = chars.next() {
                if c == '\u{7}' {
                    break;
                }
                if c == '\u{1b}' {
                    chars.next();
                    break;
                }
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    // Every `@nix` line below was written by nix 2.26.3.

    #[test]
    fn builds() {
        let start = r#"@nix {"action":"start","fields":["/nix/store/p35y5dwdqy0zfnsm2f1x2b4pi74bx7yc-file.drv","",1,1],"id":94605244629019,"level":3,"parent":0,"text":"building '/nix/store/p35y5dwdqy0zfnsm2f1x2b4pi74bx7yc-file.drv'","type":105}"#;
        let LogLine::Start { id: 94605244629019, kind: BUILD, text, fields } = parse(start) else { panic!() };
        assert_eq!(text, "building '/nix/store/p35y5dwdqy0zfnsm2f1x2b4pi74bx7yc-file.drv'");
        assert_eq!(fields[0], "/nix/store/p35y5dwdqy0zfnsm2f1x2b4pi74bx7yc-file.drv");
        assert_eq!(
            parse(r#"@nix {"action":"result","fields":["line 30"],"id":94742683582472,"type":101}"#),
            LogLine::BuildOutput { id: 94742683582472, line: "line 30".to_owned() }
        );
        assert_eq!(
            parse(r#"@nix {"action":"result","fields":[2,3,1,0],"id":94605244629017,"type":105}"#),
            LogLine::Moved { id: 94605244629017, done: 2, expected: 3, running: 1 }
        );
        assert_eq!(
            parse(r#"@nix {"action":"result","fields":[101,0],"id":94605244629016,"type":106}"#),
            LogLine::Other
        );
        assert_eq!(parse(r#"@nix {"action":"stop","id":94605244629019}"#), LogLine::Stop { id: 94605244629019 });
    }

    #[test]
    fn errors() {
        let failed = r#"@nix {"action":"msg","column":null,"file":null,"level":0,"line":null,"msg":"\u001b[31;1merror:\u001b[0m \u001b[35;1m\u001b[0mbuilder for '\u001b[35;1m/nix/store/54v8s7wdm90v4i25dwbhbz5d18bybypm-fail.drv\u001b[0m' failed with exit code 3\u001b[0m","raw_msg":"\u001b[35;1m\u001b[0mbuilder for '\u001b[35;1m/nix/store/54v8s7wdm90v4i25dwbhbz5d18bybypm-fail.drv\u001b[0m' failed with exit code 3\u001b[0m"}"#;
        let cause =
            "builder for '/nix/store/54v8s7wdm90v4i25dwbhbz5d18bybypm-fail.drv' failed with exit code 3".to_owned();
        assert_eq!(parse(failed), LogLine::Error { whole: cause.clone(), cause });

        let thrown = r#"@nix {"action":"msg","column":null,"file":null,"level":0,"line":null,"msg":"\u001b[31;1merror:\u001b[0m\n       … while calling the '\u001b[35;1mthrow\u001b[0m' builtin\n\n       \u001b[31;1merror:\u001b[0m my eval error","raw_msg":"my eval error"}"#;
        let LogLine::Error { cause, whole } = parse(thrown) else { panic!() };
        assert_eq!(cause, "my eval error");
        assert_eq!(whole, "… while calling the 'throw' builtin\n\n       error: my eval error");

        let ignored = r#"@nix {"action":"msg","level":0,"msg":"\u001b[31;1merror (ignored):\u001b[0m error: interrupted by the user","raw_msg":"interrupted"}"#;
        assert_eq!(parse(ignored), LogLine::Other);
    }

    #[test]
    fn messages_that_are_no_errors() {
        let notice =
            r#"@nix {"action":"msg","level":0,"msg":"  /nix/store/54v8s7wdm90v4i25dwbhbz5d18bybypm-fail.drv"}"#;
        assert_eq!(parse(notice), LogLine::Notice("  /nix/store/54v8s7wdm90v4i25dwbhbz5d18bybypm-fail.drv".to_owned()));
        let warning =
            r#"@nix {"action":"msg","level":1,"msg":"\u001b[35;1mwarning:\u001b[0m Git tree '/tmp/nx/p' is dirty"}"#;
        assert_eq!(parse(warning), LogLine::Warning("Git tree '/tmp/nx/p' is dirty".to_owned()));
        assert_eq!(parse(r#"@nix {"action":"msg","level":4,"msg":"evaluating file 'x'"}"#), LogLine::Other);
        assert_eq!(parse("\u{1b}[31;1merror:\u{1b}[0m no"), LogLine::Plain("error: no".to_owned()));
        assert_eq!(parse("@nix {"), LogLine::Plain("@nix {".to_owned()));
    }

    #[test]
    fn strips() {
        assert_eq!(strip_escapes("\u{1b}]0;title\u{7}a\u{1b}[1;2Hb\u{1b}]8;;x\u{1b}\\c\u{1b}"), "abc");
        assert_eq!(strip_escapes("1%\r2%\r3%\nx\r\n\ty\r"), "3%\nx\n\ty");
    }

    proptest! {
        #[test]
        fn takes_any_text(text in any::<String>()) {
            parse(&text);
            parse(&format!("@nix {text}"));
            let stripped = strip_escapes(&text);
            let kept = stripped.contains(['\u{1b}', '\r']);
            prop_assert!(!kept);
        }

        #[test]
        fn takes_any_fields(
            action in "start|stop|result|msg|x", kind in any::<i64>(), known in 100_u64..113, level in -1_i64..8,
            fields in "\\[((1|-1|\"a\"|null|\\{\\}),){0,3}0\\]", text in any::<String>(),
        ) {
            let text = Value::from(text);
            for kind in [kind.to_string(), known.to_string()] {
                parse(&format!(
                    r#"@nix {{"action":"{action}","type":{kind},"id":{kind},"level":{level},"fields":{fields},"msg":{text},"raw_msg":{text},"text":{text}}}"#
                ));
            }
        }
    }
}
