//! Training forward against the engine.

use std::path::Path;

use tritburn_engine::Engine;
use tritburn_nn::device::DeviceKind;

use crate::error::{Result, TrainError};
use crate::on_device::logits;

/// Largest difference of a logit that is accepted, as a share of the largest logit.
///
/// Ternary products are exact on both sides, so linear layers give the same bits for the same
/// input. Norms, rotary embedding, softmax and SiLU differ by a few units in the last place, which
/// moves an activation across a rounding boundary of the INT8 grid now and then: one such flip
/// changes one input of the next projection by absmax / 127, that is its outputs by at most
/// 1 / (127 · √(in / 2)) of their scale, about 1e-3 at 128 inputs. A few flips a layer over four
/// layers stay under 2e-2; the largest seen is 6e-3.
pub const TOLERANCE: f64 = 2e-2;

/// Largest difference of any logit over all positions of `prompts`, as a share of the largest
/// logit, between the master weights in `folder` on `device` and the packed `engine`.
///
/// # Errors
/// Where the folder is malformed or belongs to another model than `engine`.
pub fn max_rel_diff(
    folder: &Path,
    engine: &Engine,
    prompts: &[Vec<u32>],
    device: DeviceKind,
) -> Result<f64> {
    let unfit = |message: &str| TrainError::Resume {
        path: folder.to_path_buf(),
        message: message.into(),
    };
    let trained = logits(folder, prompts, device)?;
    let mut session = engine.new_session(prompts.iter().map(Vec::len).max().unwrap_or(1));
    let (mut diff, mut largest) = (0.0f32, 0.0f32);
    for (prompt, trained) in prompts.iter().zip(&trained) {
        session.truncate(0);
        let packed = session.prefill_all(prompt)?;
        if packed.len() != trained.len() {
            return Err(unfit("has another vocabulary than the export"));
        }
        for (a, b) in packed.iter().zip(trained) {
            diff = diff.max((a - b).abs());
            largest = largest.max(b.abs());
        }
    }
    if largest > 0.0 && diff.is_finite() {
        Ok(f64::from(diff / largest))
    } else {
        Err(unfit("gives logits that are all zero or not finite"))
    }
}
