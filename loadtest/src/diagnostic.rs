//! What is wrong in a file, where, and what to do: several at once, in the manner of
//! rustc. Knows no YAML.

use std::{fmt::Write as _, sync::Arc};

use serde_json::{Value, json};

/// A file that was read, for showing its lines.
#[derive(Debug, PartialEq, Eq)]
pub struct SourceFile {
    pub path: String,
    pub text: String,
}

/// Where something stands: line and column from 1, columns and length in characters.
#[derive(Clone, PartialEq, Eq)]
pub struct Place {
    pub file: Arc<SourceFile>,
    pub line: usize,
    pub column: usize,
    pub len: usize,
}

impl std::fmt::Debug for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}:{}", self.file.path, self.line, self.column)
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Stable name of the rule, such as `scenario/contradiction`.
    pub rule: &'static str,
    pub message: String,
    pub place: Place,
    /// Said beside the marked text: what was expected, or what to do.
    pub label: String,
}

/// Most problems of a file that are kept.
const PROBLEMS_MAX: usize = 100;

/// All that is wrong, in the order of finding.
#[derive(Debug, Default)]
pub struct Problems(Vec<Problem>);

impl Problems {
    pub fn add(
        &mut self,
        rule: &'static str,
        place: Place,
        message: impl Into<String>,
        label: impl Into<String>,
    ) {
        if self.0.len() < PROBLEMS_MAX {
            self.0.push(Problem { rule, message: message.into(), place, label: label.into() });
        }
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn iter(&self) -> impl Iterator<Item = &Problem> {
        self.0.iter()
    }

    /// In the order of the file: readers look at keys in an order of their own.
    pub fn sorted(mut self) -> Self {
        self.0.sort_by_key(|problem| (problem.place.line, problem.place.column));
        self
    }

    /// For people.
    pub fn to_text(&self, colour: bool) -> String {
        let mut out = String::new();
        for problem in &self.0 {
            problem.render(colour, &mut out).expect("a string takes all");
        }
        out
    }

    /// For programs: the same keys as those of `tidegate check --json`.
    pub fn to_json(&self) -> Value {
        let problem = |problem: &Problem| {
            json!({
                "severity": "error",
                "rule": problem.rule,
                "message": problem.message,
                "help": problem.label,
                "path": problem.place.file.path,
                "line": problem.place.line,
                "column": problem.place.column,
            })
        };
        self.0.iter().map(problem).collect()
    }
}

/// Longest line, in characters, that is shown.
const LINE_SHOWN_MAX: usize = 160;

impl Problem {
    fn render(&self, colour: bool, out: &mut String) -> std::fmt::Result {
        let (red, bold, end) = if colour { ("\x1b[1;31m", "\x1b[1m", "\x1b[0m") } else { ("", "", "") };
        let Place { file, line, column, len } = &self.place;
        let width = line.to_string().len();
        let text: String =
            file.text.lines().nth(line - 1).unwrap_or_default().chars().take(LINE_SHOWN_MAX).collect();
        let left = text.chars().count().saturating_sub(column - 1);
        let marks = "^".repeat((*len).min(left).max(1));
        writeln!(out, "{red}error{end}{bold}: {}{end}", visible(&self.message))?;
        writeln!(out, "{:width$}--> {}:{line}:{column}", "", visible(&file.path))?;
        writeln!(out, "{:width$} |", "")?;
        writeln!(out, "{line} | {}", visible(&text))?;
        let marked = format!("{:pad$}{red}{marks}{end} {}", "", visible(&self.label), pad = column - 1);
        writeln!(out, "{:width$} | {}", "", marked.trim_end())?;
        writeln!(out)
    }
}

/// No character of a file may move the cursor; each keeps its column.
fn visible(text: &str) -> String {
    let shown = |c: char| match c {
        '\t' => ' ',
        c if c.is_control() => '\u{fffd}',
        c => c,
    };
    text.chars().map(shown).collect()
}

/// The name among `known` that `name` was probably meant to be.
pub fn nearest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let score = |candidate: &str| strsim::normalized_damerau_levenshtein(name, candidate);
    known
        .into_iter()
        .map(|candidate| (score(candidate), candidate))
        .filter(|(score, _)| *score >= 0.5)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, candidate)| candidate)
}
