use std::{
    sync::{Mutex, mpsc},
    task::{Wake, Waker},
    thread,
};

use super::*;
use crate::{
    connector::stop::Farewell,
    ledger::Ledger,
    queue::{Delivery, Queue},
    topic::TopicTemplate,
    write::{Confirmed, Confirms, Destination, Write},
};

/// What a source told while it ran on its thread.
struct Running {
    queue: Arc<Queue>,
    stop: Stop,
    positions: Arc<Mutex<Vec<Position>>>,
    problems: Arc<Mutex<Vec<(u64, String)>>>,
    woken: mpsc::Receiver<()>,
    thread: thread::JoinHandle<Result<(), FileError>>,
}

struct Tell(mpsc::Sender<()>);

impl Wake for Tell {
    fn wake(self: Arc<Self>) {
        let _ = self.0.send(());
    }
}

fn run(path: &Path, position: u64, at_end: AtEnd) -> Running {
    assert!(path.exists());
    run_later(path, Position { bytes: position, ..Position::default() }, at_end)
}

fn run_later(path: &Path, position: Position, at_end: AtEnd) -> Running {
    let (tx, woken) = mpsc::channel();
    let queue = Queue::new(Waker::from(Arc::new(Tell(tx))));
    let door = SourceDoor::new(0, queue.clone(), Ledger::new(1 << 20));
    let (positions, problems) = (Arc::<Mutex<Vec<Position>>>::default(), Arc::<Mutex<Vec<_>>>::default());
    let (telling, reporting) = (positions.clone(), problems.clone());
    let stop = Stop::default();
    let options = FileOptions {
        location: Location::Path(path.to_owned()),
        position,
        at_end,
        node: "edge-1".into(),
        line_bytes_max: 1000,
        payload_bytes_max: 100,
        settled: Box::new(move |position| telling.lock().expect("no panic").push(position)),
        problem: Box::new(move |line, error, _| {
            reporting.lock().expect("no panic").push((line, error.to_string()))
        }),
        stop: stop.clone(),
    };
    let source = FileSource::later(options, door);
    let thread = thread::spawn(move || source.run());
    Running { queue, stop, positions, problems, woken, thread }
}

impl Running {
    fn next(&self) -> Delivery {
        loop {
            if let Some(delivery) = self.queue.pop() {
                return delivery;
            }
            self.woken.recv_timeout(Duration::from_secs(20)).expect("a delivery comes");
        }
    }

    fn position(&self) -> Option<u64> {
        self.positions.lock().expect("no panic").last().map(|position| position.bytes)
    }
}

fn payloads(batch: &Batch) -> Vec<String> {
    let payload = |entry: &Entry| String::from_utf8_lossy(entry.payload.bytes(&batch.arena)).into_owned();
    batch.entries.iter().map(payload).collect()
}

#[test]
fn lines_become_one_delivery_and_their_end_is_told_once_they_are_settled() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("readings.jsonl");
    let text = "1\n\nwrong\n{\"topic\":\"t\",\"payload\":2}\n3";
    std::fs::write(&path, text).expect("the folder can be written");
    let running = run(&path, 0, AtEnd::Finish);
    let mut taken = Vec::new();
    while taken.len() < 3 {
        let delivery = running.next();
        let topics: Vec<_> =
            delivery.batch.entries.iter().map(|entry| entry.topic.bytes(&delivery.batch.arena)).collect();
        assert!(topics.iter().all(|topic| *topic == b"readings" || *topic == b"t"));
        taken.extend(payloads(&delivery.batch));
        assert!(running.position().unwrap_or(0) < text.len() as u64);
        delivery.settle.ack();
    }
    assert_eq!(taken, ["1", "2", "3"]);
    let Running { positions, problems, thread, .. } = running;
    thread.join().expect("no panic").expect("the file can be read");
    let last = positions.lock().expect("no panic").last().map(|position| position.bytes);
    assert_eq!(last, Some(text.len() as u64));
    assert_eq!(*problems.lock().expect("no panic"), [(3, "the line is not JSON".to_owned())]);
}

#[test]
fn a_file_is_read_on_from_its_position() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("f");
    std::fs::write(&path, "1\n2\n3\n").expect("the folder can be written");
    for (position, expected) in
        [(0, &["1", "2", "3"][..]), (2, &["2", "3"]), (4, &["3"]), (99, &["1", "2", "3"])]
    {
        let running = run(&path, position, AtEnd::Finish);
        let delivery = running.next();
        assert_eq!(payloads(&delivery.batch), expected, "from {position}");
        delivery.settle.ack();
        running.thread.join().expect("no panic").expect("the file can be read");
    }
}

#[test]
fn a_line_over_the_limit_is_a_problem_and_the_next_is_read() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("f");
    let text = format!("\"{}\"\n\"{}\"\n7\n", "x".repeat(2000), "y".repeat(200));
    std::fs::write(&path, text).expect("the folder can be written");
    let running = run(&path, 0, AtEnd::Finish);
    let delivery = running.next();
    assert_eq!(payloads(&delivery.batch), ["7"]);
    delivery.settle.ack();
    let Running { problems, thread, .. } = running;
    thread.join().expect("no panic").expect("the file can be read");
    let expected = [
        (1, "the line holds more than 1000 bytes".to_owned()),
        (2, "its payload of 200 bytes is over the limit of 100".to_owned()),
    ];
    assert_eq!(*problems.lock().expect("no panic"), expected);
}

#[test]
fn a_delivery_stays_within_its_limits() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("f");
    let text: String = (0..5_000).map(|number| format!("\"{number:0>90}\"\n")).collect();
    std::fs::write(&path, text).expect("the folder can be written");
    let running = run(&path, 0, AtEnd::Finish);
    let mut count = 0;
    while count < 5_000 {
        let delivery = running.next();
        assert!(
            delivery.batch.len() <= Batch::MESSAGES_MAX && delivery.batch.arena.len() <= Batch::BYTES_MAX
        );
        count += delivery.batch.len();
        delivery.settle.ack();
    }
    running.thread.join().expect("no panic").expect("the file can be read");
}

#[test]
fn a_followed_file_gives_whole_lines_as_they_come_until_it_is_stopped() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("f");
    std::fs::write(&path, "1\n2").expect("the folder can be written");
    let running = run(&path, 0, AtEnd::Follow);
    let first = running.next();
    assert_eq!(payloads(&first.batch), ["1"]);
    first.settle.ack();
    let mut file = File::options().append(true).open(&path).expect("it is there");
    file.write_all(b"2\n3").expect("the folder can be written");
    let second = running.next();
    assert_eq!(payloads(&second.batch), ["22"]);
    running.stop.stop(Farewell::UntilLater);
    second.settle.ack();
    let Running { positions, thread, .. } = running;
    thread.join().expect("no panic").expect("the file can be read");
    let last = positions.lock().expect("no panic").last().map(|position| position.bytes);
    assert_eq!(last, Some(5), "before the line that is not whole");
}

#[test]
fn a_source_whose_dataflow_is_gone_ends_without_moving_its_position() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("f");
    std::fs::write(&path, "1\n").expect("the folder can be written");
    let running = run(&path, 0, AtEnd::Finish);
    running.next().settle.abandon();
    let Running { positions, thread, .. } = running;
    thread.join().expect("no panic").expect("the file can be read");
    assert!(positions.lock().expect("no panic").iter().all(|position| position.bytes == 0));
}

#[test]
fn a_missing_file_is_named() {
    let options = || FileOptions {
        location: Location::parse("/nowhere/f.jsonl"),
        position: Position::default(),
        at_end: AtEnd::Finish,
        node: String::new(),
        line_bytes_max: 1,
        payload_bytes_max: 1,
        settled: Box::new(|_| {}),
        problem: Box::new(|_, _, _| {}),
        stop: Stop::default(),
    };
    let door = SourceDoor::new(0, Queue::new(Waker::noop().clone()), Ledger::new(1));
    let Err(error) = FileSource::open(options(), door) else { panic!("it is not there") };
    assert_eq!(error.to_string(), "cannot open `/nowhere/f.jsonl`");
    let Err(error) = FileSink::open(options().location, SinkQueue::new(1)) else { panic!("it is not there") };
    assert_eq!(error.to_string(), "cannot open `/nowhere/f.jsonl`");
}

#[test]
fn a_sink_appends_lines_and_confirms_them() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("out.jsonl");
    std::fs::write(&path, "0\n").expect("the folder can be written");
    let queue = SinkQueue::new(1 << 20);
    let confirms = Confirms::new(Waker::noop().clone());
    let template = TopicTemplate::parse("t").expect("valid");
    let destination = Arc::new(Destination {
        name: "t/d/out".into(),
        topic: template,
        write_grants: Vec::new(),
        headers: Default::default(),
    });
    for number in 1..=200 {
        let mut builder = BatchBuilder::new("edge-1");
        builder.push(b"a", None, number.to_string().as_bytes(), []);
        builder.push(b"", None, b"x", []);
        queue.push(Write::new(number, builder.finish(), destination.clone(), confirms.clone()));
    }
    queue.close();
    FileSink::open(Location::Path(path.clone()), queue)
        .expect("it can be written")
        .run()
        .expect("it is written");
    let mut confirmed = Vec::new();
    confirms.take(&mut confirmed);
    assert_eq!(
        confirmed.into_iter().map(|Confirmed { id, .. }| id).collect::<Vec<_>>(),
        (1..=200).collect::<Vec<_>>()
    );
    let expected: String = (1..=200)
        .map(|number| format!("{{\"topic\":\"a\",\"payload\":{number}}}\n{{\"payload\":\"x\"}}\n"))
        .collect();
    assert_eq!(std::fs::read_to_string(&path).expect("it is there"), format!("0\n{expected}"));
}

#[test]
fn the_topic_of_a_file_is_its_stem() {
    for (text, topic) in [("-", ""), ("a/b/readings.jsonl", "readings"), ("x", "x"), ("a.b.json", "a.b")] {
        assert_eq!(Location::parse(text).topic(), topic);
    }
}

/// Takes deliveries until this many payloads came, and settles them.
fn take(running: &Running, count: usize) -> Vec<String> {
    let mut taken = Vec::new();
    while taken.len() < count {
        let delivery = running.next();
        taken.extend(payloads(&delivery.batch));
        delivery.settle.ack();
    }
    taken
}

#[test]
fn a_file_that_is_renamed_truncated_or_missing_for_a_while_loses_no_line() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("f.jsonl");
    let running = run_later(&path, Position::default(), AtEnd::Follow);
    std::fs::write(&path, "1\n2\n").expect("the folder can be written");
    assert_eq!(take(&running, 2), ["1", "2"]);
    // Renamed: its writer goes on for a while, and leaves a line without an end.
    let mut old = File::options().append(true).open(&path).expect("it is there");
    std::fs::rename(&path, folder.path().join("f.jsonl.1")).expect("it is there");
    old.write_all(b"3\n4").expect("the folder can be written");
    std::fs::write(&path, "5\n6\n").expect("the folder can be written");
    assert_eq!(take(&running, 4), ["3", "4", "5", "6"]);
    // Truncated in place.
    std::fs::write(&path, "7\n").expect("the folder can be written");
    assert_eq!(take(&running, 1), ["7"]);
    running.stop.stop(Farewell::UntilLater);
    running.thread.join().expect("no panic").expect("the file can be read");
}

#[test]
fn a_restart_finds_the_rest_of_a_file_that_was_moved_meanwhile() {
    // How the file is moved, and what is read then.
    type Move = fn(&Path);
    let rename: Move = |path| {
        std::fs::rename(path, path.with_file_name("older")).expect("it is there");
        std::fs::write(path, "4\n").expect("the folder can be written");
    };
    let rename_twice: Move = |path| {
        std::fs::rename(path, path.with_file_name("f.jsonl.2")).expect("it is there");
        std::fs::write(path.with_file_name("f.jsonl.1"), "4\n").expect("the folder can be written");
        std::fs::write(path, "5\n").expect("the folder can be written");
    };
    let copy_and_truncate: Move = |path| {
        std::fs::copy(path, path.with_file_name("f.jsonl.1")).expect("it is there");
        std::fs::write(path, "4\n").expect("the folder can be written");
    };
    let rename_only: Move = |path| {
        std::fs::rename(path, path.with_file_name("older")).expect("it is there");
    };
    let remove: Move = |path| {
        std::fs::remove_file(path).expect("it is there");
        std::fs::write(path, "4\n").expect("the folder can be written");
    };
    let grow: Move = |path| {
        let mut file = File::options().append(true).open(path).expect("it is there");
        file.write_all(b"4\n").expect("the folder can be written");
    };
    for (how, expected) in [
        (rename, &["2", "3", "4"][..]),
        (copy_and_truncate, &["2", "3", "4"]),
        (rename_twice, &["2", "3", "4", "5"]),
        (rename_only, &["2", "3"]),
        (remove, &["4"]),
        (grow, &["2", "3", "4"]),
    ] {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("f.jsonl");
        // A neighbour whose beginning is the same is not taken for it.
        std::fs::write(folder.path().join("g.jsonl"), "1\n9\n9\n").expect("the folder can be written");
        std::fs::write(&path, "1\n").expect("the folder can be written");
        let running = run_later(&path, Position::default(), AtEnd::Follow);
        assert_eq!(take(&running, 1), ["1"]);
        running.stop.stop(Farewell::UntilLater);
        let Running { positions, thread, .. } = running;
        thread.join().expect("no panic").expect("the file can be read");
        let position = *positions.lock().expect("no panic").last().expect("it was told");
        let mut file = File::options().append(true).open(&path).expect("it is there");
        file.write_all(b"2\n3\n").expect("the folder can be written");
        how(&path);
        let running = run_later(&path, position, AtEnd::Follow);
        assert_eq!(take(&running, expected.len()), expected);
        running.stop.stop(Farewell::UntilLater);
        running.thread.join().expect("no panic").expect("the file can be read");
    }
}

/// A queue with a write for each of these payloads.
fn writes(payloads: &[&str]) -> (Arc<SinkQueue>, Arc<Confirms>) {
    let queue = SinkQueue::new(1 << 20);
    let confirms = Confirms::new(Waker::noop().clone());
    let template = TopicTemplate::parse("t").expect("valid");
    let destination = Arc::new(Destination {
        name: "t/d/out".into(),
        topic: template,
        write_grants: Vec::new(),
        headers: Default::default(),
    });
    for (id, payload) in payloads.iter().enumerate() {
        let mut builder = BatchBuilder::new("edge-1");
        builder.push(b"", None, payload.as_bytes(), []);
        queue.push(Write::new(id as u64, builder.finish(), destination.clone(), confirms.clone()));
    }
    (queue, confirms)
}

#[test]
fn a_sink_ends_the_line_that_a_killed_host_left() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("out.jsonl");
    std::fs::write(&path, "{\"payload\":0}\n{\"payl").expect("the folder can be written");
    let (queue, _confirms) = writes(&["1"]);
    queue.close();
    FileSink::lasting(Location::Path(path.clone()), queue).run().expect("it is written");
    let text = std::fs::read_to_string(&path).expect("it is there");
    assert_eq!(text, "{\"payload\":0}\n{\"payl\n{\"payload\":1}\n");
}

#[test]
fn a_lasting_sink_holds_its_writes_until_its_folder_is_there() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("later/out.jsonl");
    let (queue, confirms) = writes(&["1", "2"]);
    let sink = FileSink::lasting(Location::Path(path.clone()), queue.clone());
    let status = sink.status().clone();
    let thread = thread::spawn(move || sink.run());
    let until = std::time::Instant::now() + Duration::from_secs(20);
    let waits = |holds: &dyn Fn() -> bool| {
        while !holds() {
            assert!(std::time::Instant::now() < until, "{}", status.state());
            thread::park_timeout(Duration::from_millis(2));
        }
    };
    waits(&|| status.state().to_string().starts_with("degraded: cannot open"));
    let mut confirmed = Vec::new();
    confirms.take(&mut confirmed);
    assert!(confirmed.is_empty(), "nothing is confirmed that is not written");
    std::fs::create_dir(folder.path().join("later")).expect("the folder can be written");
    waits(&|| status.state() == crate::connector::status::ConnectionState::Connected);
    // Whoever rotates it moves it away.
    std::fs::rename(&path, folder.path().join("moved")).expect("it is there");
    queue.close();
    thread.join().expect("no panic").expect("it is written");
}
