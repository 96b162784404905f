//! Whoever asks badly over HTTP, or floods: each gets the protocol's own error or its end, is
//! counted, and takes nothing from the others; and what was acknowledged outlives a kill -9.

use std::{
    collections::BTreeSet,
    io::Write as _,
    net::{Shutdown, TcpListener},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use crate::{
    http::{Client, Receiver, flow, listen, server_count, texts, to_file, webhook},
    mosquitto::{eventually, free_port},
    site::{Flow, Site},
};

/// The head of a POST with these headers, and what follows.
fn post(headers: &str, rest: &str) -> String {
    format!("POST /a/in HTTP/1.1\r\nhost: x\r\n{headers}\r\n{rest}")
}

fn to_hook(port: u16, more: &str, receiver: &Receiver) -> Site {
    let endpoints = [("web", &*listen(port, more)), ("hook", &*webhook(&receiver.url(), ""))];
    let site = Site::new("{ shards: 1 }", &endpoints);
    site.flow(&flow(("web", "in/#"), ("hook", "out")));
    site
}

#[test]
fn http_a_request_in_bad_form_is_refused_with_the_protocols_own_error() {
    let port = free_port();
    let site = to_file(port, ", bodyBytesMax: 64Ki");
    let host = site.up();
    let chunked = "transfer-encoding: chunked\r\n";
    let large = format!("x-large: {}\r\n", "x".repeat(70 << 10));
    let many: String = (0..200).map(|number| format!("x-{number}: 1\r\n")).collect();
    let cases = [
        (post("content-length: 1\r\ncontent-length: 2\r\n", "12"), 400),
        (post("content-length: 1, 2\r\n", "12"), 400),
        (post("content-length: +1\r\n", "1"), 400),
        (post("content-length: -1\r\n", "1"), 400),
        (post("content-length: 0x1\r\n", "1"), 400),
        (post("content-length: 99999999999999999999\r\n", "1"), 400),
        (post("content-length : 1\r\n", "1"), 400),
        (post("transfer-encoding: chunked, identity\r\n", "1\r\n1\r\n0\r\n\r\n"), 400),
        (post("transfer-encoding: xchunked\r\n", "1\r\n1\r\n0\r\n\r\n"), 400),
        (post(chunked, "1\r\n1\r\n0\r\n\r\n").replace("HTTP/1.1", "HTTP/1.0"), 400),
        (post(chunked, "zz\r\n1\r\n0\r\n\r\n"), 400),
        (post(chunked, "fffffffffffffffff\r\n1\r\n0\r\n\r\n"), 400),
        (post(chunked, "1\r\n12345\r\n0\r\n\r\n"), 400),
        (post(" folded: 1\r\ncontent-length: 1\r\n", "1"), 400),
        (post("no colon\r\n", ""), 400),
        (post("x-nul: \0\r\n", ""), 400),
        (post(&large, ""), 431),
        (post(&many, ""), 431),
        ("GARBAGE\r\n\r\n".to_owned(), 400),
        ("POST /a/in HTTP/9.9\r\n\r\n".to_owned(), 400),
        (format!("POST /{} HTTP/1.1\r\n\r\n", "a".repeat(70 << 10)), 431),
        (post("content-encoding: gzip\r\ncontent-length: 1\r\n", "1"), 415),
        (post("content-length: 65537\r\n", ""), 413),
        (post(chunked, &format!("10001\r\n{}\r\n0\r\n\r\n", "x".repeat(0x10001))), 413),
        ("CONNECT a.example:443 HTTP/1.1\r\nhost: x\r\n\r\n".to_owned(), 405),
    ];
    for (request, expected) in &cases {
        let start: String = request.chars().take(120).collect();
        let mut client = Client::connect(port);
        // The server may have closed before it has read all of a large one.
        let _ = client.send(request);
        let answer = client.answer().unwrap_or_else(|error| panic!("{error} for {start:?}"));
        assert_eq!(answer.status, *expected, "{start:?}");
    }
    let refused = cases.iter().filter(|(_, status)| matches!(*status, 400 | 415 | 431)).count() as u64;
    eventually("all are counted", || server_count(&site, "broken") >= refused);
    assert_eq!(server_count(&site, "too_large"), 2);
    assert_eq!(site.counter("a", "received"), 0, "nothing of it came through");
    let mut client = Client::connect(port);
    for body in ["1", "", "3"] {
        assert_eq!(client.post("/a/in", body).expect("an answer").status, 202);
    }
    assert_eq!(texts(&site).len(), 3);
    host.stop();
}

#[test]
fn http_no_request_is_smuggled_behind_another() {
    let port = free_port();
    let receiver = Receiver::all();
    let site = to_hook(port, "", &receiver);
    let host = site.up();
    let smuggled = "POST /a/in/smuggled HTTP/1.1\r\nhost: x\r\ncontent-length: 8\r\n\r\nsmuggled";
    for headers in [
        "content-length: 5\r\ntransfer-encoding: chunked\r\n",
        "transfer-encoding: chunked\r\ncontent-length: 5\r\n",
        "content-length: 5\r\ntransfer-encoding:\tchunked\r\n",
        "Content-Length: 5\r\nTRANSFER-ENCODING: Chunked\r\n",
    ] {
        let mut client = Client::connect(port);
        client.send(post(headers, &format!("0\r\n\r\n{smuggled}"))).expect("it is sent");
        let answer = client.answer().expect("one answer");
        assert_eq!(answer.status, 202, "{headers:?}: its body is the empty one of its chunks");
        assert!(client.is_ended(), "{headers:?}: what follows is nobody's request");
    }
    assert_eq!(receiver.bodies(), ["", "", "", ""]);
    host.stop();
}

#[test]
fn http_clients_that_take_their_time_are_ended_and_hold_nobody_up() {
    let port = free_port();
    let site = Site::new("{ shards: 1 }", &[("web", &listen(port, ", headerTimeoutSeconds: 1"))]);
    site.flow(&flow(("web", "in"), ("web", "out")));
    let host = site.up();
    let slow = || server_count(&site, "slow");
    // A head that never ends, byte by byte.
    let dripping = thread::spawn(move || {
        let mut client = Client::connect(port);
        client.send("POST /a/in HTTP/1.1\r\n").expect("it is sent");
        let mut sent = 0;
        eventually("it is ended", || {
            sent += 1;
            client.send("x").is_err()
        });
        sent
    });
    let mut silent: Vec<Client> = (0..50).map(|_| Client::connect(port)).collect();
    let mut half: Vec<Client> = (0..50).map(|_| Client::connect(port)).collect();
    for client in &mut half {
        client.send("POST /a/in HT").expect("it is sent");
    }
    let mut stuck = Client::connect(port);
    stuck.send(post("content-length: 10\r\n", "12345")).expect("it is sent");
    let mut other = Client::connect(port);
    assert_eq!(other.post("/a/in", "1").expect("an answer").body, b"1", "it is served beside them");
    assert_eq!(stuck.answer().expect("an answer").status, 408);
    assert!(silent.iter_mut().all(Client::is_ended));
    assert!(half.iter_mut().all(Client::is_ended));
    dripping.join().expect("it is ended");
    eventually("all are counted", || slow() >= 102);
    // One who asks and asks, and takes in no answer.
    let before = slow();
    let mut deaf = Client::connect(port);
    let body = "x".repeat(200 << 10);
    let request = post(&format!("content-length: {}\r\n", body.len()), &body);
    deaf.stream.get_mut().set_write_timeout(Some(Duration::from_millis(50))).expect("a socket");
    let mut rest = request.as_bytes();
    eventually("it is ended", || {
        match deaf.stream.get_mut().write(rest) {
            Ok(written) => rest = &rest[written..],
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(_) => return true,
        }
        if rest.is_empty() {
            rest = request.as_bytes();
        }
        false
    });
    eventually("and counted", || slow() > before);
    let mut other = Client::connect(port);
    assert_eq!(other.post("/a/in", "2").expect("an answer").body, b"2");
    host.stop();
}

#[test]
fn http_a_body_that_ends_early_is_no_message() {
    let port = free_port();
    let site = to_file(port, "");
    let host = site.up();
    for request in [
        post("content-length: 10\r\n", "12345"),
        post("transfer-encoding: chunked\r\n", "5\r\n12345\r\n"),
        post("transfer-encoding: chunked\r\n", "5\r\n123"),
    ] {
        for way in [Shutdown::Write, Shutdown::Both] {
            let mut client = Client::connect(port);
            client.send(&request).expect("it is sent");
            client.stream.get_mut().shutdown(way).expect("a socket");
            if way == Shutdown::Write {
                assert!(client.answer().map_or(true, |answer| answer.status == 400), "{request:?}");
            }
        }
    }
    eventually("all are counted", || server_count(&site, "broken") + server_count(&site, "cut") >= 6);
    let mut client = Client::connect(port);
    assert_eq!(client.post("/a/in", "1").expect("an answer").status, 202);
    assert_eq!(texts(&site).len(), 1);
    host.stop();
}

#[test]
fn http_two_thousand_connections_are_served_and_no_more_are_taken_than_there_may_be() {
    const CONNECTIONS: usize = 2_000;
    let (port, other) = (free_port(), free_port());
    let endpoints = [
        ("web", &*listen(port, ", connectionsMax: 2100")),
        ("few", &*listen(other, ", connectionsMax: 3, headerTimeoutSeconds: 60")),
        ("out", crate::http::FILE),
    ];
    let site = Site::new("{ shards: 1 }", &endpoints);
    site.flow(&flow(("web", "in"), ("out", "out")));
    site.flow(&Flow { name: "few", ..flow(("few", "in"), ("out", "out")) });
    let host = site.up();
    let clients: Vec<_> = (0..4)
        .map(|part| {
            thread::spawn(move || {
                let each = CONNECTIONS / 4;
                let mut clients: Vec<Client> = (0..each).map(|_| Client::connect(port)).collect();
                let request = |number: usize| {
                    let body = (part * each + number).to_string();
                    post(&format!("content-length: {}\r\n", body.len()), &body)
                };
                let mut left: Vec<usize> = (0..each).collect();
                let mut refused = 0;
                eventually("all are served", || {
                    for number in &left {
                        clients[*number].send(request(*number)).expect("it is sent");
                    }
                    left.retain(|number| match clients[*number].answer().expect("an answer").status {
                        202 => false,
                        429 => true,
                        other => panic!("{other}"),
                    });
                    refused += left.len();
                    left.is_empty()
                });
                refused
            })
        })
        .collect();
    let refused: usize = clients.into_iter().map(|it| it.join().expect("all is served")).sum();
    let numbers: BTreeSet<String> = texts(&site).into_iter().collect();
    assert_eq!((numbers.len(), texts(&site).len()), (CONNECTIONS, CONNECTIONS));
    assert_eq!(server_count(&site, "too_many"), refused as u64);
    let mut few: Vec<Client> = (0..3).map(|_| Client::connect(other)).collect();
    assert!(few.iter_mut().all(|client| client.post("/a/in", "1").expect("an answer").status == 202));
    let mut fourth = Client::connect(other);
    fourth.send(post("content-length: 1\r\n", "4")).expect("the kernel takes it");
    fourth.stream.get_mut().set_read_timeout(Some(Duration::from_millis(300))).expect("a socket");
    assert!(fourth.answer().is_err(), "it waits for a place");
    few.pop();
    fourth.stream.get_mut().set_read_timeout(Some(crate::mosquitto::WITHIN)).expect("a socket");
    assert_eq!(fourth.answer().expect("an answer").status, 202);
    host.stop();
}

#[test]
fn http_without_credit_clients_are_told_to_come_again_and_other_tenants_are_not() {
    let port = free_port();
    let hole = Receiver::start(|it, _| (it.body != "hold").then(|| "200 OK".to_owned()));
    let url = format!("http://127.0.0.1:{}/", free_port());
    let endpoints = [
        ("web", &*listen(port, ", replySeconds: 5, requestsMax: 16")),
        ("hole", &*webhook(&url, "")),
        ("hook", &*webhook(&hole.url(), "")),
    ];
    let site = Site::new("{ shards: 1 }", &endpoints);
    site.flow(&flow(("web", "in"), ("hole", "out")));
    site.flow(&Flow { tenant: "b", ..flow(("web", "in"), ("hook", "out")) });
    let host = site.up();
    let statuses = Arc::<Mutex<Vec<(u16, bool)>>>::default();
    let stop = Arc::<AtomicBool>::default();
    let flood: Vec<_> = (0..20)
        .map(|_| {
            let (statuses, stop) = (statuses.clone(), stop.clone());
            thread::spawn(move || {
                let body = "x".repeat(200 << 10);
                while !stop.load(Ordering::SeqCst) {
                    let answer = Client::connect(port).post("/a/in", &body).expect("an answer");
                    let says_when = answer.headers.contains_key("retry-after");
                    statuses.lock().expect("no panic").push((answer.status, says_when));
                }
            })
        })
        .collect();
    eventually("there is no room", || statuses.lock().expect("no panic").iter().any(|it| it.0 == 429));
    let mut client = Client::connect(port);
    for number in 0..100 {
        let answer = client.post("/b/in", &number.to_string()).expect("an answer");
        assert_eq!(answer.status, 202, "the other tenant's {number}");
    }
    eventually("what got credit is late", || statuses.lock().expect("no panic").iter().any(|it| it.0 == 504));
    stop.store(true, Ordering::SeqCst);
    flood.into_iter().for_each(|client| client.join().expect("no panic"));
    for (status, says_when) in statuses.lock().expect("no panic").iter() {
        assert!(matches!((status, says_when), (429, true) | (504, false)), "{status} {says_when}");
    }
    assert!(hole.len() >= 100);
    host.kill();
}

#[test]
fn http_a_port_that_is_taken_is_seen_and_taken_once_it_is_free() {
    let port = free_port();
    let taken = TcpListener::bind(("127.0.0.1", port)).expect("it is free");
    let site = to_file(port, "");
    let host = site.up();
    let state = || site.status()["tenants"][0]["dataflows"][0]["sources"][0]["connection"].to_string();
    assert!(state().contains(&format!("cannot listen at 127.0.0.1:{port}")), "{}", state());
    drop(taken);
    eventually("it listens", || state() == "\"connected\"");
    assert_eq!(Client::connect(port).post("/a/in", "1").expect("an answer").status, 202);
    // A dataflow that is replaced keeps its clients waiting, and loses none of what it took.
    let stop = Arc::<AtomicBool>::default();
    let client = {
        let stop = stop.clone();
        thread::spawn(move || {
            let mut acknowledged = 1;
            while !stop.load(Ordering::SeqCst) {
                let Ok(mut client) = Client::try_connect(port) else { continue };
                match client.post("/a/in", "1").map(|answer| answer.status) {
                    Ok(202) => acknowledged += 1,
                    Ok(503) | Err(_) => {}
                    Ok(other) => panic!("{other}"),
                }
            }
            acknowledged
        })
    };
    for operators in [&[("map", "pass_through"), ("filter", "pass_filter")][..], &[("map", "pass_through")]] {
        site.flow(&Flow { operators, ..flow(("web", "in/#"), ("out", "out")) });
        assert_eq!(site.apply().code, 0);
    }
    stop.store(true, Ordering::SeqCst);
    let acknowledged = client.join().expect("nothing but these");
    assert!(texts(&site).len() >= acknowledged, "{acknowledged} were acknowledged");
    host.stop();
}

#[test]
fn http_a_host_that_stops_answers_what_it_took_and_loses_none_of_it() {
    let port = free_port();
    let receiver = Receiver::all();
    let site = to_hook(port, "", &receiver);
    let host = site.up();
    let acknowledged = Arc::<Mutex<BTreeSet<String>>>::default();
    let clients: Vec<_> = (0..4)
        .map(|client| {
            let acknowledged = acknowledged.clone();
            thread::spawn(move || {
                let mut connection = Client::connect(port);
                for number in 0_u64.. {
                    let body = format!("{client}/{number}");
                    match connection.post(&format!("/a/in/{client}"), &body).map(|answer| answer.status) {
                        Ok(202) => _ = acknowledged.lock().expect("no panic").insert(body),
                        Ok(503) | Err(_) => return,
                        Ok(other) => panic!("{other}"),
                    }
                }
            })
        })
        .collect();
    eventually("some are acknowledged", || acknowledged.lock().expect("no panic").len() > 200);
    host.stop();
    clients.into_iter().for_each(|client| client.join().expect("nothing but these"));
    let received: BTreeSet<String> = receiver.bodies().into_iter().collect();
    let acknowledged = acknowledged.lock().expect("no panic");
    assert!(acknowledged.is_subset(&received));
    // Of each client one was under way, and was not taken: none was without an answer.
    assert_eq!(received.len(), acknowledged.len(), "{:?}", received.difference(&acknowledged));
}

/// Numbers that a client was told to be done, and those that the receiver has, over kills of
/// the host under load.
fn killed(plant: &str) -> (BTreeSet<u64>, BTreeSet<u64>) {
    let port = free_port();
    let receiver = Receiver::all();
    let site = to_hook(port, "", &receiver);
    let acknowledged = Arc::<Mutex<BTreeSet<u64>>>::default();
    let stop = Arc::<AtomicBool>::default();
    let clients: Vec<_> = (0..8_u64)
        .map(|client| {
            let (acknowledged, stop) = (acknowledged.clone(), stop.clone());
            thread::spawn(move || {
                let mut connection = None;
                let mut number = client;
                while !stop.load(Ordering::SeqCst) {
                    let Some(open) = connection.as_mut() else {
                        connection = Client::try_connect(port).ok();
                        thread::park_timeout(Duration::from_millis(1));
                        continue;
                    };
                    match open.post(&format!("/a/in/{client}"), &number.to_string()) {
                        Ok(answer) if answer.status == 202 => {
                            acknowledged.lock().expect("no panic").insert(number);
                            number += 8;
                        }
                        // It is sent again, once somebody is there.
                        Ok(_) => {}
                        Err(_) => connection = None,
                    }
                }
            })
        })
        .collect();
    let count = || acknowledged.lock().expect("no panic").len();
    for _ in 0..5 {
        let host = site.up_planted(plant);
        let before = count();
        eventually("more is acknowledged", || count() >= before + 300);
        host.kill();
    }
    stop.store(true, Ordering::SeqCst);
    clients.into_iter().for_each(|client| client.join().expect("no panic"));
    let received = receiver.bodies().iter().map(|body| body.parse().expect("a number")).collect();
    let acknowledged = acknowledged.lock().expect("no panic").clone();
    (acknowledged, received)
}

#[test]
fn http_what_was_acknowledged_is_there_when_the_host_is_killed_again_and_again() {
    let (acknowledged, received) = killed("");
    assert!(acknowledged.len() >= 1_500);
    let lost: Vec<_> = acknowledged.difference(&received).collect();
    assert!(lost.is_empty(), "{lost:?}");
}

#[test]
fn http_the_same_count_reports_loss_when_settlement_is_broken() {
    let (acknowledged, received) = killed("early-ack");
    assert!(!acknowledged.is_subset(&received), "an early ack lost nothing: the count cannot fail");
}
