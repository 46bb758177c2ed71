//! Files changed at random: each loads or is an error, soon, and never a panic.
//!
//! `fuzz/` goes further into each file; here are models of all forms, in every test run: a second for
//! each kind of file, or `TRITBURN_FUZZ_SECONDS`; `TRITBURN_FUZZ_SEED` draws other changes. What fails
//! is kept and named.
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tritburn_quant::config::{ModelConfig, SubNorm};
use tritburn_quant::gguf::{GgufEmbedding, GgufTernary, write_gguf};

use crate::common::{Form, config, tensors, write, write_tokenizer};
use crate::drive;
use crate::gguf_file::{F32, convert, metadata, rename};

/// Longest time for one file: a loop without end shows by it.
const PATIENCE: Duration = Duration::from_secs(60);
/// Texts that mean something somewhere in these files.
const WORDS: [&str; 34] = [
    "-1",
    "0",
    "1e400",
    "18446744073709551615",
    "9223372036854775808",
    "4294967296",
    "65537",
    "null",
    "true",
    "[]",
    "{}",
    "\"\"",
    "\"F64\"",
    "\"BF16\"",
    "NaN",
    "[[[[[[[[",
    "\\u0000",
    "\\ud800",
    "\u{1F600}",
    "{% for i in range(99999) %}",
    "{% endfor %}",
    "{% macro f(x) %}{{ f(x) }}{% endmacro %}{{ f(1) }}",
    "{{ messages }}",
    "{% include 'x' %}",
    "{{ x.y.z }}",
    "{{ 'x' * 99999999 }}",
    "{{ 9 ** 99 }}",
    "{{ 1 // 0 }}",
    "[::0]",
    "|tojson(indent=99)",
    "|batch(0)",
    "(?:a*)*b",
    "{\"Regex\": \"(x+x+)+y\"}",
    "{\"type\": \"Sequence\", \"pretokenizers\": []}",
];

struct Dice(u64);

impl Dice {
    fn roll(&mut self, below: usize) -> usize {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        ((self.0 >> 33) as usize) % below.max(1)
    }

    /// A few changes within the first `reach` bytes, where the structure is.
    fn change(&mut self, bytes: &mut Vec<u8>, reach: usize) {
        for _ in 0..1 + self.roll(4) {
            let reach = reach.min(bytes.len());
            let at = self.roll(reach + 1);
            let some = 1 + self.roll(16);
            let end = (at + some).min(bytes.len());
            match self.roll(9) {
                0 if at < bytes.len() => bytes[at] = self.roll(256) as u8,
                1 if at < bytes.len() => bytes[at] ^= 1 << self.roll(8),
                2 => drop(bytes.drain(at..end)),
                3 => {
                    let copy = bytes[at..end].to_vec();
                    bytes.splice(at..at, copy);
                }
                4 => bytes.truncate(at),
                5 => {
                    let value = [0, u64::MAX, 1 << 63, 1 << 31, u64::from(u32::MAX)][self.roll(5)];
                    let new = value.to_le_bytes();
                    let n = [4, 8][self.roll(2)].min(bytes.len() - at);
                    bytes[at..at + n].copy_from_slice(&new[..n]);
                }
                6 => {
                    let word = WORDS[self.roll(WORDS.len())].bytes();
                    bytes.splice(at..end, word);
                }
                7 => {
                    // Something from elsewhere in the file.
                    let from = self.roll(reach + 1);
                    let copy = bytes[from..(from + 4 * some).min(bytes.len())].to_vec();
                    bytes.splice(at..at, copy);
                }
                _ => {
                    let word = WORDS[self.roll(WORDS.len())].bytes();
                    bytes.splice(at..at, word);
                }
            }
        }
    }
}

impl Dice {
    /// Changes one value of a JSON document and leaves it one.
    fn change_json(&mut self, value: &mut Value) {
        let descend = self.roll(8) > 0;
        match value {
            Value::Object(map) if descend && !map.is_empty() => {
                let at = self.roll(map.len());
                let Some((key, inner)) = map.iter_mut().nth(at) else {
                    return;
                };
                let key = key.clone();
                match self.roll(12) {
                    0 => drop(map.remove(&key)),
                    1 => {
                        let copy = inner.clone();
                        map.insert(format!("{key}x"), copy);
                    }
                    _ => self.change_json(inner),
                }
            }
            Value::Array(list) if descend && !list.is_empty() => {
                let at = self.roll(list.len());
                match self.roll(12) {
                    0 => drop(list.remove(at)),
                    1 => list.push(list[at].clone()),
                    _ => self.change_json(&mut list[at]),
                }
            }
            Value::String(text) if descend => {
                let mut bytes = text.clone().into_bytes();
                self.change(&mut bytes, usize::MAX);
                *text = String::from_utf8_lossy(&bytes).into_owned();
            }
            Value::Number(n) if descend => {
                let n = n.as_f64().unwrap_or(1.0);
                let steps = [n + 1.0, n - 1.0, 2.0 * n, n / 2.0, -n, n * 65_536.0];
                let n = steps[self.roll(steps.len())];
                *value = if n.fract() == 0.0 && n.abs() < 9e15 {
                    json!(n as i64)
                } else {
                    json!(n)
                };
            }
            _ => {
                let odd = [
                    json!(null),
                    json!(true),
                    json!(0),
                    json!(-1),
                    json!(u64::MAX),
                    json!(1u64 << 32),
                    json!(1e-300),
                    json!(1e300),
                    json!(""),
                    json!([]),
                    json!({}),
                    json!([1, 0]),
                ];
                *value = odd[self.roll(odd.len())].clone();
            }
        }
    }

    /// Changes the JSON of a file, or the header of a safetensors file; where it is neither, bytes.
    fn change_inside(&mut self, bytes: &mut Vec<u8>, reach: usize) {
        let header = bytes.first_chunk().map(|len| u64::from_le_bytes(*len));
        let header = header.and_then(|len| usize::try_from(len).ok());
        let ends = header.and_then(|len| Some((8, 8usize.checked_add(len)?)));
        let ends = ends.filter(|&(_, end)| end <= bytes.len());
        let (start, end) = ends.unwrap_or((0, bytes.len()));
        let Ok(mut value) = serde_json::from_slice(&bytes[start..end]) else {
            return self.change(bytes, reach);
        };
        for _ in 0..1 + self.roll(3) {
            self.change_json(&mut value);
        }
        let text = value.to_string();
        if start > 0 {
            bytes[..8].copy_from_slice(&(text.len() as u64).to_le_bytes());
        }
        bytes.splice(start..end, text.bytes());
    }
}

/// Changes one of `files` again and again; what is loaded then is the file or its folder.
fn mutate(files: &[PathBuf], reach: usize) {
    let number = |name: &str| std::env::var(name).ok().and_then(|v| v.parse().ok());
    let time = Duration::from_secs(number("TRITBURN_FUZZ_SECONDS").unwrap_or(1));
    let mut dice = Dice(number("TRITBURN_FUZZ_SEED").unwrap_or(1));
    let read = |path: &PathBuf| std::fs::read(path).unwrap();
    let seeds: Vec<Vec<u8>> = files.iter().map(read).collect();
    let (start, mut cases) = (Instant::now(), 0u64);
    while start.elapsed() < time {
        let which = dice.roll(files.len());
        let path = &files[which];
        let mut bytes = seeds[which].clone();
        if dice.roll(2) == 0 {
            dice.change(&mut bytes, reach);
        } else {
            dice.change_inside(&mut bytes, reach);
        }
        std::fs::write(path, &bytes).unwrap();
        let gguf = path.extension().is_some_and(|e| e == "gguf");
        let load = if gguf { path } else { path.parent().unwrap() };
        let began = Instant::now();
        let panicked = catch_unwind(AssertUnwindSafe(|| drive::model(load))).is_err();
        if panicked || began.elapsed() > PATIENCE {
            let name = path.file_name().unwrap().to_str().unwrap();
            let kept = std::env::temp_dir().join(format!("tritburn-{cases}-{name}"));
            std::fs::write(&kept, &bytes).unwrap();
            panic!("after {:?}: kept as {}", began.elapsed(), kept.display());
        }
        std::fs::write(path, &seeds[which]).unwrap();
        cases += 1;
    }
    let name = files[0].file_name().unwrap().display();
    eprintln!("{name}: {cases} cases in {:.0?}", start.elapsed());
}

/// Small models of several kinds, each in a folder of its own.
fn folders() -> (tempfile::TempDir, Vec<PathBuf>) {
    let dir = tempfile::tempdir().unwrap();
    let kinds = [
        (SubNorm::SubLn, Form::AutoBitLinear),
        (SubNorm::All, Form::BitLinear),
        (SubNorm::None, Form::Dense),
        (SubNorm::SubLn, Form::Online),
    ];
    let make = |(i, (sub_norm, form)): (usize, (SubNorm, Form))| {
        let folder = dir.path().join(i.to_string());
        std::fs::create_dir(&folder).unwrap();
        let mut config = config(sub_norm, form);
        config["num_hidden_layers"] = json!(1);
        if i == 2 {
            config["rope_scaling"] = json!({"rope_type": "llama3", "factor": 8.0,
                "low_freq_factor": 1.0, "high_freq_factor": 4.0,
                "original_max_position_embeddings": 32});
        }
        write(&folder, &config, &tensors(&config, form));
        write_tokenizer(&folder);
        let template = drive::TEMPLATES[i % drive::TEMPLATES.len()];
        let settings: Value = match i {
            0 => json!({"eos_token": {"content": "</s>"}, "chat_template": template}),
            1 => json!({"chat_template": [{"name": "default", "template": template}]}),
            _ => json!({"bos_token": "<s>", "eos_token": null, "chat_template": template}),
        };
        std::fs::write(folder.join("tokenizer_config.json"), settings.to_string()).unwrap();
        folder
    };
    let all = kinds.into_iter().enumerate().map(make).collect();
    (dir, all)
}

/// A dense model with a tokenizer, in a form that `write_gguf` does not write.
fn gguf() -> Vec<u8> {
    let mut config = config(SubNorm::None, Form::Dense);
    config["num_hidden_layers"] = json!(1);
    let c = ModelConfig::from_json(&config.to_string()).unwrap();
    let mut gguf = metadata("llama", &c);
    let tokens: Vec<String> = (0..256u32)
        .filter_map(char::from_u32)
        .map(String::from)
        .collect();
    gguf.pair("tokenizer.ggml.model", &json!("gpt2"));
    gguf.pair("tokenizer.ggml.tokens", &json!(tokens));
    gguf.pair("tokenizer.ggml.merges", &json!(["a b"]));
    for t in &tensors(&config, Form::Dense) {
        gguf.tensor(
            &rename(&t.name, false),
            &t.shape,
            F32,
            &convert("llama", &c, t),
        );
    }
    let dir = tempfile::tempdir().unwrap();
    gguf.write(&dir.path().join("model.gguf"));
    std::fs::read(dir.path().join("model.gguf")).unwrap()
}

fn mutate_in_folders(file: &str, reach: usize) {
    let (_dir, folders) = folders();
    let files: Vec<PathBuf> = folders.iter().map(|f| f.join(file)).collect();
    mutate(&files, reach);
}

#[test]
fn config_json() {
    mutate_in_folders("config.json", usize::MAX);
}

#[test]
fn safetensors() {
    mutate_in_folders("model.safetensors", 3000);
}

#[test]
fn tokenizer_json() {
    mutate_in_folders("tokenizer.json", usize::MAX);
}

#[test]
fn chat_template() {
    mutate_in_folders("tokenizer_config.json", usize::MAX);
}

#[test]
fn gguf_file() {
    let (dir, folders) = folders();
    let dense = dir.path().join("dense.gguf");
    std::fs::write(&dense, gguf()).unwrap();
    let mut config = config(SubNorm::SubLn, Form::AutoBitLinear);
    config["num_hidden_layers"] = json!(1);
    for key in ["hidden_size", "intermediate_size"] {
        config[key] = json!(128);
    }
    config["head_dim"] = json!(32);
    write(&folders[0], &config, &tensors(&config, Form::AutoBitLinear));
    let packed = dir.path().join("packed.gguf");
    write_gguf(&folders[0], &packed, GgufTernary::I2S, GgufEmbedding::Q8_0).unwrap();
    let grouped = dir.path().join("grouped.gguf");
    write_gguf(
        &folders[0],
        &grouped,
        GgufTernary::Q2_0,
        GgufEmbedding::Q8_0,
    )
    .unwrap();
    mutate(&[dense, packed, grouped], 6000);
}
