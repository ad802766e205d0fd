//! What is wrong with a configuration, told to the person who will fix it.

use std::cell::RefCell;
use std::fmt;

/// Something that keeps a configuration from being used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Where: `listen.limits.body`, `region "eu".timeout`, `region[1]`, or a line of the file.
    pub key: String,
    /// What stands there, secrets left out.
    pub found: String,
    pub expected: String,
    /// What to do.
    pub hint: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { key, found, expected, hint } = self;
        write!(f, "{key}\n  found     {found}\n  expected  {expected}\n  to do     {hint}")
    }
}

/// Something that works and is probably not meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Warning {
    pub key: String,
    pub text: String,
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.key, self.text)
    }
}

/// A configuration that cannot be used: every problem of it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct Invalid(pub Vec<Problem>);

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.0.iter().enumerate() {
            let gap = if index == 0 { "" } else { "\n\n" };
            write!(f, "{gap}{problem}")?;
        }
        Ok(())
    }
}

/// Collects problems and warnings while a configuration is read, so that none hides another.
#[derive(Debug, Default)]
pub(super) struct Report {
    problems: RefCell<Vec<Problem>>,
    warnings: RefCell<Vec<Warning>>,
}

impl Report {
    pub(super) fn problem(
        &self,
        key: impl Into<String>,
        found: impl Into<String>,
        expected: impl Into<String>,
        hint: impl Into<String>,
    ) {
        let (key, found) = (key.into(), found.into());
        self.problems.borrow_mut().push(Problem { key, found, expected: expected.into(), hint: hint.into() });
    }

    pub(super) fn warn(&self, key: impl Into<String>, text: impl Into<String>) {
        self.warnings.borrow_mut().push(Warning { key: key.into(), text: text.into() });
    }

    /// `value` and the warnings, if there was no problem.
    pub(super) fn conclude<T>(self, value: T) -> Result<(T, Vec<Warning>), Invalid> {
        match self.problems.into_inner() {
            problems if problems.is_empty() => Ok((value, self.warnings.into_inner())),
            problems => Err(Invalid(problems)),
        }
    }
}
