//! Training forward against the engine.

use std::path::Path;

use anyhow::ensure;
use burn::tensor::{Tensor, TensorData};
use tritburn_engine::Engine;
use tritburn_nn::CausalLm;
use tritburn_nn::device::{DeviceKind, OnDevice};
use tritburn_nn::folder::FolderSource;
use tritburn_nn::ops::{Kernels, Ops};
use tritburn_quant::config::ModelConfig;

/// Largest difference of a logit that is accepted, as a share of the largest logit.
///
/// Ternary products are exact on both sides, so linear layers give the same bits for the same
/// input. Norms, rotary embedding, softmax and SiLU differ by a few units in the last place, which
/// moves an activation across a rounding boundary of the INT8 grid now and then: one such flip
/// changes one input of the next projection by absmax / 127, that is its outputs by at most
/// 1 / (127 · √(in / 2)) of their scale, about 1e-3 at 128 inputs. A few flips a layer over four
/// layers stay under 1e-2.
pub(crate) const TOLERANCE: f64 = 1e-2;

/// Largest difference of any logit over all positions of `prompts`, as a share of the largest
/// logit, between the master weights of `master` on `device` and the packed `engine`.
pub(crate) fn max_rel_diff(
    master: &Path,
    engine: &Engine,
    prompts: &[Vec<u32>],
    device: DeviceKind,
) -> anyhow::Result<f64> {
    struct Work<'a>(&'a Path, &'a [Vec<u32>]);
    impl OnDevice for Work<'_> {
        type Out = anyhow::Result<Vec<Vec<f32>>>;
        fn run<B: Kernels + Ops>(self, device: &B::Device) -> Self::Out {
            let config = ModelConfig::read(&self.0.join("config.json"))?;
            let model = CausalLm::<B>::new(&config, &mut FolderSource::open(self.0)?, device)?;
            let logits = self.1.iter().map(|prompt| {
                let ids: Vec<i32> = prompt
                    .iter()
                    .map(|&t| i32::try_from(t))
                    .collect::<Result<_, _>>()?;
                let ids = Tensor::<B, 1, burn::tensor::Int>::from_data(
                    TensorData::new(ids, [prompt.len()]),
                    device,
                );
                let hidden = model.forward(ids.unsqueeze(), &[]).hidden;
                Ok(model.logits(hidden).into_data().iter::<f32>().collect())
            });
            logits.collect()
        }
    }
    let trained = device.run(Work(master, prompts))??;
    let mut session = engine.new_session(prompts.iter().map(Vec::len).max().unwrap_or(1));
    let (mut diff, mut largest) = (0.0f32, 0.0f32);
    for (prompt, trained) in prompts.iter().zip(&trained) {
        session.truncate(0);
        let packed = session.prefill_all(prompt)?;
        ensure!(packed.len() == trained.len(), "vocabularies differ");
        for (a, b) in packed.iter().zip(trained) {
            diff = diff.max((a - b).abs());
            largest = largest.max(b.abs());
        }
    }
    ensure!(
        largest > 0.0 && diff.is_finite(),
        "logits are all zero or not finite"
    );
    Ok(f64::from(diff / largest))
}
