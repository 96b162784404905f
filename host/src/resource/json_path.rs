//! `JsonPath`: which part of a message a test means, as `payload.temperature[0].count`.
//! Control side; knows nothing of what is compared there.

use std::fmt;

/// Steps into a JSON value. `*` stands for any one step; an element of a list is
/// `[0]` or `.0`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct JsonPath {
    steps: Vec<Step>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Step {
    Key(String),
    Index(usize),
    Any,
}

/// Why a text is no path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JsonPathError {
    #[error("a path has no empty step")]
    Empty,
    #[error("`[` needs a number or `*`, and `]`")]
    Index,
}

/// How a place in a value and a path lie to each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Relation {
    /// The path ends at the place or above it.
    Within,
    /// The path leads on from the place.
    Above,
    Apart,
}

impl JsonPath {
    /// Reads `a.b[0].c`, with or without `$.` before it.
    pub fn parse(text: &str) -> Result<Self, JsonPathError> {
        let text = text.strip_prefix("$.").unwrap_or(text);
        let mut steps = Vec::new();
        for part in text.split('.') {
            let (name, brackets) = part.split_at(part.find('[').unwrap_or(part.len()));
            match name {
                "" if brackets.is_empty() || steps.is_empty() => return Err(JsonPathError::Empty),
                "" => {}
                "*" => steps.push(Step::Any),
                name => steps.push(Step::Key(name.to_owned())),
            }
            let mut rest = brackets;
            while !rest.is_empty() {
                let (index, after) =
                    rest.strip_prefix('[').and_then(|it| it.split_once(']')).ok_or(JsonPathError::Index)?;
                steps.push(match index {
                    "*" => Step::Any,
                    index => Step::Index(index.parse().map_err(|_| JsonPathError::Index)?),
                });
                rest = after;
            }
        }
        Ok(JsonPath { steps })
    }

    /// The place of a member of what is here.
    pub fn key(&self, key: &str) -> Self {
        self.then(Step::Key(key.to_owned()))
    }

    /// The place of an element of what is here.
    pub fn index(&self, index: usize) -> Self {
        self.then(Step::Index(index))
    }

    fn then(&self, step: Step) -> Self {
        let mut steps = self.steps.clone();
        steps.push(step);
        JsonPath { steps }
    }

    /// How this place lies to what `path` means. A key with dots in it is met by the
    /// dotted path as well.
    pub fn relation(&self, path: &JsonPath) -> Relation {
        let (mine, theirs) = (self.parts(), path.parts());
        let meets = |(mine, theirs): (&String, &String)| theirs == "*" || mine == theirs;
        match mine.iter().zip(&theirs).all(meets) {
            false => Relation::Apart,
            true if theirs.len() <= mine.len() => Relation::Within,
            true => Relation::Above,
        }
    }

    fn parts(&self) -> Vec<String> {
        let mut parts = Vec::new();
        for step in &self.steps {
            match step {
                Step::Key(key) => parts.extend(key.split('.').map(str::to_owned)),
                Step::Index(index) => parts.push(index.to_string()),
                Step::Any => parts.push("*".to_owned()),
            }
        }
        parts
    }
}

impl fmt::Display for JsonPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, step) in self.steps.iter().enumerate() {
            let dot = if place == 0 { "" } else { "." };
            match step {
                Step::Key(key) => write!(f, "{dot}{key}")?,
                Step::Index(index) => write!(f, "[{index}]")?,
                Step::Any => write!(f, "{dot}*")?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
