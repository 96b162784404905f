//! Whether a tenant's folder is as it was when it was read last, told from what the
//! file system keeps of each file: reading a site costs what has changed in it.

use std::{
    collections::BTreeMap,
    fs::{self, Metadata},
    hash::{Hash as _, Hasher as _},
    io,
    os::unix::{ffi::OsStrExt as _, fs::MetadataExt as _},
    path::{Path, PathBuf},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use crate::guest::component::{Digest, Feed};

/// What changes when a file or folder does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Stamp {
    device: u64,
    inode: u64,
    bytes: u64,
    /// Seconds and nanoseconds; no program can set it.
    changed: (i64, i64),
}

/// A file that changed less than this before it was looked at may change again
/// without a trace in its stamp: ten times the coarsest tick of a kernel's clock.
const TRUSTED_AFTER: Duration = Duration::from_millis(100);
/// The same where a file system keeps whole seconds, or two.
const TRUSTED_AFTER_COARSE: Duration = Duration::from_secs(4);

impl Stamp {
    pub fn of(data: &Metadata) -> Self {
        Stamp {
            device: data.dev(),
            inode: data.ino(),
            bytes: data.size(),
            changed: (data.ctime(), data.ctime_nsec()),
        }
    }

    /// Whether another change would show.
    pub fn is_trusted(&self) -> bool {
        let (seconds, nanos) = self.changed;
        let after = if nanos == 0 { TRUSTED_AFTER_COARSE } else { TRUSTED_AFTER };
        let changed = Duration::new(seconds.try_into().unwrap_or(0), nanos.try_into().unwrap_or(0));
        SystemTime::now().duration_since(UNIX_EPOCH).is_ok_and(|now| changed + after <= now)
    }
}

/// The tenants of a site folder as a host runs them, by what they were read from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    pub(super) dir: PathBuf,
    pub(super) tenants: BTreeMap<String, Digest>,
}

impl Seen {
    /// Whether the tenant was read from just this.
    pub(super) fn is(&self, tenant: &str, footprint: Digest) -> bool {
        self.tenants.get(tenant) == Some(&footprint)
    }
}

/// Most entries of a folder that is worth remembering, and how deep they lie.
const ENTRIES_MAX: usize = 10_000;
const DEEP_MAX: usize = 16;

/// Of all that lies in a folder and of what `besides` feeds; `None` if a change of it
/// might not show.
pub(super) fn footprint(dir: &Path, besides: impl FnOnce(&mut Feed)) -> Option<Digest> {
    let mut whole = Some(());
    let digest = Digest::of_values(|feed| {
        besides(feed);
        whole = walk(dir, feed).ok().flatten();
    });
    whole.map(|()| digest)
}

fn walk(dir: &Path, feed: &mut Feed) -> io::Result<Option<()>> {
    let mut entries_count = 0;
    let mut folders = vec![(dir.to_owned(), 0)];
    take_stamp(dir, feed)?;
    while let Some((dir, deep)) = folders.pop() {
        let mut entries = fs::read_dir(&dir)?.collect::<io::Result<Vec<_>>>()?;
        entries.sort_by_key(fs::DirEntry::file_name);
        entries_count += entries.len();
        entries.len().hash(feed);
        if entries_count > ENTRIES_MAX || deep > DEEP_MAX {
            return Ok(None);
        }
        for entry in entries {
            let path = entry.path();
            feed.write(entry.file_name().as_bytes());
            if !take_stamp(&path, feed)? {
                return Ok(None);
            }
            if entry.file_type()?.is_dir() {
                folders.push((path, deep + 1));
            }
        }
    }
    Ok(Some(()))
}

/// Feeds the stamp of what the path leads to; gives whether it can be trusted.
fn take_stamp(path: &Path, feed: &mut Feed) -> io::Result<bool> {
    let stamp = Stamp::of(&fs::metadata(path)?);
    stamp.hash(feed);
    Ok(stamp.is_trusted())
}

#[cfg(test)]
mod tests {
    use std::{os::unix::fs::symlink, time::Instant};

    use super::*;

    /// Once changes of the folder show.
    fn trusted(dir: &Path) -> Digest {
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            match footprint(dir, |_| {}) {
                Some(digest) => return digest,
                None => assert!(Instant::now() < deadline, "the folder is never trusted"),
            }
        }
    }

    #[test]
    fn any_change_below_a_folder_is_seen() {
        let home = tempfile::tempdir().expect("a folder");
        let dir = home.path().join("t");
        let path = |name: &str| dir.join(name);
        fs::create_dir_all(path("artifacts/deep")).expect("made");
        fs::write(path("artifacts/deep/a.wasm"), "one").expect("written");
        fs::write(home.path().join("elsewhere"), "one").expect("written");
        let mut before = trusted(&dir);
        assert_eq!(trusted(&dir), before);
        let changes: [(&str, &dyn Fn() -> io::Result<()>); 7] = [
            ("the same length", &|| fs::write(path("artifacts/deep/a.wasm"), "two")),
            ("a new file", &|| fs::write(path("b.yaml"), "")),
            ("another name", &|| fs::rename(path("b.yaml"), path("c.yaml"))),
            ("a file in another's place", &|| {
                fs::write(path("d"), "two")?;
                fs::rename(path("d"), path("artifacts/deep/a.wasm"))
            }),
            ("a link", &|| symlink(home.path().join("elsewhere"), path("link"))),
            ("what a link leads to", &|| fs::write(home.path().join("elsewhere"), "two")),
            ("a file that is gone", &|| fs::remove_file(path("c.yaml"))),
        ];
        for (what, change) in changes {
            change().expect(what);
            let after = trusted(&dir);
            assert_ne!(after, before, "{what}");
            before = after;
        }
        assert_ne!(footprint(&dir, |feed| 1.hash(feed)), Some(before));
    }

    #[test]
    fn what_was_just_changed_is_not_remembered() {
        let dir = tempfile::tempdir().expect("a folder");
        let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
        let stamp = |ago: Duration, coarse: bool| {
            let at = now.checked_sub(ago).expect("after 1970");
            let nanos = if coarse { 0 } else { i64::from(at.subsec_nanos()).max(1) };
            Stamp { device: 1, inode: 1, bytes: 1, changed: (at.as_secs() as i64, nanos) }
        };
        for (ago, coarse, trusted) in [
            (Duration::ZERO, false, false),
            (Duration::from_millis(500), false, true),
            (Duration::from_secs(1), true, false),
            (Duration::from_secs(6), true, true),
        ] {
            assert_eq!(stamp(ago, coarse).is_trusted(), trusted, "{ago:?} {coarse}");
        }
        symlink("nowhere", dir.path().join("link")).expect("made");
        assert_eq!(footprint(dir.path(), |_| {}), None, "a link to nothing may lead somewhere soon");
    }
}
