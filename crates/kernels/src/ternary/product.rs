//! Products of ternary matrices.

use std::cell::{Cell, RefCell};
use std::ops::Range;

use super::TernaryMatrix;
use crate::activations::{Activations, GROUP};
use crate::columns::Columns;
use crate::epilogue::{self, Factor};
use crate::exec::Exec;
use crate::kernel::{LookupTile, PackedTile};
use crate::layout::{self, Format, QUAD, WeightBlock};
use crate::lookup::{self, Table};
use crate::planes::Planes;
use crate::scales::Scales;
use crate::shape::assert_width;

/// Tokens whose sums are held at once.
const TOKENS: usize = 256;

thread_local! {
    /// Sums of one row tile, kept by each thread so that nothing is allocated while decoding.
    static SUMS: RefCell<Sums> = const {
        RefCell::new(Sums { acc: Vec::new(), total: Vec::new(), spread: Vec::new() })
    };
    /// Tables of one token, kept by the thread that asks for products.
    static TABLES: Cell<Vec<Table>> = const { Cell::new(Vec::new()) };
}

struct Sums {
    acc: Vec<i32>,
    total: Vec<f32>,
    /// A row tile of tables as one of planes.
    spread: Vec<WeightBlock>,
}

/// How the sums of a row tile are computed.
#[derive(Clone, Copy)]
enum Way<'a> {
    /// From products with activations.
    Products(Planes, &'a [WeightBlock]),
    /// From tables of one token.
    Tables(&'a [Table], &'a [WeightBlock]),
}

impl<'a> Way<'a> {
    fn weights(self) -> &'a [WeightBlock] {
        match self {
            Self::Products(_, weights) | Self::Tables(_, weights) => weights,
        }
    }

    /// Only blocks `first..first + n`, fewer at the end.
    fn part(self, first: usize, n: usize) -> Self {
        let end = self.weights().len().min(first + n);
        match self {
            Self::Products(planes, weights) => Self::Products(planes, &weights[first..end]),
            Self::Tables(tables, weights) => {
                Self::Tables(&tables[first..end], &weights[first..end])
            }
        }
    }

    /// Sums of `tokens` of `x` from column `column` of these blocks on.
    fn sums(
        self,
        exec: &Exec,
        x: &Activations,
        tokens: &Range<usize>,
        column: usize,
        acc: &mut [i32],
    ) {
        match self {
            Self::Products(planes, weights) => {
                let part = PackedTile {
                    weights,
                    x: &x.rows(tokens.start)[column / layout::DEPTH..],
                    stride: x.stride(),
                    tokens: tokens.len(),
                };
                exec.kernel.ternary_tile(planes, part, acc);
            }
            Self::Tables(tables, weights) => {
                exec.kernel.lookup_tile(LookupTile { weights, tables }, acc);
            }
        }
    }
}

impl TernaryMatrix {
    /// One row tile for all tokens; `tables` are those of the one token, where there are any.
    fn multiply_tile(
        &self,
        exec: &Exec,
        x: &Activations,
        tables: &[Table],
        tile: usize,
        out: &Columns<'_, f32>,
    ) {
        SUMS.with_borrow_mut(|sums| {
            let mut spread = std::mem::take(&mut sums.spread);
            let weights = self.tile(tile);
            let way = match self.format.planes() {
                Some(planes) => Way::Products(planes, weights),
                None if x.tokens() == 1 => Way::Tables(&tables[..weights.len()], weights),
                None => {
                    lookup::to_planes(weights, &mut spread);
                    Way::Products(Planes::TwoBit, &spread)
                }
            };
            for first in (0..x.tokens()).step_by(TOKENS) {
                let tokens = first..x.tokens().min(first + TOKENS);
                match &self.scales {
                    Scales::Group(_) => {
                        self.tile_of_groups(exec, x, (tile, way), tokens, sums, out)
                    }
                    _ => self.tile_of_rows(exec, x, (tile, way), tokens, sums, out),
                }
            }
            sums.spread = spread;
        });
    }

    fn tile_of_rows(
        &self,
        exec: &Exec,
        x: &Activations,
        (tile, way): (usize, Way<'_>),
        tokens: Range<usize>,
        sums: &mut Sums,
        out: &Columns<'_, f32>,
    ) {
        let rows = self.format.tile_rows();
        sums.acc.resize(tokens.len() * rows, 0);
        way.sums(exec, x, &tokens, 0, &mut sums.acc);
        for (t, acc) in tokens.zip(sums.acc.chunks_exact(rows)) {
            let step = x.steps()[t];
            let factor = match &self.scales {
                Scales::Tensor(scale) => Factor::Step(step * scale),
                Scales::Row(scales) | Scales::Group(scales) => {
                    Factor::Rows(step, &scales[tile * rows..])
                }
            };
            // SAFETY: each task has a row tile of its own.
            #[allow(unsafe_code)]
            let out = unsafe { out.strip(t, tile * rows, rows) };
            epilogue::scale(acc, x.sums()[t], factor, out);
        }
    }

    fn tile_of_groups(
        &self,
        exec: &Exec,
        x: &Activations,
        (tile, way): (usize, Way<'_>),
        tokens: Range<usize>,
        sums: &mut Sums,
        out: &Columns<'_, f32>,
    ) {
        let rows = self.format.tile_rows();
        let groups = self.cols.div_ceil(GROUP);
        sums.acc.resize(tokens.len() * rows, 0);
        sums.total.clear();
        sums.total.resize(tokens.len() * rows, 0.0);
        for g in 0..groups {
            let way = way.part(g * (GROUP / QUAD), GROUP / QUAD);
            way.sums(exec, x, &tokens, g * GROUP, &mut sums.acc);
            let scales = &self.group_scales[(tile * groups + g) * rows..][..rows];
            let pairs = sums
                .acc
                .chunks_exact(rows)
                .zip(sums.total.chunks_exact_mut(rows));
            for (t, (acc, total)) in tokens.clone().zip(pairs) {
                epilogue::add_group(acc, x.group_sums(t)[g], scales, total);
            }
        }
        for (t, total) in tokens.zip(sums.total.chunks_exact(rows)) {
            // SAFETY: each task has a row tile of its own.
            #[allow(unsafe_code)]
            let out = unsafe { out.strip(t, tile * rows, rows) };
            epilogue::scale_total(total, x.steps()[t], out);
        }
    }
}

/// [`TernaryMatrix::gemm`] of several matrices with the same activations, in one parallel region.
///
/// # Panics
/// As [`TernaryMatrix::gemm`].
pub fn gemm_all<const N: usize>(
    exec: &Exec,
    x: &Activations,
    products: &mut [(&TernaryMatrix, &mut [f32]); N],
) {
    let matrices: [&TernaryMatrix; N] = std::array::from_fn(|i| products[i].0);
    for matrix in matrices {
        assert_width(x.width(), matrix.cols);
    }
    let mut outs = products.each_mut().map(|(_, out)| out);
    let outs: [Columns<'_, f32>; N] = {
        let mut i = 0;
        outs.each_mut().map(|out| {
            i += 1;
            Columns::new(out, x.tokens(), matrices[i - 1].rows)
        })
    };
    let mut tables = TABLES.take();
    let looks_up = |m: &&TernaryMatrix| m.format == Format::Lookup;
    if x.tokens() == 1 && matrices.iter().any(looks_up) {
        lookup::fill_tables(x.rows(0), &mut tables);
    }
    let tiles = matrices.map(TernaryMatrix::tiles).iter().sum();
    exec.pool.run(tiles, &|mut tile| {
        for (matrix, out) in matrices.iter().zip(&outs) {
            if tile < matrix.tiles() {
                return matrix.multiply_tile(exec, x, &tables, tile, out);
            }
            tile -= matrix.tiles();
        }
    });
    TABLES.set(tables);
}
