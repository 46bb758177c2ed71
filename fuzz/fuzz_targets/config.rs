//! `config.json` beside the weights of a small ternary model.
#![no_main]

use std::sync::OnceLock;

use libfuzzer_sys::fuzz_target;
use tritburn_fuzz::{Folder, let_panics_be_caught, seeds};

static FOLDER: OnceLock<Folder> = OnceLock::new();

fuzz_target!(init: let_panics_be_caught(), |bytes: &[u8]| {
    let folder = FOLDER.get_or_init(|| {
        let (_, weights) = seeds::models().swap_remove(1);
        Folder::new("config.json", &[("model.safetensors", &weights)])
    });
    folder.config(bytes);
});
