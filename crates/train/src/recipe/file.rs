//! The recipe file as written: strict keys, defaults for what may be left out.

use serde::{Deserialize, Serialize};
use tritburn_data::TaskConfig;
use tritburn_data::stream::StreamConfig;
use tritburn_nn::ops::{Compute, Kernels};
use tritburn_quant::config::{HiddenAct, SubNorm};
use tritburn_quant::scheme::{ActQuant, Preset, QuantScheme, WeightQuant};

use crate::schedule::{LambdaSchedule, Schedule};

/// A whole recipe.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RecipeFile {
    /// Names the run directory.
    pub name: String,
    /// Seed of initialisation and data order.
    pub seed: u64,
    /// Architecture, or a folder to start from.
    pub model: ModelSection,
    /// Vocabulary.
    pub tokenizer: TokenizerSection,
    /// Where data lies.
    pub data: DataSection,
    /// The task of `sft` and `distill` stages.
    pub task: TaskConfig,
    /// Logging, evaluation and checkpoints.
    pub train: TrainSection,
    /// What is trained, in order.
    pub stage: Vec<StageSection>,
}

impl Default for RecipeFile {
    fn default() -> Self {
        Self {
            name: String::new(),
            seed: 42,
            model: ModelSection::default(),
            tokenizer: TokenizerSection::default(),
            data: DataSection::default(),
            task: TaskConfig {
                name: "mnli".into(),
                ..TaskConfig::default()
            },
            train: TrainSection::default(),
            stage: Vec::new(),
        }
    }
}

/// `[model]`: a from-scratch Llama, unless `path` names a folder.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ModelSection {
    /// Hugging Face folder to start from; empty to start from scratch.
    pub path: String,
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Width of the feed-forward block.
    pub intermediate_size: usize,
    /// Blocks.
    pub num_hidden_layers: usize,
    /// Query heads.
    pub num_attention_heads: usize,
    /// Key and value heads.
    pub num_key_value_heads: usize,
    /// Longest sequence.
    pub max_position_embeddings: usize,
    /// Gate activation.
    pub hidden_act: HiddenAct,
    /// Base of the rotary embedding.
    pub rope_theta: f64,
    /// Epsilon of every norm.
    pub rms_norm_eps: f64,
    /// Whether the head is the embedding.
    pub tie_word_embeddings: bool,
    /// Standard deviation of the initial weights.
    pub init_std: f32,
}

impl Default for ModelSection {
    fn default() -> Self {
        Self {
            path: String::new(),
            hidden_size: 128,
            intermediate_size: 384,
            num_hidden_layers: 4,
            num_attention_heads: 4,
            num_key_value_heads: 2,
            max_position_embeddings: 256,
            hidden_act: HiddenAct::Silu,
            rope_theta: 10_000.0,
            rms_norm_eps: 1e-6,
            tie_word_embeddings: true,
            init_std: 0.02,
        }
    }
}

/// `[tokenizer]`: a byte-level BPE trained on the data, unless `path` names one.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TokenizerSection {
    /// `tokenizer.json` or a folder with one; empty to train, or to take the model folder's.
    pub path: String,
    /// Tokens of a trained vocabulary.
    pub vocab_size: usize,
}

impl Default for TokenizerSection {
    fn default() -> Self {
        Self {
            path: String::new(),
            vocab_size: 512,
        }
    }
}

/// `[data]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DataSection {
    /// Folder of the task's parquet files.
    pub dir: String,
    /// Folder of the corpus for `lm` stages.
    pub corpus: String,
    /// Text column of the corpus; `content` or `text` where empty.
    pub corpus_column: String,
    /// Corpus bytes read at the most; of a streamed corpus, for the tokenizer.
    pub corpus_bytes: usize,
    /// Longest task example in tokens.
    pub max_length: usize,
    /// Training rows read at the most; 0 for all.
    pub train_rows: usize,
    /// Batches are padded to a multiple of this.
    pub pad_multiple: usize,
    /// How to stream a corpus that does not fit into memory; held in memory where absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stream: Option<StreamConfig>,
}

impl Default for DataSection {
    fn default() -> Self {
        Self {
            dir: String::new(),
            corpus: String::new(),
            corpus_column: String::new(),
            corpus_bytes: 64 << 20,
            max_length: 128,
            train_rows: 0,
            pad_multiple: 8,
            stream: None,
        }
    }
}

/// `[train]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TrainSection {
    /// Steps between lines in `metrics.jsonl`.
    pub log_every: usize,
    /// Steps between evaluations; 0 for the end of a stage only.
    pub eval_every: usize,
    /// Validation rows of an evaluation inside the loop.
    pub eval_rows: usize,
    /// Steps between checkpoints; 0 for none.
    pub save_every: usize,
    /// Checkpoints kept, beside the best of each stage.
    pub keep: usize,
    /// Whether a stage ends with the weights of its best evaluation instead of its last.
    pub load_best: bool,
    /// How products with weights in full precision are computed: `f32`, `bf16`, or `auto` for what
    /// the device does fastest. Master weights and moments are in f32 always.
    pub compute: ComputeChoice,
    /// Whether blocks keep their input alone for the backward pass, in which they run again: memory
    /// for activations of one block instead of all, for a third more arithmetic.
    pub checkpoint_activations: bool,
}

/// `train.compute`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ComputeChoice {
    /// bf16 where the device multiplies it on tensor cores, else f32.
    #[default]
    Auto,
    /// f32 operands.
    F32,
    /// Operands rounded to bf16, sums in f32.
    Bf16,
}

impl ComputeChoice {
    /// What it means on a device.
    #[must_use]
    pub fn on<B: Kernels>(self, device: &B::Device) -> Compute {
        match self {
            Self::Auto => B::fastest_compute(device),
            Self::F32 => Compute::F32,
            Self::Bf16 => Compute::Bf16,
        }
    }
}

impl Default for TrainSection {
    fn default() -> Self {
        Self {
            log_every: 10,
            eval_every: 0,
            eval_rows: 200,
            save_every: 200,
            keep: 2,
            load_best: false,
            compute: ComputeChoice::Auto,
            checkpoint_activations: false,
        }
    }
}

/// What a stage minimises.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StageKind {
    /// Language modelling on the corpus; where `distill.teacher` is set, under that teacher too.
    Lm,
    /// Cross-entropy of the task's answers.
    Sft,
    /// Cross-entropy, logits KD and relation KD against a teacher.
    Distill,
}

/// What the weights of norms start at that a stage puts in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NormInit {
    /// One, as in BitDistill.
    #[default]
    One,
    /// The size that their input typically has in the source, so that the model changes little.
    Calibrated,
}

/// One `[[stage]]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct StageSection {
    /// Names the stage's folder.
    pub name: String,
    /// What it minimises.
    pub kind: StageKind,
    /// Stage whose weights it starts from; `init` for the model section's; or a path (with a `/`) to
    /// the folder of a model with the same vocabulary.
    pub from: String,
    /// Whether projections are quantised.
    pub ternary: bool,
    /// Norm layout; that of the source where absent. Another one is SubLN surgery.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sub_norm: Option<SubNorm>,
    /// What the weights of new norms start at.
    pub norm_init: NormInit,
    /// Whether the optimiser goes on with the moments that `from` ended with, as BitNet a4.8 does
    /// between its two stages.
    pub keep_optimizer: bool,
    /// Optimiser steps.
    pub steps: usize,
    /// Rows of a micro-batch.
    pub batch_size: usize,
    /// Micro-batches of a step.
    pub grad_accum: usize,
    /// Tokens of a row in `lm` stages.
    pub seq_len: usize,
    /// Peak learning rate.
    pub lr: f64,
    /// Steps of linear warm-up.
    pub warmup: usize,
    /// Shape of the learning rate after warm-up.
    pub schedule: Schedule,
    /// Decoupled weight decay on matrices.
    pub weight_decay: f64,
    /// AdamW's betas.
    pub betas: [f64; 2],
    /// AdamW's epsilon.
    pub eps: f64,
    /// Decay of a running average of the weights, which is measured and written in their place; 0 for
    /// none.
    pub ema: f64,
    /// Global gradient norm is clipped to this; 0 for no clipping.
    pub clip: f64,
    /// How projections are quantised, where not as in BitNet b1.58.
    pub quant: QuantSection,
    /// Distillation terms.
    pub distill: DistillSection,
}

impl Default for StageSection {
    fn default() -> Self {
        Self {
            name: String::new(),
            kind: StageKind::Sft,
            from: "init".into(),
            ternary: false,
            sub_norm: None,
            norm_init: NormInit::One,
            keep_optimizer: false,
            steps: 0,
            batch_size: 32,
            grad_accum: 1,
            seq_len: 64,
            lr: 1e-3,
            warmup: 0,
            schedule: Schedule::Linear,
            weight_decay: 0.01,
            betas: [0.9, 0.95],
            eps: 1e-8,
            ema: 0.0,
            clip: 1.0,
            quant: QuantSection::default(),
            distill: DistillSection::default(),
        }
    }
}

/// `[stage.quant]`: a preset, and what differs from it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct QuantSection {
    /// b1, b1.58, a4.8, a4.8-fp4, q-sparse, v2 or v2-a4.
    pub preset: Preset,
    /// Quantiser of weights.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub weights: Option<WeightQuant>,
    /// Quantiser of the input of q, k and v.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub qkv: Option<ActQuant>,
    /// Quantiser of the input of o.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub o: Option<ActQuant>,
    /// Quantiser of the input of gate and up.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gate_up: Option<ActQuant>,
    /// Quantiser of the input of down.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub down: Option<ActQuant>,
    /// Bits of queries.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub q_bits: Option<u8>,
    /// Bits of the key and value cache.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kv_bits: Option<u8>,
    /// Steps over which λ rises to 1; 0 for full quantisation from the start.
    pub warmup: usize,
    /// How λ rises.
    pub lambda: LambdaSchedule,
    /// Whether the gradient for the input of a projection is computed from INT8 codes of the incoming
    /// gradient (per token, absmax), on integer tensor cores where the device has them.
    pub int8_grad_input: bool,
}

impl QuantSection {
    /// The quantisers it asks for.
    #[must_use]
    pub fn scheme(&self) -> QuantScheme {
        let base = QuantScheme::from(self.preset);
        QuantScheme {
            weights: self.weights.unwrap_or(base.weights),
            qkv: self.qkv.unwrap_or(base.qkv),
            o: self.o.unwrap_or(base.o),
            gate_up: self.gate_up.unwrap_or(base.gate_up),
            down: self.down.unwrap_or(base.down),
            q_bits: self.q_bits.or(base.q_bits),
            kv_bits: self.kv_bits.or(base.kv_bits),
        }
    }
}

/// Form of the relation loss.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RelationForm {
    /// BitDistill Eq. 12: scaled dot products, mean over heads and real tokens.
    Eq12,
    /// BitDistill Algorithm 1: cosine, mean over heads and all tokens.
    Alg1,
    /// The published code: Algorithm 1 divided once more by the head count.
    Official,
}

/// `[stage.distill]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DistillSection {
    /// Stage that teaches; `init` for the model of `model.path`; or a path (with a `/`) to the folder of a
    /// model with the same vocabulary, of any width and depth.
    pub teacher: String,
    /// λ, weight of the logits term.
    pub logits: f64,
    /// τ of the logits term.
    pub temperature: f64,
    /// Whether the logits term is multiplied by τ², as in the published code.
    pub tau_squared: bool,
    /// Whether prompt positions are distilled too, as in the published code.
    pub prompt: bool,
    /// γ, weight of the relation term.
    pub relation: f64,
    /// Weight of the distance between hidden states, a mean over all blocks; teacher and student must have as
    /// many, of the same width.
    pub hidden: f64,
    /// Form of the relation term.
    pub form: RelationForm,
    /// Heads that states are split into for relations.
    pub split_heads: usize,
    /// Layers compared, counted from 0, negative from the end.
    pub layers: Vec<i64>,
    /// Layers of the teacher that they are compared with, in the same order; empty for the same
    /// numbers.
    pub teacher_layers: Vec<i64>,
}

impl Default for DistillSection {
    fn default() -> Self {
        Self {
            teacher: String::new(),
            logits: 10.0,
            temperature: 5.0,
            tau_squared: false,
            prompt: false,
            relation: 1e5,
            hidden: 0.0,
            form: RelationForm::Official,
            split_heads: 8,
            layers: vec![-1],
            teacher_layers: Vec::new(),
        }
    }
}
