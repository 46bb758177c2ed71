//! Models whose file somebody cuts or writes to while they load.
use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::Value;
use tritburn_engine::{Engine, EngineOptions, Result};
use tritburn_quant::config::SubNorm;
use tritburn_quant::gguf::{GgufEmbedding, GgufTernary, write_gguf};

use crate::common::{Form, config, tensors, write, write_tokenizer};

/// Loads after which one must have met the change.
const TRIES: usize = 50;

/// A model of some megabytes.
fn large(form: Form) -> Value {
    let mut config = config(SubNorm::SubLn, form);
    for (field, value) in [
        ("hidden_size", 256),
        ("intermediate_size", 1024),
        ("num_hidden_layers", 4),
        ("head_dim", 64),
    ] {
        config[field] = value.into();
    }
    config
}

/// Loads `model`, and does `harm` to `file` as soon as this process has it in memory.
fn load_beside(model: &Path, file: &Path, harm: &(dyn Fn(&File) + Sync)) -> Result<Engine> {
    let name = file.canonicalize().unwrap().display().to_string();
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let writer = OpenOptions::new().write(true).open(file).unwrap();
            let mapped = || std::fs::read_to_string("/proc/self/maps").unwrap();
            while !over.load(Ordering::Relaxed) {
                if mapped().contains(&name) {
                    return harm(&writer);
                }
            }
        });
        let loaded = Engine::load(model, EngineOptions::default());
        over.store(true, Ordering::Relaxed);
        loaded
    })
}

/// Some load meets the change and says which file it was; one that was over before it has a whole model, and a cut
/// that came first is a file without its end.
fn check(model: &Path, file: &Path, harm: &(dyn Fn(&File) + Sync), what: &str) {
    let whole = std::fs::read(file).unwrap();
    let met = (0..TRIES).any(|_| {
        std::fs::write(file, &whole).unwrap();
        // Longer than a tick of the clock that files have their times from.
        std::thread::sleep(Duration::from_millis(20));
        let Err(error) = load_beside(model, file, harm) else {
            return false;
        };
        let error = error.to_string();
        let name = file.file_name().unwrap().to_str().unwrap();
        assert!(error.contains(name), "{error}");
        error.contains(what)
    });
    assert!(met, "{}: {what}", file.display());
    std::fs::write(file, &whole).unwrap();
    Engine::load(model, EngineOptions::default()).unwrap();
}

fn cut(file: &File) {
    file.set_len(10_000).unwrap();
}

fn overwrite(file: &File) {
    let len = file.metadata().unwrap().len();
    file.write_all_at(&[0xA5; 4096], len / 2).unwrap();
}

#[test]
fn a_file_that_is_cut_or_written_to_is_an_error() {
    for form in [Form::Dense, Form::AutoBitLinear] {
        let dir = tempfile::tempdir().unwrap();
        let config = large(form);
        write(dir.path(), &config, &tensors(&config, form));
        write_tokenizer(dir.path());
        let gguf = dir.path().join("model.gguf");
        write_gguf(dir.path(), &gguf, GgufTernary::I2S, GgufEmbedding::F16).unwrap();
        for (model, file) in [
            (dir.path(), &dir.path().join("model.safetensors")),
            (&gguf, &gguf),
        ] {
            check(model, file, &cut, "shortened while it was read");
            check(model, file, &overwrite, "changed while it was read");
        }
    }
}
