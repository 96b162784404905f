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
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    pub file: Arc<SourceFile>,
    /// From 1.
    pub line: usize,
    /// In characters, from 1.
    pub column: usize,
    /// In characters.
    pub len: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    Error,
    Warning,
}

/// One thing that is wrong.
#[derive(Clone, Debug)]
pub struct Diagnostic {
    pub severity: Severity,
    /// Stable name of the rule, such as `graph/unknown-operation`.
    pub rule: &'static str,
    pub message: String,
    pub place: Option<Place>,
    /// Said beside the marked text: what was expected, or what to do.
    pub label: String,
}

/// All that was found, in the order of finding.
#[derive(Clone, Debug, Default)]
pub struct Diagnostics {
    found: Vec<Diagnostic>,
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
        self.found.push(Diagnostic { severity, rule, message, place, label });
    }

    pub fn iter(&self) -> impl Iterator<Item = &Diagnostic> {
        self.found.iter()
    }

    pub fn errors(&self) -> usize {
        self.found.iter().filter(|it| it.severity == Severity::Error).count()
    }

    pub fn has_errors(&self) -> bool {
        self.errors() > 0
    }

    pub fn extend(&mut self, others: Diagnostics) {
        self.found.extend(others.found);
    }

    /// For people, in the manner of rustc.
    pub fn to_text(&self, colour: bool) -> String {
        let mut out = String::new();
        for diagnostic in &self.found {
            diagnostic.render(colour, &mut out).expect("writing to a string does not fail");
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
        writeln!(out, "{code}{name}{end}{bold}: {}{end}", self.message)?;
        let Some(Place { file, line, column, len }) = &self.place else {
            if !self.label.is_empty() {
                writeln!(out, "  = {}", self.label)?;
            }
            return writeln!(out);
        };
        let width = line.to_string().len();
        writeln!(out, "{:width$}--> {}:{line}:{column}", "", file.path)?;
        let text = file.text.lines().nth(line - 1).unwrap_or("");
        // A marker stays on its line, and a tab takes the room of one character.
        let left = text.chars().count().saturating_sub(column - 1);
        let marks = "^".repeat((*len).min(left).max(1));
        writeln!(out, "{:width$} |", "")?;
        writeln!(out, "{line} | {}", text.replace('\t', " "))?;
        writeln!(out, "{:width$} | {:pad$}{code}{marks}{end} {}", "", "", self.label, pad = column - 1)?;
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

/// The name among `known` that `name` was probably meant to be.
pub fn nearest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let score = |candidate: &&str| strsim::normalized_damerau_levenshtein(name, candidate);
    known.into_iter().filter(|candidate| score(candidate) >= 0.5).max_by(|a, b| score(a).total_cmp(&score(b)))
}
