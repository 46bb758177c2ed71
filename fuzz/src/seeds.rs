//! Small files to start from, made by the project's own writers.

use std::path::Path;

use serde_json::{Value, json};
use tempfile::TempDir;
use tritburn_quant::config::SubNorm;
use tritburn_quant::gguf::{GgufEmbedding, GgufTernary, write_gguf};

use crate::common::{Form, VOCAB, config, tensors, write, write_tokenizer};
use crate::drive::TEMPLATES;

/// The bytes of a file.
type Bytes = Vec<u8>;

/// Model folders of several kinds, with the tokenizer where the vocabulary has room for it.
fn folders() -> Vec<TempDir> {
    let kinds = [
        (SubNorm::None, Form::Dense, 8, VOCAB),
        (SubNorm::SubLn, Form::AutoBitLinear, 8, VOCAB),
        (SubNorm::All, Form::BitLinear, 8, 8),
        (SubNorm::SubLn, Form::Online, 8, 8),
        // As wide as the blocks of ternary GGUF types, and no wider: a run takes as long as its weights
        // are many, and little can go wrong among them.
        (SubNorm::SubLn, Form::AutoBitLinear, 128, 8),
        (SubNorm::SubLn, Form::AutoBitLinear, 256, 8),
    ];
    let make = |(sub_norm, form, width, vocab)| {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let mut config = config(sub_norm, form);
        config["eos_token_id"] = json!(vocab - 1);
        let heads = if width == 8 { 2 } else { 4 };
        for (key, value) in [
            ("hidden_size", width),
            ("intermediate_size", width),
            ("num_hidden_layers", 1),
            ("num_attention_heads", heads),
            ("num_key_value_heads", 1),
            ("head_dim", width / heads),
            ("vocab_size", vocab),
        ] {
            config[key] = json!(value);
        }
        if form == Form::Dense {
            config["rope_scaling"] = json!({"rope_type": "llama3", "factor": 8.0,
                "low_freq_factor": 1.0, "high_freq_factor": 4.0,
                "original_max_position_embeddings": 8192});
        }
        write(dir.path(), &config, &tensors(&config, form));
        if vocab == VOCAB {
            write_tokenizer(dir.path());
            let settings = json!({"eos_token": "</s>", "chat_template": TEMPLATES[1]});
            std::fs::write(
                dir.path().join("tokenizer_config.json"),
                settings.to_string(),
            )
            .expect("a temporary file");
        }
        dir
    };
    kinds.into_iter().map(make).collect()
}

fn read(folder: &Path, file: &str) -> Bytes {
    std::fs::read(folder.join(file)).expect("a file that was just written")
}

/// `config.json` and `model.safetensors` of each kind.
///
/// # Panics
/// Where the system gives no temporary files.
#[must_use]
pub fn models() -> Vec<(Bytes, Bytes)> {
    let pair = |dir: &TempDir| {
        (
            read(dir.path(), "config.json"),
            read(dir.path(), "model.safetensors"),
        )
    };
    folders().iter().map(pair).collect()
}

/// GGUF files: in full precision with a tokenizer, and of every ternary type.
fn ggufs() -> Vec<Bytes> {
    let folders = folders();
    let [dense, narrow, wide] = [0, 4, 5].map(|i| folders[i].path());
    let all = [
        (dense, GgufTernary::I2S, GgufEmbedding::F16),
        (narrow, GgufTernary::I2S, GgufEmbedding::F16),
        (wide, GgufTernary::Tq1_0, GgufEmbedding::Q8_0),
        (wide, GgufTernary::Tq2_0, GgufEmbedding::Q6K),
        (narrow, GgufTernary::Q2_0, GgufEmbedding::F16),
    ];
    let write = |(folder, ternary, embedding): (&Path, _, _)| {
        let out = folder.join("model.gguf");
        write_gguf(folder, &out, ternary, embedding).expect("a model that GGUF can hold");
        read(folder, "model.gguf")
    };
    all.into_iter().map(write).collect()
}

/// A tokenizer with a token for each byte, and small ones of other kinds.
fn tokenizers() -> Vec<Bytes> {
    let bytes = folders().remove(0);
    let model = |model: Value, rest: Value| {
        let mut json = json!({"version": "1.0", "added_tokens": [], "model": model});
        if let (Value::Object(all), Value::Object(rest)) = (&mut json, rest) {
            all.extend(rest);
        }
        json.to_string().into_bytes()
    };
    let pieces = json!([
        ["<unk>", 0.0],
        ["\u{2581}a", -1.5],
        ["a", -2.0],
        ["b", -3.0]
    ]);
    vec![
        read(bytes.path(), "tokenizer.json"),
        model(
            json!({"type": "BPE", "unk_token": "<unk>", "byte_fallback": true,
                "vocab": {"<unk>": 0, "a": 1, "b": 2, "ab": 3, "<0x0A>": 4},
                "merges": [["a", "b"]]}),
            json!({"normalizer": {"type": "Sequence", "normalizers": [{"type": "NFC"},
                {"type": "Replace", "pattern": {"String": " "}, "content": "\u{2581}"}]},
                "decoder": {"type": "Sequence", "decoders": [{"type": "ByteFallback"},
                {"type": "Fuse"}, {"type": "Strip", "content": " ", "start": 1, "stop": 0}]}}),
        ),
        model(
            json!({"type": "WordPiece", "unk_token": "[UNK]", "max_input_chars_per_word": 100,
                "continuing_subword_prefix": "##",
                "vocab": {"[UNK]": 0, "a": 1, "##a": 2, "[CLS]": 3}}),
            json!({"normalizer": {"type": "BertNormalizer", "clean_text": true,
                "handle_chinese_chars": true, "strip_accents": null, "lowercase": true},
                "pre_tokenizer": {"type": "BertPreTokenizer"},
                "post_processor": {"type": "TemplateProcessing", "pair": [],
                "single": [{"SpecialToken": {"id": "[CLS]", "type_id": 0}},
                    {"Sequence": {"id": "A", "type_id": 0}}],
                "special_tokens": {"[CLS]": {"id": "[CLS]", "ids": [3], "tokens": ["[CLS]"]}}},
                "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": true}}),
        ),
        model(
            json!({"type": "Unigram", "unk_id": 0, "vocab": pieces, "byte_fallback": false}),
            json!({"pre_tokenizer": {"type": "Metaspace", "replacement": "\u{2581}",
                "prepend_scheme": "always", "split": true}}),
        ),
        model(
            json!({"type": "WordLevel", "unk_token": "?", "vocab": {"?": 0, "a": 1, "12": 2}}),
            json!({"pre_tokenizer": {"type": "Sequence", "pretokenizers": [
                {"type": "Split", "pattern": {"Regex": "\\p{N}{1,3}|[^\\s]+(?!\\S)"},
                    "behavior": "Isolated", "invert": false}, {"type": "Whitespace"},
                {"type": "Punctuation", "behavior": "Contiguous"},
                {"type": "Digits", "individual_digits": true}]}}),
        ),
    ]
}

/// What a target starts from.
///
/// # Panics
/// Where there is no such target, or the system gives no temporary files.
#[must_use]
pub fn of(target: &str) -> Vec<Bytes> {
    match target {
        "safetensors" => models().into_iter().map(|(_, weights)| weights).collect(),
        "config" => models().into_iter().map(|(config, _)| config).collect(),
        "gguf" => ggufs(),
        "tokenizer" => tokenizers(),
        "chat_template" => TEMPLATES.map(Bytes::from).into(),
        _ => panic!("no target is called {target}"),
    }
}
