//! The coarse differentiable operations that the modules are made of.
//!
//! Each operation is one node on the autodiff tape with a backward pass of its own, so a step
//! queues tens of operations instead of thousands and keeps only what its backward pass needs.
//!
//! * [`Kernels`]: forward and gradient of each operation on a plain backend. The provided methods
//!   are built from burn's tensor operations and run on every backend; they are the reference. A
//!   backend with something faster overrides a method.
//! * [`Ops`]: what modules call. Plain backends pass it to [`Kernels`]; [`Autodiff`] records the
//!   gradient.
//!
//! [`Autodiff`]: burn::backend::Autodiff

mod autodiff;
mod backends;
#[cfg(feature = "cuda")]
mod cuda;
mod flex;
mod head;
mod hook;
mod product;
mod quant;
mod reference;

use std::sync::Arc;

use burn::tensor::{DType, IndexingUpdateOp, Int, Tensor, backend::Backend};
pub use head::{Head, HeadTarget, LogitLosses, LogitTarget, TeacherHead};
pub use hook::on_backward;
pub use product::Compute;
pub use quant::{CacheQuant, Codes, LinearQuant, QuantActs, QuantWeight};
use tritburn_quant::config::HiddenAct;
use tritburn_quant::scheme::{ActQuant, WeightQuant};

use crate::Result;
use crate::packed::Packed;
use crate::ranks::Rank;

/// Shape of a multi-head attention over `batch` sequences of `seq` tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AttentionShape {
    /// Sequences.
    pub batch: usize,
    /// Tokens of each sequence.
    pub seq: usize,
    /// Query heads.
    pub heads: usize,
    /// Key and value heads.
    pub kv_heads: usize,
    /// Width of a head.
    pub head_dim: usize,
    /// Whether a token sees itself and what stands before it, and not all of its sequence.
    pub causal: bool,
    /// Tokens that a causal token sees, itself among them; all before it where absent.
    pub window: Option<usize>,
}

impl AttentionShape {
    /// First token that token `i` of a sequence sees.
    #[must_use]
    pub fn first_seen(&self, i: usize) -> usize {
        self.window
            .map_or(0, |window| (i + 1).saturating_sub(window))
    }

    /// How many tokens at the start of its sequence token `i` may see: the first that it does not.
    #[must_use]
    pub fn end_seen(&self, i: usize) -> usize {
        if self.causal { i + 1 } else { self.seq }
    }
}

/// Shape of relations between the tokens of each sequence (MiniLMv2; BitDistill §3.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Relation {
    /// Sequences.
    pub batch: usize,
    /// Tokens of each sequence.
    pub seq: usize,
    /// Heads that the joined states are split into.
    pub heads: usize,
    /// Whether states are L2-normalised and probabilities clamped at 1e-8 (Algorithm 1); else
    /// scores are divided by the root of the head's width (Eq. 12).
    pub cosine: bool,
}

impl Relation {
    /// Rows of relations: `batch · heads · seq`.
    #[must_use]
    pub fn rows(self) -> usize {
        self.batch * self.heads * self.seq
    }
}

/// What attention gives, and what its gradient is spared of computing again.
#[derive(Debug, Clone)]
pub struct Attended<B: Backend> {
    /// `[batch · seq, heads · head_dim]`.
    pub out: Tensor<B, 2>,
    /// For each head and token, log₂ of the sum that its probabilities were divided by:
    /// `[batch · heads, seq]`, where the backend keeps it.
    pub sums: Option<Tensor<B, 2>>,
}

impl<B: Backend> From<Tensor<B, 2>> for Attended<B> {
    fn from(out: Tensor<B, 2>) -> Self {
        Self { out, sums: None }
    }
}

/// `[batch, seq]`: for each token the place in its sequence of the first that it sees, where that is not
/// the first of all: documents that share a row do not see each other. Causal, and along a row never
/// less than at the token before.
pub type Starts<B> = Option<Tensor<B, 2, Int>>;

/// Gradients of [`Kernels::self_attention`] for query, key and value.
pub type AttentionGrads<B> = (Tensor<B, 2>, Tensor<B, 2>, Tensor<B, 2>);

/// Forward and gradient of each operation on a backend without a tape.
///
/// Tensors are `[tokens, features]`; batch and sequence are one dimension wherever an operation
/// does not mix tokens.
pub trait Kernels: Backend {
    /// Whether tensors lie in the memory of the process, where [`Packed`] multiplies them.
    const ON_HOST: bool = false;

    /// How products are computed fastest on `device`.
    #[must_use]
    fn fastest_compute(_device: &Self::Device) -> Compute {
        Compute::F32
    }

    /// Bytes of memory that the backend holds for tensors, in use or not; none where it is the
    /// process's own.
    #[must_use]
    fn memory_held(_device: &Self::Device) -> Option<u64> {
        None
    }

    /// Logits that [`Ops::head_loss`] holds at once on `device`; more rows are taken in chunks.
    #[must_use]
    fn max_logits(_device: &Self::Device) -> usize {
        1 << 24
    }

    /// Gives memory back that tensors of other sizes held, where there is reason to.
    fn tidy_memory(_device: &Self::Device) {}

    /// A weight that does not change any more, as [`Kernels::dense_matmul`] multiplies it fastest; the result
    /// is the same.
    #[must_use]
    fn frozen(weight: Tensor<Self, 2>, _compute: Compute) -> Tensor<Self, 2> {
        weight
    }

    /// `x · weightᵀ` with a weight `[out, in]` in full precision: `[tokens, in]` → `[tokens, out]`,
    /// of the type of `x`.
    #[must_use]
    fn dense_matmul(
        x: Tensor<Self, 2>,
        weight: Tensor<Self, 2>,
        compute: Compute,
    ) -> Tensor<Self, 2> {
        product::dense_matmul(x, weight, compute)
    }

    /// Gradients of [`Kernels::dense_matmul`] for `x` and `weight`.
    #[must_use]
    fn dense_matmul_grad(
        x: Tensor<Self, 2>,
        weight: Tensor<Self, 2>,
        compute: Compute,
        grad: Tensor<Self, 2>,
    ) -> (Tensor<Self, 2>, Tensor<Self, 2>) {
        product::dense_matmul_grad(x, weight, compute, grad)
    }

    /// Codes and scales of a weight `[out, in]`.
    #[must_use]
    fn quantise_weight(weight: Tensor<Self, 2>, quant: WeightQuant) -> QuantWeight<Self> {
        quant::weight(weight, quant)
    }

    /// [`Kernels::quantise_weight`] of each of `weights`.
    #[must_use]
    fn quantise_weights(weights: Vec<(Tensor<Self, 2>, WeightQuant)>) -> Vec<QuantWeight<Self>> {
        let each = weights.into_iter();
        each.map(|(weight, quant)| Self::quantise_weight(weight, quant))
            .collect()
    }

    /// Codes of each token. The Hadamard transform is not part of it.
    #[must_use]
    fn quantise_acts(x: Tensor<Self, 2>, quant: ActQuant) -> QuantActs<Self> {
        quant::acts(x, quant)
    }

    /// `Σ codes·codes` of every token and output, times step and scale: `[tokens, out]`.
    #[must_use]
    fn code_matmul(x: &QuantActs<Self>, weight: &QuantWeight<Self>) -> Tensor<Self, 2> {
        quant::code_matmul(x, weight)
    }

    /// Gradients of [`Kernels::code_matmul`] for the unquantised input and weight (STE); that for the
    /// input from INT8 codes of each token of `grad` where `int8_input` is set.
    #[must_use]
    fn code_matmul_grad(
        x: QuantActs<Self>,
        weight: QuantWeight<Self>,
        grad: Tensor<Self, 2>,
        int8_input: bool,
    ) -> (Tensor<Self, 2>, Tensor<Self, 2>) {
        quant::code_matmul_grad(x, weight, grad, int8_input)
    }

    /// [`Kernels::code_matmul`] of a packed weight with the codes of `x` `[tokens, in]`:
    /// `[tokens, out]`, of the type of `x`.
    #[must_use]
    fn packed_matmul(x: Tensor<Self, 2>, weight: &Packed) -> Tensor<Self, 2> {
        quant::packed_matmul(x, weight)
    }

    /// Gradient of [`Kernels::packed_matmul`] for the unquantised input (STE).
    #[must_use]
    fn packed_matmul_grad(weight: &Packed, grad: Tensor<Self, 2>) -> Tensor<Self, 2> {
        let dense = weight.weight(&grad.device()).dense();
        grad.matmul(dense)
    }

    /// Heads `[batch · seq, heads · head_dim]` as the cache gives them back (BitNet a4.8, §3.1).
    #[must_use]
    fn cache_quant(x: Tensor<Self, 2>, quant: CacheQuant) -> Tensor<Self, 2> {
        quant::cache(x, quant)
    }

    /// `x · rsqrt(mean(x²) + eps) · weight` over the last dimension; `weight` is `[features]`.
    #[must_use]
    fn rms_norm(x: Tensor<Self, 2>, weight: Tensor<Self, 1>, eps: f64) -> Tensor<Self, 2> {
        reference::rms_norm(x, weight, eps)
    }

    /// Gradients of [`Kernels::rms_norm`] for `x` and `weight`.
    #[must_use]
    fn rms_norm_grad(
        x: Tensor<Self, 2>,
        weight: Tensor<Self, 1>,
        eps: f64,
        grad: Tensor<Self, 2>,
    ) -> (Tensor<Self, 2>, Tensor<Self, 1>) {
        reference::rms_norm_grad(x, weight, eps, grad)
    }

    /// `act(gate) · up`, elementwise.
    #[must_use]
    fn gated_act(gate: Tensor<Self, 2>, up: Tensor<Self, 2>, act: HiddenAct) -> Tensor<Self, 2> {
        reference::gated_act(gate, up, act)
    }

    /// Gradients of [`Kernels::gated_act`] for `gate` and `up`.
    #[must_use]
    fn gated_act_grad(
        gate: Tensor<Self, 2>,
        up: Tensor<Self, 2>,
        act: HiddenAct,
        grad: Tensor<Self, 2>,
    ) -> (Tensor<Self, 2>, Tensor<Self, 2>) {
        reference::gated_act_grad(gate, up, act, grad)
    }

    /// Rotary embedding of `x` `[batch · seq, heads · head_dim]`, halves convention; `cos` and
    /// `sin` are `[seq, head_dim]`. Its gradient is the rotation by `-sin`.
    #[must_use]
    fn rope(
        x: Tensor<Self, 2>,
        cos: Tensor<Self, 2>,
        sin: Tensor<Self, 2>,
        seq: usize,
    ) -> Tensor<Self, 2> {
        reference::rope(x, cos, sin, seq)
    }

    /// Softmax attention of `q` `[batch · seq, heads · head_dim]` over `k` and `v`
    /// `[batch · seq, kv_heads · head_dim]`, scaled by `1/√head_dim`.
    #[must_use]
    fn self_attention(
        q: Tensor<Self, 2>,
        k: Tensor<Self, 2>,
        v: Tensor<Self, 2>,
        shape: AttentionShape,
        starts: Starts<Self>,
    ) -> Attended<Self> {
        reference::self_attention(q, k, v, shape, starts).into()
    }

    /// Gradients of [`Kernels::self_attention`], which gave `attended`; the probabilities are
    /// computed again, not stored.
    #[must_use]
    fn self_attention_grad(
        q: Tensor<Self, 2>,
        k: Tensor<Self, 2>,
        v: Tensor<Self, 2>,
        shape: AttentionShape,
        starts: Starts<Self>,
        _attended: Attended<Self>,
        grad: Tensor<Self, 2>,
    ) -> AttentionGrads<Self> {
        reference::self_attention_grad(q, k, v, shape, starts, grad)
    }

    /// Logits `[rows, vocab]` of hidden states `[rows, width]` under an output head, for
    /// [`Kernels::logit_losses`]: in f32, or in half precision where the backend takes those.
    #[must_use]
    fn head_logits(
        hidden: Tensor<Self, 2>,
        weight: Tensor<Self, 2>,
        compute: Compute,
    ) -> Tensor<Self, 2> {
        Self::dense_matmul(hidden.cast(DType::F32), weight, compute)
    }

    /// Losses of each row of `logits` `[rows, vocab]`.
    #[must_use]
    fn logit_losses(logits: &Tensor<Self, 2>, target: &LogitTarget<Self>) -> LogitLosses<Self> {
        reference::logit_losses(logits, target)
    }

    /// Gradient of [`Kernels::logit_losses`], which gave `sums`, for the logits; `grads` are those of the
    /// losses by tokens and by the teacher.
    #[must_use]
    fn logit_losses_grad(
        logits: Tensor<Self, 2>,
        target: LogitTarget<Self>,
        _sums: Option<Tensor<Self, 2>>,
        grads: [Tensor<Self, 1>; 2],
    ) -> Tensor<Self, 2> {
        reference::logit_losses_grad(logits, target, grads)
    }

    /// KL from the teacher's to the student's relations, `softmax(A·Aᵀ)` over the tokens of a
    /// sequence, for each row `[batch · heads · seq]`. States are `[batch · seq, width]`; teacher
    /// and student may differ in width.
    #[must_use]
    fn relation_kl(
        student: Tensor<Self, 2>,
        teacher: Tensor<Self, 2>,
        shape: Relation,
    ) -> Tensor<Self, 1> {
        reference::relation_kl(student, teacher, shape)
    }

    /// Gradient of [`Kernels::relation_kl`] for the student; relations are computed again, not
    /// stored.
    #[must_use]
    fn relation_kl_grad(
        student: Tensor<Self, 2>,
        teacher: Tensor<Self, 2>,
        shape: Relation,
        grad: Tensor<Self, 1>,
    ) -> Tensor<Self, 2> {
        reference::relation_kl_grad(student, teacher, shape, grad)
    }

    /// Rows `ids` of `table` `[rows, features]`: `[ids, features]`.
    #[must_use]
    fn take_rows(table: Tensor<Self, 2>, ids: Tensor<Self, 1, Int>) -> Tensor<Self, 2> {
        table.select(0, ids)
    }

    /// Gradient of [`Kernels::take_rows`] for a table of `rows` rows: those of all places that took
    /// a row, added in their order.
    #[must_use]
    fn take_rows_grad(
        ids: Tensor<Self, 1, Int>,
        grad: Tensor<Self, 2>,
        rows: usize,
    ) -> Tensor<Self, 2> {
        let zeros = Tensor::zeros([rows, grad.dims()[1]], (&grad.device(), grad.dtype()));
        zeros.select_assign(0, ids, grad, IndexingUpdateOp::Add)
    }

    /// Sum of squares of all values, `[1]`; the same bits at every call, whatever the number of
    /// threads. None where there are no tensors.
    #[must_use]
    fn sum_squares(all: Vec<Tensor<Self, 1>>) -> Option<Tensor<Self, 1>> {
        let squares = all.into_iter().map(|x| (x.clone() * x).sum());
        squares.reduce(|a, b| a + b)
    }

    /// Whether replicas on several devices can add their gradients.
    ///
    /// # Errors
    /// [`NnError::Devices`](crate::NnError::Devices) with what is missing.
    fn check_all_reduce() -> Result<()> {
        Ok(())
    }

    /// Sums over replicas: every rank calls it with f32 tensors of the same sizes in the same order,
    /// and all get the same bits. Sums may still be under way: what else is queued runs beside them, and
    /// they must not be looked at before [`Kernels::await_sums`].
    ///
    /// # Errors
    /// [`NnError::RankGone`](crate::NnError::RankGone) where another rank has ended.
    fn all_reduce(tensors: Vec<Tensor<Self, 1>>, rank: &Rank) -> Result<Vec<Tensor<Self, 1>>> {
        reference::all_reduce(tensors, rank)
    }

    /// Lets what is queued on `device` from now on wait for the sums of [`Kernels::all_reduce`].
    fn await_sums(device: &Self::Device) {
        let _ = device;
    }

    /// One AdamW step on all parameters.
    ///
    /// Returns for each the new value and the new first and second moments.
    #[must_use]
    fn adamw(params: Vec<AdamWParam<Self>>, step: &AdamWStep) -> Vec<[Tensor<Self, 1>; 3]> {
        let each = params.into_iter();
        each.map(|param| reference::adamw(param, step)).collect()
    }
}

/// One parameter at a step of AdamW, all tensors of the same size.
#[derive(Debug, Clone)]
pub struct AdamWParam<B: Backend> {
    /// The weights.
    pub value: Tensor<B, 1>,
    /// Their gradient.
    pub grad: Tensor<B, 1>,
    /// The first moment.
    pub m: Tensor<B, 1>,
    /// The second moment.
    pub v: Tensor<B, 1>,
    /// Decoupled weight decay.
    pub weight_decay: f32,
}

/// Scalars of one AdamW step (decoupled weight decay, bias-corrected moments).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AdamWStep {
    /// Learning rate.
    pub lr: f32,
    /// Decay of the first moment.
    pub beta1: f32,
    /// Decay of the second moment.
    pub beta2: f32,
    /// Added to the root of the second moment.
    pub eps: f32,
    /// Factor on the gradient, from clipping the global norm.
    pub grad_scale: f32,
    /// `1 − beta1^t`.
    pub bias1: f32,
    /// `1 − beta2^t`.
    pub bias2: f32,
}

/// The operations that modules call: differentiable where the backend is.
pub trait Ops: Backend {
    /// BitLinear without a norm: `Q_act(x) · Q_weight(weight)ᵀ`, `x` `[tokens, in]`, `weight`
    /// `[out, in]` (BitNet b1.58 §2).
    ///
    /// The product runs over whole-number codes, so with one scale a matrix or a row it is exact in
    /// f32 up to 131,072 inputs, and is scaled once at the end: the packed integer kernels give the
    /// same bits. Gradients pass quantisers and masks unchanged (STE) and see the quantised
    /// operands. `held` is the weight as [`Ops::hold_weights`] quantised it before; without it the
    /// weight is quantised here.
    fn bit_linear(
        x: Tensor<Self, 2>,
        weight: Tensor<Self, 2>,
        held: Option<QuantWeight<Self>>,
        quant: LinearQuant,
    ) -> Tensor<Self, 2>;

    /// How activations are held between operations on `device` where products are computed so.
    fn activation_type(compute: Compute, device: &Self::Device) -> DType;

    /// See [`Kernels::take_rows`].
    fn take_rows(table: Tensor<Self, 2>, ids: Tensor<Self, 1, Int>) -> Tensor<Self, 2>;

    /// See [`Kernels::dense_matmul`].
    fn dense_matmul(
        x: Tensor<Self, 2>,
        weight: Tensor<Self, 2>,
        compute: Compute,
    ) -> Tensor<Self, 2>;

    /// See [`Kernels::packed_matmul`]. Only the input has a gradient.
    fn packed_matmul(x: Tensor<Self, 2>, weight: &Arc<Packed>) -> Tensor<Self, 2>;

    /// The quantised weights for several calls of [`Ops::bit_linear`], off the tape.
    fn hold_weights(weights: Vec<(Tensor<Self, 2>, WeightQuant)>) -> Vec<QuantWeight<Self>>;

    /// See [`Kernels::cache_quant`]. The gradient passes unchanged.
    fn cache_quant(x: Tensor<Self, 2>, quant: CacheQuant) -> Tensor<Self, 2>;

    /// See [`Kernels::rms_norm`].
    fn rms_norm(x: Tensor<Self, 2>, weight: Tensor<Self, 1>, eps: f64) -> Tensor<Self, 2>;

    /// See [`Kernels::gated_act`].
    fn gated_act(gate: Tensor<Self, 2>, up: Tensor<Self, 2>, act: HiddenAct) -> Tensor<Self, 2>;

    /// See [`Kernels::rope`]. No gradient flows to `cos` and `sin`.
    fn rope(
        x: Tensor<Self, 2>,
        cos: Tensor<Self, 2>,
        sin: Tensor<Self, 2>,
        seq: usize,
    ) -> Tensor<Self, 2>;

    /// See [`Kernels::self_attention`].
    fn self_attention(
        q: Tensor<Self, 2>,
        k: Tensor<Self, 2>,
        v: Tensor<Self, 2>,
        shape: AttentionShape,
        starts: Starts<Self>,
    ) -> Tensor<Self, 2>;

    /// Losses of each row of `hidden` `[rows, width]` under the output head, against tokens, a teacher, to
    /// whom no gradient flows, or both: `[rows]`, or `[2 · rows]`.
    ///
    /// Logits are made in chunks of rows and, where there is more than one chunk, again in the
    /// backward pass, so that memory does not grow with `rows · vocab`.
    fn head_loss(
        hidden: Tensor<Self, 2>,
        head: Head<Self>,
        target: HeadTarget<Self>,
    ) -> Tensor<Self, 1>;

    /// See [`Kernels::relation_kl`]. No gradient flows to the teacher.
    fn relation_kl(
        student: Tensor<Self, 2>,
        teacher: Tensor<Self, 2>,
        shape: Relation,
    ) -> Tensor<Self, 1>;
}
