//! `Secret`: where something secret is kept, which is never in a resource: a file, or a
//! variable of the host's environment.

use std::{
    env, fs, io,
    path::{Path, PathBuf},
};

use crate::resource::{
    diagnostic::Diagnostics,
    yaml::{Object, Text},
};

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Secret {
    /// Below the site folder unless absolute.
    File(PathBuf),
    Variable(String),
}

/// Why a secret is not known.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    #[error("cannot read the secret in {}", path.display())]
    File { path: PathBuf, source: io::Error },
    #[error("the environment variable `{name}`, which holds a secret, is not set or no UTF-8")]
    Variable { name: String },
}

impl Secret {
    /// Reads the keys that say where it is; an error unless it is just one of them.
    pub fn read_keys(
        object: &mut Object<'_>,
        [file, variable]: [&'static str; 2],
        diagnostics: &mut Diagnostics,
    ) -> Option<Self> {
        match (object.text(file, diagnostics), object.text(variable, diagnostics)) {
            (Some(path), None) => Some(Secret::File(path.text.into())),
            (None, Some(Text { text, .. })) => Some(Secret::Variable(text)),
            (one, _) => {
                let place = one.map_or_else(|| object.place(), |text| text.place);
                let message = format!("{} takes one of `{file}` and `{variable}`", object.name());
                let label = "a secret is in a file, or in a variable of the host's environment";
                diagnostics.error("endpoint/secret", place, message, label);
                None
            }
        }
    }

    /// The same, with its file looked for below the site folder.
    pub fn below(&self, home: &Path) -> Self {
        match self {
            Secret::File(path) => Secret::File(home.join(path)),
            Secret::Variable(name) => Secret::Variable(name.clone()),
        }
    }

    /// As it is now, without the end of the file's last line.
    pub fn reveal(&self) -> Result<String, SecretError> {
        match self {
            Secret::File(path) => {
                let error = |source| SecretError::File { path: path.clone(), source };
                let text = fs::read_to_string(path).map_err(error)?;
                Ok(text.strip_suffix('\n').map_or(text.as_str(), |it| it.trim_end_matches('\r')).to_owned())
            }
            Secret::Variable(name) => {
                env::var(name).map_err(|_| SecretError::Variable { name: name.clone() })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_read_as_it_is_now_and_says_where_it_is_missing() {
        let dir = tempfile::tempdir().unwrap();
        let secret = Secret::File("password".into()).below(dir.path());
        let missing = secret.reveal().unwrap_err().to_string();
        assert!(
            missing.starts_with("cannot read the secret in ") && missing.ends_with("password"),
            "{missing}"
        );
        for (text, said) in [("one\n", "one"), ("two\r\n", "two"), (" three ", " three "), ("", "")] {
            fs::write(dir.path().join("password"), text).unwrap();
            assert_eq!(secret.reveal().unwrap(), said);
        }
        let unset = Secret::Variable("TIDEGATE_NO_SUCH_VARIABLE".into());
        assert!(
            unset.below(dir.path()).reveal().unwrap_err().to_string().contains("TIDEGATE_NO_SUCH_VARIABLE")
        );
    }
}
