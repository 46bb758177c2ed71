//! Quantisers of projections' inputs other than INT8 per token.

use std::cell::RefCell;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tritburn_kernels::activations::{RowQuantizer, group_codes};
use tritburn_kernels::ops;
use tritburn_quant::act::TokenQuantiser;
use tritburn_quant::hadamard::Factors;
use tritburn_quant::scheme::ActQuant;

use super::buffers::with_buffer;
use super::norm::RmsNorm;

/// A quantiser of the input of a ternary projection.
#[derive(Debug)]
pub(crate) enum InputQuant {
    /// One step a token, as the model was trained.
    Token(ByToken),
    /// INT8 with a step for each group of a token, for models that were trained with inputs in full precision and
    /// weights with scales per group.
    Groups,
}

/// Turns a token where asked, and quantises it to codes and a step: the same arithmetic as in
/// training.
#[derive(Debug)]
pub(crate) struct ByToken {
    hadamard: Option<Factors>,
    quantiser: TokenQuantiser,
    /// Copies with their buffers, as many as threads ever worked at the same time.
    spare: Mutex<Vec<TokenQuantiser>>,
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
        Ok(Self::Token(ByToken {
            hadamard: hadamard.transpose()?,
            quantiser,
            spare: Mutex::default(),
        }))
    }
}

/// What stands between the values in front of a ternary projection and its codes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LinearInput<'a> {
    pub(crate) norm: Option<&'a RmsNorm>,
    /// INT8 per token where none is named.
    pub(crate) quant: Option<&'a InputQuant>,
}

impl RowQuantizer for LinearInput<'_> {
    fn by_group(&self) -> bool {
        matches!(self.quant, Some(InputQuant::Groups))
    }

    fn quantize(&self, x: &[f32], codes: &mut [i8], steps: &mut [f32]) -> f32 {
        match (self.quant, self.norm) {
            (None, None) => ops::absmax_codes(x, codes),
            (None, Some(norm)) => norm.quantize(x, codes),
            (Some(InputQuant::Token(quant)), norm) => quant.quantize(x, norm, codes),
            (Some(InputQuant::Groups), None) => by_group(x, codes, steps),
            (Some(InputQuant::Groups), Some(norm)) => with_buffer(x.len(), |row| {
                norm.row(x, row);
                by_group(row, codes, steps)
            }),
        }
    }
}

fn by_group(x: &[f32], codes: &mut [i8], steps: &mut [f32]) -> f32 {
    group_codes(x, codes, steps);
    1.0
}

impl ByToken {
    fn quantize(&self, x: &[f32], norm: Option<&RmsNorm>, codes: &mut [i8]) -> f32 {
        with_buffer(x.len(), |row| {
            match norm {
                Some(norm) => norm.row(x, row),
                None => row.copy_from_slice(x),
            }
            if let Some(hadamard) = &self.hadamard {
                hadamard.apply(row);
            }
            let spare = self.spare().pop();
            let mut quantiser = spare.unwrap_or_else(|| self.quantiser.clone());
            let step = quantiser.quantise(row, codes);
            self.spare().push(quantiser);
            step
        })
    }

    fn spare(&self) -> MutexGuard<'_, Vec<TokenQuantiser>> {
        // Whole at every moment.
        self.spare.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Replaces a head at `position` by what a cache of `bits` gives back.
pub(crate) fn through_cache(head: &mut [f32], bits: u8, position: usize) {
    thread_local! {
        static CODES: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
    }
    CODES.with_borrow_mut(|codes| {
        codes.resize(head.len(), 0);
        let bits = tritburn_quant::kv::bits_at(bits, position);
        let middle = f32::from(1u8 << (bits - 1));
        let step = tritburn_quant::kv::quantise_head(head, bits, codes);
        for (value, &code) in head.iter_mut().zip(&*codes) {
            *value = (f32::from(code) - middle) * step;
        }
    });
}
