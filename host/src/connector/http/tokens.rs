//! `Tokens`: whose request it is, from a folder with a file for each tenant. Tokens are
//! kept as digests alone, and never shown.

use std::{
    collections::{BTreeMap, HashMap},
    fs::{self, File, Metadata},
    io::{self, Read as _},
    os::unix::fs::MetadataExt as _,
    path::Path,
};

use sha2::{Digest as _, Sha256};

/// Of one tenant's file; what lies behind that is not read.
const FILE_BYTES_MAX: u64 = 64 << 10;

type TokenDigest = [u8; 32];

/// The tokens of all tenants as they were at one time.
#[derive(Debug, Default)]
pub(super) struct Tokens {
    files: BTreeMap<String, (Stamp, Vec<TokenDigest>)>,
    /// One token may be of several tenants.
    owners: HashMap<TokenDigest, Vec<String>>,
}

/// What of a file changes when it does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stamp([i64; 4], u64, u64);

impl Stamp {
    pub(super) fn of(file: &Metadata) -> Self {
        let times = [file.mtime(), file.mtime_nsec(), file.ctime(), file.ctime_nsec()];
        Stamp(times, file.len(), file.ino())
    }
}

/// Whether a request may go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::connector) enum Right {
    Granted,
    /// It has no token, or one that nobody has.
    Unknown,
    /// Its token is of somebody else.
    Others,
}

impl Tokens {
    /// Reads what has changed since it was read before. Blocks.
    pub(super) fn read(folder: &Path, before: &Tokens) -> io::Result<Self> {
        let mut tokens = Tokens::default();
        for entry in fs::read_dir(folder)? {
            let entry = entry?;
            let Ok(tenant) = entry.file_name().into_string() else { continue };
            // Follows links, as Kubernetes mounts secrets by them.
            let Ok(metadata) = fs::metadata(entry.path()) else { continue };
            if tenant.starts_with('.') || !metadata.is_file() {
                continue;
            }
            let stamp = Stamp::of(&metadata);
            let digests = match before.files.get(&tenant) {
                Some((known, digests)) if *known == stamp => digests.clone(),
                _ => match read_file(&entry.path()) {
                    Ok(digests) => digests,
                    Err(error) => {
                        tracing::warn!(tenant, %error, "its file of tokens cannot be read: none of them is known");
                        continue;
                    }
                },
            };
            for digest in &digests {
                tokens.owners.entry(*digest).or_default().push(tenant.clone());
            }
            tokens.files.insert(tenant, (stamp, digests));
        }
        Ok(tokens)
    }

    /// The tenants whose token a request with this `authorization` has.
    pub(super) fn owners(&self, authorization: Option<&[u8]>) -> &[String] {
        let token = authorization.and_then(bearer);
        token.and_then(|token| self.owners.get(&digest(token))).map_or(&[], Vec::as_slice)
    }

    /// What a request with this `authorization` may do in a tenant's name.
    pub(super) fn right(&self, authorization: Option<&[u8]>, tenant: &str) -> Right {
        let Some(token) = authorization.and_then(bearer) else { return Right::Unknown };
        match self.owners.get(&digest(token)) {
            None => Right::Unknown,
            Some(owners) if owners.iter().any(|owner| owner == tenant) => Right::Granted,
            Some(_) => Right::Others,
        }
    }
}

fn read_file(path: &Path) -> io::Result<Vec<TokenDigest>> {
    let mut text = Vec::new();
    File::open(path)?.take(FILE_BYTES_MAX).read_to_end(&mut text)?;
    let lines = text.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii);
    Ok(lines.filter(|line| !line.is_empty()).map(digest).collect())
}

/// How long a look-up takes tells nothing of a token: it is by digest.
fn digest(token: &[u8]) -> TokenDigest {
    Sha256::digest(token).into()
}

fn bearer(authorization: &[u8]) -> Option<&[u8]> {
    let (scheme, token) = authorization.split_at_checked(7)?;
    let token = token.trim_ascii();
    (scheme.eq_ignore_ascii_case(b"bearer ") && !token.is_empty()).then_some(token)
}

#[cfg(test)]
mod tests;
