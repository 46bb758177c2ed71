//! Relations between the states of a sequence, and the divergence of a student's from a teacher's, without
//! their squares.

use burn::tensor::DType;

use super::launch::{Buffer, Launch, Source, element, empty, word};
use crate::ops::Relation;

/// Rows of a block.
const BLOCK: usize = 64;

/// Widest head.
const MAX_WIDTH: usize = 256;

/// Whether the kernels take states of `width` values.
pub(super) fn fits(shape: Relation, width: usize) -> bool {
    let head = width / shape.heads.max(1);
    head * shape.heads == width && head.is_multiple_of(16) && (16..=MAX_WIDTH).contains(&head)
}

/// States in bf16 as relations are made from them, and what they were divided by, inverted.
struct Side {
    states: Buffer,
    inverse: Buffer,
    head: usize,
    /// On scores.
    scale: f32,
}

fn launch(entry: &'static str, dtype: DType, shape: Relation, [own, other]: [usize; 2]) -> Launch {
    Launch::new(Source::Relation, entry, 128)
        .define("IN", element(dtype))
        .define("SW", own)
        .define("TW", other)
        .define("COSINE", u8::from(shape.cosine))
}

fn words(shape: Relation, [student, teacher]: [f32; 2]) -> [usize; 5] {
    let teacher = teacher * std::f32::consts::LOG2_E;
    let Relation {
        batch, seq, heads, ..
    } = shape;
    [batch, seq, heads, word(student), word(teacher)]
}

impl Side {
    #[allow(clippy::cast_precision_loss)]
    fn new(x: &Buffer, shape: Relation) -> Self {
        let [rows, width] = [shape.batch * shape.seq, x.meta.shape()[1]];
        let head = width / shape.heads;
        let states = empty(x, [rows, width], DType::BF16);
        let inverse = empty(x, [rows, shape.heads], DType::F32);
        launch("relation_states", x.dtype, shape, [head, head])
            .buffer(x)
            .buffer(&states)
            .buffer(&inverse)
            .run(
                &x.client,
                (rows * shape.heads).div_ceil(4),
                &words(shape, [1.0; 2]),
            );
        let scale = if shape.cosine {
            1.0
        } else {
            1.0 / (head as f32).sqrt()
        };
        Self {
            states,
            inverse,
            head,
            scale,
        }
    }
}

/// `entry` over both sides, with a block of threads for 64 rows.
fn over_both(entry: &'static str, dtype: DType, shape: Relation, sides: [&Side; 2]) -> Launch {
    let heads = sides.map(|side| side.head);
    // The block's own rows and two stages, of both sides; three words a row of each stage.
    let line: usize = heads.iter().map(|head| head + 8).sum();
    let launch = launch(entry, dtype, shape, heads).shared((3 * line * 2 + 6 * 4) * BLOCK);
    let sides = sides.map(|side| &side.states);
    sides.into_iter().fold(launch, Launch::buffer)
}

fn blocks(shape: Relation) -> usize {
    shape.seq.div_ceil(BLOCK) * shape.batch * shape.heads
}

/// Divergence of each row, and what the gradient needs of its sums.
fn divergence(sides: [&Side; 2], shape: Relation) -> [Buffer; 2] {
    let like = &sides[0].states;
    let out = empty(like, [shape.rows()], DType::F32);
    let sums = empty(like, [2, shape.rows()], DType::F32);
    over_both("relation_losses", DType::BF16, shape, sides)
        .buffer(&out)
        .buffer(&sums)
        .run(
            &like.client,
            blocks(shape),
            &words(shape, sides.map(|side| side.scale)),
        );
    [out, sums]
}

/// See [`Kernels::relation_kl`](crate::ops::Kernels::relation_kl).
pub(super) fn kl(student: &Buffer, teacher: &Buffer, shape: Relation) -> Buffer {
    let [student, teacher] = [student, teacher].map(|x| Side::new(x, shape));
    let [out, _] = divergence([&student, &teacher], shape);
    out
}

/// See [`Kernels::relation_kl_grad`](crate::ops::Kernels::relation_kl_grad).
pub(super) fn kl_grad(
    student: &Buffer,
    teacher: &Buffer,
    grad: &Buffer,
    shape: Relation,
) -> Buffer {
    let dims = [shape.batch * shape.seq, student.meta.shape()[1]];
    let out = empty(student, dims, student.dtype);
    let [ours, theirs] = [student, teacher].map(|x| Side::new(x, shape));
    let sides = [&ours, &theirs];
    let [_, sums] = divergence(sides, shape);
    over_both("relation_grad", student.dtype, shape, sides)
        .buffer(&sums)
        .buffer(grad)
        .buffer(&ours.inverse)
        .buffer(&out)
        .run(
            &out.client,
            blocks(shape),
            &words(shape, sides.map(|side| side.scale)),
        );
    out
}
