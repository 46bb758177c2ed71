//! Quantisers without a vector loop of their own, by their definitions on the host.

use rayon::prelude::*;
use tritburn_quant::act::TokenQuantiser;
use tritburn_quant::scheme::{ActQuant, WeightQuant};

/// Codes and scales of a matrix with rows of `width`.
pub(super) fn weight(w: &[f32], width: usize, quant: WeightQuant) -> (Vec<f32>, Vec<f32>) {
    let q = tritburn_quant::weight::quantise(w, width, quant)
        .unwrap_or_else(|| unreachable!("full precision is no quantiser"));
    (q.codes.into_iter().map(f32::from).collect(), q.scales)
}

/// Codes and steps of tokens of `features` values.
pub(super) fn acts(x: &[f32], features: usize, quant: ActQuant) -> (Vec<f32>, Vec<f32>) {
    let mut codes = vec![0.0; x.len()];
    let mut steps = vec![0.0; x.len() / features];
    codes
        .par_chunks_mut(features)
        .zip(x.par_chunks(features))
        .zip(&mut steps)
        .for_each_init(
            || (TokenQuantiser::new(quant), vec![0; features]),
            |(quantiser, buffer), ((codes, x), step)| {
                if let Some(quantiser) = quantiser {
                    *step = quantiser.quantise(x, buffer);
                    codes
                        .iter_mut()
                        .zip(&*buffer)
                        .for_each(|(c, b)| *c = f32::from(*b));
                }
            },
        );
    (codes, steps)
}
