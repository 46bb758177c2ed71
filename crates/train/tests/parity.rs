//! Training forward in evaluation mode against the engine on the export, for every kind of layer.
#![allow(clippy::unwrap_used, missing_docs)]

mod common;

use std::path::{Path, PathBuf};

use burn::backend::{Flex, NdArray};
use burn::tensor::{Tensor, TensorData};
use tritburn_engine::{Engine, EngineOptions};
use tritburn_nn::device::DeviceKind;
use tritburn_nn::ops::Kernels;
use tritburn_nn::weights::to_host;
use tritburn_quant::Dtype;
use tritburn_quant::config::ModelConfig;
use tritburn_quant::hf_pack::{packed_rows, unpack};
use tritburn_quant::scheme::WeightQuant;
use tritburn_quant::tensor_file::TensorFile;
use tritburn_train::export_hf;
use tritburn_train::parity::{TOLERANCE, max_rel_diff};

/// A few steps from scratch, so that no norm weight is 1 any more.
const STEPS: &str = r#"
name = "layers"
[model]
hidden_size = 64
intermediate_size = 160
num_hidden_layers = 2
num_attention_heads = 4
num_key_value_heads = 2
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
steps = 4
batch_size = 4
seq_len = 32
lr = 1e-2
"#;

fn trained(dir: &Path, set: &[&str]) -> PathBuf {
    let set: Vec<String> = set.iter().map(ToString::to_string).collect();
    let run = common::run(STEPS, "corpus=data/refinedweb", &dir.join("run"), &set);
    run.unwrap().join("final")
}

/// Prompts of several lengths over the whole vocabulary.
fn prompts() -> Vec<Vec<u32>> {
    [1, 2, 7, 33]
        .map(|n| (0..n).map(|i| (i * 37 + n * 11) % 300).collect())
        .to_vec()
}

#[test]
fn engine_and_training_forward_agree_for_every_layout() {
    let ternary = "stage.only.ternary=true";
    let layouts: [(&str, &[&str]); 9] = [
        ("full precision", &[]),
        ("full precision, ReLU²", &["model.hidden_act=relu2"]),
        ("own head", &["model.tie_word_embeddings=false"]),
        ("ternary", &[ternary]),
        ("SubLN", &[ternary, "stage.only.sub_norm=sub_ln"]),
        (
            "norm in front of every projection",
            &[ternary, "stage.only.sub_norm=all"],
        ),
        (
            "ReLU² and SubLN, as in BitNet 2B4T",
            &[
                ternary,
                "stage.only.sub_norm=sub_ln",
                "model.hidden_act=relu2",
            ],
        ),
        (
            "every head its own keys, own output head",
            &[
                ternary,
                "model.num_key_value_heads=4",
                "model.tie_word_embeddings=false",
            ],
        ),
        (
            "another rotary base and epsilon",
            &[
                ternary,
                "model.rope_theta=500000.0",
                "model.rms_norm_eps=1e-5",
            ],
        ),
    ];
    for (name, set) in layouts {
        // Without INT8 rounding only the order of sums differs.
        let bound = if set.contains(&ternary) {
            TOLERANCE
        } else {
            1e-5
        };
        agree(name, set, bound);
    }
}

#[test]
fn engine_and_training_forward_agree_for_every_quantiser() {
    let base = ["stage.only.ternary=true", "stage.only.sub_norm=sub_ln"];
    // Rows in whole groups of 256.
    let wide = ["model.hidden_size=256", "model.intermediate_size=512"];
    let schemes: [(&str, f64, &[&str]); 11] = [
        (
            "b1",
            TOLERANCE,
            &[
                "stage.only.quant.preset=b1",
                "stage.only.sub_norm=layer_norm",
            ],
        ),
        (
            "absmean-row",
            TOLERANCE,
            &["stage.only.quant.weights=absmean-row"],
        ),
        (
            "absmean-group128",
            TOLERANCE,
            &[
                "stage.only.quant.weights=absmean-group128",
                wide[0],
                wide[1],
            ],
        ),
        (
            "absmean-block256",
            TOLERANCE,
            &[
                "stage.only.quant.weights=absmean-block256",
                wide[0],
                wide[1],
            ],
        ),
        ("q-sparse", TOLERANCE, &["stage.only.quant.preset=q-sparse"]),
        ("v2", TOLERANCE, &["stage.only.quant.preset=v2"]),
        ("8-bit cache", TOLERANCE, &["stage.only.quant.kv_bits=8"]),
        (
            "a4.8",
            COARSE,
            &["stage.only.quant.preset=a4.8", "model.hidden_act=relu2"],
        ),
        ("a4.8-fp4", COARSE, &["stage.only.quant.preset=a4.8-fp4"]),
        ("v2-a4", COARSE, &["stage.only.quant.preset=v2-a4"]),
        (
            "3-bit cache, 4-bit queries",
            COARSE,
            &["stage.only.quant.kv_bits=3", "stage.only.quant.q_bits=4"],
        ),
    ];
    for (name, bound, set) in schemes {
        agree(name, &[&base[..], set].concat(), bound);
    }
}

/// Bound for grids of 16 values: one code that falls on the other side of a rounding boundary moves
/// a value by 1/7 of the largest, where INT8 moves it by 1/127.
const COARSE: f64 = 8.0 * TOLERANCE;

fn agree(name: &str, set: &[&str], bound: f64) {
    let dir = tempfile::tempdir().unwrap();
    let folder = trained(dir.path(), set);
    let out = dir.path().join("export");
    export_hf(&folder, &out, DeviceKind::Cpu).unwrap();
    codes_are_those_of_training::<Flex>(name, &folder, &out);
    codes_are_those_of_training::<NdArray>(name, &folder, &out);
    let engine = Engine::load(&out, EngineOptions::exact()).unwrap();
    let diff = max_rel_diff(&folder, &engine, &prompts(), DeviceKind::Cpu).unwrap();
    eprintln!("{name}: {diff:.1e}");
    assert!(diff <= bound, "{name}: {diff:.2e}");
}

/// Every code and scale of an export is what the forward pass of training computes from the master
/// weights.
fn codes_are_those_of_training<B: Kernels>(name: &str, folder: &Path, out: &Path) {
    let config = ModelConfig::read(&folder.join("config.json")).unwrap();
    let quant = config.quant_scheme().map(|scheme| scheme.weights);
    let (masters, packed) = [folder, out]
        .map(|f| TensorFile::open_folder(f).unwrap())
        .into();
    let mut compared = 0;
    for tensor in packed.names() {
        let Some(module) = tensor.strip_suffix(".weight_scale") else {
            continue;
        };
        let weight = format!("{module}.weight");
        let shape: [usize; 2] = masters.info(&weight).unwrap().1.try_into().unwrap();
        let [rows, cols] = shape;
        let master = masters.tensor_f32(&weight, &shape).unwrap();
        let master = Tensor::<B, 2>::from_data(TensorData::new(master, shape), &Default::default());
        let expected = B::quantise_weight(master, quant.unwrap());
        let shape = [packed_rows(rows), cols];
        let codes = unpack(
            packed.bytes(&weight, Dtype::U8, &shape).unwrap(),
            rows,
            cols,
        )
        .unwrap();
        let codes: Vec<f32> = codes.into_iter().map(f32::from).collect();
        assert_eq!(
            to_host(expected.codes.float()),
            codes,
            "{name}: codes of {weight}"
        );
        let shape = packed.info(tensor).unwrap().1.to_vec();
        let scales = packed.tensor_f32(tensor, &shape).unwrap();
        for (a, b) in to_host(expected.scale).iter().zip(&scales) {
            assert!((a - b).abs() <= 1e-6 * b, "{name}: {tensor}: {a} and {b}");
        }
        compared += 1;
    }
    let ternary = quant.is_some_and(|q| q != WeightQuant::None);
    assert_eq!(compared, if ternary { 14 } else { 0 }, "{name}");
}

#[test]
fn the_reference_backend_agrees_with_the_fast_one() {
    let dir = tempfile::tempdir().unwrap();
    let set = ["stage.only.ternary=true", "stage.only.sub_norm=sub_ln"];
    let folder = trained(dir.path(), &set);
    let out = dir.path().join("export");
    export_hf(&folder, &out, DeviceKind::NdArray).unwrap();
    let engine = Engine::load(&out, EngineOptions::exact()).unwrap();
    let diff = max_rel_diff(&folder, &engine, &prompts(), DeviceKind::NdArray).unwrap();
    assert!(diff <= TOLERANCE, "{diff:.2e}");
}
