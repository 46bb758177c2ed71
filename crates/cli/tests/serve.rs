//! `tritburn serve` over a real socket.
#![allow(clippy::unwrap_used)]

mod common;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Stdio};

use common::{fails, tritburn, write_model};
use serde_json::Value;

/// Ends the server with the test.
struct Server {
    child: Child,
    address: String,
}

impl Server {
    fn start(model: &str, more: &[&str]) -> Self {
        let mut command = tritburn(&["serve", model, "--port", "0", "--threads", "1"]);
        let mut child = command.args(more).stderr(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stderr.as_mut().unwrap())
            .read_line(&mut line)
            .unwrap();
        let address = line
            .trim()
            .strip_prefix("listening on http://")
            .unwrap_or_default();
        let server = Self {
            address: address.to_owned(),
            child,
        };
        assert!(!server.address.is_empty(), "{line}");
        server
    }

    fn request(&self, method: &str, path: &str, header: &str, body: &str) -> (String, Value) {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        write!(
            stream,
            "{method} {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n{header}\
             Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        )
        .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        let status = head.split(' ').nth(1).unwrap().to_owned();
        (status, serde_json::from_str(body).unwrap())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn answers_a_request_under_its_names() {
    let dir = tempfile::tempdir().unwrap();
    let model = dir.path().join("tiny");
    write_model(&model);
    let server = Server::start(
        model.to_str().unwrap(),
        &["--alias", "other", "--api-key", "secret"],
    );
    let (status, health) = server.request("GET", "/health", "", "");
    assert_eq!((status.as_str(), &health["status"]), ("200", &"ok".into()));
    let key = "Authorization: Bearer secret\r\n";
    let (_, models) = server.request("GET", "/v1/models", key, "");
    assert_eq!(models["data"][0]["id"], "tiny");
    let body = r#"{"model":"other","prompt":"A man","max_tokens":3,"temperature":0}"#;
    let (status, answer) = server.request("POST", "/v1/completions", key, body);
    assert_eq!(status, "200", "{answer}");
    assert!(
        answer["usage"]["completion_tokens"].as_u64().unwrap() <= 3,
        "{answer}"
    );
    let (status, _) = server.request("POST", "/v1/completions", "", body);
    assert_eq!(status, "401");
}

#[test]
fn a_port_in_use_is_an_error_with_a_remedy() {
    let dir = tempfile::tempdir().unwrap();
    write_model(dir.path());
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let stderr = fails(&["serve", dir.path().to_str().unwrap(), "--port", &port]);
    assert!(
        stderr.contains(&port) && stderr.contains("--port"),
        "{stderr}"
    );
}

#[test]
fn a_model_without_tokenizer_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    write_model(dir.path());
    std::fs::remove_file(dir.path().join("tokenizer.json")).unwrap();
    let stderr = fails(&["serve", dir.path().to_str().unwrap(), "--port", "0"]);
    assert!(stderr.contains("tokenizer.json"), "{stderr}");
}

/// The official client, where a Python has it: `TRITBURN_OPENAI_PYTHON`, or `python3`.
#[test]
fn the_official_client_works() {
    let python = std::env::var("TRITBURN_OPENAI_PYTHON").unwrap_or_else(|_| "python3".to_owned());
    let has_it = std::process::Command::new(&python)
        .args(["-c", "import openai"])
        .output()
        .is_ok_and(|output| output.status.success());
    if !has_it {
        eprintln!("skipped: {python} has no package openai; pip install openai");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    write_model(dir.path());
    let server = Server::start(dir.path().to_str().unwrap(), &[]);
    let script = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../tests/python/openai_smoke.py"
    );
    let output = std::process::Command::new(&python)
        .arg(script)
        .arg(format!("http://{}", server.address))
        .output()
        .unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{stderr}");
}
