//! Diffusion recipes, `sample` and `data mnist` as a shell sees them.
#![allow(clippy::unwrap_used)]

mod common;

use std::fs;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};

use common::{fails, ok, run};
use flate2::read::ZlibDecoder;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// Trains the smoke recipe in `out`, with values replaced.
fn train(out: &Path, more: &[&str]) {
    let recipe = root().join("recipes/dit-mnist-smoke.toml");
    let data = format!("data.dir={}", root().join("data/digits").display());
    let (recipe, out) = (recipe.display().to_string(), out.display().to_string());
    let mut args = vec!["train", &recipe, "--out", &out, "--set", &data];
    more.iter().for_each(|set| args.extend(["--set", set]));
    ok(&args);
}

/// Width, height and grey values of a PNG as this project writes it.
fn decode(png: &[u8]) -> (usize, usize, Vec<u8>) {
    assert_eq!(&png[..8], b"\x89PNG\r\n\x1a\n");
    let (mut rest, mut size, mut pixels) = (&png[8..], (0, 0), Vec::new());
    while !rest.is_empty() {
        let word = |at: usize| u32::from_be_bytes(rest[at..at + 4].try_into().unwrap());
        let length = word(0) as usize;
        let (name, data) = (&rest[4..8], &rest[8..8 + length]);
        let mut crc = flate2::Crc::new();
        crc.update(&rest[4..8 + length]);
        assert_eq!(crc.sum(), word(8 + length), "checksum of {name:?}");
        match name {
            b"IHDR" => {
                size = (word(8) as usize, word(12) as usize);
                assert_eq!(data[8..], [8, 0, 0, 0, 0]);
            }
            b"IDAT" => {
                ZlibDecoder::new(data).read_to_end(&mut pixels).unwrap();
            }
            _ => assert_eq!(name, b"IEND"),
        }
        rest = &rest[12 + length..];
    }
    assert_eq!(pixels.len(), (size.0 + 1) * size.1);
    (size.0, size.1, pixels)
}

#[test]
fn a_recipe_is_trained_sampled_and_plotted() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("run");
    train(&out, &[]);
    let shown = out.display().to_string();
    let png = |name: &str, more: &[&str]| {
        let path = dir.path().join(name);
        let file = path.display().to_string();
        let mut args = vec!["sample", &shown, "--out", &file, "--grid", "3x2"];
        args.extend(["--steps", "5"]);
        args.extend(more);
        assert_eq!(ok(&args).trim(), file);
        fs::read(path).unwrap()
    };
    let first = png("a.png", &[]);
    let (width, height, pixels) = decode(&first);
    assert_eq!((width, height), (3 * 30 + 2, 2 * 30 + 2));
    assert!(pixels.iter().any(|p| *p > 150) && pixels.contains(&96));
    assert!(first == png("b.png", &[]), "the same seed, the same bytes");
    assert!(first != png("c.png", &["--seed", "7"]));
    assert!(first != png("d.png", &["--guidance", "2", "--eta", "1"]));

    let curves = dir.path().join("curves.svg").display().to_string();
    ok(&["plot", &shown, "--out", &curves]);
    let svg = fs::read_to_string(curves).unwrap();
    assert!(svg.contains("dit, held out"), "{svg}");

    // What is already trained is not trained again.
    ok(&["train", "unused", "--resume", &shown]);
    assert!(first == png("e.png", &[]));
}

#[test]
fn wrong_use_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("run");
    train(&out, &["optim.steps=1"]);
    let shown = out.display().to_string();
    let png = dir.path().join("x.png").display().to_string();
    for (more, word) in [
        (["--steps", "201"], "200 steps"),
        (["--steps", "0"], "take 1 to"),
        (["--eta", "1.5"], "DDPM"),
        (["--guidance", "inf"], "a number"),
        (["--device", "tpu"], "tpu"),
    ] {
        let mut args = vec!["sample", &shown, "--out", &png];
        args.extend(more);
        let stderr = fails(&args);
        assert!(stderr.contains(word), "{word} is missing in {stderr}");
    }
    let wrong = run(&["sample", &shown, "--out", &png, "--grid", "0x3"]);
    assert_eq!(wrong.status.code(), Some(2));
    let nowhere = dir.path().join("nowhere").display().to_string();
    fails(&["sample", &nowhere, "--out", &png]);
    let model = dir.path().join("lm");
    common::write_model(&model);
    let stderr = fails(&["sample", &model.display().to_string(), "--out", &png]);
    assert!(stderr.contains("diffusion"), "{stderr}");
    // And the other way round.
    let stderr = fails(&["generate", &shown, "--prompt", "x"]);
    assert!(stderr.contains("config.json"), "{stderr}");
    assert!(!Path::new(&png).exists());
}

/// Answers `count` requests on this machine, each with the file of that name in `folder`.
fn mirror(folder: PathBuf, count: usize) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for _ in 0..count {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = [0; 2048];
            let length = stream.read(&mut request).unwrap();
            let request = String::from_utf8_lossy(&request[..length]).into_owned();
            let path = request.split(' ').nth(1).unwrap_or_default();
            let name = path.rsplit('/').next().unwrap_or_default();
            let reply = match fs::read(folder.join(name)) {
                Ok(body) => {
                    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
                    [head.into_bytes(), body].concat()
                }
                Err(_) => b"HTTP/1.1 404 Not Found\r\n\r\n".to_vec(),
            };
            let _ = stream.write_all(&reply);
        }
    });
    format!("http://{address}/mnist/")
}

#[test]
fn golden_mnist_is_fetched_once() {
    let data = std::env::var("TRITBURN_DATA_DIR")
        .map_or_else(|_| root().join("../shared/data"), PathBuf::from);
    let source = data.join("mnist");
    if !source.is_dir() {
        eprintln!("skipped: no {}", source.display());
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("mnist").display().to_string();
    // Two requests are answered: a third would find nobody.
    let url = mirror(source, 2);
    for _ in 0..2 {
        let args = [
            "data", "mnist", "--split", "t10k", "--out", &out, "--url", &url,
        ];
        assert_eq!(ok(&args).lines().count(), 2);
    }
    let images = tritburn_data::read_labelled(Path::new(&out), "t10k").unwrap();
    assert_eq!(images.len(), 10_000);
}

#[test]
fn other_files_and_absent_ones_are_not_taken_for_mnist() {
    let dir = tempfile::tempdir().unwrap();
    let mirrored = dir.path().join("mirror");
    fs::create_dir_all(&mirrored).unwrap();
    let digits = root().join("data/digits/train-images-idx3-ubyte.gz");
    fs::copy(digits, mirrored.join("train-images-idx3-ubyte.gz")).unwrap();
    let url = mirror(mirrored, 2);
    let out = dir.path().join("mnist").display().to_string();
    for (split, word) in [("train", "SHA-256"), ("t10k", "404")] {
        let args = [
            "data", "mnist", "--split", split, "--out", &out, "--url", &url,
        ];
        let output = run(&args);
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{stderr}");
        assert!(stderr.contains(word), "{word} is missing in {stderr}");
        assert!(!Path::new(&out).exists());
    }
}
