//! Documents that share a row do not see each other.
#![allow(clippy::unwrap_used, missing_docs)]

use burn::backend::{Flex, NdArray};
use burn::tensor::{Int, Tensor, TensorData};
use tritburn_nn::CausalLm;
use tritburn_nn::model::Tokens;
use tritburn_nn::ops::{Kernels, Ops};
use tritburn_nn::weights::{RandomInit, to_host};
use tritburn_quant::config::ModelConfig;

const WIDTH: usize = 32;

fn model<B: Kernels + Ops>(model_type: &str) -> CausalLm<B> {
    let mut config = serde_json::json!({
        "model_type": model_type, "hidden_size": WIDTH, "intermediate_size": 48,
        "num_hidden_layers": 3, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8,
        "vocab_size": 40, "max_position_embeddings": 32, "hidden_act": "silu",
        "tie_word_embeddings": true,
    });
    if model_type == "gemma3_text" {
        config["hidden_activation"] = "gelu_pytorch_tanh".into();
        config["sliding_window"] = 4.into();
        config["query_pre_attn_scalar"] = 8.into();
    }
    let config: ModelConfig = serde_json::from_value(config).unwrap();
    assert!(config.problems().is_empty(), "{:?}", config.problems());
    CausalLm::new(
        &config,
        &mut RandomInit::new(3, 0.3, 3),
        &Default::default(),
    )
    .unwrap()
}

fn hidden<B: Kernels + Ops>(model: &CausalLm<B>, row: &[i32], starts: Option<&[i32]>) -> Vec<f32> {
    let tensor = |values: &[i32]| {
        let data = TensorData::new(values.to_vec(), [1, values.len()]);
        Tensor::<B, 2, Int>::from_data(data, &Default::default())
    };
    let tokens = Tokens {
        ids: tensor(row),
        starts: starts.map(tensor),
    };
    to_host(model.forward(tokens, &[]).hidden)
}

fn packed_is_as_good_as_alone<B: Kernels + Ops>(model_type: &str) {
    let model = model::<B>(model_type);
    let documents: [&[i32]; 3] = [&[1, 5, 9, 2, 7], &[3], &[8, 8, 30, 21, 2, 39, 11]];
    let row = documents.concat();
    let first = |at: usize| documents[..at].iter().map(|d| d.len() as i32).sum::<i32>();
    let starts: Vec<i32> = (0..3)
        .flat_map(|d| vec![first(d); documents[d].len()])
        .collect();
    let close = |a: &[f32], b: &[f32]| {
        assert_eq!(a.len(), b.len());
        a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-4)
    };
    let packed = hidden(&model, &row, Some(&starts));
    let alone: Vec<f32> = documents
        .iter()
        .flat_map(|d| hidden(&model, d, None))
        .collect();
    assert!(close(&packed, &alone), "{model_type}");
    let seen = hidden(&model, &row, None);
    let of_first = documents[0].len() * WIDTH;
    assert!(close(&seen[..of_first], &alone[..of_first]), "{model_type}");
    assert!(
        !close(&seen[of_first..], &alone[of_first..]),
        "{model_type}"
    );
}

#[test]
fn on_flex() {
    packed_is_as_good_as_alone::<Flex>("llama");
    packed_is_as_good_as_alone::<Flex>("gemma3_text");
}

#[test]
fn on_ndarray() {
    packed_is_as_good_as_alone::<NdArray>("llama");
    packed_is_as_good_as_alone::<NdArray>("gemma3_text");
}
