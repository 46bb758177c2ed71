//! A product that is added to what is there: the end of a sub-layer.

use super::TernaryMatrix;
use super::product::with_tables;
use super::target::Target;
use crate::activations::Activations;
use crate::columns::Columns;
use crate::exec::Exec;
use crate::ops;
use crate::shape::assert_width;

impl TernaryMatrix {
    /// Adds to `out`, `[tokens, rows]`, what [`Self::gemm`] gives, in one pass over it and with the same
    /// bits as in two.
    ///
    /// # Panics
    /// As [`Self::gemm`].
    pub fn gemm_add(&self, exec: &Exec, x: &Activations, out: &mut [f32]) {
        assert_width(x.width(), self.cols);
        let out = Columns::new(out, x.tokens(), self.rows);
        with_tables(x, [self.format], |tables| {
            exec.pool.run(self.tiles(), &|tile| {
                // SAFETY: each task has a row tile of its own.
                #[allow(unsafe_code)]
                let out = unsafe { Target::store(&out, tile * self.format.tile_rows()) };
                self.multiply_tile(exec, x, tables, tile, out.combined(&ops::add));
            });
        });
    }
}
