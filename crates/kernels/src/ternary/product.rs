//! Products of ternary matrices.

use std::cell::{Cell, RefCell};
use std::ops::Range;

use super::TernaryMatrix;
use super::parts::{Part, Parts};
use super::target::Target;
use crate::activations::{Activations, GROUP};
use crate::columns::Columns;
use crate::epilogue::{self, Factor};
use crate::exec::Exec;
use crate::kernel::{LookupTile, PackedTile, Together};
use crate::layout::{self, Format, QUAD, WeightBlock, tile_blocks};
use crate::lookup::{self, Table};
use crate::planes::Planes;
use crate::scales::Scales;
use crate::shape::assert_width;
use crate::vectors::vectorized;

/// Tokens whose totals over groups are held at once.
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

    /// Gives `each` the sums of `tokens` of `x` from column `column` of these blocks on, some tokens
    /// after the other, with the number of the first counted from the first of `tokens`.
    fn sums(
        self,
        exec: &Exec,
        x: &Activations,
        tokens: &Range<usize>,
        column: usize,
        acc: &mut Vec<i32>,
        each: &mut dyn FnMut(usize, &[i32]),
    ) {
        match self {
            Self::Products(planes, weights) => {
                let part = PackedTile {
                    weights,
                    x: &x.rows(tokens.start)[column / layout::DEPTH..],
                    stride: x.stride(),
                    tokens: tokens.len(),
                };
                exec.kernel.ternary_sums(planes, part, acc, each);
            }
            Self::Tables(tables, weights) => {
                acc.resize(Format::Lookup.tile_rows(), 0);
                exec.kernel.lookup_tile(LookupTile { weights, tables }, acc);
                each(0, acc);
            }
        }
    }
}

impl TernaryMatrix {
    /// The outputs of `part`, of which those of its first row tile go to `out`; `tables` are those of the one
    /// token, where there are any.
    pub(super) fn multiply_part(
        &self,
        exec: &Exec,
        x: &Activations,
        tables: &[Table],
        part: Part<'_>,
        out: Target<'_>,
    ) {
        if let Some((together, tokens)) = &part.together {
            self.multiply_together(x, (*together, &part.tiles, tokens), out);
            if part.tokens.is_empty() {
                return;
            }
        }
        let rows = self.format.tile_rows();
        for (i, tile) in part.tiles.enumerate() {
            let out = out.after(i * rows);
            self.multiply_tile(exec, x, tables, (tile, &part.tokens), out);
        }
    }

    fn multiply_together(
        &self,
        x: &Activations,
        (together, tiles, tokens): (&dyn Together, &Range<usize>, &Range<usize>),
        out: Target<'_>,
    ) {
        let Some(planes) = self.format.planes() else {
            unreachable!("a way for planes");
        };
        x.assert_step_per_token();
        let (rows, blocks) = (self.format.tile_rows(), tile_blocks(self.cols));
        let all = PackedTile {
            weights: &self.data[tiles.start * blocks..tiles.end * blocks],
            x: x.rows(tokens.start),
            stride: x.stride(),
            tokens: tokens.len(),
        };
        let mut each = |i: usize, token: usize, acc: &[i32]| {
            let (tile, token) = (tiles.start + i, tokens.start + token);
            let out = out.after(i * rows);
            match &self.scales {
                Scales::Row(scales) => {
                    let factor = |step| Factor::Rows(step, &scales[tile * rows..]);
                    scale_tokens(x, token, rows, acc, factor, out);
                }
                Scales::Tensor(scale) => {
                    scale_tokens(x, token, rows, acc, |step| Factor::Step(step * scale), out);
                }
                Scales::Group(_) => unreachable!("computed row tile by row tile"),
            }
        };
        together.ternary_tiles(planes, tiles.len(), all, &mut each);
    }

    /// One row tile for some tokens; `tables` are those of the one token, where there are any.
    fn multiply_tile(
        &self,
        exec: &Exec,
        x: &Activations,
        tables: &[Table],
        (tile, tokens): (usize, &Range<usize>),
        out: Target<'_>,
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
            let rows = self.format.tile_rows();
            match &self.scales {
                Scales::Group(_) => self.tile_of_groups(exec, (x, tokens), (tile, way), sums, out),
                Scales::Row(scales) => {
                    let factor = |step| Factor::Rows(step, &scales[tile * rows..]);
                    tile_of_rows(exec, (x, tokens), (rows, way), factor, &mut sums.acc, out);
                }
                Scales::Tensor(scale) => {
                    let factor = |step| Factor::Step(step * scale);
                    tile_of_rows(exec, (x, tokens), (rows, way), factor, &mut sums.acc, out);
                }
            }
            sums.spread = spread;
        });
    }

    fn tile_of_groups(
        &self,
        exec: &Exec,
        (x, tokens): (&Activations, &Range<usize>),
        (tile, way): (usize, Way<'_>),
        sums: &mut Sums,
        out: Target<'_>,
    ) {
        let rows = self.format.tile_rows();
        let groups = self.cols.div_ceil(GROUP);
        for tokens in some_tokens(tokens) {
            sums.total.clear();
            sums.total.resize(tokens.len() * rows, 0.0);
            for g in 0..groups {
                let way = way.part(g * (GROUP / QUAD), GROUP / QUAD);
                let scales = &self.group_scales[(tile * groups + g) * rows..][..rows];
                let total = &mut sums.total;
                let mut add = |first: usize, acc: &[i32]| {
                    let totals = total[first * rows..].chunks_exact_mut(rows);
                    for (t, (acc, total)) in acc.chunks_exact(rows).zip(totals).enumerate() {
                        let t = tokens.start + first + t;
                        let (sum, step) = (x.group_sums(t)[g], x.group_step(t, g));
                        epilogue::add_group(acc, sum, scales, step, total);
                    }
                };
                way.sums(exec, x, &tokens, g * GROUP, &mut sums.acc, &mut add);
            }
            for (t, total) in tokens.zip(sums.total.chunks_exact(rows)) {
                out.token(t, rows, |out| {
                    epilogue::scale_total(total, x.steps()[t], out);
                });
            }
        }
    }
}

/// The tokens whose totals are held at once, part by part.
fn some_tokens(all: &Range<usize>) -> impl Iterator<Item = Range<usize>> {
    let end = all.end;
    all.clone()
        .step_by(TOKENS)
        .map(move |first| first..end.min(first + TOKENS))
}

/// A tile of `rows` rows whose scales do not change along a row; `factor` gives them for the step of
/// a token.
fn tile_of_rows<'a>(
    exec: &Exec,
    (x, tokens): (&Activations, &Range<usize>),
    (rows, way): (usize, Way<'_>),
    factor: impl Fn(f32) -> Factor<'a>,
    acc: &mut Vec<i32>,
    out: Target<'_>,
) {
    x.assert_step_per_token();
    let mut scale = |first: usize, acc: &[i32]| {
        scale_tokens(x, tokens.start + first, rows, acc, &factor, out);
    };
    way.sums(exec, x, tokens, 0, acc, &mut scale);
}

/// Outputs of `rows` rows each for some tokens from `first` on.
#[inline]
fn scale_tokens<'a>(
    x: &Activations,
    first: usize,
    rows: usize,
    acc: &[i32],
    factor: impl Fn(f32) -> Factor<'a>,
    out: Target<'_>,
) {
    vectorized(
        #[inline(always)]
        || {
            for (i, acc) in acc.chunks_exact(rows).enumerate() {
                let t = first + i;
                let (sum, factor) = (x.sums()[t], factor(x.steps()[t]));
                out.token(
                    t,
                    rows,
                    #[inline(always)]
                    |out| epilogue::scale_token(acc, sum, factor, out),
                );
            }
        },
    );
}

/// A row tile that `spread` writes as [`Format::TwoBit`] has it, for all tokens.
pub(crate) fn multiply_spread<'a>(
    exec: &Exec,
    x: &Activations,
    spread: impl FnOnce(&mut Vec<WeightBlock>),
    factor: impl Fn(f32) -> Factor<'a>,
    out: Target<'_>,
) {
    SUMS.with_borrow_mut(|sums| {
        spread(&mut sums.spread);
        let tile = (
            Format::TwoBit.tile_rows(),
            Way::Products(Planes::TwoBit, &sums.spread),
        );
        tile_of_rows(
            exec,
            (x, &(0..x.tokens())),
            tile,
            factor,
            &mut sums.acc,
            out,
        );
    });
}

/// Calls `f` with the tables of the one token of `x`, where a matrix of `formats` looks sums up.
pub(super) fn with_tables(
    x: &Activations,
    formats: impl IntoIterator<Item = Format>,
    f: impl FnOnce(&[Table]),
) {
    let mut tables = TABLES.take();
    if x.tokens() == 1 && formats.into_iter().any(|f| f == Format::Lookup) {
        lookup::fill_tables(x.rows(0), &mut tables);
    }
    f(&tables);
    TABLES.set(tables);
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
    let parts = matrices.map(|matrix| Parts::of(exec, matrix, x.tokens()));
    let tasks = parts.map(Parts::count).iter().sum();
    with_tables(x, matrices.map(|m| m.format), |tables| {
        exec.pool.run(tasks, &|mut task| {
            for ((matrix, parts), out) in matrices.iter().zip(parts).zip(&outs) {
                if task < parts.count() {
                    let part = parts.part(task);
                    // SAFETY: each task has row tiles and tokens of its own.
                    #[allow(unsafe_code)]
                    let out =
                        unsafe { Target::store(out, part.tiles.start * matrix.format.tile_rows()) };
                    return matrix.multiply_part(exec, x, tables, part, out);
                }
                task -= parts.count();
            }
        });
    });
}
