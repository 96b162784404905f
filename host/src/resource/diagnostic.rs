//! Diagnostics: what is wrong in a file, where, and what to do, several at once.

use std::{fmt::Write as _, sync::Arc};

use serde_json::{Value, json};

/// A file that was read, for showing its lines.
#[derive(Debug, PartialEq, Eq)]
pub struct SourceFile {
    /// As it is shown: relative to the folder that was asked for.
    pub path: String,
    pub text: String,
}

/// Where something stands in a file.
#[derive(Clone, PartialEq, Eq)]
pub struct Place {
    pub file: Arc<SourceFile>,
    /// From 1.
    pub line: usize,
    /// In characters, from 1.
    pub column: usize,
    /// In characters.
    pub len: usize,
}

impl std::fmt::Debug for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}:{}", self.file.path, self.line, self.column)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    Error,
    Warning,
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    pub severity: Severity,
    /// Stable name of the rule, such as `graph/unknown-operation`.
    pub rule: &'static str,
    pub message: String,
    pub place: Option<Place>,
    /// Said beside the marked text: what was expected, or what to do.
    pub label: String,
}

/// Most errors, and most warnings, that are kept: a file of nothing but mistakes
/// must not fill memory or a terminal.
pub const FOUND_MAX: usize = 200;

/// All that was found, in the order of finding, each thing once.
#[derive(Clone, Debug, Default)]
pub struct Diagnostics {
    found: Vec<Diagnostic>,
    errors: usize,
    warnings: usize,
}

impl Diagnostics {
    pub fn error(
        &mut self,
        rule: &'static str,
        place: impl Into<Option<Place>>,
        message: impl Into<String>,
        label: impl Into<String>,
    ) {
        self.push(Severity::Error, rule, place.into(), message.into(), label.into());
    }

    pub fn warning(
        &mut self,
        rule: &'static str,
        place: impl Into<Option<Place>>,
        message: impl Into<String>,
        label: impl Into<String>,
    ) {
        self.push(Severity::Warning, rule, place.into(), message.into(), label.into());
    }

    fn push(
        &mut self,
        severity: Severity,
        rule: &'static str,
        place: Option<Place>,
        message: String,
        label: String,
    ) {
        let (message, label) = (crop(message), crop(label));
        self.keep(Diagnostic { severity, rule, message, place, label });
    }

    fn keep(&mut self, diagnostic: Diagnostic) {
        let kept = self.found.iter().filter(|it| it.severity == diagnostic.severity).count();
        // A graph that two dataflows name is read twice and as wrong each time.
        if kept < FOUND_MAX && self.found.contains(&diagnostic) {
            return;
        }
        match diagnostic.severity {
            Severity::Error => self.errors += 1,
            Severity::Warning => self.warnings += 1,
        }
        if kept < FOUND_MAX {
            self.found.push(diagnostic);
        }
    }

    pub fn iter(&self) -> impl Iterator<Item = &Diagnostic> {
        self.found.iter()
    }

    /// How many errors and warnings there are, kept or not.
    pub fn count(&self) -> usize {
        self.errors + self.warnings
    }

    /// How many errors there are, kept or not.
    pub fn errors(&self) -> usize {
        self.errors
    }

    pub fn has_errors(&self) -> bool {
        self.errors > 0
    }

    pub fn extend(&mut self, others: Diagnostics) {
        let left_out = others.left_out();
        let errors = others.found.iter().filter(|it| it.severity == Severity::Error).count();
        self.errors += others.errors - errors;
        self.warnings += left_out - (others.errors - errors);
        others.found.into_iter().for_each(|diagnostic| self.keep(diagnostic));
    }

    fn left_out(&self) -> usize {
        self.errors + self.warnings - self.found.len()
    }

    /// For people, in the manner of rustc.
    pub fn to_text(&self, colour: bool) -> String {
        let mut out = String::new();
        for diagnostic in &self.found {
            diagnostic.render(colour, &mut out).expect("writing to a string does not fail");
        }
        if self.left_out() > 0 {
            writeln!(out, "{} more are not shown", self.left_out())
                .expect("writing to a string does not fail");
        }
        out
    }

    /// For programs: a list of objects with stable keys.
    pub fn to_json(&self) -> Value {
        self.found.iter().map(Diagnostic::to_json).collect()
    }
}

impl Diagnostic {
    fn render(&self, colour: bool, out: &mut String) -> std::fmt::Result {
        let (name, code) = match self.severity {
            Severity::Error => ("error", "\x1b[1;31m"),
            Severity::Warning => ("warning", "\x1b[1;33m"),
        };
        let (code, bold, end) = if colour { (code, "\x1b[1m", "\x1b[0m") } else { ("", "", "") };
        writeln!(out, "{code}{name}{end}{bold}: {}{end}", visible(&self.message))?;
        let label = visible(&self.label);
        let Some(Place { file, line, column, len }) = &self.place else {
            if !label.is_empty() {
                writeln!(out, "  = {label}")?;
            }
            return writeln!(out);
        };
        let width = line.to_string().len();
        writeln!(out, "{:width$}--> {}:{line}:{column}", "", visible(&file.path))?;
        let (text, pad, left) = excerpt(file.text.lines().nth(line - 1).unwrap_or(""), column - 1);
        // A marker stays on its line.
        let marks = "^".repeat((*len).min(left).max(1));
        let marked = format!("{:pad$}{code}{marks}{end} {label}", "");
        writeln!(out, "{:width$} |", "")?;
        writeln!(out, "{line} | {text}")?;
        writeln!(out, "{:width$} | {}", "", marked.trim_end())?;
        writeln!(out)
    }

    fn to_json(&self) -> Value {
        let place = self.place.as_ref();
        json!({
            "severity": match self.severity { Severity::Error => "error", Severity::Warning => "warning" },
            "rule": self.rule,
            "message": self.message,
            "help": self.label,
            "path": place.map(|place| &place.file.path),
            "line": place.map(|place| place.line),
            "column": place.map(|place| place.column),
        })
    }
}

/// Longest line, in characters, that is shown whole.
const LINE_SHOWN_MAX: usize = 160;
/// What is shown before the marked place of a longer one.
const LINE_BEFORE: usize = 60;
/// Longest message or label, in bytes: they name what somebody wrote.
const TEXT_MAX: usize = 600;

/// Files are written by tenants and shown on the platform team's terminal: no
/// character of theirs may move its cursor. Every character keeps its column.
fn visible(text: &str) -> String {
    let shown = |c: char| match c {
        '\t' => ' ',
        // Marks that turn the direction of writing can make a line read as another.
        '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => '\u{fffd}',
        c if c.is_control() => '\u{fffd}',
        c => c,
    };
    text.chars().map(shown).collect()
}

/// The part of a line that is shown around `start`, where `start` is in it, and how
/// many characters follow there. All in characters.
fn excerpt(line: &str, start: usize) -> (String, usize, usize) {
    let chars = line.chars().count();
    let skip = if chars <= LINE_SHOWN_MAX { 0 } else { start.saturating_sub(LINE_BEFORE).min(chars) };
    let part: String = line.chars().skip(skip).take(LINE_SHOWN_MAX).collect();
    let left = part.chars().count().saturating_sub(start - skip);
    (visible(&part), start - skip, left)
}

fn crop(mut text: String) -> String {
    if text.len() > TEXT_MAX {
        let end = (0..=TEXT_MAX).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
        text.truncate(end);
        text.push('…');
    }
    text
}

/// Names longer than this are compared with nothing: the comparison is quadratic.
const NAME_COMPARED_MAX: usize = 64;

/// The name among `known` that `name` was probably meant to be.
pub fn nearest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    if name.len() > NAME_COMPARED_MAX {
        return None;
    }
    let score = |candidate: &str| strsim::normalized_damerau_levenshtein(name, candidate);
    known
        .into_iter()
        .filter(|candidate| candidate.len() <= NAME_COMPARED_MAX)
        .map(|candidate| (score(candidate), candidate))
        .filter(|(score, _)| *score >= 0.5)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, candidate)| candidate)
}

#[cfg(test)]
mod tests;
