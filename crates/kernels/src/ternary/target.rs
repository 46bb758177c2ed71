//! Where the outputs of a product go.

use crate::columns::Columns;
use crate::layout::MAX_TILE_ROWS;

/// Replaces outputs that are there, given as many others.
pub(super) type Combine<'a> = dyn Fn(&mut [f32], &[f32]) + Sync + 'a;

/// Some columns of a matrix of outputs. A task has those of its tokens for itself.
#[derive(Clone, Copy)]
pub(crate) struct Target<'a> {
    out: &'a Columns<'a, f32>,
    /// The first column.
    at: usize,
    /// What is done with outputs and those that are there; they are stored where there is nothing.
    combine: Option<&'a Combine<'a>>,
}

impl<'a> Target<'a> {
    /// Outputs are stored from column `at` of `out` on.
    ///
    /// # Safety
    /// Nobody else may have the columns of a token that are written as long as the target is used.
    #[allow(unsafe_code)]
    pub(crate) unsafe fn store(out: &'a Columns<'a, f32>, at: usize) -> Self {
        Self {
            out,
            at,
            combine: None,
        }
    }

    /// The same columns, whose values `combine` replaces.
    pub(super) fn combined(self, combine: &'a Combine<'a>) -> Self {
        Self {
            combine: Some(combine),
            ..self
        }
    }

    /// The same from `columns` columns further on.
    pub(super) fn after(self, columns: usize) -> Self {
        Self {
            at: self.at + columns,
            ..self
        }
    }

    /// Has `compute` write up to `rows` outputs of a token, fewer at the end of the matrix.
    #[inline(always)]
    pub(crate) fn token(&self, token: usize, rows: usize, compute: impl FnOnce(&mut [f32])) {
        // SAFETY: whoever made the target has promised it, and one strip is used at a time.
        #[allow(unsafe_code)]
        let out = unsafe { self.out.strip(token, self.at, rows) };
        match self.combine {
            None => compute(out),
            Some(combine) => {
                let mut own = [0.0; MAX_TILE_ROWS];
                let own = &mut own[..out.len()];
                compute(own);
                combine(out, own);
            }
        }
    }
}
