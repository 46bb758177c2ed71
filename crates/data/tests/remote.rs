//! Shards behind http and in an S3 bucket, both on a small server on this machine.
#![cfg(feature = "remote")]
#![allow(clippy::unwrap_used, missing_docs)]

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use tritburn_data::stream::{
    BadShards, Rank, StreamConfig, StreamLoader, StreamSetup, expand_shards,
};
use tritburn_data::{Batch, BatchSource, Tokenizer, read_corpus};

type Files = Arc<Mutex<BTreeMap<String, Vec<u8>>>>;

struct Server {
    files: Files,
    /// Bytes handed out.
    sent: Arc<Mutex<u64>>,
    address: String,
}

impl Server {
    /// With the embedded corpus under `/web/`.
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let files = Files::default();
        for entry in std::fs::read_dir(embedded()).unwrap() {
            let path = entry.unwrap().path();
            let name = format!("/web/{}", path.file_name().unwrap().to_str().unwrap());
            let bytes = std::fs::read(&path).unwrap();
            files.lock().unwrap().insert(name, bytes);
        }
        let sent = Arc::new(Mutex::new(0));
        let (of_thread, count) = (Arc::clone(&files), Arc::clone(&sent));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (files, count) = (Arc::clone(&of_thread), Arc::clone(&count));
                std::thread::spawn(move || serve(stream.unwrap(), &files, &count));
            }
        });
        Self {
            files,
            sent,
            address,
        }
    }

    fn url(&self, name: &str) -> String {
        format!("http://{}/web/{name}", self.address)
    }

    fn shard(&self, number: usize) -> String {
        self.url(&format!("train-0000{number}-of-00002.parquet"))
    }
}

/// Answers one request: whole files, ranges of them, sizes, and the listing of an S3 bucket.
fn serve(mut stream: TcpStream, files: &Files, sent: &Mutex<u64>) {
    let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
    let request = lines.next().unwrap_or(Ok(String::new())).unwrap();
    let mut range = None;
    for line in lines.map_while(Result::ok).take_while(|l| !l.is_empty()) {
        let line = line.to_ascii_lowercase();
        if let Some(bytes) = line.strip_prefix("range: bytes=") {
            let (from, to) = bytes.split_once('-').unwrap();
            range = Some((from.parse().unwrap(), to.parse::<usize>().unwrap()));
        }
    }
    let mut words = request.split(' ');
    let (method, target) = (words.next().unwrap_or(""), words.next().unwrap_or(""));
    let files = files.lock().unwrap().clone();
    let mut say = |status: &str, headers: &str, body: &[u8]| {
        let length = body.len();
        let head = format!(
            "HTTP/1.1 {status}\r\nConnection: close\r\nContent-Length: {length}\r\n{headers}\r\n"
        );
        let _ = stream.write_all(head.as_bytes());
        if method != "HEAD" {
            *sent.lock().unwrap() += length as u64;
            let _ = stream.write_all(body);
        }
    };
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let path = path.strip_prefix("/bucket").unwrap_or(path);
    let date = "Last-Modified: Thu, 01 Jan 2026 00:00:00 GMT\r\n";
    if query.contains("list-type=2") {
        return say("200 OK", "", listing(&files).as_bytes());
    }
    match (files.get(path), range) {
        _ if !matches!(method, "GET" | "HEAD") => say("405 Method Not Allowed", "", b""),
        (None, _) => say("404 Not Found", "", b""),
        (Some(bytes), Some((from, to))) if from < bytes.len() => {
            let (to, all) = (to.min(bytes.len() - 1), bytes.len());
            let place = format!("{date}Content-Range: bytes {from}-{to}/{all}\r\n");
            say("206 Partial Content", &place, &bytes[from..=to]);
        }
        (Some(bytes), _) => say("200 OK", date, bytes),
    }
}

fn listing(files: &BTreeMap<String, Vec<u8>>) -> String {
    let keys = files.iter().map(|(name, bytes)| {
        let (key, size) = (&name[1..], bytes.len());
        let date = "2026-01-01T00:00:00.000Z";
        format!(
            "<Contents><Key>{key}</Key><LastModified>{date}</LastModified><Size>{size}</Size></Contents>"
        )
    });
    let keys: String = keys.collect();
    format!(
        "<?xml version=\"1.0\"?><ListBucketResult><IsTruncated>false</IsTruncated>{keys}</ListBucketResult>"
    )
}

fn embedded() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../data/refinedweb")
}

fn tokenizer() -> Tokenizer {
    let texts = read_corpus(&embedded(), "train", None, Some(50_000)).unwrap();
    Tokenizer::train_bpe(texts.iter().map(String::as_str), 300).unwrap()
}

fn open(shards: &[String], bad: BadShards, index: &Path) -> tritburn_data::Result<StreamLoader> {
    StreamLoader::open(&StreamSetup {
        config: &StreamConfig {
            shards: shards.to_vec(),
            shuffle_window: 16,
            workers: 2,
            bad_shards: bad,
            ..StreamConfig::default()
        },
        corpus: "",
        column: None,
        tokenizer: &tokenizer(),
        seq_len: 32,
        batch_size: 4,
        seed: 3,
        rank: Rank::default(),
        index: Some(index),
    })
}

fn take(loader: &mut StreamLoader, count: usize) -> Vec<Batch> {
    (0..count).map(|_| loader.next_batch().unwrap()).collect()
}

#[test]
fn shards_behind_http_are_those_on_disk() {
    let (server, dir) = (Server::start(), tempfile::tempdir().unwrap());
    let local = embedded().join("train-*.parquet").display().to_string();
    let mut loader = open(&[local], BadShards::Stop, &dir.path().join("local")).unwrap();
    let expected = take(&mut loader, 40);
    let remote = [server.shard(0), server.shard(1)];
    let index = dir.path().join("remote");
    let mut loader = open(&remote, BadShards::Stop, &index).unwrap();
    assert!(take(&mut loader, 25) == expected[..25]);
    // A run that is stopped goes on where it was.
    let state = loader.state();
    let mut loader = open(&remote, BadShards::Stop, &index).unwrap();
    loader.restore(&state).unwrap();
    assert!(take(&mut loader, 15) == expected[25..]);
}

#[test]
fn a_corpus_in_memory_may_be_remote() {
    let server = Server::start();
    let address = server.shard(1);
    let local = embedded().join("train-00001-of-00002.parquet");
    let size = std::fs::metadata(&local).unwrap().len();
    assert_eq!(
        read_corpus(Path::new(&address), "train", None, None).unwrap(),
        read_corpus(&local, "train", None, None).unwrap()
    );
    // It is opened three times: for the name of the column, for its type, and for the rows. Each time
    // footer and pages come with the same block.
    let sent = *server.sent.lock().unwrap();
    assert!(sent <= 3 * size, "{sent} bytes for {size}");
}

#[test]
fn what_is_wrong_is_told_with_the_address() {
    let (server, dir) = (Server::start(), tempfile::tempdir().unwrap());
    let index = dir.path().join("index");
    let fails = |shards: &[String], parts: &[&str]| {
        let error = open(shards, BadShards::Stop, &index).err().unwrap();
        let error = error.to_string();
        for part in parts {
            assert!(error.contains(part), "{error}: no {part}");
        }
    };
    let absent = server.url("absent.parquet");
    fails(std::slice::from_ref(&absent), &["absent.parquet", "open"]);
    let broken = b"PAR1 but no more PAR1".to_vec();
    (server.files.lock().unwrap()).insert("/web/broken.parquet".into(), broken);
    let broken = server.url("broken.parquet");
    fails(
        &[broken],
        &["broken.parquet", "not a complete parquet file"],
    );
    fails(
        &["ftp://there/x.parquet".into()],
        &["ftp://there/x.parquet"],
    );
    let pattern = server.url("*.parquet");
    fails(&[pattern], &["cannot list", "name each file"]);
    // Where the recipe says so, the run goes on without the shard.
    let mut loader = open(&[absent, server.shard(0)], BadShards::Skip, &index).unwrap();
    take(&mut loader, 3);
}

#[test]
fn a_shard_that_vanishes_is_named() {
    let (server, dir) = (Server::start(), tempfile::tempdir().unwrap());
    let index = dir.path().join("index");
    let mut loader = open(&[server.shard(0)], BadShards::Stop, &index).unwrap();
    server.files.lock().unwrap().clear();
    let error = (0..400).find_map(|_| loader.next_batch().err()).unwrap();
    let error = error.to_string();
    assert!(error.contains("train-00000-of-00002.parquet"), "{error}");
}

/// The variables of the clouds' tools are those of a process, so the test runs itself in another.
#[test]
fn buckets_are_listed_by_patterns() {
    const INSIDE: &str = "TRITBURN_TEST_BUCKET";
    if std::env::var(INSIDE).is_ok() {
        let names = |input: &str| expand_shards(&[input.to_owned()], "train").unwrap();
        let shards = names("s3://bucket/web/train-*.parquet");
        let expected = [0, 1].map(|i| format!("s3://bucket/web/train-0000{i}-of-00002.parquet"));
        assert_eq!(shards, expected.map(PathBuf::from));
        assert_eq!(names("s3://bucket/web/").len(), 3);
        assert_eq!(names("s3://bucket/").len(), 3);
        assert!(expand_shards(&["s3://bucket/web/*.csv".into()], "train").is_err());
        let texts = read_corpus(&shards[0], "train", None, None).unwrap();
        let local = embedded().join("train-00000-of-00002.parquet");
        assert_eq!(texts, read_corpus(&local, "train", None, None).unwrap());
        return;
    }
    let server = Server::start();
    let output = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["buckets_are_listed_by_patterns", "--exact"])
        .env(INSIDE, "1")
        .env("AWS_ENDPOINT", format!("http://{}", server.address))
        .env("AWS_ALLOW_HTTP", "true")
        .env("AWS_SKIP_SIGNATURE", "true")
        .env("AWS_REGION", "here")
        .output()
        .unwrap();
    let printed = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{printed}");
}
