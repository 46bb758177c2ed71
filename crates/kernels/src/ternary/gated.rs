//! Both projections of a gated feed-forward block and its activation in one parallel region.

use std::cell::RefCell;

use super::TernaryMatrix;
use super::product::with_tables;
use crate::activations::Activations;
use crate::columns::Columns;
use crate::exec::Exec;
use crate::layout::Format;
use crate::shape::assert_width;
use crate::sparse::RowMatrix;

thread_local! {
    /// Outputs of one row tile of `up`, kept by each thread.
    static UP: RefCell<Vec<f32>> = const { RefCell::new(Vec::new()) };
}

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

/// `out[t] = act(gate · x[t], up · x[t])`, `[tokens, rows]`: `act` replaces the outputs of the gate by
/// those of the block, value by value, given some of both. The bits are those of two products and
/// `act` after them, but what `up` gives never leaves the cache of the core that computed it.
///
/// # Panics
/// Where shapes or formats of `gate` and `up` differ, or the widths of `x` or the length of `out` do
/// not fit.
pub fn gemm_gated(
    exec: &Exec,
    x: &Activations,
    gate: &TernaryMatrix,
    up: Up<'_>,
    act: &(dyn Fn(&mut [f32], &[f32]) + Sync),
    out: &mut [f32],
) {
    assert_width(x.width(), gate.cols);
    assert_eq!((gate.rows, gate.cols), up.shape(), "equal shapes");
    assert_eq!(gate.format, up.format(), "equal formats");
    let (tokens, rows) = (x.tokens(), gate.format.tile_rows());
    let out = Columns::new(out, tokens, gate.rows);
    with_tables(x, [gate.format], |tables| {
        exec.pool.run(gate.tiles(), &|tile| {
            let at = tile * rows;
            gate.multiply_tile(exec, x, tables, tile, &out, at);
            UP.with_borrow_mut(|buffer| {
                buffer.resize(tokens * rows, 0.0);
                let part = Columns::new(buffer, tokens, rows);
                match up {
                    Up::Packed(w) => w.multiply_tile(exec, x, tables, tile, &part, 0),
                    Up::Rows(w) => w.multiply_tile(exec, x, tile, &part, 0),
                }
                for (t, up) in buffer.chunks_exact(rows).enumerate() {
                    // SAFETY: each task has a row tile of its own, and the products are done.
                    #[allow(unsafe_code)]
                    let gate = unsafe { out.strip(t, at, rows) };
                    act(gate, &up[..gate.len()]);
                }
            });
        });
    });
}
