//! What the targets do with a file: all that a user's file of that kind goes through.
//!
//! Libraries below may panic where a caller catches it; what leaves [`Engine::load`] and its kin as
//! a panic, or takes more time or memory than libFuzzer was told to allow, is a finding.

#[allow(clippy::unwrap_used, dead_code)]
#[path = "../../crates/engine/tests/suite/common.rs"]
mod common;
#[path = "../../crates/engine/tests/suite/drive.rs"]
mod drive;
mod read;
pub mod seeds;

use std::path::{Path, PathBuf};

use tempfile::TempDir;
#[cfg(doc)]
use tritburn_engine::Engine;
use tritburn_engine::{ChatTemplate, TextTokenizer};

/// Vocabulary that a tokenizer may use up.
const VOCAB: usize = 100_000;

/// Replaces libFuzzer's panic hook, which ends the process with every panic, also with those that
/// are caught. An uncaught one ends it still, as it leaves the target.
pub fn let_panics_be_caught() {
    std::panic::set_hook(Box::new(|info| eprintln!("{info}")));
}

/// A folder with the model of the seeds, in which one file is replaced again and again.
#[derive(Debug)]
pub struct Folder {
    dir: TempDir,
    file: PathBuf,
}

impl Folder {
    /// A folder with `file` to be replaced, and `others` beside it.
    ///
    /// # Panics
    /// Where the system gives no temporary folder.
    #[must_use]
    pub fn new(file: &str, others: &[(&str, &[u8])]) -> Self {
        let dir = tempfile::tempdir().expect("a temporary folder");
        for (name, bytes) in others {
            std::fs::write(dir.path().join(name), bytes).expect("a temporary file");
        }
        let file = dir.path().join(file);
        Self { dir, file }
    }

    fn put(&self, bytes: &[u8]) -> (&Path, &Path) {
        std::fs::write(&self.file, bytes).expect("a temporary file");
        (self.dir.path(), &self.file)
    }

    /// `model.safetensors`: every tensor, then as the weights of a model.
    pub fn safetensors(&self, bytes: &[u8]) {
        let (folder, file) = self.put(bytes);
        read::safetensors(file);
        drive::model(folder);
    }

    /// A GGUF file: header, metadata and every tensor, then as a model.
    pub fn gguf(&self, bytes: &[u8]) {
        let (_, file) = self.put(bytes);
        read::gguf(file);
        drive::model(file);
    }

    /// `config.json`: every question that is asked of one, then as that of a model.
    pub fn config(&self, bytes: &[u8]) {
        let (folder, file) = self.put(bytes);
        read::config(file);
        drive::model(folder);
    }

    /// `tokenizer.json`: texts to tokens and back.
    pub fn tokenizer(&self, bytes: &[u8]) {
        let (folder, _) = self.put(bytes);
        if let Ok(Some(tokenizer)) = TextTokenizer::load(folder, VOCAB) {
            drive::tokenizer(&tokenizer);
        }
    }

    /// A chat template: conversations to text.
    pub fn chat_template(&self, bytes: &[u8]) {
        let (folder, _) = self.put(bytes);
        if let Ok(template) = ChatTemplate::load(folder) {
            for turns in [Vec::new(), drive::conversation()] {
                let _ = template.render(&turns);
            }
        }
    }
}
