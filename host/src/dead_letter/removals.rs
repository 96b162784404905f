//! `Removals`: which dead letters are gone although their lines still lie in a segment:
//! an appended log, one line for each removal, so that a removal happens whole or not at
//! all. Part of the archive; knows ids and nothing of what they name.

use std::{
    collections::{BTreeMap, HashSet},
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

/// The log's name in the folder of dead letters: no tenant's name has a dot.
const FILE: &str = "removed.log";
/// The log is written anew once it is larger than this, and than twice what it says.
pub(super) const BYTES_MAX: u64 = 1 << 20;

/// One removal.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    /// Every id before this one was given to a letter once, and is given to no other.
    next: u64,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    ids: Vec<u64>,
    /// Tenant, dataflow, and the last of its letters that is gone with all before it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    upto: Vec<(String, String, u64)>,
}

/// What a log says altogether.
#[derive(Debug, Default)]
pub(super) struct Gone {
    pub next: u64,
    pub ids: HashSet<u64>,
    pub upto: BTreeMap<(String, String), u64>,
}

impl Gone {
    /// What is gone from the letters below `dir`; a line cut short by a crash says
    /// nothing, since nothing followed from it.
    pub fn read(dir: &Path) -> io::Result<Self> {
        Ok(Self::parse(dir)?.0)
    }

    /// The same, and how many bytes of it are whole lines.
    fn parse(dir: &Path) -> io::Result<(Self, u64)> {
        let text = match fs::read(dir.join(FILE)) {
            Err(missing) if missing.kind() == io::ErrorKind::NotFound => Vec::new(),
            other => other?,
        };
        let mut gone = Gone::default();
        let mut size = 0;
        for line in text.split_inclusive(|byte| *byte == b'\n').take_while(|line| line.ends_with(b"\n")) {
            size += line.len() as u64;
            let Ok(Entry { next, ids, upto }) = serde_json::from_slice(line) else { continue };
            gone.next = gone.next.max(next);
            gone.ids.extend(ids);
            for (tenant, dataflow, id) in upto {
                let known = gone.upto.entry((tenant, dataflow)).or_default();
                *known = id.max(*known);
            }
        }
        Ok((gone, size))
    }

    pub fn upto(&self, tenant: &str, dataflow: &str) -> u64 {
        self.upto.get(&(tenant.to_owned(), dataflow.to_owned())).copied().unwrap_or_default()
    }
}

/// See the module.
#[derive(Debug)]
pub(super) struct Removals {
    path: PathBuf,
    file: Option<File>,
    /// Bytes of whole lines.
    size: u64,
    /// The size after it was last written anew.
    size_anew: u64,
}

impl Removals {
    pub fn open(dir: &Path) -> io::Result<(Self, Gone)> {
        let (gone, size) = Gone::parse(dir)?;
        Ok((Removals { path: dir.join(FILE), file: None, size, size_anew: 0 }, gone))
    }

    /// These are gone once this returns, however the host ends.
    pub fn add_ids(&mut self, next: u64, ids: Vec<u64>) -> io::Result<()> {
        self.add(&Entry { next, ids, upto: Vec::new() })?;
        self.sync()
    }

    /// These are gone; should the machine fail, they may come back.
    pub fn add_upto(&mut self, next: u64, upto: Vec<(String, String, u64)>) -> io::Result<()> {
        self.add(&Entry { next, ids: Vec::new(), upto })
    }

    fn add(&mut self, entry: &Entry) -> io::Result<()> {
        let mut line = serde_json::to_vec(entry)?;
        line.push(b'\n');
        let file = match &mut self.file {
            Some(file) => file,
            none => {
                let file = OpenOptions::new().create(true).append(true).open(&self.path)?;
                // What an append that failed has left is no line.
                file.set_len(self.size)?;
                none.insert(file)
            }
        };
        if let Err(error) = file.write_all(&line) {
            self.file = None;
            return Err(error);
        }
        self.size += line.len() as u64;
        Ok(())
    }

    pub fn sync(&mut self) -> io::Result<()> {
        let synced = self.file.as_ref().map_or(Ok(()), File::sync_data);
        if synced.is_err() {
            self.file = None;
        }
        synced
    }

    pub fn is_long(&self) -> bool {
        self.size > BYTES_MAX.max(2 * self.size_anew)
    }

    /// Begins again with what is still to be said.
    pub fn write_anew(&mut self, gone: Gone) -> io::Result<()> {
        let Gone { next, ids, upto } = gone;
        let upto = upto.into_iter().map(|((tenant, dataflow), id)| (tenant, dataflow, id)).collect();
        let mut line = serde_json::to_vec(&Entry { next, ids: ids.into_iter().collect(), upto })?;
        line.push(b'\n');
        replace(&self.path, &line)?;
        self.file = None;
        (self.size, self.size_anew) = (line.len() as u64, line.len() as u64);
        Ok(())
    }
}

/// Puts a file in the place of another, whole or not at all.
pub(super) fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let beside = path.with_extension("new");
    let mut file = File::create(&beside)?;
    file.write_all(bytes)?;
    file.sync_data()?;
    fs::rename(&beside, path)?;
    sync_folder(path.parent().expect("it is in a folder"))
}

/// What was made, renamed or removed in a folder is on disk.
pub(super) fn sync_folder(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}
