//! Both projections of a gated feed-forward block, its activation and what the next projection takes of it in one
//! parallel region.

use super::TernaryMatrix;
use super::parts::Parts;
use super::product::with_tables;
use super::target::{Combine, Target};
use crate::activations::{Activations, RowQuantizer};
use crate::columns::Columns;
use crate::exec::Exec;
use crate::layout::Format;
use crate::scales::Scales;
use crate::shape::assert_width;
use crate::sparse::RowMatrix;

/// The projection that is multiplied with the gate, in the layout that it has.
#[derive(Debug, Clone, Copy)]
pub enum Up<'a> {
    /// As the gate.
    Packed(&'a TernaryMatrix),
    /// By rows; the gate then has [`Format::TwoBit`].
    Rows(&'a RowMatrix),
}

impl Up<'_> {
    fn shape(self) -> (usize, usize) {
        match self {
            Self::Packed(w) => (w.rows(), w.cols()),
            Self::Rows(w) => (w.rows(), w.cols()),
        }
    }

    fn format(self) -> Format {
        match self {
            Self::Packed(w) => w.format(),
            Self::Rows(_) => Format::TwoBit,
        }
    }
}

/// The input of the projection that follows.
pub struct Next<'a> {
    /// Norm and rounding of a token.
    pub quantizer: &'a dyn RowQuantizer,
    /// Overwritten.
    pub activations: &'a mut Activations,
}

impl std::fmt::Debug for Next<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Next({} tokens before)", self.activations.tokens())
    }
}

/// `out[t] = act(gate · x[t], up · x[t])`, `[tokens, rows]`: `act` replaces the outputs of the gate by
/// those of the block, value by value, given some of both. The bits are those of two products and
/// `act` after them, but what `up` gives for a token is used before the next is computed. When all of `out` is there,
/// whoever is free quantises its tokens for what comes `next`.
///
/// # Panics
/// Where shapes or formats of `gate` and `up` differ, the widths of `x` or the length of `out` do
/// not fit, or activations have steps per group and a matrix has no scales per group.
pub fn gemm_gated(
    exec: &Exec,
    x: &Activations,
    gate: &TernaryMatrix,
    up: Up<'_>,
    act: &Combine<'_>,
    out: &mut [f32],
    next: Option<Next<'_>>,
) {
    assert_width(x.width(), gate.cols);
    assert_eq!((gate.rows, gate.cols), up.shape(), "equal shapes");
    assert_eq!(gate.format, up.format(), "equal formats");
    let (tokens, rows) = (x.tokens(), gate.format.tile_rows());
    let out = Columns::new(out, tokens, gate.rows);
    let quantizer = next.as_ref().map(|next| next.quantizer);
    let quantized = next.map(|next| {
        let by_group = next.quantizer.by_group();
        next.activations.rows_mut(tokens, gate.rows, by_group)
    });
    let quantize = |t: usize| {
        let (Some(quantizer), Some(rows)) = (quantizer, &quantized) else {
            return;
        };
        // SAFETY: all tiles are computed, so that nobody writes outputs any more, and each task has a token of
        // its own.
        #[allow(unsafe_code)]
        unsafe {
            let x: &[f32] = out.row(t);
            rows.write(t, |codes, steps| quantizer.quantize(x, codes, steps));
        }
    };
    with_tables(x, [gate.format], |tables| {
        let parts = match up {
            Up::Packed(up) if !matches!(up.scales, Scales::Group(_)) => {
                Parts::of(exec, gate, tokens)
            }
            _ => Parts::tiles(gate, tokens),
        };
        let multiply = |task: usize| {
            let part = parts.part(task);
            let tile = part.tiles.start;
            // SAFETY: each task has row tiles and tokens of its own.
            #[allow(unsafe_code)]
            let out = unsafe { Target::store(&out, tile * rows) };
            gate.multiply_part(exec, x, tables, part.clone(), out);
            let out = out.combined(act);
            match up {
                Up::Packed(w) => w.multiply_part(exec, x, tables, part, out),
                Up::Rows(w) => w.multiply_tile(exec, x, tile, out),
            }
        };
        let more = if quantizer.is_some() { tokens } else { 0 };
        exec.pool
            .run_then((parts.count(), &multiply), (more, &quantize));
    });
}
