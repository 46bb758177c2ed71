//! Downloads from a small server on this machine that behaves, and misbehaves, as the hub does.
#![allow(clippy::unwrap_used)]

mod server;

use std::path::{Path, PathBuf};

use server::{COMMIT, Fault, Server};
use tritburn_hub::{HubError, HubSettings, ModelName, locate, pull};

fn weights() -> Vec<u8> {
    (0..3_000_000u32)
        .map(|i| (i.wrapping_mul(i) >> 5) as u8)
        .collect()
}

fn folder() -> Server {
    let weights = weights();
    Server::start(&[
        ("README.md", b"#"),
        ("config.json", b"{}"),
        ("tokenizer.json", b"{\"a\": 1}"),
        ("model.safetensors", &weights),
    ])
}

fn name(text: &str) -> ModelName {
    ModelName::parse(text).unwrap()
}

fn get(server: &Server, cache: &Path) -> Result<PathBuf, HubError> {
    pull(
        &name("org/model"),
        &server.settings(cache),
        &mut |_, _, _| {},
    )
}

#[test]
fn a_folder_comes_once_and_is_found_without_the_network() {
    let server = folder();
    let cache = tempfile::tempdir().unwrap();
    let mut settings = server.settings(cache.path());
    settings.token = Some("hf_abc".into());
    let mut seen = Vec::new();
    let mut progress =
        |file: &str, done: u64, total: u64| seen.push((file.to_owned(), done, total));
    let found = locate(&name("org/model"), &settings, &mut progress).unwrap();
    assert_eq!(
        std::fs::read(found.join("model.safetensors")).unwrap(),
        weights()
    );
    assert_eq!(
        std::fs::read(found.join("tokenizer.json")).unwrap(),
        b"{\"a\": 1}"
    );
    assert!(!found.join("README.md").exists());
    assert!(
        seen.contains(&("model.safetensors".to_owned(), 3_000_000, 3_000_000)),
        "{seen:?}"
    );
    assert!(
        server
            .take_log()
            .iter()
            .all(|[_, _, token]| token == "Bearer hf_abc")
    );
    // As the hub's own tools lay it out.
    let repo = cache.path().join("models--org--model");
    assert_eq!(found, repo.join("snapshots").join(COMMIT));
    assert_eq!(
        std::fs::read_to_string(repo.join("refs/main")).unwrap(),
        COMMIT
    );
    let again = |settings: &HubSettings| locate(&name("org/model"), settings, &mut |_, _, _| {});
    assert_eq!(again(&settings).unwrap(), found);
    settings.offline = true;
    assert_eq!(again(&settings).unwrap(), found);
    assert!(server.take_log().is_empty(), "the cache has all of it");
    // A new commit that changes a small file alone brings that file alone.
    {
        let mut state = server.state.lock().unwrap();
        state.commit = "f".repeat(40);
        state
            .files
            .insert("config.json".into(), b"{\"b\": 2}".to_vec());
    }
    let new = get(&server, cache.path()).unwrap();
    assert_ne!(new, found);
    assert_eq!(
        std::fs::read(new.join("config.json")).unwrap(),
        b"{\"b\": 2}"
    );
    assert_eq!(
        std::fs::read(new.join("model.safetensors")).unwrap(),
        weights()
    );
    let fetched = |[request, range, _]: &[String; 3]| {
        request.contains("model.safetensors") && range != "bytes=0-0"
    };
    assert!(
        !server.take_log().iter().any(fetched),
        "the weights did not change"
    );
}

#[test]
fn what_was_cut_off_goes_on_where_it_ended() {
    let server = folder();
    let cache = tempfile::tempdir().unwrap();
    server.set(Fault::Cut(1_000_000));
    let error = get(&server, cache.path()).unwrap_err();
    assert!(matches!(error, HubError::Request { .. }), "{error}");
    let text = error.to_string();
    assert!(
        text.contains("model.safetensors") && text.contains("run it again"),
        "{text}"
    );
    // Not taken for a model meanwhile.
    let mut offline = server.settings(cache.path());
    offline.offline = true;
    let error = locate(&name("org/model"), &offline, &mut |_, _, _| {}).unwrap_err();
    assert!(matches!(error, HubError::Offline { .. }), "{error}");
    server.set(Fault::None);
    server.take_log();
    let found = get(&server, cache.path()).unwrap();
    assert_eq!(
        std::fs::read(found.join("model.safetensors")).unwrap(),
        weights()
    );
    let log = server.take_log();
    let resumed = |[request, range, _]: &[String; 3]| {
        request.contains("model.safetensors") && range == "bytes=1000000-"
    };
    assert!(log.iter().any(resumed), "{log:?}");
    // One that ended after its last byte and before it got its name.
    let blobs = cache.path().join("models--org--model/blobs");
    let blob = std::fs::canonicalize(found.join("model.safetensors")).unwrap();
    assert!(blob.starts_with(std::fs::canonicalize(&blobs).unwrap()));
    std::fs::rename(&blob, blob.with_extension("part")).unwrap();
    std::fs::remove_file(found.join("model.safetensors")).unwrap();
    let found = get(&server, cache.path()).unwrap();
    assert_eq!(
        std::fs::read(found.join("model.safetensors")).unwrap(),
        weights()
    );
}

/// A hub that cannot send the rest of a file makes one that is too long: it is removed, and comes
/// whole the next time.
#[test]
fn a_server_without_ranges_does_no_harm() {
    let server = folder();
    let cache = tempfile::tempdir().unwrap();
    server.set(Fault::Cut(1_000_000));
    get(&server, cache.path()).unwrap_err();
    server.set(Fault::NoRange);
    let error = get(&server, cache.path()).unwrap_err();
    assert!(matches!(error, HubError::Damaged { .. }), "{error}");
    let found = get(&server, cache.path()).unwrap();
    assert_eq!(
        std::fs::read(found.join("model.safetensors")).unwrap(),
        weights()
    );
}

/// As the hub does with weights: it names them and sends to another host for the bytes.
#[test]
fn weights_in_a_store_of_another_host() {
    let (server, store) = (folder(), folder());
    let cache = tempfile::tempdir().unwrap();
    let port = store.endpoint.rsplit(':').next().unwrap();
    server.state.lock().unwrap().store = Some(format!("http://localhost:{port}"));
    store.set(Fault::Cut(1_000_000));
    get(&server, cache.path()).unwrap_err();
    store.set(Fault::None);
    store.take_log();
    let found = get(&server, cache.path()).unwrap();
    assert_eq!(
        std::fs::read(found.join("model.safetensors")).unwrap(),
        weights()
    );
    let log = store.take_log();
    assert!(
        log.iter().any(|[_, range, _]| range == "bytes=1000000-"),
        "{log:?}"
    );
}

#[test]
fn files_that_are_not_what_was_promised_are_removed() {
    let server = folder();
    let cache = tempfile::tempdir().unwrap();
    server.set(Fault::Garbage);
    let error = get(&server, cache.path()).unwrap_err();
    assert!(matches!(error, HubError::Damaged { .. }), "{error}");
    assert!(error.to_string().contains("SHA-256"), "{error}");
    server.set(Fault::None);
    let found = get(&server, cache.path()).unwrap();
    assert_eq!(
        std::fs::read(found.join("model.safetensors")).unwrap(),
        weights()
    );
}

#[test]
fn shards_and_gguf_files() {
    let index = br#"{"weight_map": {"a": "m-1.safetensors", "b": "m-2.safetensors"}}"#;
    let server = Server::start(&[
        ("config.json", b"{}"),
        ("model.safetensors.index.json", index),
        ("m-1.safetensors", b"one"),
        ("m-2.safetensors", b"two"),
        ("q/x.Q4_0.gguf", b"GGUF"),
    ]);
    let cache = tempfile::tempdir().unwrap();
    let found = get(&server, cache.path()).unwrap();
    for (file, bytes) in [("m-1.safetensors", b"one"), ("m-2.safetensors", b"two")] {
        assert_eq!(std::fs::read(found.join(file)).unwrap(), bytes);
    }
    let settings = server.settings(cache.path());
    let gguf = name("org/model:q/x.Q4_0.gguf");
    let file = locate(&gguf, &settings, &mut |_, _, _| {}).unwrap();
    assert_eq!(std::fs::read(file).unwrap(), b"GGUF");
    let none = name("org/model:y.gguf");
    let error = locate(&none, &settings, &mut |_, _, _| {})
        .unwrap_err()
        .to_string();
    assert!(error.contains("q/x.Q4_0.gguf"), "{error}");
    server.state.lock().unwrap().files.remove("m-2.safetensors");
    let cache = tempfile::tempdir().unwrap();
    let error = get(&server, cache.path()).unwrap_err().to_string();
    assert!(error.contains("m-2.safetensors"), "{error}");
}

#[test]
fn every_refusal_says_what_to_do() {
    let server = folder();
    let cache = tempfile::tempdir().unwrap();
    for (fault, words) in [
        (Fault::Status(401), ["HF_TOKEN", "org/model"]),
        (Fault::Status(403), ["gated", "org/model"]),
        (Fault::Status(404), ["none of this name", "org/model"]),
        (Fault::Status(500), ["500", "HF_ENDPOINT"]),
        (Fault::BadEtag, ["../../x", "HF_ENDPOINT"]),
        (Fault::Page, ["org/model", "HF_ENDPOINT"]),
    ] {
        server.set(fault);
        let error = get(&server, cache.path()).unwrap_err().to_string();
        assert!(words.iter().all(|w| error.contains(w)), "{error}");
    }
    server.set(Fault::Silent);
    let mut settings = server.settings(cache.path());
    settings.stall_seconds = 1;
    let error = pull(&name("org/model"), &settings, &mut |_, _, _| {}).unwrap_err();
    assert!(
        matches!(error, HubError::Stalled { seconds: 1, .. }),
        "{error}"
    );
    settings.offline = true;
    let error = pull(&name("org/model"), &settings, &mut |_, _, _| {})
        .unwrap_err()
        .to_string();
    assert!(error.contains("HF_HUB_OFFLINE"), "{error}");
    settings.offline = false;
    // Nobody listens there.
    settings.endpoint = "http://127.0.0.1:9".into();
    let error = pull(&name("org/model"), &settings, &mut |_, _, _| {})
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("127.0.0.1:9") && error.contains("network"),
        "{error}"
    );
}
