//! Why a configuration was refused: all problems at once.

use std::fmt;
use std::io;
use std::path::PathBuf;

use super::broker::redact;

/// Why there is no configuration. No variant quotes a password.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The file could not be read.
    #[error("cannot read the configuration {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file is not TOML.
    #[error("{}, line {line}: not TOML: {message}", path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// The line, counted from 1.
        line: usize,
        /// What the parser says.
        message: String,
    },
    /// Keys or values are wrong.
    #[error("{}", list(path.as_ref(), problems))]
    Invalid {
        /// The file, if there was one.
        path: Option<PathBuf>,
        /// Each of them; at least one.
        problems: Vec<Problem>,
    },
}

/// Where a value was given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Given {
    /// In the file, on this line, counted from 1.
    Line(usize),
    /// In this environment variable.
    Variable(String),
}

/// One thing that is wrong, as a sentence that names the key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The key with its section, such as `http.listen`.
    pub key: String,
    /// Where it was given; none for a default or a key that is missing.
    pub given: Option<Given>,
    text: String,
}

impl Problem {
    /// A value that will not do. `what` must not quote a password.
    pub(super) fn value(key: String, given: Option<Given>, what: &str) -> Self {
        let text = match &given {
            Some(given) => format!("`{key}` ({given}): {what}"),
            None => format!("`{key}`: {what}"),
        };
        Self { key, given, text }
    }

    /// A key or section that does not exist. `advice` names what does.
    pub(super) fn unknown(key: String, given: Given, what: &str, advice: &str) -> Self {
        let text = format!("unknown {}, {given}; {advice}", redact(what));
        Self { key, given: Some(given), text }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.text)
    }
}

impl fmt::Display for Given {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Line(line) => write!(out, "line {line}"),
            Self::Variable(name) => write!(out, "variable {name}"),
        }
    }
}

fn list(path: Option<&PathBuf>, problems: &[Problem]) -> String {
    let of = path.map_or_else(|| "the configuration".to_owned(), |path| path.display().to_string());
    match problems {
        [problem] => format!("{of}: {problem}"),
        problems => problems.iter().fold(format!("{of}: {} problems", problems.len()), |text, problem| {
            format!("{text}\n  {problem}")
        }),
    }
}
