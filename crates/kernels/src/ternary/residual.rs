//! A product that is added to what is there: the end of a sub-layer.

use super::TernaryMatrix;
use super::parts::Parts;
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
            let parts = Parts::of(exec, self, x.tokens());
            exec.pool.run(parts.count(), &|task| {
                let part = parts.part(task);
                // SAFETY: each task has row tiles and tokens of its own.
                #[allow(unsafe_code)]
                let out =
                    unsafe { Target::store(&out, part.tiles.start * self.format.tile_rows()) };
                self.multiply_part(exec, x, tables, part, out.combined(&ops::add));
            });
        });
    }
}
