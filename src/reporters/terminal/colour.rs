//! Whether to colour, and the few colours in use.

use std::fmt;

/// `--color`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum ColourChoice {
    /// On a terminal, unless the environment says otherwise.
    #[default]
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

/// What `auto` looks at.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ColourContext {
    /// The output is a terminal.
    pub is_terminal: bool,
    /// `NO_COLOR` is set and not empty (the convention of no-color.org).
    pub no_color: bool,
    /// `TERM` is `dumb`.
    pub dumb_terminal: bool,
    /// `NIX_BUILD_TOP` is set: inside a Nix build standard output is a pseudo-terminal, but its log is a file.
    pub nix_build: bool,
}

impl ColourContext {
    /// Reads this process's environment.
    pub fn of_process(is_terminal: bool) -> Self {
        let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty());
        Self {
            is_terminal,
            no_color: variable("NO_COLOR").is_some(),
            dumb_terminal: variable("TERM").is_some_and(|term| term == "dumb"),
            nix_build: variable("NIX_BUILD_TOP").is_some(),
        }
    }
}

impl ColourChoice {
    /// Whether to colour.
    pub fn decide(self, context: ColourContext) -> bool {
        match self {
            Self::Always => true,
            Self::Never => false,
            Self::Auto => context.is_terminal && !context.no_color && !context.dumb_terminal && !context.nix_build,
        }
    }
}

/// A colour by its meaning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Style {
    Good,
    Bad,
    Careful,
    Dim,
}

/// Puts colour around text, or leaves it alone.
#[derive(Debug, Clone, Copy)]
pub(super) struct Paint {
    pub(super) colour: bool,
}

impl Paint {
    pub(super) fn paint(self, style: Style, text: impl fmt::Display) -> String {
        if !self.colour {
            return text.to_string();
        }
        let code = match style {
            Style::Good => "32",
            Style::Bad => "1;31",
            Style::Careful => "33",
            Style::Dim => "2",
        };
        format!("\x1b[{code}m{text}\x1b[0m")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn auto_needs_a_terminal_that_nobody_objects_to() {
        let terminal = ColourContext { is_terminal: true, ..ColourContext::default() };
        assert!(ColourChoice::Auto.decide(terminal));
        assert!(!ColourChoice::Auto.decide(ColourContext::default()));
        for context in [
            ColourContext { no_color: true, ..terminal },
            ColourContext { dumb_terminal: true, ..terminal },
            ColourContext { nix_build: true, ..terminal },
        ] {
            assert!(!ColourChoice::Auto.decide(context));
            assert!(ColourChoice::Always.decide(context));
        }
        assert!(!ColourChoice::Never.decide(terminal));
    }
}
