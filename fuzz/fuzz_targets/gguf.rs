//! A GGUF file.
#![no_main]

use std::sync::OnceLock;

use libfuzzer_sys::fuzz_target;
use tritburn_fuzz::{Folder, let_panics_be_caught};

static FOLDER: OnceLock<Folder> = OnceLock::new();

fuzz_target!(init: let_panics_be_caught(), |bytes: &[u8]| {
    let folder = FOLDER.get_or_init(|| Folder::new("model.gguf", &[]));
    folder.gguf(bytes);
});
