use std::{future::poll_fn, time::Duration};

use futures_util::{SinkExt as _, StreamExt as _};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    time::timeout,
};
use tokio_tungstenite::{
    accept_hdr_async,
    tungstenite::{
        handshake::server::{Request, Response},
        http::HeaderValue,
    },
};

use super::*;
use crate::connector::mqtt::connection::transport::Transport;

type Server = WebSocketStream<TcpStream>;

/// Runs `client` against `server`, which agrees to what it is asked for if `agrees`.
fn run<C, S>(
    agrees: bool,
    client: impl FnOnce(Result<WebStream<Socket>, WebError>) -> C,
    server: impl FnOnce(Server) -> S,
) where
    C: Future<Output = ()>,
    S: Future<Output = ()>,
{
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let both = async {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback");
        let address = listener.local_addr().expect("it is bound").to_string();
        let asked = async {
            let stream = TcpStream::connect(&address).await.expect("it listens");
            client(WebStream::open(&address, Socket::new(stream)).await).await;
        };
        let answered = async {
            let (stream, _) = listener.accept().await.expect("one comes");
            #[expect(clippy::result_large_err, reason = "the library's type")]
            let check = |request: &Request, mut response: Response| {
                assert_eq!(request.uri().path(), "/mqtt");
                assert_eq!(request.headers()["sec-websocket-protocol"], "mqtt");
                if agrees {
                    let agreed = HeaderValue::from_static("mqtt");
                    response.headers_mut().insert("sec-websocket-protocol", agreed);
                }
                Ok(response)
            };
            server(accept_hdr_async(stream, check).await.expect("a handshake")).await;
        };
        tokio::join!(asked, answered);
    };
    runtime.block_on(async { timeout(Duration::from_secs(30), both).await }).expect("it ends in time");
}

#[test]
fn frames_cut_the_stream_anywhere_and_what_is_no_data_is_none() {
    let client = async |stream: Result<WebStream<Socket>, WebError>| {
        let mut stream = stream.expect("the server agrees");
        let mut read = [0; 7];
        stream.read_exact(&mut read).await.expect("as many come");
        assert_eq!(&read, b"abcdefg");
        stream.write_all(b"12").await.expect("it can be written");
        stream.write_all(b"3").await.expect("it can be written");
        stream.flush().await.expect("it can be written");
        assert_eq!(stream.read(&mut read).await.expect("it ends in order"), 0);
    };
    let server = async |mut frames: Server| {
        for message in [
            Message::binary("ab"),
            Message::binary(""),
            Message::Ping("are you there".into()),
            Message::binary("cdefg"),
        ] {
            frames.send(message).await.expect("the client reads");
        }
        let (mut data, mut pongs) = (Vec::new(), 0);
        while data.len() < 3 {
            match frames.next().await.expect("more comes").expect("the client behaves") {
                Message::Binary(bytes) => data.extend_from_slice(&bytes),
                Message::Pong(_) => pongs += 1,
                other => panic!("{other:?}"),
            }
        }
        assert_eq!((&data[..], pongs), (&b"123"[..], 1));
        frames.close(None).await.expect("it can be closed");
        assert!(frames.next().await.is_none_or(|last| last.is_ok_and(|it| it.is_close())));
    };
    run(true, client, server);
}

#[test]
fn what_the_socket_has_no_room_for_is_written_later() {
    const COUNT: usize = 64;
    let written = vec![7; 256 << 10];
    let client = async |stream: Result<WebStream<Socket>, WebError>| {
        let mut transport = Transport::layered(stream.expect("the server agrees"));
        let mut left = COUNT;
        poll_fn(|ctx| {
            while left > 0 {
                // Whole or not at all.
                assert_eq!(ready!(transport.poll_write(ctx, &written))?, written.len());
                left -= 1;
            }
            Poll::Ready(Ok::<_, io::Error>(()))
        })
        .await
        .expect("the server reads");
        transport.leave(b"end").await.expect("the server closes");
    };
    let server = async |mut frames: Server| {
        let mut bytes = 0;
        while let Some(Ok(message)) = frames.next().await {
            bytes += if message.is_binary() { message.len() } else { 0 };
        }
        assert_eq!(bytes, COUNT * (256 << 10) + 3);
    };
    run(true, client, server);
}

#[test]
fn text_is_an_error() {
    let client = async |stream: Result<WebStream<Socket>, WebError>| {
        let error = stream.expect("the server agrees").read(&mut [0; 9]).await.expect_err("no bytes");
        assert_eq!(error.to_string(), "a frame of text");
    };
    run(true, client, async |mut frames: Server| {
        frames.send(Message::text("hello")).await.expect("a client")
    });
}

#[test]
fn a_broker_that_does_not_speak_mqtt_there_is_refused() {
    let client = async |stream: Result<WebStream<Socket>, WebError>| {
        let WebError::Handshake(error) = stream.err().expect("it did not agree") else { panic!("another") };
        assert!(error.to_string().contains("ubprotocol"), "{error}");
    };
    run(false, client, async |_| {});
}
