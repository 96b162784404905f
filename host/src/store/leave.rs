//! Going on where a failed database does not close and keeps its files locked: what is in them
//! moves to new ones, piece by piece, so that a disk that is nearly full has room for it. Can be
//! cut off anywhere, and is gone on with by whoever opens the store next.

use std::{
    fs::{self, File, TryLockError},
    io::{self, ErrorKind},
    os::unix::fs::FileExt as _,
    path::Path,
    time::{Duration, Instant},
};

use rustix::fs::{FallocateFlags, fallocate, statvfs};

/// What must be free on the disk, besides what the database takes.
const PIECE: u64 = 1 << 20;
/// How long a disk may be as full as it was before somebody tries whether it is still too full:
/// each attempt may leave another database in memory.
const TRY_AGAIN_AFTER: Duration = Duration::from_secs(60);

/// What sled calls its log.
const LOG: &str = "db";
/// Beside the store: where its files move, how many bytes of the log have, and what is left once
/// all have.
const MOVING: &str = "moving";
const MOVED: &str = "moved";
const LEFT: &str = "left";

/// A database that was left.
#[derive(Clone, Copy, Debug)]
pub(super) struct Left {
    since: Instant,
    /// Bytes that were free on its disk, if that was too full for it.
    room: Option<u64>,
}

impl Left {
    /// After this error of the database in `dir`.
    pub(super) fn after(error: &sled::Error, dir: &Path) -> Self {
        let is_full = matches!(error, sled::Error::Io(error) if error.kind() == ErrorKind::StorageFull);
        Left { since: Instant::now(), room: if is_full { room(dir) } else { None } }
    }

    /// Whether going on may come to more than it did the last time.
    pub(super) fn may_go_on(&self, dir: &Path) -> io::Result<()> {
        let is_as_full =
            self.room.is_some_and(|before| room(dir).is_some_and(|now| now < before.saturating_add(PIECE)));
        if is_as_full && self.since.elapsed() < TRY_AGAIN_AFTER {
            return Err(io::Error::new(ErrorKind::StorageFull, "the disk is as full as it was"));
        }
        Ok(())
    }
}

/// Bytes that may still be written to the disk of this folder.
fn room(dir: &Path) -> Option<u64> {
    let disk = statvfs(dir).ok()?;
    Some(disk.f_bavail.saturating_mul(disk.f_frsize))
}

/// Gives the folder's name to new files that nobody has locked, with all that was in the old ones.
pub(super) fn leave_behind(dir: &Path) -> io::Result<()> {
    let [moving, moved, left] = [MOVING, MOVED, LEFT].map(|name| dir.with_extension(name));
    if dir.exists() {
        remove(&left)?;
        if !moving.exists() {
            // Of a move before.
            remove_file(&moved)?;
        }
        move_folder(dir, &moving)?;
        move_log(&dir.join(LOG), &moving.join(LOG), &moved)?;
        sync(&moving)?;
        fs::rename(dir, &left)?;
    }
    // From here on there is nothing but names to change.
    fs::rename(&moving, dir)?;
    remove_file(&moved)?;
    remove(&left)
}

/// Before the store is opened: goes on where a kill cut off [`leave_behind`].
pub(super) fn go_on(dir: &Path) -> io::Result<()> {
    let [moving, moved, left] = [MOVING, MOVED, LEFT].map(|name| dir.with_extension(name));
    if moving.exists() {
        // Nobody else is at it until this returns.
        let _lock = match File::open(dir.join(LOG)) {
            Err(missing) if missing.kind() == ErrorKind::NotFound => None,
            Err(error) => return Err(error),
            Ok(log) => match log.try_lock() {
                Ok(()) => Some(log),
                // Whoever is about to open it is told by sled.
                Err(TryLockError::WouldBlock) => return Ok(()),
                Err(TryLockError::Error(error)) => return Err(error),
            },
        };
        return leave_behind(dir);
    }
    if left.exists() && !dir.exists() {
        // Of a host that left copies, killed between the names.
        return fs::rename(&left, dir);
    }
    remove_file(&moved)?;
    remove(&left)
}

/// Everything but the log; what sled writes once and then only reads.
fn move_folder(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            move_folder(&entry.path(), &target)?;
        } else if entry.file_name() != LOG {
            fs::rename(entry.path(), target)?;
        }
    }
    sync(to)
}

/// Each piece is on disk twice for a moment, and the old log is a hollow one at the end. How far
/// it is stands in a file, before a piece goes from the old one: whose holes say nothing, since one
/// may be made by halves.
fn move_log(from: &Path, to: &Path, moved: &Path) -> io::Result<()> {
    let old = match File::options().read(true).write(true).open(from) {
        // Somebody else has taken it away: there is nothing to be moved.
        Err(missing) if missing.kind() == ErrorKind::NotFound && to.exists() => return Ok(()),
        old => old?,
    };
    let open = |path: &Path| {
        let file = File::options().read(true).write(true).create(true).truncate(false).open(path)?;
        path.parent().map_or(Ok(()), sync)?;
        Ok::<_, io::Error>(file)
    };
    let (new, moved) = (open(to)?, open(moved)?);
    let mut bytes = [0; 8];
    let mut at = match moved.metadata()?.len() {
        8 => {
            moved.read_exact_at(&mut bytes, 0)?;
            u64::from_le_bytes(bytes)
        }
        _ => 0,
    };
    let len = old.metadata()?.len();
    let mut piece = Vec::new();
    while at < len {
        piece.resize((len - at).min(PIECE) as usize, 0);
        old.read_exact_at(&mut piece, at)?;
        new.write_all_at(&piece, at)?;
        new.sync_data()?;
        let end = at + piece.len() as u64;
        moved.write_all_at(&end.to_le_bytes(), 0)?;
        moved.sync_all()?;
        let hole = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        match fallocate(&old, hole, at, piece.len() as u64) {
            // The disk then needs room for all of it.
            Ok(()) | Err(rustix::io::Errno::OPNOTSUPP) => {}
            Err(error) => return Err(error.into()),
        }
        at = end;
    }
    new.sync_all()
}

fn remove(dir: &Path) -> io::Result<()> {
    unless_missing(fs::remove_dir_all(dir))
}

fn remove_file(path: &Path) -> io::Result<()> {
    unless_missing(fs::remove_file(path))
}

fn unless_missing(removed: io::Result<()>) -> io::Result<()> {
    match removed {
        Err(missing) if missing.kind() == ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

fn sync(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt as _;

    use super::{super::*, *};

    /// Enough for several pieces, none of them large for sled.
    fn filled(dir: &Path) -> BTreeMap<Vec<u8>, Vec<u8>> {
        let database = Database::open(dir).expect("opens");
        let value = |number: u32| number.to_le_bytes().repeat(1_000);
        let records: BTreeMap<_, _> =
            (0..1_500_u32).map(|number| (number.to_be_bytes().to_vec(), value(number))).collect();
        for (key, value) in &records {
            database.state.insert(key, value.as_slice()).expect("is written");
        }
        // One that has a file of its own.
        database.state.insert("large", vec![7; 1 << 20]).expect("is written");
        database.db.flush().expect("is flushed");
        // It keeps its files locked.
        std::mem::forget(database);
        records
    }

    fn check(dir: &Path, records: &BTreeMap<Vec<u8>, Vec<u8>>) {
        let database = Database::open(dir).expect("opens");
        for (key, value) in records {
            let there = database.state.get(key).expect("reads");
            assert!(there.as_deref() == Some(value.as_slice()), "{key:?}");
        }
        assert_eq!(database.state.get("large").expect("reads").map(|value| value.len()), Some(1 << 20));
    }

    fn names(folder: &Path) -> Vec<std::ffi::OsString> {
        fs::read_dir(folder).expect("a folder").map(|it| it.expect("one").file_name()).collect()
    }

    fn blocks(paths: &[&Path]) -> u64 {
        paths.iter().filter_map(|path| path.metadata().ok()).map(|it| it.blocks() * 512).sum()
    }

    #[test]
    fn a_database_that_does_not_close_is_left_behind_with_nothing_lost() {
        let folder = tempfile::tempdir().expect("a folder");
        let dir = folder.path().join("store");
        let records = filled(&dir);
        assert!(Database::open(&dir).is_err(), "it is locked");
        let old = File::open(dir.join(LOG)).expect("it is there");
        let len = old.metadata().expect("it is open").len();
        assert!(len > 3 * PIECE, "{len}");
        leave_behind(&dir).expect("it moves");
        let taken = old.metadata().expect("it is open").blocks() * 512;
        assert!(taken < PIECE, "nobody frees what it took: {taken}");
        check(&dir, &records);
        assert_eq!(names(folder.path()), ["store"], "nothing else is left");
    }

    #[test]
    fn a_log_that_moves_takes_the_room_of_one_piece_more() {
        let folder = tempfile::tempdir().expect("a folder");
        let (old, new) = (folder.path().join("old"), folder.path().join("new"));
        let bytes: Vec<u8> = (0..5 * PIECE + 77).map(|at| (at / 777 + 1) as u8).collect();
        fs::write(&old, &bytes).expect("a file");
        File::open(&old).and_then(|old| old.sync_all()).expect("it is on disk");
        let before = blocks(&[&old]);
        let (looks, most) = (std::sync::atomic::AtomicBool::new(true), Mutex::new(0));
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while looks.load(std::sync::atomic::Ordering::SeqCst) {
                    let mut most = most.lock().expect("no panic under this lock");
                    *most = blocks(&[&old, &new]).max(*most);
                }
            });
            move_log(&old, &new, &folder.path().join("moved")).expect("it moves");
            looks.store(false, std::sync::atomic::Ordering::SeqCst);
        });
        let most = most.into_inner().expect("no panic under this lock");
        // What a file system keeps for itself, and two looks at different times.
        assert!(most <= before + 3 * PIECE, "{most} of {before}");
        assert_eq!(fs::read(new).expect("reads"), bytes);
    }

    #[test]
    fn a_move_that_is_cut_off_anywhere_is_gone_on_with_when_the_store_is_opened() {
        for cut in ["files", "half a piece", "a piece", "half a hole", "a hole", "log", "name", "old name"] {
            let folder = tempfile::tempdir().expect("a folder");
            let dir = folder.path().join("store");
            let records = filled(&dir);
            // Of the process that was killed.
            unlock(&dir);
            let [moving, moved, left] = [MOVING, MOVED, LEFT].map(|name| dir.with_extension(name));
            let (old, new) = (dir.join(LOG), moving.join(LOG));
            move_folder(&dir, &moving).expect("they move");
            let begin = fs::read(&old).expect("reads");
            let piece = PIECE as usize;
            // What is in the new log, how much of that is said to be, and the hole in the old one.
            let so_far = |there: usize, said: u64, hole: u64| {
                fs::write(&new, &begin[..there]).expect("is written");
                fs::write(&moved, said.to_le_bytes()).expect("is written");
                let old = File::options().write(true).open(&old).expect("opens");
                if hole > 0 {
                    fallocate(&old, FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE, 0, hole)
                        .expect("it has holes");
                }
            };
            match cut {
                "files" => {}
                "half a piece" => so_far(piece + piece / 2, PIECE, PIECE),
                "a piece" => so_far(2 * piece, PIECE, PIECE),
                "half a hole" => so_far(2 * piece, 2 * PIECE, PIECE + PIECE / 2),
                "a hole" => so_far(2 * piece, 2 * PIECE, 2 * PIECE),
                _ => move_log(&old, &new, &moved).expect("it moves"),
            }
            if cut == "name" {
                fs::rename(&dir, left).expect("a name");
            } else if cut == "old name" {
                fs::rename(&dir, &left).expect("a name");
                fs::rename(&moving, &dir).expect("a name");
            }
            drop(Store::open(&dir).unwrap_or_else(|error| panic!("{cut}: {error:?}")));
            check(&dir, &records);
            assert_eq!(names(folder.path()), ["store"], "{cut}: nothing else is left");
        }
    }

    /// The same files under the same names, which nobody has locked.
    fn unlock(dir: &Path) {
        let copy = dir.with_extension("unlocked");
        fs::copy(dir.join(LOG), &copy).expect("is copied");
        fs::rename(copy, dir.join(LOG)).expect("a name");
    }

    #[test]
    fn a_store_that_another_process_is_moving_is_locked() {
        let folder = tempfile::tempdir().expect("a folder");
        let dir = folder.path().join("store");
        filled(&dir);
        fs::create_dir(dir.with_extension(MOVING)).expect("a folder");
        let error = Store::open(&dir).expect_err("somebody has it");
        let StoreError::Database { source: sled::Error::Io(error), .. } = error else { panic!("{error}") };
        assert!(is_locked(&error), "{error}");
    }

    #[test]
    fn a_disk_that_is_as_full_as_it_was_is_tried_no_sooner_than_after_a_while() {
        let folder = tempfile::tempdir().expect("a folder");
        let after = |kind: ErrorKind| Left::after(&sled::Error::Io(kind.into()), folder.path());
        assert!(after(ErrorKind::StorageFull).room.is_some(), "it knows its disk");
        let full = || Left { since: Instant::now(), room: Some(u64::MAX) };
        for (what, left, goes_on) in [
            ("just now", full(), false),
            ("a while ago", Left { since: Instant::now() - TRY_AGAIN_AFTER, ..full() }, true),
            ("it has more room", Left { room: Some(0), ..full() }, true),
            ("another error", after(ErrorKind::NotFound), true),
        ] {
            assert_eq!(left.may_go_on(folder.path()).is_ok(), goes_on, "{what}");
        }
    }
}
