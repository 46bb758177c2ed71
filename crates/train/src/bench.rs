//! What a training step costs: the steps of a stage, on random tokens.

use std::time::Instant;

use burn::backend::Autodiff;
use burn::module::Module;
use burn::optim::GradientsAccumulator;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};
use tritburn_data::Batch;
use tritburn_nn::CausalLm;
use tritburn_nn::device::Devices;
use tritburn_nn::ops::{Kernels, Ops};
use tritburn_nn::ranks::Rank;
use tritburn_nn::weights::RandomInit;
use tritburn_quant::config::{ModelConfig, QuantizationMode, SubNorm};
use tritburn_quant::scheme::Preset;

use crate::blockwise::blockwise;
use crate::error::{Result, TrainError};
use crate::objective::{Distillation, Loss, Measured, loss};
use crate::optim::{AdamW, AdamWConfig};
use crate::recipe::{ComputeChoice, DistillSection};
use crate::reduction::{Reduction, watched};
use crate::replicas;
use crate::schedule::Schedule;
use crate::steps::{Rates, Steps, step, whole_gradients};

const SEED: u64 = 0;

/// What a step trains.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StepMode {
    /// The model as it is, in full precision.
    Fp,
    /// Its BitNet b1.58 form with SubLN, by quantisation-aware training.
    Qat,
    /// The same under a full-precision teacher of the same shape: BitDistill's three losses, at the
    /// last layer but one.
    Distill,
}

/// A measurement to make.
#[derive(Debug, Clone)]
pub struct StepBench {
    /// Architecture in full precision.
    pub config: ModelConfig,
    /// What is trained.
    pub mode: StepMode,
    /// Rows of a step on each device.
    pub batch: usize,
    /// Tokens of a row.
    pub seq: usize,
    /// Timed steps, of which the median counts.
    pub steps: usize,
    /// Steps before them.
    pub warmup: usize,
    /// How products with weights in full precision are computed.
    pub compute: ComputeChoice,
    /// Whether blocks run again in the backward pass instead of keeping their activations.
    pub checkpoint_activations: bool,
    /// Whether gradients for the inputs of projections come from INT8 codes.
    pub int8_grad_input: bool,
}

/// Times of a training step.
#[derive(Debug, Clone, Serialize)]
pub struct StepTimes {
    /// What was trained.
    pub mode: StepMode,
    /// Devices that shared the step.
    pub devices: usize,
    /// Rows of a step on each device.
    pub batch: usize,
    /// Tokens of a row.
    pub seq: usize,
    /// Weights that learn.
    pub parameters: usize,
    /// Median time of a step, ms.
    pub ms_per_step: f64,
    /// Fastest and slowest step, ms.
    pub ms_range: [f64; 2],
    /// Median time of a step of one row of 64 tokens, ms: near what the host takes to queue a step,
    /// where the device is fast.
    pub host_ms: f64,
    /// Tokens a second at the median, of all devices together.
    pub tok_s: f64,
    /// Arithmetic of a step on each device by the count of Chowdhery et al. 2022, appendix B, over its time,
    /// TFLOP/s: 6 a weight and token, 12 · layers · width · tokens for attention; a teacher adds a
    /// forward pass.
    pub tflops: f64,
    /// Time of the very first step, in which kernels are compiled, s.
    pub first_step_s: f64,
    /// Memory that the backend holds for tensors in the end, bytes; none where it is the process's.
    pub peak_bytes: Option<u64>,
    /// Loss of the last step.
    pub loss: f32,
}

struct Synthetic<'a, B: Kernels + Ops> {
    model: CausalLm<Autodiff<B>>,
    distill: Option<Distillation<B>>,
    batch: Batch,
    device: &'a B::Device,
    checkpoint_activations: bool,
}

impl<B: Kernels + Ops> Steps<B> for Synthetic<'_, B> {
    type Model = CausalLm<Autodiff<B>>;

    fn model(&mut self) -> &mut Self::Model {
        &mut self.model
    }

    fn device(&self) -> &B::Device {
        self.device
    }

    fn hold_weights(&mut self) {
        self.model.hold_weights();
    }

    fn release_weights(&mut self) {
        self.model.release_weights();
    }

    fn next_loss(
        &mut self,
        reduction: Option<&Reduction<B>>,
        into: &mut GradientsAccumulator<Self::Model>,
    ) -> Result<(Loss<Autodiff<B>>, usize)> {
        let sender = reduction.map(|to| to.sender(&self.model, into.grads()));
        let lesson = (&self.batch, self.distill.as_ref());
        let loss = watched(sender, |probe| {
            loss(&self.model, lesson, self.device, probe)
        });
        Ok((loss, self.batch.tokens_in_batch))
    }

    fn next_gradients(
        &mut self,
        share: f32,
        reduction: Option<&Reduction<B>>,
        into: &mut GradientsAccumulator<Self::Model>,
    ) -> Result<(Measured<B>, usize)> {
        if !self.checkpoint_activations {
            return whole_gradients(self, share, reduction, into);
        }
        let lesson = (&self.batch, self.distill.as_ref());
        let measured = blockwise(&self.model, lesson, self.device, share, into);
        Ok((measured, self.batch.tokens_in_batch))
    }

    fn skip(&mut self) -> Result<usize> {
        Ok(self.batch.tokens_in_batch)
    }
}

/// Random tokens, each of which the model learns to foretell.
fn batch([batch, seq]: [usize; 2], vocab: usize) -> Batch {
    let mut rng = ChaCha8Rng::seed_from_u64(SEED);
    let mut draw = |count: usize| -> Vec<u32> {
        let vocab = u32::try_from(vocab).unwrap_or(u32::MAX);
        (0..count).map(|_| rng.random_range(0..vocab)).collect()
    };
    let count = batch * seq;
    Batch {
        batch,
        seq,
        tokens: draw(count),
        targets: draw(count),
        loss_mask: vec![1.0; count],
        attention_mask: vec![1.0; count],
        tokens_in_batch: count,
        segments: None,
    }
}

impl StepBench {
    /// Times the steps.
    ///
    /// # Errors
    /// [`TrainError::NotFinite`] where the loss is no number.
    pub(crate) fn run<B: Kernels + Ops>(&self, devices: &Devices) -> Result<StepTimes> {
        devices.check::<B>()?;
        let other = |rank: &Rank| self.replica::<B>(rank).map(drop);
        replicas::run(devices, |rank| self.replica::<B>(rank), other)
    }

    /// The steps on one device.
    fn replica<B: Kernels + Ops>(&self, rank: &Rank) -> Result<StepTimes> {
        let device = &rank.device::<B>();
        let mut config = self.config.clone();
        config.quantization_config = None;
        let compute = self.compute.on::<B>(device);
        let mut init = RandomInit::new(SEED, 0.02, config.num_hidden_layers);
        let distill = match self.mode {
            StepMode::Distill => {
                let mut teacher = CausalLm::<B>::new(&config, &mut init, device)?;
                teacher.set_compute(compute);
                teacher.freeze();
                let layer = config.num_hidden_layers.saturating_sub(2);
                Some(Distillation {
                    teacher,
                    section: DistillSection {
                        split_heads: config.num_key_value_heads,
                        ..DistillSection::default()
                    },
                    teacher_layers: vec![layer],
                    student_layers: vec![layer],
                })
            }
            _ => None,
        };
        if self.mode != StepMode::Fp {
            config.set_sub_norm(SubNorm::SubLn);
            config.set_quant(Some(Preset::B158.into()), QuantizationMode::Online);
        }
        let mut model = CausalLm::<Autodiff<B>>::new(&config, &mut init, device)?;
        model.set_compute(compute);
        model.set_int8_grad_input(self.int8_grad_input);
        let parameters = model.num_params();
        let mut learner = Synthetic {
            model,
            distill,
            batch: batch([self.batch, self.seq], config.vocab_size),
            device,
            checkpoint_activations: self.checkpoint_activations,
        };
        let mut optim = AdamW::<B>::new(AdamWConfig {
            betas: [0.9, 0.95],
            eps: 1e-8,
            ema: 0.0,
        });
        let rates = rates(rank.count());
        let mut at = 0;
        let mut timed = |learner: &mut Synthetic<'_, B>| -> Result<(f64, f32)> {
            let clock = Instant::now();
            let done = step(learner, &mut optim, &rates, at, rank, &not_finite)?;
            at += 1;
            Ok((clock.elapsed().as_secs_f64(), done.loss))
        };
        let (first_step_s, mut loss) = timed(&mut learner)?;
        for _ in 1..self.warmup {
            timed(&mut learner)?;
        }
        let mut median = |learner: &mut Synthetic<'_, B>| -> Result<Vec<f64>> {
            let mut times = Vec::with_capacity(self.steps);
            for _ in 0..self.steps.max(1) {
                let (seconds, now) = timed(learner)?;
                loss = now;
                times.push(seconds * 1e3);
            }
            times.sort_by(f64::total_cmp);
            Ok(times)
        };
        let times = median(&mut learner)?;
        let peak_bytes = B::memory_held(device);
        learner.batch = batch([1, 64], config.vocab_size);
        median(&mut learner)?;
        let host = median(&mut learner)?;
        let ms = times[times.len() / 2];
        #[allow(clippy::cast_precision_loss)]
        let replicas = rank.count() as f64;
        Ok(StepTimes {
            mode: self.mode,
            devices: rank.count(),
            batch: self.batch,
            seq: self.seq,
            parameters,
            ms_per_step: ms,
            ms_range: [times[0], times[times.len() - 1]],
            host_ms: host[host.len() / 2],
            tok_s: self.tokens() * replicas / ms * 1e3,
            tflops: self.flops(parameters) / ms / 1e9,
            first_step_s,
            peak_bytes,
            loss,
        })
    }

    #[allow(clippy::cast_precision_loss)]
    fn tokens(&self) -> f64 {
        (self.batch * self.seq) as f64
    }

    #[allow(clippy::cast_precision_loss)]
    fn flops(&self, parameters: usize) -> f64 {
        let attention = 12 * self.config.num_hidden_layers * self.config.q_dim() * self.seq;
        let each = (6 * parameters + attention) as f64;
        let passes = if self.mode == StepMode::Distill {
            4.0 / 3.0
        } else {
            1.0
        };
        self.tokens() * each * passes
    }
}

/// Rates of steps with one micro-batch on each of `replicas`.
fn rates(replicas: usize) -> Rates {
    Rates {
        steps: usize::MAX,
        grad_accum: replicas,
        lr: 1e-4,
        warmup: 0,
        schedule: Schedule::Constant,
        weight_decay: 0.01,
        clip: 1.0,
    }
}

fn not_finite(what: &'static str, value: f32) -> TrainError {
    TrainError::NotFinite {
        stage: "bench".into(),
        step: 0,
        what,
        value,
        remedy: "Report it with the shape and device".into(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use burn::backend::Flex;
    use tritburn_nn::device::DeviceKind;

    use super::*;

    #[test]
    fn every_mode_learns_its_batch() {
        let config = ModelConfig {
            model_type: "llama".into(),
            hidden_size: 32,
            intermediate_size: 64,
            num_hidden_layers: 2,
            num_attention_heads: 4,
            num_key_value_heads: 2,
            vocab_size: 64,
            max_position_embeddings: 64,
            rope_theta: 1e4,
            rms_norm_eps: 1e-5,
            tie_word_embeddings: true,
            ..ModelConfig::default()
        };
        let modes = [StepMode::Fp, StepMode::Qat, StepMode::Distill].into_iter();
        for (mode, blockwise) in modes.flat_map(|mode| [(mode, false), (mode, true)]) {
            let bench = StepBench {
                config: config.clone(),
                mode,
                batch: 2,
                seq: 16,
                steps: 3,
                warmup: 2,
                compute: ComputeChoice::Bf16,
                checkpoint_activations: blockwise,
                int8_grad_input: blockwise,
            };
            let times = bench.run::<Flex>(&DeviceKind::Cpu.into()).unwrap();
            assert_eq!((times.batch, times.seq), (2, 16));
            assert!(times.ms_per_step > 0.0 && times.tok_s > 0.0 && times.tflops > 0.0);
            assert!(times.ms_range[0] <= times.ms_per_step);
            assert!(times.loss > 0.0 && times.loss.is_finite(), "{mode:?}");
        }
    }
}
