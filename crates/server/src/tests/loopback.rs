//! Over real connections: listening, loading, leaving, stopping.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::Ordering;
use std::sync::mpsc;

use serde_json::json;

use super::*;
use crate::{Error, serve, spawn};

fn config() -> ServerConfig {
    ServerConfig {
        port: 0,
        ..ServerConfig::default()
    }
}

fn connect(address: SocketAddr, head: &str, body: &str) -> TcpStream {
    let mut stream = TcpStream::connect(address).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_secs(10)))
        .unwrap();
    let length = body.len();
    write!(
        stream,
        "{head} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-type: application/json\r\n\
         content-length: {length}\r\n\r\n{body}"
    )
    .unwrap();
    stream
}

fn exchange(address: SocketAddr, head: &str, body: &str) -> String {
    let mut answer = String::new();
    connect(address, head, body)
        .read_to_string(&mut answer)
        .unwrap();
    answer
}

fn stream_body() -> String {
    json!({"model": "org/mock", "prompt": "ab", "stream": true}).to_string()
}

fn wait_until(what: &str, condition: impl Fn() -> bool) {
    let started = Instant::now();
    while !condition() {
        assert!(
            started.elapsed() < Duration::from_secs(10),
            "did not happen: {what}"
        );
        std::thread::sleep(Duration::from_millis(2));
    }
}

#[test]
fn a_spawned_server_answers_and_stops() {
    let server = spawn(config(), Arc::new(Mock::default())).unwrap();
    let address = server.address();
    assert!(address.ip().is_loopback() && address.port() != 0);
    let health = exchange(address, "GET /health", "");
    assert!(health.starts_with("HTTP/1.1 200 OK") && health.ends_with(r#"{"status":"ok"}"#));
    assert!(health.contains("\r\nx-request-id: req_"));
    let stream = exchange(address, "POST /v1/completions", &stream_body());
    assert!(stream.contains("data: [DONE]"), "{stream}");
    server.stop().unwrap();
    assert!(TcpStream::connect(address).is_err());
}

#[test]
fn a_client_that_leaves_cancels_its_generation() {
    for stream in [true, false] {
        let model = Mock {
            endless: true,
            ..Mock::default()
        };
        let log = model.log.clone();
        let server = spawn(config(), Arc::new(model)).unwrap();
        let body = json!({"model": "org/mock", "prompt": "ab", "stream": stream}).to_string();
        let client = connect(server.address(), "POST /v1/completions", &body);
        wait_until("started", || log.started.load(Ordering::SeqCst) == 1);
        drop(client);
        wait_until("cancelled", || log.cancelled.load(Ordering::SeqCst) == 1);
        server.stop().unwrap();
    }
}

#[test]
fn a_port_in_use_is_named_with_its_remedy() {
    let server = spawn(config(), Arc::new(Mock::default())).unwrap();
    let port = server.address().port();
    let error = spawn(ServerConfig { port, ..config() }, Arc::new(Mock::default())).unwrap_err();
    assert!(matches!(error, Error::PortInUse { .. }), "{error:?}");
    let message = error.to_string();
    assert!(message.contains(&format!("127.0.0.1:{port}")) && message.contains("--port"));
}

#[test]
fn settings_are_checked() {
    for wrong in [
        ServerConfig {
            api_key: Some(String::new()),
            ..config()
        },
        ServerConfig {
            api_key: Some("a b".to_owned()),
            ..config()
        },
        ServerConfig {
            queue: usize::MAX,
            ..config()
        },
        ServerConfig {
            aliases: vec![String::new()],
            ..config()
        },
    ] {
        let error = spawn(wrong, Arc::new(Mock::default())).unwrap_err();
        assert!(matches!(error, Error::Config { .. }), "{error:?}");
    }
    let nowhere = ServerConfig {
        host: "host.invalid".to_owned(),
        ..config()
    };
    let error = spawn(nowhere, Arc::new(Mock::default())).unwrap_err();
    assert!(matches!(error, Error::Bind { .. }), "{error:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn health_answers_while_the_model_loads() {
    // A port that was free a moment ago, since the bound address is only told once loaded.
    let port = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    let (finish, finished) = mpsc::channel::<()>();
    let load = move || {
        finished.recv()?;
        Ok(Arc::new(Mock::default()) as Arc<dyn crate::TextModel>)
    };
    let (ready, is_ready) = tokio::sync::oneshot::channel();
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let server = tokio::spawn(serve(
        ServerConfig { port, ..config() },
        load,
        move |address| ready.send(address).unwrap(),
        async move { stopped.await.unwrap() },
    ));
    eventually("listening", || TcpStream::connect(address).is_ok()).await;
    let health = move || tokio::task::spawn_blocking(move || exchange(address, "GET /health", ""));
    assert!(health().await.unwrap().starts_with("HTTP/1.1 503"));
    finish.send(()).unwrap();
    assert_eq!(is_ready.await.unwrap(), address);
    assert!(health().await.unwrap().starts_with("HTTP/1.1 200"));
    stop.send(()).unwrap();
    server.await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_that_does_not_load_ends_the_server() {
    let load = || Err("no such folder".into());
    let error = serve(
        config(),
        load,
        |_| panic!("not ready"),
        std::future::pending(),
    )
    .await;
    assert_eq!(
        error.unwrap_err().to_string(),
        "cannot load the model: no such folder"
    );
}

#[test]
fn stopping_lets_a_running_request_finish() {
    let gate = Arc::new(mock::Gate::default());
    let model = Mock {
        gate: Some(gate.clone()),
        ..Mock::default()
    };
    let log = model.log.clone();
    let server = spawn(config(), Arc::new(model)).unwrap();
    let mut client = connect(server.address(), "POST /v1/completions", &stream_body());
    wait_until("started", || log.started.load(Ordering::SeqCst) == 1);
    let address = server.address();
    let stopping = std::thread::spawn(move || server.stop());
    wait_until("no more connections", || {
        TcpStream::connect(address).is_err()
    });
    gate.open();
    let mut answer = String::new();
    client.read_to_string(&mut answer).unwrap();
    assert!(
        answer.contains(r#""finish_reason":"stop""#) && answer.contains("[DONE]"),
        "{answer}"
    );
    stopping.join().unwrap().unwrap();
}

#[test]
fn stopping_ends_a_request_that_goes_on_too_long() {
    let model = Mock {
        endless: true,
        ..Mock::default()
    };
    let log = model.log.clone();
    let config = ServerConfig {
        shutdown_grace: Duration::from_millis(50),
        ..config()
    };
    let server = spawn(config, Arc::new(model)).unwrap();
    let mut client = connect(server.address(), "POST /v1/completions", &stream_body());
    wait_until("started", || log.started.load(Ordering::SeqCst) == 1);
    server.stop().unwrap();
    let mut answer = String::new();
    client.read_to_string(&mut answer).unwrap();
    assert!(
        answer.contains(r#""code":"shutting_down""#) && answer.contains("[DONE]"),
        "{answer}"
    );
}

#[test]
fn a_large_body_is_refused_before_it_is_read() {
    let server = spawn(config(), Arc::new(Mock::default())).unwrap();
    let mut stream = TcpStream::connect(server.address()).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_secs(10)))
        .unwrap();
    write!(
        stream,
        "POST /v1/completions HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\
         content-type: application/json\r\ncontent-length: 99999999999\r\n\r\n"
    )
    .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(
        answer.starts_with("HTTP/1.1 413") && answer.contains("request_too_large"),
        "{answer}"
    );
}

#[test]
fn a_client_that_sends_too_much_reads_why() {
    let server = spawn(config(), Arc::new(Mock::default())).unwrap();
    let body = "x".repeat(3 * ServerConfig::default().max_body_bytes);
    let answer = exchange(server.address(), "POST /v1/completions", &body);
    assert!(
        answer.starts_with("HTTP/1.1 413") && answer.contains("request_too_large"),
        "{answer}"
    );
}
