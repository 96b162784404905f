use rand::{Rng as _, SeedableRng as _, rngs::SmallRng};

use super::*;

fn open(dir: &Path) -> Log {
    let (log, torn) = Log::open(dir).expect("it opens");
    assert_eq!(torn, Torn(0));
    log
}

fn record(number: u64, bytes: usize) -> Vec<u8> {
    let mut record = number.to_le_bytes().to_vec();
    record.resize(bytes.max(8), number as u8);
    record
}

fn segments(dir: &Path) -> usize {
    let is_log = |path: PathBuf| path.extension().is_some_and(|it| it == EXTENSION);
    fs::read_dir(dir).expect("a folder").filter(|it| is_log(it.as_ref().expect("an entry").path())).count()
}

/// Whatever is written, read, done and opened again: nothing that is not done is missing, and
/// all comes in order.
#[test]
fn records_come_in_order_until_they_are_done_whenever_it_is_opened_again() {
    for seed in 0..30 {
        let mut rng = SmallRng::seed_from_u64(seed);
        let folder = tempfile::tempdir().expect("a folder");
        let mut log = open(folder.path());
        let (mut written, mut read, mut done) = (0, 0, 0);
        for _ in 0..60 {
            match rng.random_range(0..5) {
                0 | 1 => {
                    let count = rng.random_range(1..6);
                    let records: Vec<_> = (written..written + count)
                        .map(|it| record(it, rng.random_range(1..400_000)))
                        .collect();
                    log.append(&records).expect("it is written");
                    written += count;
                }
                2 => {
                    for (number, bytes) in log.read(rng.random_range(1..1_000_000)).expect("it is read") {
                        assert_eq!(number, read);
                        assert_eq!(bytes, record(read, bytes.len()), "seed {seed}");
                        read += 1;
                    }
                }
                3 if read > done => {
                    done = rng.random_range(done..=read);
                    log.set_done(done).expect("it is noted");
                }
                3 => {}
                _ => {
                    drop(log);
                    log = open(folder.path());
                    read = done;
                }
            }
            assert_eq!((log.next(), log.left(), log.unread()), (written, written - done, written - read));
        }
        log.set_done(written).expect("it is noted");
        assert_eq!((log.bytes(), segments(folder.path())), (0, 0));
    }
}

#[test]
fn what_was_half_written_is_cut_off_and_what_follows_is_written_in_its_place() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut log = open(folder.path());
    log.append(&[record(0, 100), record(1, 100)]).expect("it is written");
    let whole = log.bytes();
    drop(log);
    let path = folder.path().join("00000000000000000000.log");
    let bytes = fs::read(&path).expect("it is there");
    for len in 0..bytes.len() {
        fs::write(&path, &bytes[..len]).expect("it is written");
        let (mut log, Torn(torn)) = Log::open(folder.path()).expect("it opens");
        let left = len as u64 * 2 / whole;
        assert_eq!((log.left(), torn), (left, len as u64 - left * whole / 2), "{len} bytes");
        log.append(&[record(left, 10)]).expect("it is written");
        let read: Vec<_> = log.read(usize::MAX).expect("it is read").into_iter().map(|it| it.0).collect();
        assert_eq!(read, (0..=left).collect::<Vec<_>>());
        drop(log);
    }
    // A bit that flipped.
    let mut bad = bytes.clone();
    bad[150] ^= 1;
    fs::write(&path, bad).expect("it is written");
    let (log, torn) = Log::open(folder.path()).expect("it opens");
    assert_eq!((log.left(), torn), (1, Torn(whole / 2)));
}

#[test]
fn files_go_once_all_of_theirs_are_done_and_one_process_has_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut log = open(folder.path());
    for number in 0..20 {
        log.append(&[record(number, 1 << 20)]).expect("it is written");
    }
    let before = segments(folder.path());
    assert!(before >= 4, "{before}");
    log.set_done(10).expect("it is noted");
    assert!(segments(folder.path()) < before);
    assert!(Log::open(folder.path()).is_err(), "it is open already");
    // What another has read of it, it need not.
    log.pass_over();
    log.append(&[record(20, 10)]).expect("it is written");
    let read = log.read(usize::MAX).expect("it is read");
    assert_eq!(read.iter().map(|it| it.0).collect::<Vec<_>>(), [20]);
}
