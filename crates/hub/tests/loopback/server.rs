//! A hub on this machine.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use sha2::{Digest, Sha256};
use tritburn_hub::HubSettings;

pub(crate) const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

/// Bytes above which a file lies in a store of its own, where there is one.
const LARGE: usize = 1 << 20;
/// Where a store has its files.
const STORE: &str = "/store/";

/// What the server does wrong.
#[derive(Clone, Copy, PartialEq, Default)]
pub(crate) enum Fault {
    #[default]
    None,
    /// Ends the connection after so many bytes of a body.
    Cut(usize),
    /// Answers with this status.
    Status(u16),
    /// Sends other bytes than it promised.
    Garbage,
    /// Takes requests and says nothing.
    Silent,
    /// Names contents by something that is no name.
    BadEtag,
    /// Sends whole files where the rest of them was asked for.
    NoRange,
    /// Answers with a page.
    Page,
}

#[derive(Default)]
pub(crate) struct State {
    pub(crate) files: BTreeMap<String, Vec<u8>>,
    fault: Fault,
    pub(crate) commit: String,
    /// Where large files are, if not here.
    pub(crate) store: Option<String>,
    /// Request line, range and token of each request.
    log: Vec<[String; 3]>,
}

/// Lives as long as the test's process.
pub(crate) struct Server {
    pub(crate) state: Arc<Mutex<State>>,
    pub(crate) endpoint: String,
}

impl Server {
    pub(crate) fn start(files: &[(&str, &[u8])]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let files = files
            .iter()
            .map(|(n, b)| ((*n).to_owned(), b.to_vec()))
            .collect();
        let state = State {
            files,
            commit: COMMIT.into(),
            ..State::default()
        };
        let state = Arc::new(Mutex::new(state));
        let shared = Arc::clone(&state);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let shared = Arc::clone(&shared);
                std::thread::spawn(move || serve(stream.unwrap(), &shared));
            }
        });
        Self { state, endpoint }
    }

    pub(crate) fn set(&self, fault: Fault) {
        self.state.lock().unwrap().fault = fault;
    }

    pub(crate) fn take_log(&self) -> Vec<[String; 3]> {
        std::mem::take(&mut self.state.lock().unwrap().log)
    }

    pub(crate) fn settings(&self, cache: &Path) -> HubSettings {
        HubSettings {
            endpoint: self.endpoint.clone(),
            cache: cache.to_path_buf(),
            token: None,
            offline: false,
            stall_seconds: 20,
        }
    }
}

/// Answers one request and closes the connection.
fn serve(mut stream: TcpStream, state: &Mutex<State>) {
    let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
    let request = lines.next().unwrap_or(Ok(String::new())).unwrap();
    let (mut range, mut token) = (String::new(), String::new());
    for line in lines.map_while(Result::ok).take_while(|l| !l.is_empty()) {
        let (name, value) = line.split_once(':').unwrap_or((&line, ""));
        match name.to_ascii_lowercase().as_str() {
            "range" => range = value.trim().to_owned(),
            "authorization" => token = value.trim().to_owned(),
            _ => {}
        }
    }
    let path = request.split(' ').nth(1).unwrap_or_default().to_owned();
    let (fault, commit, store, body) = {
        let mut state = state.lock().unwrap();
        state.log.push([request, range.clone(), token]);
        let body = match path.split_once("/resolve/") {
            Some((_, rest)) => {
                let file = rest.split_once('/').map_or("", |(_, file)| file);
                state.files.get(file).cloned()
            }
            None if path.starts_with("/api/models/org/model/") => Some(listing(&state)),
            None => path
                .strip_prefix(STORE)
                .and_then(|file| state.files.get(file).cloned()),
        };
        let body = body.filter(|_| state.fault != Fault::Page);
        (state.fault, state.commit.clone(), state.store.clone(), body)
    };
    let mut say = |status: &str, headers: &str, body: &[u8]| {
        let head = format!(
            "HTTP/1.1 {status}\r\nConnection: close\r\nContent-Length: {}\r\n{headers}\r\n",
            body.len()
        );
        let _ = stream.write_all(head.as_bytes());
        match fault {
            Fault::Cut(at) if body.len() > at => {
                let _ = stream.write_all(&body[..at]);
            }
            _ => {
                let _ = stream.write_all(body);
            }
        }
    };
    match (fault, body) {
        (Fault::Silent, _) => std::thread::sleep(Duration::from_secs(3)),
        (Fault::Page, _) => say("200 OK", "", b"<html>Welcome</html>"),
        (Fault::Status(status), _) => say(&format!("{status} No"), "", b""),
        (_, None) => say("404 Not Found", "", b""),
        (_, Some(body)) if range.is_empty() => say("200 OK", "", &body),
        (_, Some(mut body)) => {
            let hash = Sha256::digest(&body);
            let hash: String = hash.iter().map(|b| format!("{b:02x}")).collect();
            let etag = if fault == Fault::BadEtag {
                "../../x".to_owned()
            } else {
                hash
            };
            let linked = store.filter(|_| body.len() > LARGE && path.contains("/resolve/"));
            if let Some(store) = linked {
                let file = path.rsplit('/').next().unwrap_or_default();
                let headers = format!(
                    "Location: {store}{STORE}{file}\r\nX-Linked-Etag: \"{etag}\"\r\n\
                     X-Linked-Size: {}\r\nX-Repo-Commit: {commit}\r\n",
                    body.len()
                );
                return say("302 Found", &headers, b"");
            }
            let (first, last) = range["bytes=".len()..].split_once('-').unwrap();
            let first: usize = first.parse().unwrap();
            let end = last.parse().map_or(body.len(), |last: usize| last + 1);
            if first >= body.len() {
                return say("416 Range Not Satisfiable", "", b"");
            }
            if fault == Fault::NoRange && first > 0 {
                return say("200 OK", "", &body);
            }
            if fault == Fault::Garbage {
                body.iter_mut().for_each(|b| *b ^= 1);
            }
            let headers = format!(
                "ETag: \"{etag}\"\r\nX-Repo-Commit: {commit}\r\nContent-Range: bytes {first}-{}/{}\r\n",
                end - 1,
                body.len()
            );
            say(
                "206 Partial Content",
                &headers,
                &body[first..end.min(body.len())],
            );
        }
    }
}

fn listing(state: &State) -> Vec<u8> {
    let files: Vec<String> = state
        .files
        .keys()
        .map(|f| format!("{{\"rfilename\": \"{f}\"}}"))
        .collect();
    format!(
        "{{\"sha\": \"{}\", \"siblings\": [{}]}}",
        state.commit,
        files.join(",")
    )
    .into_bytes()
}
