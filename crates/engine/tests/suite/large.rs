//! Packed folders in the shapes of bitnet_b1_58-large and BitNet 2B4T with random weights: how long one loads, what it takes, and
//! how fast it runs. It writes 1.2 GB and needs twice that in memory:
//!
//! ```text
//! cargo test --release -p tritburn-engine large -- --ignored --nocapture --test-threads=1
//! ```
use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use serde_json::json;
use tritburn_engine::{Engine, EngineOptions, bench};
use tritburn_quant::Dtype;
use tritburn_quant::config::ModelConfig;
use tritburn_quant::tensor_file::{NamedTensor, write_safetensors};

/// Names the folder to the processes that load and run it.
const FOLDER: &str = "TRITBURN_LARGE_FOLDER";
/// Tokens of the prompt, and tokens that are written after it.
const PROMPT: usize = 512;
const NEW: usize = 32;

struct Noise(u64);

impl Noise {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// Bytes of four codes each, none of them 3.
    fn codes(&mut self, bytes: usize) -> Vec<u8> {
        let byte = |random: u8| random & !((random & (random >> 1) & 0x55) * 3);
        let words = (0..bytes.div_ceil(8)).flat_map(|_| self.next().to_le_bytes());
        words.take(bytes).map(byte).collect()
    }

    /// bf16 values between −1/32 and 1/32.
    fn bf16(&mut self, values: usize) -> Vec<u8> {
        let value = |random: u64| (random >> 40) as f32 / (1u32 << 28) as f32 - 1.0 / 32.0;
        (0..values)
            .flat_map(|_| half::bf16::from_f32(value(self.next())).to_le_bytes())
            .collect()
    }
}

/// As microsoft/bitnet-b1.58-2B-4T is stored.
fn write(dir: &Path, c: &ModelConfig) {
    let config = json!({
        "architectures": ["BitNetForCausalLM"], "model_type": "bitnet",
        "hidden_size": c.hidden_size, "intermediate_size": c.intermediate_size,
        "num_hidden_layers": c.num_hidden_layers, "num_attention_heads": c.num_attention_heads,
        "num_key_value_heads": c.num_key_value_heads, "vocab_size": c.vocab_size,
        "max_position_embeddings": c.max_position_embeddings, "rope_theta": c.rope_theta,
        "rms_norm_eps": c.rms_norm_eps, "hidden_act": c.hidden_act, "tie_word_embeddings": true,
        "torch_dtype": "bfloat16", "quantization_config": {"quant_method": "bitnet",
            "linear_class": "autobitlinear", "quantization_mode": "offline"},
    });
    std::fs::write(dir.join("config.json"), config.to_string()).unwrap();
    let mut noise = Noise(0x9e37_79b9_7f4a_7c15);
    let (hidden, ffn) = (c.hidden_size, c.intermediate_size);
    let one = half::bf16::ONE.to_le_bytes();
    let mut all: Vec<(String, Dtype, Vec<usize>, Vec<u8>)> = Vec::new();
    all.push((
        "model.embed_tokens.weight".into(),
        Dtype::BF16,
        vec![c.vocab_size, hidden],
        noise.bf16(c.vocab_size * hidden),
    ));
    let mut norms = vec![("model.norm".to_owned(), hidden)];
    for i in 0..c.num_hidden_layers {
        let layer = format!("model.layers.{i}");
        for (name, width) in [
            ("input_layernorm", hidden),
            ("post_attention_layernorm", hidden),
            ("self_attn.attn_sub_norm", hidden),
            ("mlp.ffn_sub_norm", ffn),
        ] {
            norms.push((format!("{layer}.{name}"), width));
        }
        for (name, rows, cols) in [
            ("self_attn.q_proj", c.q_dim(), hidden),
            ("self_attn.k_proj", c.kv_dim(), hidden),
            ("self_attn.v_proj", c.kv_dim(), hidden),
            ("self_attn.o_proj", hidden, c.q_dim()),
            ("mlp.gate_proj", ffn, hidden),
            ("mlp.up_proj", ffn, hidden),
            ("mlp.down_proj", hidden, ffn),
        ] {
            let name = format!("{layer}.{name}.weight");
            let scale = half::bf16::from_f32(0.02).to_le_bytes().to_vec();
            all.push((format!("{name}_scale"), Dtype::BF16, vec![1], scale));
            let codes = noise.codes(rows / 4 * cols);
            all.push((name, Dtype::U8, vec![rows / 4, cols], codes));
        }
    }
    for (name, width) in norms {
        let name = format!("{name}.weight");
        all.push((name, Dtype::BF16, vec![width], one.repeat(width)));
    }
    let named: Vec<NamedTensor<'_>> = all
        .iter()
        .map(|(n, d, s, b)| (n.as_str(), *d, s.as_slice(), b.as_slice()))
        .collect();
    write_safetensors(&dir.join("model.safetensors"), &named, &BTreeMap::new()).unwrap();
}

/// MiB of this process, by the name of a field of its status.
fn resident(field: &str) -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with(field))?;
    let kib: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kib >> 10)
}

fn load(folder: &Path) -> Engine {
    let start = Instant::now();
    let engine = Engine::load(folder, EngineOptions::default()).unwrap();
    eprintln!("loaded in {:.2} s", start.elapsed().as_secs_f64());
    engine
}

/// What a user's process does: loads, reads a prompt, writes.
fn run(folder: &Path) {
    let engine = load(folder);
    let info = engine.info();
    let mut session = engine.new_session(PROMPT + NEW);
    let tokens: Vec<u32> = (0..PROMPT as u32).map(|i| i * 977 % 32_000).collect();
    let start = Instant::now();
    let logits = session.prefill(&tokens).unwrap();
    assert!(logits.iter().all(|v| v.is_finite()));
    let rate = PROMPT as f64 / start.elapsed().as_secs_f64();
    eprintln!("{PROMPT} tokens of prompt: {rate:.1} tok/s");
    let start = Instant::now();
    for token in &tokens[..NEW] {
        session.decode(*token).unwrap();
    }
    let rate = NEW as f64 / start.elapsed().as_secs_f64();
    eprintln!("{NEW} tokens after it: {rate:.1} tok/s");
    let fields = ["RssAnon:", "RssFile:", "VmHWM:"].map(resident);
    if let [Some(own), Some(mapped), Some(peak)] = fields {
        eprintln!("{own} MiB resident, and {mapped} MiB of files; {peak} MiB at the peak");
        // The mapped file is not copied and not held.
        assert!(own << 20 < info.weights_bytes as u64 + (256 << 20));
    }
}

fn loads_and_runs(shape: &str) {
    let c = bench::shape(shape).unwrap();
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), &c);
    let file = std::fs::metadata(dir.path().join("model.safetensors")).unwrap();
    eprintln!("{shape}: {} MiB in the file", file.len() >> 20);
    let info = load(dir.path()).info();
    eprintln!("{info:?}");
    assert_eq!(info.format, "ternary-2bit");
    // Two bits a ternary weight, and a byte for each of the embedding.
    let ternary = c.num_hidden_layers
        * (c.hidden_size * (2 * c.q_dim() + 2 * c.kv_dim())
            + 3 * c.hidden_size * c.intermediate_size);
    let least = ternary / 4 + c.vocab_size * c.hidden_size;
    assert!(info.weights_bytes < least + least / 50, "{least}");
    // A process of its own for each, as a user's is.
    for _ in 0..4 {
        let this = std::env::current_exe().unwrap();
        let mut user = Command::new(this);
        user.args(["a_large_packed_folder", "--ignored", "--nocapture"]);
        assert!(user.env(FOLDER, dir.path()).status().unwrap().success());
    }
}

#[test]
#[ignore = "writes 1.2 GB, and its times say something on an idle machine only"]
fn a_large_packed_folder_loads_and_runs() {
    if let Some(folder) = std::env::var_os(FOLDER) {
        return run(Path::new(&folder));
    }
    loads_and_runs("bitnet-large");
    loads_and_runs("bitnet-2b4t");
}
