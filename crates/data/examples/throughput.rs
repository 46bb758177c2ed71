//! Speed of a streamed corpus: batches as training takes them, from reading to packing.
//!
//! `cargo run --release -p tritburn-data --example throughput -- SHARDS TOKENIZER [WORKERS] [SECONDS]`

use std::path::Path;
use std::time::Instant;

use tritburn_data::stream::{Rank, StreamConfig, StreamLoader, StreamSetup};
use tritburn_data::{BatchSource, Tokenizer};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [shards, tokenizer, more @ ..] = args.as_slice() else {
        return Err("give SHARDS and TOKENIZER, then WORKERS and SECONDS if wanted".into());
    };
    let number = |index: usize, default: u64| more.get(index).map_or(Ok(default), |t| t.parse());
    let config = StreamConfig {
        shards: vec![shards.clone()],
        workers: usize::try_from(number(0, 0)?)?,
        ..StreamConfig::default()
    };
    let tokenizer = Tokenizer::load(Path::new(tokenizer))?;
    let start = Instant::now();
    let mut loader = StreamLoader::open(&StreamSetup {
        config: &config,
        corpus: "",
        column: None,
        tokenizer: &tokenizer,
        seq_len: 512,
        batch_size: 16,
        seed: 1,
        rank: Rank::default(),
        index: None,
    })?;
    loader.next_batch()?;
    eprintln!("first batch after {:.2} s", start.elapsed().as_secs_f64());
    let (start, mut tokens) = (Instant::now(), 0);
    while start.elapsed().as_secs() < number(1, 30)? {
        tokens += loader.next_batch()?.tokens_in_batch;
    }
    let speed = tokens as f64 / start.elapsed().as_secs_f64();
    eprintln!(
        "{speed:.0} tok/s with {} workers (0: all cores)",
        config.workers
    );
    Ok(())
}
