//! Files by themselves, before there is a model.

use std::hint::black_box;
use std::path::Path;

use tritburn_quant::config::{DitConfig, ModelConfig, QuantizationMode, SubNorm};
use tritburn_quant::gguf::{GgufFile, GgufModel};
use tritburn_quant::tensor_file::TensorFile;

/// Layers that are asked for; a file may say that it has thousands, all alike.
const LAYERS: usize = 3;
/// Bytes that one question may make a config allocate.
const MOST: usize = 1 << 24;

pub(crate) fn safetensors(path: &Path) {
    let Ok(file) = TensorFile::open(path) else {
        return;
    };
    let _ = black_box(file.metadata());
    for name in file.names() {
        let (dtype, shape) = file.info(name).expect("a tensor that is listed");
        let shape = shape.to_vec();
        file.bytes(name, dtype, &shape)
            .expect("the tensor that was described");
        let _ = black_box(file.tensor_f32(name, &shape));
        let _ = black_box(file.floats(name, &[1]));
        assert!(file.path_of(name) == path && file.contains(name));
    }
    let _ = black_box(file.left_over(&Default::default(), true));
    file.check_unchanged().expect("nobody writes");
}

pub(crate) fn gguf(path: &Path) {
    let Ok(file) = GgufFile::open(path) else {
        return;
    };
    for key in file.metadata().keys() {
        let _ = black_box((file.int(key), file.float(key), file.flag(key)));
        let _ = black_box((file.text(key), file.texts(key)));
        let _ = black_box((file.ints(key), file.floats(key)));
    }
    for name in file.names() {
        file.tensor(name).expect("a tensor that is listed");
    }
    let _ = black_box(tritburn_engine::gguf_tokenizer(path));
    let Ok(model) = GgufModel::open(path) else {
        return;
    };
    ask(model.config());
    for name in names(model.config()) {
        let stored = model.name_of(&name);
        let Some(info) = stored.and_then(|stored| model.file().tensor(&stored)) else {
            continue;
        };
        let shape = info.shape.clone();
        let _ = black_box(model.tensor_f32(&name, &shape));
        if let [rows, cols] = shape[..] {
            let _ = black_box(model.ternary(&name, rows, cols));
        }
    }
    let _ = black_box(model.unused(|_| false));
}

/// What Hugging Face calls the tensors of the first layers.
fn names(config: &ModelConfig) -> Vec<String> {
    let mut all: Vec<String> = ["embed_tokens", "norm"]
        .map(|n| format!("model.{n}.weight"))
        .into();
    all.push("lm_head.weight".into());
    for i in 0..config.num_hidden_layers.min(LAYERS) {
        let [attn, ffn] = config.sub_norm_names();
        let heads = ["q", "k", "v", "o"].map(|p| format!("self_attn.{p}_proj"));
        let gates = ["gate", "up", "down"].map(|p| format!("mlp.{p}_proj"));
        let norms = ["input_layernorm", "post_attention_layernorm", attn, ffn];
        let norms = norms.map(str::to_owned);
        for module in heads.iter().chain(&gates).chain(&norms) {
            for part in ["weight", "bias"] {
                all.push(format!("model.layers.{i}.{module}.{part}"));
            }
        }
    }
    all
}

pub(crate) fn config(path: &Path) {
    if let Ok(config) = ModelConfig::read(path) {
        ask(&config);
        let mut changed = config.clone();
        changed.normalise();
        ask(&changed);
        for sub_norm in [SubNorm::None, SubNorm::SubLn, SubNorm::All] {
            changed.set_sub_norm(sub_norm);
            assert_eq!(changed.sub_norm(), sub_norm);
        }
        changed.set_quant(config.quant_scheme(), QuantizationMode::Offline);
        assert_eq!(changed.quant_scheme(), config.quant_scheme());
    }
    if let Ok(config) = DitConfig::read(path) {
        let _ = black_box((config.patches(), config.patch_pixels(), config.to_json()));
        let _ = black_box(config.backbone().problems());
    }
}

/// All that a forward pass or a writer asks.
fn ask(c: &ModelConfig) {
    let _ = black_box((
        c.head_dim(),
        c.q_dim(),
        c.kv_dim(),
        c.qkv_bias(),
        c.o_bias(),
    ));
    let _ = black_box((c.qk_norm(), c.norm_offset(), c.post_norms(), c.is_ternary()));
    let _ = black_box((c.embed_scale(), c.attention_scale(), c.projection_norm()));
    for i in 0..c.num_hidden_layers.min(LAYERS) {
        let _ = black_box((c.layer_window(i), c.layer_rope_theta(i)));
        // As a model does, after tensors of this width were found in its file.
        if c.head_dim() <= MOST {
            let angles = c.layer_inv_freq(i);
            assert_eq!(angles.len(), c.head_dim() / 2);
        }
    }
    if let Some(quantization) = &c.quantization_config {
        let _ = black_box(quantization.excludes("model.layers.0.mlp.up_proj"));
    }
    assert!(c.problems().is_empty(), "it was read without complaint");
}
