use std::io::ErrorKind;

use super::*;

/// How long anything here may take.
const WITHIN: Duration = Duration::from_secs(20);

/// A proxy, and both ends of a connection through it.
struct Line {
    proxy: Proxy,
    listener: TcpListener,
    client: TcpStream,
    server: TcpStream,
}

fn line() -> Line {
    let listener = TcpListener::bind("127.0.0.1:0").expect("loopback can be bound");
    let proxy = Proxy::before(listener.local_addr().expect("it is bound").port());
    let (client, server) = connect(&proxy, &listener);
    Line { proxy, listener, client, server }
}

fn connect(proxy: &Proxy, listener: &TcpListener) -> (TcpStream, TcpStream) {
    // Those that were cut go by themselves.
    until("others are gone", || proxy.connections() == 0);
    let client = TcpStream::connect(proxy.address()).expect("the proxy listens");
    let (server, _) = listener.accept().expect("it is passed on");
    // The kernel has accepted it before the proxy knows of it.
    until("it is known", || proxy.connections() == 1);
    for stream in [&client, &server] {
        stream.set_read_timeout(Some(WITHIN)).expect("a timeout");
    }
    (client, server)
}

fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let until = Instant::now() + WITHIN;
    while !holds() {
        assert!(Instant::now() < until, "not within {WITHIN:?}: {what}");
        thread::yield_now();
    }
}

fn hears(stream: &mut TcpStream, expected: &str) {
    let mut bytes = vec![0; expected.len()];
    stream.read_exact(&mut bytes).expect("it comes");
    assert_eq!(String::from_utf8_lossy(&bytes), expected);
}

fn say(stream: &mut TcpStream, text: &str) {
    stream.write_all(text.as_bytes()).expect("it is taken");
}

/// What comes until the connection ends, in order or not.
fn rest(stream: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    match stream.read_to_end(&mut bytes) {
        Err(error) if error.kind() != ErrorKind::ConnectionReset => panic!("{error}"),
        _ => String::from_utf8(bytes).expect("text"),
    }
}

#[test]
fn all_is_passed_on_and_so_is_the_end_of_one_direction() {
    let mut line = line();
    say(&mut line.client, "question");
    line.client.shutdown(Shutdown::Write).expect("it is open");
    assert_eq!(rest(&mut line.server), "question");
    say(&mut line.server, "answer");
    drop(line.server);
    assert_eq!(rest(&mut line.client), "answer");
    until("a connection that ended is forgotten", || line.proxy.connections() == 0);
}

#[test]
fn a_cut_ends_both_and_the_next_connection_comes_through() {
    let mut line = line();
    line.proxy.cut();
    assert_eq!((rest(&mut line.client), rest(&mut line.server)), (String::new(), String::new()));
    let (mut client, mut server) = connect(&line.proxy, &line.listener);
    say(&mut client, "again");
    hears(&mut server, "again");
}

#[test]
fn what_is_refused_is_closed_until_all_are_admitted() {
    let line = line();
    line.proxy.refuse();
    let mut refused = TcpStream::connect(line.proxy.address()).expect("the proxy listens");
    assert_eq!(rest(&mut refused), "");
    line.proxy.admit();
    let (mut client, mut server) = connect(&line.proxy, &line.listener);
    say(&mut client, "again");
    hears(&mut server, "again");
}

#[test]
fn a_server_that_is_deaf_is_heard() {
    let mut line = line();
    line.proxy.deafen();
    say(&mut line.client, "lost");
    say(&mut line.server, "heard");
    hears(&mut line.client, "heard");
    line.proxy.admit();
    assert_eq!(rest(&mut line.server), "", "the connection that missed something is gone");
}

#[test]
fn what_is_delayed_comes_later_and_is_not_slower() {
    let mut line = line();
    let delay = Duration::from_millis(200);
    line.proxy.delay(delay);
    let begun = Instant::now();
    for _ in 0..20 {
        say(&mut line.client, "x");
        thread::yield_now();
    }
    hears(&mut line.server, &"x".repeat(20));
    assert!((delay..20 * delay).contains(&begun.elapsed()), "{:?}", begun.elapsed());
    line.proxy.admit();
    say(&mut line.client, "now");
    hears(&mut line.server, "now");
}

#[test]
fn what_is_slow_takes_its_time() {
    let mut line = line();
    line.proxy.slow(10_000);
    let begun = Instant::now();
    say(&mut line.client, &"x".repeat(3_000));
    hears(&mut line.server, &"x".repeat(3_000));
    // The last piece is there before the wait behind it.
    assert!(begun.elapsed() >= Duration::from_millis(250), "{:?}", begun.elapsed());
}

#[test]
fn one_half_of_a_connection_ends_and_the_other_goes_on() {
    for end in [End::Client, End::Server] {
        let Line { proxy, mut client, mut server, .. } = line();
        proxy.half_close(end);
        let (told, other) = match end {
            End::Client => (&mut client, &mut server),
            End::Server => (&mut server, &mut client),
        };
        assert_eq!(rest(told), "");
        say(told, "still here");
        hears(other, "still here");
        // What the other says goes nowhere and does no harm.
        say(other, "lost");
        say(told, "still");
        hears(other, "still");
    }
}

#[test]
fn half_of_what_comes_next_is_passed_on_and_then_all_is_over() {
    let mut line = line();
    line.proxy.truncate();
    say(&mut line.client, "12345678");
    assert_eq!(rest(&mut line.server), "1234");
    assert_eq!(rest(&mut line.client), "");
    let (mut client, mut server) = connect(&line.proxy, &line.listener);
    say(&mut client, "again");
    hears(&mut server, "again");
}

#[test]
fn what_clients_say_can_be_changed() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("loopback can be bound");
    let port = listener.local_addr().expect("it is bound").port();
    let proxy = Proxy::editing(port, |bytes| bytes.make_ascii_uppercase());
    let (mut client, mut server) = connect(&proxy, &listener);
    say(&mut client, "question");
    hears(&mut server, "QUESTION");
    say(&mut server, "answer");
    hears(&mut client, "answer");
}
