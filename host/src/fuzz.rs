//! What fuzz targets run: every parser of what comes from outside, each on any bytes.
//! A body ends in a panic where a promise of its parser does not hold. Serves `fuzz/`
//! and a test over the same corpus; the path does not know it.

use std::{
    sync::Arc,
    task::{Context, Waker},
    time::Duration,
};

use bytes::{Bytes, BytesMut};

use crate::{
    batch::{Batch, BatchBuilder},
    clock::{Clock, Instant},
    command::{Answer, Calls, Commands, RESERVED_PREFIX, pattern::Patterns},
    connector::{
        file, kafka,
        mqtt::{
            CommandOptions, CommandSession, Session, Settings, SinkSession, SourceOptions, SourceSession,
        },
        otlp::{Parsed, Signal, parsers},
        stop::Stop,
    },
    guest::packed,
    hlc::Hlc,
    ledger::Ledger,
    queue::{Queue, SourceDoor},
    resource::{
        Grants,
        endpoint::{Copying, Partition, Version},
        quantity, site,
    },
    topic::{self, TopicFilter, TopicTemplate},
    write::SinkQueue,
};

/// A target's body.
pub type Body = fn(&[u8]);

/// Every target by name, which is also its corpus' and its binary's.
pub const TARGETS: [(&str, Body); 9] = [
    ("mqtt", mqtt),
    ("commands", commands),
    ("kafka", kafka),
    ("otlp", otlp),
    ("resources", resources),
    ("packed", packed),
    ("topics", topics),
    ("quantities", quantities),
    ("json_lines", json_lines),
];

/// What a broker sends, to a source and to a sink of either version and to who asks commands, in reads of
/// any size: the first byte says how long they are.
pub fn mqtt(data: &[u8]) {
    let Some((first, stream)) = data.split_first() else { return };
    let reads = usize::from(*first).max(1);
    for version in [Version::V5, Version::V311] {
        mqtt_of(version, stream, reads);
    }
    let grants =
        Grants { endpoint: "fuzz".into(), read: Vec::new(), write: Vec::new(), rates: Default::default() };
    let door = Commands::new("fuzz".into(), grants, Calls::new(1));
    let options =
        CommandOptions { payload_bytes_max: 64, node: "fuzz".into(), clock: Clock::Virtual(Arc::default()) };
    let session = CommandSession::new(Settings::new("fuzz".into()), options, door);
    play(session, &GREETING, stream, reads, || {});
}

fn mqtt_of(version: Version, stream: &[u8], reads: usize) {
    let (settings, greeting) = (
        Settings { version, ..Settings::new("fuzz".into()) },
        match version {
            Version::V5 => &GREETING[..],
            Version::V311 => &GREETING_V311,
        },
    );
    let queue = Queue::new(Waker::noop().clone());
    let options = SourceOptions {
        filters: vec![TopicFilter::parse("a/#").expect("a filter")],
        payload_bytes_max: 64,
        node: "fuzz".into(),
        identifies: true,
        oversize: Box::new(|oversize| oversize.settle.ack()),
        stop: Stop::default(),
    };
    let door = SourceDoor::new(0, queue.clone(), Ledger::new(1 << 16));
    let source = SourceSession::new(settings.clone(), options, door);
    play(source, greeting, stream, reads, || {
        while let Some(delivery) = queue.pop() {
            check_batch(&delivery.batch);
            delivery.settle.ack();
        }
    });
    let sink = SinkSession::new(settings, SinkQueue::new(1 << 16));
    play(sink, greeting, stream, reads, || {});
}

/// What a guest says of its topics, a line each: patterns of request and answer, prefix,
/// suffix and namespace, where an empty line is none; then tokens and, among them, the user
/// properties of an answer, as `KEY=VALUE`.
pub fn commands(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let mut lines = text.split('\n');
    let mut line = || lines.next().filter(|line| !line.is_empty());
    let (request, response, prefix, suffix, namespace) = (line(), line(), line(), line(), line());
    let pairs: Vec<_> = lines.filter_map(|line| line.split_once('=')).collect();
    let tokens: Vec<_> = pairs.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect();
    let patterns = Patterns {
        request: request.unwrap_or_default(),
        response,
        prefix,
        suffix,
        namespace,
        command: "fuzz",
        tokens: &tokens[..tokens.len() / 2],
    };
    if let Ok((request, response)) = patterns.read("fuzz") {
        for topic in [request.topic(&tokens), response.topic(&tokens)].into_iter().flatten() {
            assert!(topic::check_name(&topic.name).is_ok(), "{topic:?}");
            assert!(topic.filter.matches(&topic.name), "{topic:?}");
        }
    }
    if let Ok(answer) = Answer::read(data, pairs.into_iter()) {
        assert_eq!(answer.payload, data);
        assert!(answer.user_data.iter().all(|(key, _)| !key.starts_with(RESERVED_PREFIX)));
    }
}

/// What a record holds: a byte for the number of headers, then parts of any length, each
/// after a byte that says it: the key, the value, and key and value of each header. The
/// first eight bytes are its timestamp.
pub fn kafka(data: &[u8]) {
    let Some((timestamp, data)) = data.split_first_chunk::<8>() else { return };
    let Some((headers, mut rest)) = data.split_first() else { return };
    let mut part = || {
        let (len, behind) = rest.split_first()?;
        let (part, behind) = behind.split_at(usize::from(*len).min(behind.len()));
        rest = behind;
        Some(part)
    };
    let (key, value) = (part(), part().unwrap_or_default());
    let mut pairs = Vec::new();
    for _ in 0..*headers {
        let (Some(name), Some(value)) = (part(), part()) else { break };
        // The library gives names as text.
        if let Ok(name) = std::str::from_utf8(name) {
            pairs.push((name, value));
        }
    }
    let timestamp = Some(i64::from_le_bytes(*timestamp));
    let record = kafka::Record { topic: "fuzz", key, value, timestamp, headers: pairs };
    let mut builder = BatchBuilder::new("fuzz");
    record.push(Copying::CloudEvents, &mut builder);
    let mut batch = builder.finish();
    check_batch(&batch);
    // As ingest does, by its own `__ts` if it has one.
    Hlc::default().stamp(&mut batch, Duration::from_secs(1_700_000_000));
    check_batch(&batch);
    let (entry, wall) = (&batch.entries[0], || Duration::from_secs(1_700_000_000));
    let outgoing =
        kafka::Outgoing::of(entry, &batch, &Partition::Default, Copying::CloudEvents, "fuzz", wall);
    if let Some(outgoing) = outgoing.expect("what came from a record can be one") {
        assert_eq!(outgoing.value, value);
    }
}

/// What clients of OTLP send and Collectors answer: the first byte says of which signal, the rest is read
/// as a body of gRPC, as gzip, as protobuf, as JSON, as AIO's form and as an answer.
pub fn otlp(data: &[u8]) {
    const BYTES_MAX: usize = 1 << 16;
    let Some((first, bytes)) = data.split_first() else { return };
    let signal = Signal::ALL[usize::from(*first) % Signal::ALL.len()];
    if let Ok((message, _)) = parsers::unframe(Bytes::copy_from_slice(bytes)) {
        assert!(message.len() < bytes.len());
    }
    if let Ok(inflated) = parsers::inflate(bytes, BYTES_MAX) {
        assert!(inflated.len() <= BYTES_MAX);
    }
    let is_request = parsers::check(signal, bytes).is_ok();
    assert_eq!(is_request, parsers::is_decoded(signal, bytes), "prost and the walk agree");
    if is_request {
        otlp_request(signal, bytes);
    }
    if let Ok(protobuf) = parsers::to_protobuf(signal, bytes) {
        otlp_request(signal, &protobuf);
    }
    if let Ok(telemetry) = parsers::Telemetry::parse(bytes, "fuzz", 0) {
        telemetry.metrics.iter().for_each(|request| otlp_request(Signal::Metrics, request));
        telemetry.logs.iter().for_each(|request| otlp_request(Signal::Logs, request));
    }
    let _ = (parsers::partial_success(bytes), parsers::retry_after(bytes));
}

/// Of a request, each item is a request of one item, and all of them together have as many.
fn otlp_request(signal: Signal, request: &[u8]) {
    let Ok(Parsed { protobuf, items, .. }) = Parsed::of(signal, Bytes::copy_from_slice(request)) else {
        return;
    };
    let mut merged = parsers::Merged::default();
    for index in 0..items.len().min(64) {
        let mut item = Vec::new();
        items.write(index, &protobuf, &mut item);
        assert_eq!(item.len(), items.bytes_len(index));
        let alone = Parsed::of(signal, item.clone().into()).expect("an item is a request");
        assert_eq!(alone.items.len(), 1);
        serde_json::from_slice::<serde_json::Value>(&parsers::to_json(signal, &item)).expect("JSON");
        merged.add(&item);
    }
    let again = Parsed::of(signal, merged.finish().into()).expect("merged requests are one");
    assert_eq!(again.items.len(), items.len().min(64));
}

/// A CONNACK and a SUBACK to one filter: what follows is any bytes.
const GREETING: [u8; 11] = [0x20, 3, 0, 0, 0, 0x90, 4, 0, 1, 0, 1];
const GREETING_V311: [u8; 9] = [0x20, 2, 0, 0, 0x90, 3, 0, 1, 1];

fn play(mut session: impl Session, greeting: &[u8], stream: &[u8], reads: usize, mut after: impl FnMut()) {
    let mut ctx = Context::from_waker(Waker::noop());
    let mut now = Instant(0);
    let connected = session.connected(now).is_ok();
    assert!(connected, "a session begins with a CONNECT, which can be written");
    session.outgoing().clear();
    let (connack, suback) = greeting.split_at(2 + usize::from(greeting[1]));
    for read in [connack, suback].into_iter().chain(stream.chunks(reads)) {
        now.0 += 1_000_000;
        let result = session.received(read, now).and_then(|()| session.poll(&mut ctx, now));
        after();
        session.outgoing().clear();
        if let Err(error) = result {
            // It is made anew; the rest would come on another connection.
            return session.disconnected(now, &error);
        }
    }
}

/// Files of a site: each document as the platform's and as a tenant's, and as a graph.
pub fn resources(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let diagnostics = site::read_text(text);
    for found in diagnostics.iter() {
        if let Some(place) = &found.place {
            assert!(place.line >= 1 && place.column >= 1, "{place:?}");
        }
    }
    for colour in [false, true] {
        diagnostics.to_text(colour);
    }
    diagnostics.to_json();
}

/// What a guest of the packed contract gives back.
pub fn packed(data: &[u8]) {
    if let Some(batch) = packed::read_any(data) {
        check_batch(&batch);
    }
}

/// A filter, a second one and a template, each on a line, and topics on the rest.
pub fn topics(data: &[u8]) {
    let mut lines = data.split(|byte| *byte == b'\n');
    let mut line = || lines.next().and_then(|line| std::str::from_utf8(line).ok()).unwrap_or_default();
    let (one, other, template) = (line(), line(), line());
    let filters = (TopicFilter::parse(one), TopicFilter::parse_subscription(other));
    let template = TopicTemplate::parse(template);
    for name in lines {
        let text = std::str::from_utf8(name).unwrap_or_default();
        let is_name = topic::check_name(text).is_ok();
        if let (Ok(one), Ok(other)) = &filters {
            let holds = !one.covers(other) || !other.matches(text) || one.matches(text);
            assert!(!is_name || holds, "{one:?} covers {other:?} and does not match {text:?}");
        }
        let mut out = BytesMut::new();
        if let Ok(template) = &template
            && template.render(name, &mut out).is_ok()
        {
            let rendered = std::str::from_utf8(&out).expect("a rendered topic is text");
            assert!(topic::check_name(rendered).is_ok(), "{template:?} gave {rendered:?}");
        }
    }
}

/// Numbers with units.
pub fn quantities(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    for parse in [quantity::count, quantity::fuel, quantity::bytes, quantity::cpu] {
        let _ = parse(text);
    }
    let _ = quantity::time(text);
}

/// Lines of a file source. What was read is written and read again as the same.
pub fn json_lines(data: &[u8]) {
    for line in data.split(|byte| *byte == b'\n') {
        let mut builder = BatchBuilder::new("fuzz");
        if file::read_line("topic", line, &mut builder).is_err() {
            continue;
        }
        let batch = builder.finish();
        check_batch(&batch);
        let written = file::write_lines(&batch);
        let mut again = BatchBuilder::new("fuzz");
        let text = written.strip_suffix(b"\n").expect("a line ends");
        file::read_line("topic", text, &mut again).expect("what is written can be read");
        let again = again.finish();
        let payload = |batch: &Batch| batch.entries[0].payload.bytes(&batch.arena).to_vec();
        assert_eq!(payload(&batch), payload(&again), "{}", String::from_utf8_lossy(line));
    }
}

/// All that the path relies on: spans lie within the arena, and properties are pairs.
fn check_batch(batch: &Batch) {
    let arena = &batch.arena;
    for (index, entry) in batch.entries.iter().enumerate() {
        for span in entry.spans() {
            assert!(span.fits(arena.len()), "{span:?} of an arena of {} bytes", arena.len());
            span.get(arena);
        }
        if entry.kind != crate::batch::Kind::SNAPSHOT {
            assert!(batch.properties(index).all(|(key, value)| {
                std::str::from_utf8(key).is_ok() && std::str::from_utf8(value).is_ok()
            }));
        }
    }
}
