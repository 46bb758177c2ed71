//! A loaded model.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use serde_json::Value;
use tritburn_kernels::kv::KvFormat;
use tritburn_kernels::{Exec, Format, Numa};
use tritburn_quant::config::ModelConfig;
use tritburn_quant::gguf::GgufModel;
use tritburn_quant::tensor_file::TensorFile;

use crate::chat::{ChatMessage, ChatTemplate};
use crate::error::{EngineError, Result};
use crate::gguf::GgufSource;
use crate::model::{FileSource, HeadFormat, Model, RandomSource, Sparsity, WeightFormats, build};
use crate::session::Session;
use crate::tokenizer::{TextTokenizer, read_json};

/// How to run a model.
#[derive(Debug, Clone, Default)]
pub struct EngineOptions {
    /// Threads to compute with; `None` takes one for each core, of those nodes that `numa` chooses.
    pub threads: Option<usize>,
    /// Where threads run, and with them where weights lie that they load. Unless it is off, threads
    /// that call the engine are bound too, and stay so ([`tritburn_kernels::Pool::placed`]).
    pub numa: Numa,
    /// Kernel by name ([`tritburn_kernels::available`]); `None` takes `TRITBURN_KERNEL`, else the
    /// best.
    pub kernel: Option<String>,
    /// How ternary weights are packed when they are loaded; two bits by default.
    pub format: Format,
    /// How output head and embedding are stored when they are loaded. `None` takes six bits for a
    /// model with ternary projections, whose logits then differ by at most 2% of the largest from those
    /// of [`Self::exact`] on the golden models, and f32 for a model in full precision.
    pub head: Option<HeadFormat>,
    /// Whether decoding leaves out what zeros make needless; decided when weights are loaded. No
    /// result depends on it.
    pub sparsity: Sparsity,
    /// How keys and values are stored. `None` takes the bits that the model was trained with, else
    /// f16 for a model with ternary projections and f32 for a model in full precision.
    pub kv: Option<KvFormat>,
}

impl EngineOptions {
    /// Nothing but the projections' own quantisation: head, embedding, keys and values in f32. For
    /// comparisons with the trained model.
    #[must_use]
    pub fn exact() -> Self {
        Self {
            head: Some(HeadFormat::F32),
            kv: Some(KvFormat::F32),
            ..Self::default()
        }
    }
}

/// What an engine runs with, for logs and reports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EngineInfo {
    /// Bytes that all weight matrices take in memory.
    pub weights_bytes: usize,
    /// `ternary-2bit` or `ternary-base3`, or `f32` where no projection is ternary.
    pub format: &'static str,
    /// How output head and embedding are stored.
    pub head: HeadFormat,
    /// How keys and values are stored.
    pub kv: KvFormat,
    /// Name of the kernel.
    pub kernel: &'static str,
    /// Threads that compute.
    pub threads: usize,
    /// Numbers of the NUMA nodes that they are bound to; empty where none is.
    pub nodes: Vec<usize>,
}

/// What sessions and engine share.
#[derive(Debug)]
pub(crate) struct Core {
    pub(crate) model: Arc<Model>,
    pub(crate) exec: Exec,
    pub(crate) kv: KvFormat,
}

impl Core {
    fn new(model: Arc<Model>, exec: Exec, options: &EngineOptions) -> Arc<Self> {
        let trained = model.config.quant_scheme().and_then(|s| s.kv_bits);
        let kv = options.kv.unwrap_or(match trained {
            Some(3) => KvFormat::Int3,
            Some(4) => KvFormat::Int4,
            Some(8) => KvFormat::Int8,
            _ if model.is_ternary() => KvFormat::F16,
            _ => KvFormat::F32,
        });
        Arc::new(Self { model, exec, kv })
    }
}

/// A model with its tokenizer, ready to answer. Shared by reference among threads.
#[derive(Debug)]
pub struct Engine {
    pub(crate) core: Arc<Core>,
    pub(crate) eos: BTreeSet<u32>,
    tokenizer: Option<TextTokenizer>,
    chat_template: ChatTemplate,
}

impl Engine {
    /// Loads a GGUF file, or a Hugging Face folder: `config.json`, `model.safetensors` or shards, and where they
    /// exist `tokenizer.json`, `tokenizer_config.json`, `chat_template.jinja` and
    /// `generation_config.json`.
    ///
    /// Projections are dense where `config.json` has no `quantization_config`, unpacked from
    /// uint8 where it says `offline`, and quantised from master weights where it says `online`. In a
    /// GGUF file those of a ternary type are ternary and all others become dense.
    ///
    /// # Errors
    /// [`EngineError`] that names file, field or tensor, and the remedy.
    pub fn load(path: &Path, options: EngineOptions) -> Result<Self> {
        let engine = if path.is_file() {
            Self::load_gguf(path, &options)?
        } else {
            Self::load_folder(path, &options)?
        };
        let info = engine.info();
        tracing::info!(
            kernel = info.kernel,
            threads = info.threads,
            nodes = ?info.nodes,
            format = info.format,
            weights_bytes = info.weights_bytes,
            "loaded {}",
            path.display()
        );
        Ok(engine)
    }

    fn load_folder(folder: &Path, options: &EngineOptions) -> Result<Self> {
        let config_path = folder.join("config.json");
        let config = ModelConfig::read(&config_path)?;
        let tokenizer = TextTokenizer::load(folder, config.vocab_size)?;
        let chat_template = ChatTemplate::load(folder)?;
        let file = TensorFile::open_folder(folder)?;
        let exec = start(options)?;
        let mut source = FileSource::new(&file, &exec.pool);
        let model = build(
            &config,
            &mut source,
            &WeightFormats::of(&config, options, exec.kernel),
        );
        // What a file that changed meanwhile makes of a model says nothing.
        file.check_unchanged()?;
        let model = model?;
        source.check_all_used(config.tie_word_embeddings)?;
        let mut eos: BTreeSet<u32> = config.eos_token_id.into_iter().collect();
        for path in [config_path, folder.join("generation_config.json")] {
            if path.exists() {
                eos.extend(eos_ids(&read_json(&path)?));
            }
        }
        Ok(Self {
            core: Core::new(Arc::new(model), exec, options),
            eos,
            tokenizer,
            chat_template,
        })
    }

    fn load_gguf(path: &Path, options: &EngineOptions) -> Result<Self> {
        let stored = GgufModel::open(path)?;
        let (file, config) = (stored.file(), stored.config());
        let tokenizer = TextTokenizer::of_gguf(file, config.vocab_size)?;
        let chat_template = ChatTemplate::of_gguf(file)?;
        let mut eos: BTreeSet<u32> = config.eos_token_id.into_iter().collect();
        // The end of a turn, where it is not the end of the text.
        let turn = file.int("tokenizer.ggml.eot_token_id")?;
        eos.extend(turn.and_then(|id| u32::try_from(id).ok()));
        let exec = start(options)?;
        let mut source = GgufSource::new(&stored, &exec.pool);
        let model = build(
            config,
            &mut source,
            &WeightFormats::of(config, options, exec.kernel),
        );
        file.check_unchanged()?;
        let model = model?;
        source.check_all_used()?;
        Ok(Self {
            core: Core::new(Arc::new(model), exec, options),
            eos,
            tokenizer,
            chat_template,
        })
    }

    /// A model of the shape of `config` with weights drawn from `seed`, to measure speed with. It
    /// has no tokenizer.
    ///
    /// # Errors
    /// [`EngineError::Bench`] where the configuration is not valid, otherwise as [`Self::load`].
    pub fn random(config: &ModelConfig, seed: u64, options: EngineOptions) -> Result<Self> {
        let problems = config.problems();
        if !problems.is_empty() {
            return Err(EngineError::Bench(problems.join("; ")));
        }
        let exec = start(&options)?;
        let mut source = RandomSource::new(seed, &exec.pool);
        let model = build(
            config,
            &mut source,
            &WeightFormats::of(config, &options, exec.kernel),
        )?;
        Ok(Self {
            core: Core::new(Arc::new(model), exec, &options),
            eos: config.eos_token_id.into_iter().collect(),
            tokenizer: None,
            chat_template: ChatTemplate::default(),
        })
    }

    /// The same weights, in the formats that they have, with other threads, another kernel or
    /// another cache.
    ///
    /// # Errors
    /// [`EngineError::Kernel`] or [`EngineError::Parameter`].
    pub fn with_options(&self, options: &EngineOptions) -> Result<Self> {
        let exec = start(options)?;
        Ok(Self {
            core: Core::new(Arc::clone(&self.core.model), exec, options),
            eos: self.eos.clone(),
            tokenizer: self.tokenizer.clone(),
            chat_template: self.chat_template.clone(),
        })
    }

    /// The model's configuration.
    #[must_use]
    pub fn config(&self) -> &ModelConfig {
        &self.core.model.config
    }

    /// The tokenizer, where the folder has one.
    #[must_use]
    pub fn tokenizer(&self) -> Option<&TextTokenizer> {
        self.tokenizer.as_ref()
    }

    /// Tokens that end a text.
    #[must_use]
    pub fn eos_token_ids(&self) -> Vec<u32> {
        self.eos.iter().copied().collect()
    }

    /// What the engine runs with.
    #[must_use]
    pub fn info(&self) -> EngineInfo {
        EngineInfo {
            weights_bytes: self.core.model.weights_bytes(),
            format: self.core.model.format(),
            head: self.core.model.head_format(),
            kv: self.core.kv,
            kernel: self.core.exec.kernel.name(),
            threads: self.core.exec.threads(),
            nodes: self.core.exec.pool.nodes().to_vec(),
        }
    }

    /// An empty context for up to `max_len` tokens, at most `max_position_embeddings`. Memory
    /// grows with the tokens that it holds.
    #[must_use]
    pub fn new_session(&self, max_len: usize) -> Session {
        let max_len = max_len.min(self.config().max_position_embeddings);
        Session::new(Arc::clone(&self.core), max_len)
    }

    /// Tokens of a text, with the tokens that start a document where `add_special_tokens`.
    ///
    /// # Errors
    /// [`EngineError::NoTokenizer`] or [`EngineError::Encode`].
    pub fn encode(&self, text: &str, add_special_tokens: bool) -> Result<Vec<u32>> {
        let tokenizer = self.tokenizer.as_ref().ok_or(EngineError::NoTokenizer)?;
        tokenizer.encode(text, add_special_tokens)
    }

    /// The text of a conversation up to where the assistant's turn begins.
    ///
    /// # Errors
    /// [`EngineError::ChatTemplate`] where the template refuses the messages.
    pub fn render_chat(&self, messages: &[ChatMessage]) -> Result<String> {
        self.chat_template.render(messages)
    }

    /// Tokens of [`Self::render_chat`].
    ///
    /// # Errors
    /// As [`Self::render_chat`] and [`Self::encode`].
    pub fn encode_chat(&self, messages: &[ChatMessage]) -> Result<Vec<u32>> {
        let text = self.chat_template.render(messages)?;
        // A template writes the special tokens itself.
        self.encode(&text, !self.chat_template.is_given())
    }
}

/// Kernel and threads of `options`.
pub(crate) fn start(options: &EngineOptions) -> Result<Exec> {
    if options.threads == Some(0) {
        return Err(EngineError::Parameter {
            field: "threads",
            value: "0".into(),
            expected: "at least one thread is needed",
        });
    }
    let kernel = options.kernel.as_deref();
    Ok(Exec::placed(kernel, options.threads, options.numa)?)
}

/// `eos_token_id`, a number or a list of them.
fn eos_ids(json: &Value) -> Vec<u32> {
    let id = |v: &Value| v.as_u64().and_then(|v| u32::try_from(v).ok());
    match json.get("eos_token_id") {
        Some(Value::Array(ids)) => ids.iter().filter_map(id).collect(),
        Some(v) => id(v).into_iter().collect(),
        None => Vec::new(),
    }
}
