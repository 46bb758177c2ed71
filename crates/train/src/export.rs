//! Export: packed ternary weights, or master weights, in a Hugging Face folder.

use std::collections::BTreeMap;
use std::path::Path;

use burn::backend::Flex;
use serde_json::json;
use tritburn_data::Tokenizer;
use tritburn_nn::CausalLm;
use tritburn_nn::folder::FolderSource;
use tritburn_nn::gguf::GgufSource;
use tritburn_nn::linear::BitLinear;
use tritburn_nn::ops::Kernels;
use tritburn_nn::weights::{WeightSource as _, host_weights, to_host};
use tritburn_quant::Dtype;
use tritburn_quant::config::{LinearClass, ModelConfig, QuantizationConfig, QuantizationMode};
use tritburn_quant::fs::write_atomic;
use tritburn_quant::hf_pack;
use tritburn_quant::scheme::{Granularity, WeightQuant};
use tritburn_quant::tensor_file::{NamedTensor, TensorFile, write_safetensors};

use crate::error::{Result, TrainError};
use crate::run::replace_dir;

struct Packed {
    shape: Vec<usize>,
    dtype: Dtype,
    bytes: Vec<u8>,
}

impl Packed {
    fn named<'a>(&'a self, name: &'a str) -> NamedTensor<'a> {
        (name, self.dtype, &self.shape, &self.bytes)
    }
}

fn f32_tensor(shape: &[usize], data: &[f32]) -> Packed {
    let bytes = data.iter().flat_map(|x| x.to_le_bytes()).collect();
    Packed {
        shape: shape.to_vec(),
        dtype: Dtype::F32,
        bytes,
    }
}

/// See [`crate::export_hf`].
pub(crate) fn export_hf<B: Kernels>(folder: &Path, out: &Path, device: &B::Device) -> Result<()> {
    let mut config = ModelConfig::read(&folder.join("config.json"))?;
    if let Some(q) = &mut config.quantization_config {
        if q.quantization_mode == QuantizationMode::Offline {
            return Err(TrainError::Resume {
                path: folder.to_path_buf(),
                message: "is packed already; export the run it came from".into(),
            });
        }
        q.quantization_mode = QuantizationMode::Offline;
    }
    if config
        .quant_scheme()
        .is_some_and(|s| s.weights == WeightQuant::None)
    {
        config.set_quant(config.quant_scheme(), QuantizationMode::Online);
    }
    let biased = config.qkv_bias() || config.o_bias();
    let tokenizer = Tokenizer::load(folder)?;
    let model = CausalLm::<B>::new(&config, &mut FolderSource::open(folder)?, device)?;
    let mut tensors = packed_tensors(&model)?;
    // transformers multiplies the bias by the scale too in the one class, and not in the other.
    let offline = |q: &&mut QuantizationConfig| q.quantization_mode == QuantizationMode::Offline;
    if let Some(q) = config.quantization_config.as_mut().filter(offline)
        && biased
    {
        q.linear_class = LinearClass::BitLinear;
        invert_scales(&mut tensors);
    }
    let named: Vec<NamedTensor<'_>> = tensors.iter().map(|(name, t)| t.named(name)).collect();
    write_folder(out, &config, &tokenizer, &named, None, || Ok(()))
}

/// Writes the master weights of `folder` to `out`, to go on training elsewhere: the tensors as they
/// are stored, and a `config.json` that has them quantised in the forward pass
/// (`quantization_mode: online`) where the model is ternary.
///
/// # Errors
/// Where the folder is malformed or packed, which leaves no master weights, or `out` cannot be
/// written.
pub fn export_latent(folder: &Path, out: &Path) -> Result<()> {
    let config = ModelConfig::read(&folder.join("config.json"))?;
    let packed = config
        .quantization_config
        .as_ref()
        .is_some_and(|q| q.quantization_mode == QuantizationMode::Offline);
    if packed {
        return Err(TrainError::Resume {
            path: folder.to_path_buf(),
            message: "is packed and has no master weights any more; export the run it came from"
                .into(),
        });
    }
    let tokenizer = Tokenizer::load(folder)?;
    let file = TensorFile::open_folder(folder)?;
    let named = file.names().into_iter().map(|name| {
        // Every listed name has an entry.
        let (dtype, shape) = file.info(name).unwrap_or((Dtype::F32, &[]));
        Ok((name, dtype, shape, file.bytes(name, dtype, shape)?))
    });
    let named: Vec<NamedTensor<'_>> = named.collect::<Result<_>>()?;
    let unchanged = || Ok(file.check_unchanged()?);
    write_folder(out, &config, &tokenizer, &named, None, unchanged)
}

/// Writes the model of a GGUF file to `out` as a folder in full precision, to train it or to go on
/// elsewhere: every tensor in f32, whatever its type in the file, with its tokenizer and chat
/// template.
///
/// # Errors
/// Where the file is malformed, has ternary weights or no tokenizer, or `out` cannot be written.
pub fn import_gguf(file: &Path, out: &Path) -> Result<()> {
    let mut source = GgufSource::open(file)?;
    let config = source.config().clone();
    let refused = |message: &str| TrainError::Resume {
        path: file.to_path_buf(),
        message: message.into(),
    };
    if config.is_ternary() {
        return Err(refused(
            "holds ternary weights, which have no master weights any more; export the run it came \
             from",
        ));
    }
    let Some([json, special]) = tritburn_engine::gguf_tokenizer(file)? else {
        return Err(refused("holds no tokenizer, which a model folder needs"));
    };
    let tokenizer = Tokenizer::from_json(json, &special, file)?;
    let model = CausalLm::<Flex>::new(&config, &mut source, &Default::default())?;
    let weights = host_weights(&model);
    drop(model);
    let packed = weights
        .iter()
        .map(|(name, t)| (name, f32_tensor(&t.shape, &t.data)));
    let packed: BTreeMap<&String, Packed> = packed.collect();
    let named: Vec<NamedTensor<'_>> = packed.iter().map(|(name, t)| t.named(name)).collect();
    let template = source.chat_template()?;
    write_folder(out, &config, &tokenizer, &named, template, || {
        Ok(source.finish()?)
    })
}

/// Replaces `out`, a model folder or nothing yet, as a whole, if what was written is `unchanged` at the end.
fn write_folder(
    out: &Path,
    config: &ModelConfig,
    tokenizer: &Tokenizer,
    tensors: &[NamedTensor<'_>],
    chat_template: Option<&str>,
    unchanged: impl FnOnce() -> Result<()>,
) -> Result<()> {
    if let Some(parent) = out.parent().filter(|p| !p.as_os_str().is_empty()) {
        std::fs::create_dir_all(parent).map_err(|source| TrainError::Io {
            path: parent.to_path_buf(),
            source,
        })?;
    }
    if out.exists() && !out.join("config.json").exists() && !is_empty_dir(out) {
        return Err(TrainError::Resume {
            path: out.to_path_buf(),
            message: "holds other files than a model; choose another folder".into(),
        });
    }
    replace_dir(out, |aside| {
        let metadata = BTreeMap::from([("format".to_owned(), "pt".to_owned())]);
        write_safetensors(&aside.join("model.safetensors"), tensors, &metadata)?;
        write_configs(aside, config)?;
        tokenizer.save(aside, config.max_position_embeddings)?;
        if let Some(template) = chat_template {
            write_atomic(&aside.join("chat_template.jinja"), template.as_bytes())?;
        }
        unchanged()
    })
}

/// Turns factors into divisors, which `bitlinear` stores.
fn invert_scales(tensors: &mut BTreeMap<String, Packed>) {
    let scales = tensors
        .iter_mut()
        .filter(|(name, _)| name.ends_with(".weight_scale"));
    for scale in scales.flat_map(|(_, t)| t.bytes.as_chunks_mut().0) {
        *scale = (1.0 / f32::from_le_bytes(*scale)).to_le_bytes();
    }
}

fn is_empty_dir(path: &Path) -> bool {
    std::fs::read_dir(path).is_ok_and(|mut d| d.next().is_none())
}

fn packed_tensors<B: Kernels>(model: &CausalLm<B>) -> Result<BTreeMap<String, Packed>> {
    let mut out: BTreeMap<String, Packed> = host_weights(model)
        .iter()
        .map(|(name, t)| (name.clone(), f32_tensor(&t.shape, &t.data)))
        .collect();
    for (i, layer) in model.model.layers.iter().enumerate() {
        let (a, m) = (&layer.self_attn, &layer.mlp);
        for (name, linear) in [
            ("self_attn.q_proj", &a.q_proj),
            ("self_attn.k_proj", &a.k_proj),
            ("self_attn.v_proj", &a.v_proj),
            ("self_attn.o_proj", &a.o_proj),
            ("mlp.gate_proj", &m.gate_proj),
            ("mlp.up_proj", &m.up_proj),
            ("mlp.down_proj", &m.down_proj),
        ] {
            if let Some((codes, scale)) = pack(linear)? {
                out.insert(format!("model.layers.{i}.{name}.weight"), codes);
                out.insert(format!("model.layers.{i}.{name}.weight_scale"), scale);
            }
        }
    }
    Ok(out)
}

fn pack<B: Kernels>(linear: &BitLinear<B>) -> Result<Option<(Packed, Packed)>> {
    let Some(weight) = linear.weight_codes() else {
        return Ok(None);
    };
    let [rows, cols] = weight.codes.dims();
    #[allow(clippy::cast_possible_truncation)]
    let codes: Vec<i8> = to_host(weight.codes.float())
        .iter()
        .map(|&c| c as i8)
        .collect();
    let bytes = hf_pack::pack(&codes, rows, cols)?;
    let shape = vec![hf_pack::packed_rows(rows), cols];
    let packed = Packed {
        shape,
        dtype: Dtype::U8,
        bytes,
    };
    let [rows, groups] = weight.scale.dims();
    let shape: &[usize] = match linear.granularity() {
        Some(Granularity::Group(_)) => &[rows, groups],
        _ => &[rows],
    };
    Ok(Some((packed, f32_tensor(shape, &to_host(weight.scale)))))
}

/// `config.json` and `generation_config.json`.
pub(crate) fn write_configs(folder: &Path, config: &ModelConfig) -> Result<()> {
    let write = |name: &str, value: &serde_json::Value| -> Result<()> {
        let mut text = serde_json::to_vec_pretty(value).unwrap_or_default();
        text.push(b'\n');
        Ok(write_atomic(&folder.join(name), &text)?)
    };
    let mut value = serde_json::to_value(config).map_err(|e| TrainError::Resume {
        path: folder.to_path_buf(),
        message: e.to_string(),
    })?;
    value["torch_dtype"] = json!("float32");
    write("config.json", &value)?;
    let generation = json!({
        "bos_token_id": config.bos_token_id,
        "eos_token_id": config.eos_token_id,
        "pad_token_id": config.pad_token_id,
    });
    write("generation_config.json", &generation)
}
