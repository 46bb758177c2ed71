//! Published families as a start for training: what they call their norms, and which modules they
//! leave in full precision.
#![allow(clippy::unwrap_used, missing_docs)]

mod common;

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use burn::backend::Flex;
use serde_json::{Value, json};
use tritburn_engine::{Engine, EngineOptions};
use tritburn_nn::CausalLm;
use tritburn_nn::device::DeviceKind;
use tritburn_nn::folder::FolderSource;
use tritburn_quant::Dtype;
use tritburn_quant::config::ModelConfig;
use tritburn_quant::tensor_file::{TensorFile, write_safetensors};
use tritburn_train::parity::{TOLERANCE, max_rel_diff};
use tritburn_train::run::read_host_tensors;
use tritburn_train::{TrainError, export_hf};

const RECIPE: &str = r#"
name = "families"
[model]
hidden_size = 32
intermediate_size = 64
num_hidden_layers = 2
num_attention_heads = 2
num_key_value_heads = 1
max_position_embeddings = 64
[tokenizer]
vocab_size = 300
[data]
corpus_bytes = 20000
max_length = 64
[train]
save_every = 0
[[stage]]
name = "only"
kind = "lm"
ternary = true
steps = 2
batch_size = 2
seq_len = 16
lr = 1e-2
"#;

fn try_run(dir: &Path, set: &[&str]) -> Result<PathBuf, TrainError> {
    let set: Vec<String> = set.iter().map(ToString::to_string).collect();
    Ok(common::run(RECIPE, "corpus=data/refinedweb", dir, &set)?.join("final"))
}

fn run(dir: &Path, set: &[&str]) -> PathBuf {
    try_run(dir, set).unwrap()
}

/// Copies a model folder with tensors renamed and `config.json` changed.
fn rewrite(from: &Path, to: &Path, rename: impl Fn(&str) -> String, change: impl Fn(&mut Value)) {
    std::fs::create_dir_all(to).unwrap();
    for file in ["tokenizer.json", "tokenizer_config.json"] {
        std::fs::copy(from.join(file), to.join(file)).unwrap();
    }
    let tensors = read_host_tensors(&from.join("model.safetensors")).unwrap();
    let bytes: Vec<(String, Vec<usize>, Vec<u8>)> = tensors
        .into_iter()
        .map(|(name, t)| {
            let bytes = t.data.iter().flat_map(|x| x.to_le_bytes()).collect();
            (rename(&name), t.shape, bytes)
        })
        .collect();
    let named: Vec<_> = bytes
        .iter()
        .map(|(n, s, b)| (n.as_str(), Dtype::F32, s.as_slice(), b.as_slice()))
        .collect();
    write_safetensors(&to.join("model.safetensors"), &named, &BTreeMap::new()).unwrap();
    let text = std::fs::read_to_string(from.join("config.json")).unwrap();
    let mut config: Value = serde_json::from_str(&text).unwrap();
    change(&mut config);
    std::fs::write(to.join("config.json"), config.to_string()).unwrap();
}

/// Norms of a folder whose names end so.
fn norms(folder: &Path, ends: &str) -> Vec<f32> {
    let file = TensorFile::open(&folder.join("model.safetensors")).unwrap();
    let mut names: Vec<&str> = file
        .names()
        .into_iter()
        .filter(|n| n.ends_with(ends))
        .collect();
    names.sort_unstable();
    let values = names.iter().flat_map(|name| {
        let shape = file.info(name).unwrap().1.to_vec();
        file.tensor_f32(name, &shape).unwrap()
    });
    values.collect()
}

/// One step with a rate too small to move anything; the folder that comes out.
fn trained_on(folder: &Path, dir: &Path) -> PathBuf {
    let path = format!("model.path={}", folder.display());
    run(
        dir,
        &[
            &path,
            "stage.only.steps=1",
            "stage.only.lr=1e-12",
            "stage.only.weight_decay=0",
        ],
    )
}

fn same_as_the_engine(folder: &Path, dir: &Path) {
    let out = dir.join("export");
    export_hf(folder, &out, DeviceKind::Cpu).unwrap();
    let engine = Engine::load(&out, EngineOptions::exact()).unwrap();
    let prompts = [vec![1, 5, 9, 200], vec![7]];
    let diff = max_rel_diff(folder, &engine, &prompts, DeviceKind::Cpu).unwrap();
    assert!(diff <= TOLERANCE, "{diff:.2e}");
}

#[test]
fn norms_by_other_names_are_kept() {
    let dir = tempfile::tempdir().unwrap();
    let ours = run(&dir.path().join("ours"), &["stage.only.sub_norm=sub_ln"]);
    let theirs = dir.path().join("theirs");
    let rename = |name: &str| {
        let name = name.replace("attn_sub_norm", "inner_attn_ln");
        name.replace("ffn_sub_norm", "ffn_layernorm")
    };
    rewrite(&ours, &theirs, rename, |config| {
        config["model_type"] = json!("llama");
        config["weight_bits"] = json!(1);
        config["input_bits"] = json!(8);
        config
            .as_object_mut()
            .unwrap()
            .remove("quantization_config");
    });
    let trained = norms(&ours, "_sub_norm.weight");
    assert!(
        trained.iter().any(|w| (w - 1.0).abs() > 1e-3),
        "norms never moved"
    );
    let after = trained_on(&theirs, &dir.path().join("after"));
    assert_eq!(norms(&after, "_sub_norm.weight"), trained);
    same_as_the_engine(&after, dir.path());
}

#[test]
fn norms_of_the_ternary_module_are_kept_with_their_epsilon() {
    let dir = tempfile::tempdir().unwrap();
    let ours = run(&dir.path().join("ours"), &["stage.only.sub_norm=all"]);
    let theirs = dir.path().join("theirs");
    let rename = |name: &str| name.replace("_proj.norm.", "_proj.rms_norm.");
    rewrite(&ours, &theirs, rename, |config| {
        config.as_object_mut().unwrap().remove("tritburn");
        config["quantization_config"]["use_rms_norm"] = json!(true);
        config["quantization_config"]["rms_norm_eps"] = json!(1e-4);
    });
    let trained = norms(&ours, "_proj.norm.weight");
    let after = trained_on(&theirs, &dir.path().join("after"));
    assert_eq!(norms(&after, "_proj.norm.weight"), trained);
    let text = std::fs::read_to_string(after.join("config.json")).unwrap();
    let config: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(config["tritburn"]["norm_eps"], json!(1e-4));
    same_as_the_engine(&after, dir.path());
}

#[test]
fn modules_not_to_convert_stay_in_full_precision() {
    let dir = tempfile::tempdir().unwrap();
    let ours = run(&dir.path().join("ours"), &[]);
    let theirs = dir.path().join("theirs");
    rewrite(&ours, &theirs, str::to_owned, |config| {
        config["quantization_config"]["modules_to_not_convert"] = json!(["lm_head", "o_proj"]);
    });
    let after = trained_on(&theirs, &dir.path().join("after"));
    same_as_the_engine(&after, dir.path());
    let out = TensorFile::open(&dir.path().join("export/model.safetensors")).unwrap();
    assert!(out.contains("model.layers.0.self_attn.q_proj.weight_scale"));
    assert!(!out.contains("model.layers.0.self_attn.o_proj.weight_scale"));
}

#[test]
fn trained_norms_are_not_taken_out() {
    let dir = tempfile::tempdir().unwrap();
    let ours = run(&dir.path().join("ours"), &["stage.only.sub_norm=sub_ln"]);
    let path = format!("model.path={}", ours.display());
    let error = try_run(
        &dir.path().join("none"),
        &[&path, "stage.only.sub_norm=none"],
    )
    .unwrap_err();
    assert!(error.to_string().contains("cannot be taken out"), "{error}");
}

#[test]
fn a_folder_that_changes_while_it_is_read_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let ours = run(&dir.path().join("ours"), &[]);
    let out = dir.path().join("export");
    export_hf(&ours, &out, DeviceKind::Cpu).unwrap();
    let config = ModelConfig::read(&out.join("config.json")).unwrap();
    let read = |touch: bool| {
        let mut source = FolderSource::open(&out).unwrap();
        if touch {
            let weights = out.join("model.safetensors");
            let file = File::options().write(true).open(weights).unwrap();
            file.set_modified(SystemTime::UNIX_EPOCH).unwrap();
        }
        CausalLm::<Flex>::new(&config, &mut source, &Default::default()).err()
    };
    assert!(read(false).is_none());
    let error = read(true).unwrap().to_string();
    assert!(error.contains("changed"), "{error}");
}
