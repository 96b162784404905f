//! Reads dead letters where they lie, one after the other, beside a writer that goes on.
//! Serves the commands and replay; changes nothing, and holds one letter at a time.

use std::{
    fs::{self, File},
    io::{self, BufRead as _, BufReader},
    ops::ControlFlow,
    path::{Path, PathBuf},
};

use super::{Record, filter::Filter, removals::Gone};

/// Calls `each` with all letters below `dir` that `filter` takes, by tenant and
/// dataflow, and within it as they were given up, until it breaks.
pub fn read(dir: &Path, filter: &Filter, mut each: impl FnMut(Record) -> ControlFlow<()>) -> io::Result<()> {
    // Before the segments: what is removed from both meanwhile is not seen again.
    let gone = Gone::read(dir)?;
    for (tenant, folder) in folders(dir, filter.tenant.as_deref())? {
        for (dataflow, folder) in folders(&folder, filter.dataflow.as_deref())? {
            let upto = gone.upto(&tenant, &dataflow);
            for (_, path) in segments(&folder)? {
                let is_kept = |id: u64| id > upto && !gone.ids.contains(&id);
                if read_segment(&path, filter, &is_kept, &mut each)?.is_break() {
                    return Ok(());
                }
            }
        }
    }
    Ok(())
}

/// The ids of all letters below `dir` that `filter` takes.
pub fn ids(dir: &Path, filter: &Filter) -> io::Result<Vec<u64>> {
    let mut ids = Vec::new();
    read(dir, filter, |record| {
        ids.push(record.id);
        ControlFlow::Continue(())
    })?;
    Ok(ids)
}

fn read_segment(
    path: &Path,
    filter: &Filter,
    is_kept: &dyn Fn(u64) -> bool,
    each: &mut dyn FnMut(Record) -> ControlFlow<()>,
) -> io::Result<ControlFlow<()>> {
    let file = match File::open(path) {
        // All in it has been removed since the folder was read.
        Err(missing) if missing.kind() == io::ErrorKind::NotFound => return Ok(ControlFlow::Continue(())),
        other => other?,
    };
    let mut lines = BufReader::new(file);
    let mut line = Vec::new();
    loop {
        line.clear();
        lines.read_until(b'\n', &mut line)?;
        // The last one may be in the middle of being written, or cut short by a crash.
        if !line.ends_with(b"\n") {
            return Ok(ControlFlow::Continue(()));
        }
        let Ok(record) = serde_json::from_slice::<Record>(&line) else { continue };
        if is_kept(record.id) && filter.takes(&record) && each(record).is_break() {
            return Ok(ControlFlow::Break(()));
        }
    }
}

/// Folders in `dir` with their names, all or the one of this name, in order.
pub(super) fn folders(dir: &Path, name: Option<&str>) -> io::Result<Vec<(String, PathBuf)>> {
    let mut folders = Vec::new();
    for path in entries(dir)? {
        let Some(own) = path.file_name().and_then(|own| own.to_str()).map(str::to_owned) else { continue };
        if name.is_none_or(|name| name == own) && path.is_dir() {
            folders.push((own, path));
        }
    }
    folders.sort();
    Ok(folders)
}

/// The segments of a dataflow's folder by number, in order.
pub(super) fn segments(dir: &Path) -> io::Result<Vec<(u64, PathBuf)>> {
    let number = |path: &Path| path.file_name()?.to_str()?.strip_suffix(".jsonl")?.parse().ok();
    let paths = entries(dir)?.into_iter();
    let mut segments: Vec<_> = paths.filter_map(|path| Some((number(&path)?, path))).collect();
    segments.sort();
    Ok(segments)
}

pub(super) fn entries(dir: &Path) -> io::Result<Vec<PathBuf>> {
    match fs::read_dir(dir) {
        Ok(entries) => entries.map(|entry| entry.map(|entry| entry.path())).collect(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}
