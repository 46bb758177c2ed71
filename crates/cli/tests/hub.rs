//! Models by their name on the hub, from a cache that has them already: nothing here asks a network.
#![cfg(feature = "hub")]
#![allow(clippy::unwrap_used)]

mod common;

use std::path::{Path, PathBuf};
use std::process::Output;

use common::{tritburn, write_model};

const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// A cache as the hub's own tools leave it, with the model `org/tiny`.
fn cache() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let repo = dir.path().join("models--org--tiny");
    write_model(&repo.join("snapshots").join(COMMIT));
    std::fs::create_dir(repo.join("refs")).unwrap();
    std::fs::write(repo.join("refs/main"), COMMIT).unwrap();
    dir
}

/// Runs in a folder of its own, where `org` is none, so that it can only be a name of the hub.
fn run(cache: &Path, args: &[&str]) -> Output {
    let dir = tempfile::tempdir().unwrap();
    let mut command = tritburn(args);
    command.env("HF_HUB_CACHE", cache).current_dir(dir.path());
    command.output().unwrap()
}

#[test]
fn every_command_takes_a_name() {
    let cache = cache();
    let out = tempfile::tempdir().unwrap();
    let path = |name: &str| out.path().join(name).display().to_string();
    let data = |name: &str| root().join("data").join(name).display().to_string();
    let (export, gguf) = (path("export"), path("model.gguf"));
    for args in [
        &["generate", "org/tiny", "--prompt", "A", "--max-tokens", "2"][..],
        &[
            "generate",
            "org/tiny@main",
            "--prompt",
            "A",
            "--max-tokens",
            "2",
        ],
        &[
            "bench",
            "org/tiny",
            "--prefill",
            "4",
            "--decode",
            "2",
            "--runs",
            "1",
        ],
        &[
            "perplexity",
            "org/tiny",
            "--data",
            &data("refinedweb"),
            "--limit-docs",
            "1",
        ],
        &[
            "eval",
            "org/tiny",
            "--task",
            "sst2",
            "--data",
            &data("sst2"),
            "--limit",
            "2",
        ],
        &["export", "org/tiny", "--out", &export],
    ] {
        let output = run(cache.path(), args);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(0), "{args:?}: {stderr}");
    }
    assert!(Path::new(&export).join("model.safetensors").is_file());
    for args in [
        &["generate", "org/none", "--prompt", "A"][..],
        &["bench", "org/none"],
        &["perplexity", "org/none", "--data", &data("refinedweb")],
        &[
            "eval",
            "org/none",
            "--task",
            "sst2",
            "--data",
            &data("sst2"),
        ],
        &["export", "org/none", "--out", &gguf],
        &["serve", "org/none", "--port", "0"],
        &["sample", "org/none", "--out", &path("grid.png")],
        &["pull", "org/none"],
    ] {
        not_there(&run(cache.path(), args), args);
    }
}

fn not_there(output: &Output, args: &[&str]) {
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{args:?}: {stderr}");
    for word in ["org/none", "HF_HUB_OFFLINE"] {
        assert!(stderr.contains(word), "{args:?}: {stderr}");
    }
}

/// What a recipe names: the model that training starts from, its tokenizer, and a teacher.
#[test]
fn recipes_name_models_of_the_hub() {
    let cache = cache();
    let dir = tempfile::tempdir().unwrap();
    let smoke = root().join("recipes/mnli-smoke.toml");
    let smoke = std::fs::read_to_string(smoke).unwrap();
    let recipe = dir.path().join("recipe.toml");
    let taught = smoke.replace("teacher = \"fp-sft\"", "teacher = \"org/none\"");
    assert_ne!(taught, smoke);
    let name = recipe.to_str().unwrap();
    for (text, more) in [
        (&smoke, &["--set", "model.path=org/none"][..]),
        (&smoke, &["--set", "tokenizer.path=org/none"]),
        (&taught, &[]),
    ] {
        std::fs::write(&recipe, text).unwrap();
        let args = [&["train", name][..], more].concat();
        not_there(&run(cache.path(), &args), &args);
    }
}
