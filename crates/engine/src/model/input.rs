//! Quantisers of projections' inputs other than INT8 per token.

use tritburn_kernels::{Activations, Exec};
use tritburn_quant::act::TokenQuantiser;
use tritburn_quant::hadamard::Factors;
use tritburn_quant::scheme::ActQuant;

use super::norm::RmsNorm;

/// Turns a token where asked, and quantises it to codes and a step: the same arithmetic as in
/// training.
#[derive(Debug)]
pub(crate) struct InputQuant {
    hadamard: Option<Factors>,
    quantiser: TokenQuantiser,
}

impl InputQuant {
    /// The quantiser of tokens of `width` values; an error says what is missing.
    pub(crate) fn new(act: ActQuant, width: usize) -> Result<Self, String> {
        let hadamard = act.hadamard.then(|| {
            let none = || format!("no Hadamard matrix of order {width}");
            Factors::of(width).ok_or_else(none)
        });
        let quantiser = TokenQuantiser::new(act)
            .ok_or("ternary weights need quantised activations, but config.json has none")?;
        Ok(Self {
            hadamard: hadamard.transpose()?,
            quantiser,
        })
    }

    /// Quantises the rows of `x`, `[tokens, width]`, after `norm` where there is one.
    pub(crate) fn quantize(
        &self,
        exec: &Exec,
        x: &[f32],
        width: usize,
        norm: Option<&RmsNorm>,
        activations: &mut Activations,
    ) {
        let row = |t: usize, codes: &mut [i8]| {
            let mut row = x[t * width..][..width].to_vec();
            if let Some(norm) = norm {
                norm.row(&x[t * width..][..width], &mut row);
            }
            if let Some(hadamard) = &self.hadamard {
                hadamard.apply(&mut row);
            }
            self.quantiser.clone().quantise(&row, codes)
        };
        activations.fill(exec, x.len() / width, width, row);
    }
}

/// Replaces every head of `x`, `[tokens, heads · head_dim]`, by what a cache of `bits` gives back;
/// the first token has position `first`.
pub(crate) fn through_cache(x: &mut [f32], width: usize, head_dim: usize, bits: u8, first: usize) {
    let mut codes = vec![0; head_dim];
    for (t, row) in x.chunks_exact_mut(width).enumerate() {
        let bits = tritburn_quant::kv::bits_at(bits, first + t);
        let middle = f32::from(1u8 << (bits - 1));
        for head in row.chunks_exact_mut(head_dim) {
            let step = tritburn_quant::kv::quantise_head(head, bits, &mut codes);
            for (value, &code) in head.iter_mut().zip(&codes) {
                *value = (f32::from(code) - middle) * step;
            }
        }
    }
}
