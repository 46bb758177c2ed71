//! Writes what each target starts from to `corpus/TARGET/` beside this crate.

use std::path::Path;

fn main() -> std::io::Result<()> {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
    for target in [
        "safetensors",
        "gguf",
        "config",
        "tokenizer",
        "chat_template",
    ] {
        let folder = corpus.join(target);
        std::fs::create_dir_all(&folder)?;
        for (i, bytes) in tritburn_fuzz::seeds::of(target).into_iter().enumerate() {
            std::fs::write(folder.join(format!("seed-{i}")), bytes)?;
        }
    }
    Ok(())
}
