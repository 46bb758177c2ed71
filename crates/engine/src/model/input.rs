//! Quantisers of projections' inputs other than INT8 per token.

use std::cell::RefCell;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tritburn_kernels::activations::group_codes;
use tritburn_kernels::{Activations, Exec};
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

    /// Quantises the rows of `x`, `[tokens, width]`, after `norm` where there is one.
    pub(crate) fn quantize(
        &self,
        exec: &Exec,
        x: &[f32],
        width: usize,
        norm: Option<&RmsNorm>,
        activations: &mut Activations,
    ) {
        match self {
            Self::Token(quantiser) => quantiser.quantize(exec, x, width, norm, activations),
            Self::Groups => groups(exec, x, width, norm, activations),
        }
    }
}

fn groups(
    exec: &Exec,
    x: &[f32],
    width: usize,
    norm: Option<&RmsNorm>,
    activations: &mut Activations,
) {
    let Some(norm) = norm else {
        return activations.quantize_groups(exec, x, width);
    };
    let row = |t: usize, codes: &mut [i8], steps: &mut [f32]| {
        with_buffer(width, |row| {
            norm.row(&x[t * width..][..width], row);
            group_codes(row, codes, steps);
        });
    };
    activations.fill_groups(exec, x.len() / width, width, row);
}

impl ByToken {
    fn quantize(
        &self,
        exec: &Exec,
        x: &[f32],
        width: usize,
        norm: Option<&RmsNorm>,
        activations: &mut Activations,
    ) {
        let row = |t: usize, codes: &mut [i8]| {
            let x = &x[t * width..][..width];
            with_buffer(width, |row| {
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
        };
        activations.fill(exec, x.len() / width, width, row);
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
