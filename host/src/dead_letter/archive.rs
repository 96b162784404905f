//! `Archive`: all dead letters of a data folder, in segments of JSON lines for each
//! dataflow, with what is removed of them. Behind the writer, which owns it; knows
//! letters as lines with an id and an instant. In memory are segments, not letters.
//!
//! ```text
//! dead-letters/TENANT/DATAFLOW/000001.jsonl   full: goes once all in it is gone
//!                              000002.jsonl   appended to
//! dead-letters/removed.log                    what is gone of them
//! ```

use std::{
    borrow::Cow,
    collections::{BTreeMap, HashMap, HashSet, VecDeque},
    fs::{self, File, OpenOptions},
    io::{self, BufRead as _, BufReader, BufWriter, Seek as _, SeekFrom, Write as _},
    ops::ControlFlow,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use rustix::{
    fs::{FlockOperation, flock},
    io::Errno,
};
use serde::Deserialize;

use super::{
    DeadLetterLimits, Record, at_ms,
    filter::Filter,
    reader::{self, folders, segments},
    removals::{Gone, Removals, sync_folder},
};

/// A segment of this size takes no more.
const SEGMENT_BYTES: u64 = 1 << 20;
/// Segments open for appending.
const FILES_MAX: usize = 64;
/// A segment that has lost as many letters, or half its bytes, is written anew.
const GONE_MAX: usize = 1024;
/// Of a dataflow's oldest letters, as many are looked up at once.
const OLDEST_MAX: usize = 256;

/// Why the letters of a data folder cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    #[error("cannot use the dead letters in {}", path.display())]
    Io { path: PathBuf, source: io::Error },
    #[error("another process has the dead letters in {}", path.display())]
    Taken { path: PathBuf },
}

/// A letter to be kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Letter {
    pub id: u64,
    pub at_ms: u64,
    pub tenant: String,
    pub dataflow: String,
    /// With its end.
    pub line: Vec<u8>,
}

/// What limits took.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Trimmed {
    pub expired: u64,
    pub displaced: u64,
}

/// See the module.
#[derive(Debug)]
pub struct Archive {
    dir: PathBuf,
    /// The newest id that was given to a letter.
    newest: u64,
    shelves: BTreeMap<String, Shelf>,
    removals: Removals,
    /// Open for appending.
    files: HashMap<PathBuf, File>,
    _lock: File,
}

/// One tenant's letters.
#[derive(Debug, Default)]
struct Shelf {
    piles: BTreeMap<String, Pile>,
    count: u64,
    bytes: u64,
}

/// One dataflow's letters.
#[derive(Debug, Default)]
struct Pile {
    segments: VecDeque<Segment>,
    /// This letter and all before it are gone.
    upto: u64,
    /// The oldest letters, as far as they have been looked up.
    oldest: VecDeque<Place>,
    /// From which segment on, and from where in it, the next are looked up.
    ahead: (u64, u64),
}

#[derive(Debug)]
struct Segment {
    number: u64,
    size: u64,
    /// Ids of the first and last letter in it, gone or not.
    first: u64,
    last: u64,
    /// When its first letter was given up.
    since_ms: u64,
    /// Letters in it that are kept, and their bytes.
    count: u64,
    bytes: u64,
    /// Letters behind `upto` that are gone, ascending.
    gone: Vec<u64>,
}

/// One letter in a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Place {
    id: u64,
    at_ms: u64,
    bytes: u64,
}

/// What the archive reads of a line.
#[derive(Deserialize)]
struct Meta<'a> {
    #[serde(default)]
    id: u64,
    #[serde(borrow)]
    at: Cow<'a, str>,
    #[serde(default)]
    replaces: Option<u64>,
}

impl Archive {
    /// Takes the letters below `dir` for this process, and puts right what a crash has
    /// left: lines cut short, and letters that another has taken the place of.
    pub fn open(dir: &Path) -> Result<Self, ArchiveError> {
        let error = |source| ArchiveError::Io { path: dir.to_owned(), source };
        fs::create_dir_all(dir).map_err(error)?;
        let lock = File::create(dir.join("dead-letters.lock")).map_err(error)?;
        match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => return Err(ArchiveError::Taken { path: dir.to_owned() }),
            Err(other) => return Err(error(other.into())),
        }
        Self::load(dir, lock).map_err(error)
    }

    /// The same, once others have let go of them.
    pub fn open_within(dir: &Path, wait_max: Duration) -> Result<Self, ArchiveError> {
        let until = Instant::now() + wait_max;
        loop {
            match Self::open(dir) {
                Err(ArchiveError::Taken { .. }) if Instant::now() < until => {
                    std::thread::sleep(Duration::from_millis(20));
                }
                other => return other,
            }
        }
    }

    fn load(dir: &Path, lock: File) -> io::Result<Self> {
        let (removals, gone) = Removals::open(dir)?;
        let mut archive = Archive {
            dir: dir.to_owned(),
            newest: gone.next.saturating_sub(1),
            shelves: BTreeMap::new(),
            removals,
            files: HashMap::new(),
            _lock: lock,
        };
        let mut unnumbered = Vec::new();
        let mut replaced = Vec::new();
        for (tenant, folder) in folders(dir, None)? {
            adopt_files(&folder)?;
            for (dataflow, folder) in folders(&folder, None)? {
                let loaded = load_pile(&folder, gone.upto(&tenant, &dataflow), &gone.ids)?;
                archive.newest = loaded.newest.max(archive.newest);
                replaced.extend(loaded.replaced);
                unnumbered.extend(loaded.unnumbered.into_iter().map(|number| {
                    let (tenant, dataflow) = (tenant.clone(), dataflow.clone());
                    (tenant, dataflow, number)
                }));
                let shelf = archive.shelves.entry(tenant.clone()).or_default();
                shelf.count += loaded.pile.count();
                shelf.bytes += loaded.pile.bytes();
                shelf.piles.insert(dataflow, loaded.pile);
            }
        }
        for (tenant, dataflow, number) in unnumbered {
            archive.number_lines(&tenant, &dataflow, number)?;
        }
        if !replaced.is_empty() {
            archive.removals.add_ids(archive.newest + 1, replaced)?;
        }
        let piles = archive.shelves.iter().flat_map(|(tenant, shelf)| {
            shelf.piles.keys().map(|dataflow| (tenant.clone(), dataflow.clone()))
        });
        let piles: Vec<_> = piles.collect();
        archive.tidy(&piles);
        Ok(archive)
    }

    /// Gives ids to lines of hosts that gave none.
    fn number_lines(&mut self, tenant: &str, dataflow: &str, number: u64) -> io::Result<()> {
        let folder = self.dir.join(tenant).join(dataflow);
        let path = segment_path(&folder, number);
        let mut newest = self.newest;
        rewrite(&path, |line| {
            let mut record: Record = serde_json::from_slice(line).ok()?;
            if record.id == 0 {
                newest += 1;
                record.id = newest;
            }
            let mut line = serde_json::to_vec(&record).expect("a record is JSON");
            line.push(b'\n');
            Some(Cow::Owned(line))
        })?;
        self.newest = newest;
        let loaded = load_segment(&path, number, 0, &HashSet::new())?;
        let shelf = self.shelves.entry(tenant.to_owned()).or_default();
        let pile = shelf.piles.entry(dataflow.to_owned()).or_default();
        if let Some(segment) = pile.segments.iter_mut().find(|it| it.number == number) {
            shelf.count = shelf.count - segment.count + loaded.segment.count;
            shelf.bytes = shelf.bytes - segment.bytes + loaded.segment.bytes;
            *segment = loaded.segment;
        }
        Ok(())
    }

    pub fn newest(&self) -> u64 {
        self.newest
    }

    /// An id that no letter has had.
    pub(super) fn next_id(&mut self) -> u64 {
        self.newest += 1;
        self.newest
    }

    /// How many letters of a tenant are kept, and their bytes.
    pub(super) fn kept(&self, tenant: &str) -> (u64, u64) {
        self.shelves.get(tenant).map_or((0, 0), |shelf| (shelf.count, shelf.bytes))
    }

    /// Writes letters, ascending by id, and takes those out of `letters` that are on
    /// disk: what an error leaves in it is not there.
    pub(super) fn append(&mut self, letters: &mut Vec<Letter>) -> io::Result<()> {
        letters.sort_by(|one, other| {
            (&one.tenant, &one.dataflow, one.id).cmp(&(&other.tenant, &other.dataflow, other.id))
        });
        while let Some(first) = letters.first() {
            let is_same = |it: &&Letter| it.tenant == first.tenant && it.dataflow == first.dataflow;
            let together = letters.iter().take_while(is_same).count();
            let written = self.append_some(&letters[..together])?;
            letters.drain(..written);
        }
        Ok(())
    }

    /// Writes some of one dataflow's letters, as many as fit its segment and at least
    /// one; gives how many.
    fn append_some(&mut self, letters: &[Letter]) -> io::Result<usize> {
        let Letter { tenant, dataflow, .. } = &letters[0];
        let folder = self.dir.join(tenant).join(dataflow);
        let shelf = self.shelves.entry(tenant.clone()).or_default();
        let pile = shelf.piles.entry(dataflow.clone()).or_default();
        let (number, size) = match pile.segments.back() {
            Some(last) if last.size < SEGMENT_BYTES => (last.number, last.size),
            Some(last) => (last.number + 1, 0),
            None => (1, 0),
        };
        let mut bytes = 0;
        let fitting = letters.iter().take_while(|letter| {
            let fits = bytes == 0 || size + bytes < SEGMENT_BYTES;
            bytes += if fits { letter.line.len() as u64 } else { 0 };
            fits
        });
        let fitting: Vec<_> = fitting.collect();
        let path = segment_path(&folder, number);
        if size == 0 {
            fs::create_dir_all(&folder)?;
        }
        if self.files.len() >= FILES_MAX {
            self.files.clear();
        }
        let file = match self.files.entry(path.clone()) {
            std::collections::hash_map::Entry::Occupied(open) => open.into_mut(),
            std::collections::hash_map::Entry::Vacant(place) => {
                let file = OpenOptions::new().create(true).append(true).open(&path)?;
                // What an append that failed has left is no letter.
                file.set_len(size)?;
                place.insert(file)
            }
        };
        let lines: Vec<u8> = fitting.iter().flat_map(|letter| letter.line.iter().copied()).collect();
        let written = file.write_all(&lines).and_then(|()| file.sync_data());
        let written =
            written.and_then(|()| if size == 0 { sync_folders(&self.dir, &folder) } else { Ok(()) });
        if let Err(error) = written {
            self.files.remove(&path);
            return Err(error);
        }
        let places = fitting.iter().map(|letter| {
            let bytes = letter.line.len() as u64;
            Place { id: letter.id, at_ms: letter.at_ms, bytes }
        });
        let segment = pile.segment_of(number);
        places.for_each(|place| segment.add(place));
        shelf.count += fitting.len() as u64;
        shelf.bytes += bytes;
        Ok(fitting.len())
    }

    /// Removes the letters that `filter` takes, all of them or none; gives how many.
    pub fn discard(&mut self, filter: &Filter) -> io::Result<u64> {
        let ids = reader::ids(&self.dir, filter)?;
        self.remove(&ids)
    }

    /// Removes letters for good, all of them or none; gives how many there were.
    pub(super) fn remove(&mut self, ids: &[u64]) -> io::Result<u64> {
        if ids.is_empty() {
            return Ok(0);
        }
        let mut ids = ids.to_vec();
        ids.sort_unstable();
        ids.dedup();
        let mut found = Vec::new();
        for (tenant, shelf) in &self.shelves {
            for (dataflow, pile) in &shelf.piles {
                let folder = self.dir.join(tenant).join(dataflow);
                for (index, segment) in pile.segments.iter().enumerate() {
                    let may_have = ids.partition_point(|id| *id < segment.first);
                    if segment.count == 0 || ids.get(may_have).is_none_or(|id| *id > segment.last) {
                        continue;
                    }
                    let places = segment.kept_of(&folder, pile.upto, &ids)?;
                    found.push((tenant.clone(), dataflow.clone(), index, places));
                }
            }
        }
        let removed: Vec<_> = found.iter().flat_map(|(.., places)| places).map(|place| place.id).collect();
        if removed.is_empty() {
            return Ok(0);
        }
        let count = removed.len() as u64;
        // With this line they are gone, all at once.
        self.removals.add_ids(self.newest + 1, removed)?;
        let mut piles = Vec::new();
        for (tenant, dataflow, index, places) in found {
            let shelf = self.shelves.get_mut(&tenant).expect("it was found there");
            let pile = shelf.piles.get_mut(&dataflow).expect("it was found there");
            shelf.count -= places.len() as u64;
            shelf.bytes -= places.iter().map(|place| place.bytes).sum::<u64>();
            pile.oldest.retain(|place| ids.binary_search(&place.id).is_err());
            pile.segments[index].remove(&places);
            piles.push((tenant, dataflow));
        }
        self.tidy(&piles);
        Ok(count)
    }

    /// Holds a tenant to its limits: what is too old goes, and then the oldest, until
    /// the rest is within them.
    pub(super) fn trim(
        &mut self,
        tenant: &str,
        limits: DeadLetterLimits,
        now_ms: u64,
    ) -> io::Result<Trimmed> {
        let mut trimmed = Trimmed::default();
        let Some(shelf) = self.shelves.get_mut(tenant) else { return Ok(trimmed) };
        let expired_ms = now_ms.saturating_sub(limits.age_max.as_millis() as u64);
        if !shelf.is_over(limits) && shelf.since_ms().is_none_or(|since| since > expired_ms) {
            return Ok(trimmed);
        }
        let folder = self.dir.join(tenant);
        let mut changed = HashMap::new();
        for (dataflow, pile) in &mut shelf.piles {
            while let Some(place) = pile.look_up_oldest(&folder.join(dataflow))? {
                if place.at_ms > expired_ms {
                    break;
                }
                pile.drop_oldest();
                shelf.count -= 1;
                shelf.bytes -= place.bytes;
                trimmed.expired += 1;
                changed.insert(dataflow.clone(), pile.upto);
            }
        }
        while shelf.is_over(limits) {
            let mut oldest: Option<(u64, &str)> = None;
            for (dataflow, pile) in &mut shelf.piles {
                let place = pile.look_up_oldest(&folder.join(dataflow))?;
                if let Some(place) = place.filter(|it| oldest.is_none_or(|(id, _)| it.id < id)) {
                    oldest = Some((place.id, dataflow));
                }
            }
            let Some((_, dataflow)) = oldest else { break };
            let dataflow = dataflow.to_owned();
            let pile = shelf.piles.get_mut(&dataflow).expect("it has the oldest");
            let place = pile.drop_oldest();
            shelf.count -= 1;
            shelf.bytes -= place.bytes;
            trimmed.displaced += 1;
            changed.insert(dataflow, pile.upto);
        }
        if changed.is_empty() {
            return Ok(trimmed);
        }
        let upto = changed.iter().map(|(dataflow, id)| (tenant.to_owned(), dataflow.clone(), *id));
        self.removals.add_upto(self.newest + 1, upto.collect())?;
        let piles = changed.into_keys().map(|dataflow| (tenant.to_owned(), dataflow));
        self.tidy(&piles.collect::<Vec<_>>());
        Ok(trimmed)
    }

    /// No letter of a tenant is too old before this instant.
    pub(super) fn expires_ms(&self, tenant: &str, limits: DeadLetterLimits) -> Option<u64> {
        let since = self.shelves.get(tenant)?.since_ms()?;
        Some(since.saturating_add(limits.age_max.as_millis() as u64))
    }

    /// Gives back room on the disk. What cannot be done now is done another time.
    fn tidy(&mut self, piles: &[(String, String)]) {
        let tidied = piles.iter().try_for_each(|(tenant, dataflow)| self.tidy_pile(tenant, dataflow));
        if let Err(error) = tidied.and_then(|()| self.shorten_removals()) {
            tracing::warn!(%error, dir = %self.dir.display(), "room of removed dead letters is not free yet");
        }
    }

    fn tidy_pile(&mut self, tenant: &str, dataflow: &str) -> io::Result<()> {
        let Some(shelf) = self.shelves.get_mut(tenant) else { return Ok(()) };
        let Some(pile) = shelf.piles.get_mut(dataflow) else { return Ok(()) };
        let folder = self.dir.join(tenant).join(dataflow);
        let is_empty = |segment: &Segment| segment.count == 0;
        if pile.segments.iter().any(|it| is_empty(it) || it.is_worth_rewriting()) {
            // Before the lines go: that they are gone must not be forgotten without them.
            self.removals.sync()?;
        }
        for segment in pile.segments.iter().filter(|it| is_empty(it)) {
            let path = segment_path(&folder, segment.number);
            self.files.remove(&path);
            match fs::remove_file(&path) {
                Err(missing) if missing.kind() == io::ErrorKind::NotFound => {}
                other => other?,
            }
        }
        if pile.segments.iter().any(is_empty) {
            sync_folder(&folder)?;
            pile.segments.retain(|segment| !is_empty(segment));
        }
        let upto = pile.upto;
        for segment in pile.segments.iter_mut().filter(|it| it.is_worth_rewriting()) {
            let path = segment_path(&folder, segment.number);
            self.files.remove(&path);
            let (gone, oldest_id) = (&segment.gone, upto);
            rewrite(&path, |line| {
                let meta: Meta<'_> = serde_json::from_slice(line).ok()?;
                (meta.id > oldest_id && gone.binary_search(&meta.id).is_err()).then_some(Cow::Borrowed(line))
            })?;
            let number = segment.number;
            *segment = load_segment(&path, number, upto, &HashSet::new())?.segment;
            // Places in it are others now.
            pile.oldest.clear();
            pile.ahead = (0, 0);
        }
        if pile.segments.is_empty() {
            shelf.piles.remove(dataflow);
            // Somebody may have put something there.
            let _ = fs::remove_dir(&folder);
        }
        Ok(())
    }

    fn shorten_removals(&mut self) -> io::Result<()> {
        if !self.removals.is_long() {
            return Ok(());
        }
        let mut gone = Gone { next: self.newest + 1, ..Gone::default() };
        for (tenant, shelf) in &self.shelves {
            for (dataflow, pile) in &shelf.piles {
                gone.ids.extend(pile.segments.iter().flat_map(|segment| &segment.gone));
                if pile.segments.front().is_some_and(|first| first.first <= pile.upto) {
                    gone.upto.insert((tenant.clone(), dataflow.clone()), pile.upto);
                }
            }
        }
        self.removals.write_anew(gone)
    }
}

impl Shelf {
    fn is_over(&self, limits: DeadLetterLimits) -> bool {
        self.count > limits.count_max || self.bytes > limits.bytes_max
    }

    /// No letter is older than this.
    fn since_ms(&self) -> Option<u64> {
        self.piles.values().filter_map(Pile::since_ms).min()
    }
}

impl Pile {
    fn count(&self) -> u64 {
        self.segments.iter().map(|segment| segment.count).sum()
    }

    fn bytes(&self) -> u64 {
        self.segments.iter().map(|segment| segment.bytes).sum()
    }

    fn since_ms(&self) -> Option<u64> {
        let known = self.oldest.front().map(|place| place.at_ms);
        known.or_else(|| self.segments.iter().find(|it| it.count > 0).map(|it| it.since_ms))
    }

    /// The segment of this number, at the end, if need be a new one.
    fn segment_of(&mut self, number: u64) -> &mut Segment {
        if self.segments.back().is_none_or(|last| last.number != number) {
            self.segments.push_back(Segment::new(number));
        }
        self.segments.back_mut().expect("it was pushed")
    }

    /// The oldest letter that is kept.
    fn look_up_oldest(&mut self, folder: &Path) -> io::Result<Option<Place>> {
        let Pile { segments, upto, oldest, ahead } = self;
        while oldest.is_empty() {
            let Some(segment) = segments.iter().find(|it| it.number >= ahead.0) else { return Ok(None) };
            let from = if segment.number == ahead.0 { ahead.1 } else { 0 };
            let mut end = from;
            each_line(&segment_path(folder, segment.number), from, |offset, line| {
                end = offset + line.len() as u64;
                if let Ok(meta) = serde_json::from_slice::<Meta<'_>>(line)
                    && meta.id > *upto
                    && segment.gone.binary_search(&meta.id).is_err()
                {
                    oldest.push_back(Place { id: meta.id, at_ms: at_ms(&meta.at), bytes: line.len() as u64 });
                }
                if oldest.len() < OLDEST_MAX { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
            })?;
            *ahead = (segment.number, end);
            let is_last = segments.back().is_some_and(|last| last.number == ahead.0);
            if oldest.is_empty() && is_last {
                return Ok(None);
            }
            if oldest.is_empty() {
                *ahead = (ahead.0 + 1, 0);
            }
        }
        Ok(oldest.front().copied())
    }

    /// The letter that was looked up is gone, and with it all before it.
    fn drop_oldest(&mut self) -> Place {
        let place = self.oldest.pop_front().expect("it was looked up");
        self.upto = place.id;
        for segment in self.segments.iter_mut().filter(|it| it.first <= place.id) {
            segment.gone.retain(|id| *id > place.id);
            if segment.last >= place.id {
                segment.count -= 1;
                segment.bytes -= place.bytes;
            }
        }
        place
    }
}

impl Segment {
    fn new(number: u64) -> Self {
        let (size, count, bytes) = (0, 0, 0);
        Segment { number, size, first: u64::MAX, last: 0, since_ms: 0, count, bytes, gone: Vec::new() }
    }

    /// Takes a letter in at the end.
    fn add(&mut self, place: Place) {
        self.pass(place);
        self.count += 1;
        self.bytes += place.bytes;
    }

    /// There is a line in it, kept or not.
    fn pass(&mut self, place: Place) {
        if self.first == u64::MAX {
            self.since_ms = place.at_ms;
        }
        self.size += place.bytes;
        self.first = self.first.min(place.id);
        self.last = self.last.max(place.id);
    }

    fn remove(&mut self, places: &[Place]) {
        self.gone.extend(places.iter().map(|place| place.id));
        self.gone.sort_unstable();
        self.count -= places.len() as u64;
        self.bytes -= places.iter().map(|place| place.bytes).sum::<u64>();
    }

    /// Those of `ids`, which ascend, that are in it and kept.
    fn kept_of(&self, folder: &Path, upto: u64, ids: &[u64]) -> io::Result<Vec<Place>> {
        let mut places = Vec::new();
        each_line(&segment_path(folder, self.number), 0, |_, line| {
            if let Ok(meta) = serde_json::from_slice::<Meta<'_>>(line)
                && meta.id > upto
                && ids.binary_search(&meta.id).is_ok()
                && self.gone.binary_search(&meta.id).is_err()
            {
                places.push(Place { id: meta.id, at_ms: at_ms(&meta.at), bytes: line.len() as u64 });
            }
            ControlFlow::Continue(())
        })?;
        Ok(places)
    }

    fn is_worth_rewriting(&self) -> bool {
        self.count > 0 && (self.gone.len() > GONE_MAX || self.size - self.bytes > SEGMENT_BYTES / 2)
    }
}

fn segment_path(folder: &Path, number: u64) -> PathBuf {
    folder.join(format!("{number:06}.jsonl"))
}

/// A folder that may be new, and the one that it is in.
fn sync_folders(dir: &Path, folder: &Path) -> io::Result<()> {
    sync_folder(folder)?;
    folder.parent().map_or(Ok(()), sync_folder)?;
    sync_folder(dir)
}

/// Calls `each` with the whole lines of a segment and where they begin, from `from` on.
fn each_line(path: &Path, from: u64, mut each: impl FnMut(u64, &[u8]) -> ControlFlow<()>) -> io::Result<()> {
    let mut file = File::open(path)?;
    file.seek(SeekFrom::Start(from))?;
    let mut lines = BufReader::with_capacity(64 << 10, file);
    let mut line = Vec::new();
    let mut offset = from;
    loop {
        line.clear();
        lines.read_until(b'\n', &mut line)?;
        if !line.ends_with(b"\n") || each(offset, &line).is_break() {
            return Ok(());
        }
        offset += line.len() as u64;
    }
}

/// Puts what `of` makes of each line in the place of a segment, whole or not at all.
fn rewrite(path: &Path, mut of: impl FnMut(&[u8]) -> Option<Cow<'_, [u8]>>) -> io::Result<()> {
    let beside = path.with_extension("new");
    let mut out = BufWriter::new(File::create(&beside)?);
    let mut written = Ok(());
    each_line(path, 0, |_, line| {
        if let Some(line) = of(line) {
            written = out.write_all(&line);
        }
        if written.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    })?;
    written?;
    out.into_inner()?.sync_data()?;
    fs::rename(&beside, path)?;
    sync_folder(path.parent().expect("it is in a folder"))
}

/// `DATAFLOW.jsonl`, as earlier hosts wrote it, becomes the last segment of its dataflow.
fn adopt_files(tenant: &Path) -> io::Result<()> {
    for path in reader::entries(tenant)? {
        let name = path.file_name().and_then(|name| name.to_str());
        let Some(dataflow) = name.and_then(|name| name.strip_suffix(".jsonl")) else { continue };
        if path.is_file() {
            let folder = tenant.join(dataflow);
            fs::create_dir_all(&folder)?;
            let last = segments(&folder)?.last().map_or(0, |(number, _)| *number);
            fs::rename(&path, segment_path(&folder, last + 1))?;
            sync_folder(&folder)?;
            sync_folder(tenant)?;
        }
    }
    Ok(())
}

/// A dataflow's letters as they were found.
struct LoadedPile {
    pile: Pile,
    newest: u64,
    /// Letters whose place another has taken, and of which the log says nothing.
    replaced: Vec<u64>,
    /// Segments with lines without an id.
    unnumbered: Vec<u64>,
}

fn load_pile(folder: &Path, upto: u64, gone: &HashSet<u64>) -> io::Result<LoadedPile> {
    for path in reader::entries(folder)? {
        if path.extension().is_some_and(|it| it == "new") {
            // The host ended before it took the place of its segment.
            fs::remove_file(path)?;
        }
    }
    let mut pile = Pile { upto, ..Pile::default() };
    let (mut newest, mut unnumbered, mut replaced) = (0, Vec::new(), HashSet::new());
    let found = segments(folder)?;
    for (number, path) in &found {
        let loaded = load_segment(path, *number, upto, gone)?;
        newest = loaded.segment.last.max(newest);
        replaced.extend(loaded.replaces.into_iter().filter(|id| *id > upto && !gone.contains(id)));
        if loaded.is_unnumbered {
            unnumbered.push(*number);
        }
        pile.segments.push_back(loaded.segment);
    }
    let mut ids: Vec<_> = replaced.into_iter().collect();
    ids.sort_unstable();
    let mut replaced = Vec::new();
    for segment in &mut pile.segments {
        let places = if ids.is_empty() { Vec::new() } else { segment.kept_of(folder, upto, &ids)? };
        replaced.extend(places.iter().map(|place| place.id));
        segment.remove(&places);
    }
    Ok(LoadedPile { pile, newest, replaced, unnumbered })
}

/// A segment as it was found.
struct LoadedSegment {
    segment: Segment,
    /// Letters whose place those in it took.
    replaces: Vec<u64>,
    is_unnumbered: bool,
}

fn load_segment(path: &Path, number: u64, upto: u64, gone: &HashSet<u64>) -> io::Result<LoadedSegment> {
    let mut segment = Segment::new(number);
    let (mut replaces, mut is_unnumbered, mut unreadable, mut end) = (Vec::new(), false, 0, 0);
    each_line(path, 0, |offset, line| {
        end = offset + line.len() as u64;
        let bytes = line.len() as u64;
        match serde_json::from_slice::<Meta<'_>>(line) {
            Ok(Meta { id: 0, .. }) => {
                is_unnumbered = true;
                segment.size += bytes;
            }
            Ok(meta) => {
                let place = Place { id: meta.id, at_ms: at_ms(&meta.at), bytes };
                replaces.extend(meta.replaces);
                let is_gone = gone.contains(&meta.id);
                if is_gone || meta.id <= upto {
                    segment.pass(place);
                } else {
                    segment.add(place);
                }
                if is_gone && meta.id > upto {
                    segment.gone.push(meta.id);
                }
            }
            Err(_) => {
                unreadable += 1;
                segment.size += bytes;
            }
        }
        ControlFlow::Continue(())
    })?;
    let file = OpenOptions::new().write(true).open(path)?;
    if file.metadata()?.len() > end {
        // Cut short by a crash: it was never confirmed, and its source delivers it again.
        file.set_len(end)?;
        file.sync_data()?;
    }
    if unreadable > 0 {
        tracing::warn!(path = %path.display(), unreadable, "lines among the dead letters are none");
    }
    segment.gone.sort_unstable();
    Ok(LoadedSegment { segment, replaces, is_unnumbered })
}

#[cfg(test)]
mod tests;
