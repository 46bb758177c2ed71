//! `model.safetensors` beside the `config.json` of a small dense model.
#![no_main]

use std::sync::OnceLock;

use libfuzzer_sys::fuzz_target;
use tritburn_fuzz::{Folder, let_panics_be_caught, seeds};

static FOLDER: OnceLock<Folder> = OnceLock::new();

fuzz_target!(init: let_panics_be_caught(), |bytes: &[u8]| {
    let folder = FOLDER.get_or_init(|| {
        let (config, _) = seeds::models().swap_remove(0);
        Folder::new("model.safetensors", &[("config.json", &config)])
    });
    folder.safetensors(bytes);
});
