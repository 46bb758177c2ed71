//! Logits, states behind each layer and greedy text of whole models.

use std::path::Path;

use burn::backend::{Flex, NdArray};
use burn::tensor::{Int, Tensor, TensorData};
use tritburn_nn::CausalLm;
use tritburn_nn::folder::FolderSource;
use tritburn_nn::ops::{Kernels, Ops};
use tritburn_nn::probe::Probe;
use tritburn_quant::config::ModelConfig;
use tritburn_quant::tensor_file::TensorFile;

use crate::vectors::{Vectors, close, golden, host};

/// Models without ternary projections, which have states and greedy text beside the logits.
const DENSE: [&str; 6] = [
    "llama",
    "llama3_rope",
    "qwen2",
    "qwen3",
    "gemma3",
    "bitnet_unquantised",
];
const TERNARY: &str = "bitnet_online_autobitlinear";
const TOLERANCE: f32 = 1e-4;

/// How sequences come into the model.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Way {
    /// Each by itself.
    Alone,
    /// All at once, padded at their ends.
    Right,
    /// All at once, padded at their beginnings.
    Left,
}

const WAYS: [Way; 3] = [Way::Alone, Way::Right, Way::Left];

/// A model with what transformers computed for it.
struct Golden<B: Kernels> {
    config: ModelConfig,
    model: CausalLm<B>,
    vectors: Vectors,
    /// The tokens of each row that are no padding.
    rows: Vec<Vec<i32>>,
    /// Tokens of a row with padding.
    seq: usize,
}

impl<B: Kernels + Ops> Golden<B> {
    fn open(folder: &Path, vectors: &Path) -> Self {
        let config = ModelConfig::read(&folder.join("config.json")).unwrap();
        let mut source = FolderSource::open(folder).unwrap();
        let model = CausalLm::new(&config, &mut source, &B::Device::default()).unwrap();
        let vectors = Vectors(TensorFile::open(vectors).unwrap());
        let (shape, ids) = integers(&vectors, "input_ids");
        let (_, mask) = integers(&vectors, "attention_mask");
        let pairs = ids.chunks(shape[1]).zip(mask.chunks(shape[1]));
        let rows = pairs.map(|(ids, mask)| {
            let valid = mask.iter().take_while(|m| **m != 0).count();
            assert!(mask[valid..].iter().all(|m| *m == 0), "padding at the end");
            ids[..valid].to_vec()
        });
        Self {
            config,
            model,
            rows: rows.collect(),
            seq: shape[1],
            vectors,
        }
    }

    /// What follows the last layer and its norm, `[tokens, hidden]`, for each of `rows`; a batch is
    /// padded to more than the longest of them.
    fn hidden(&self, rows: &[Vec<i32>], way: Way) -> Vec<Tensor<B, 2>> {
        if way == Way::Alone {
            let one = |row: &Vec<i32>| {
                let tokens = batch(std::slice::from_ref(row), row.len(), way);
                self.model.forward(tokens, &[]).hidden
            };
            return rows.iter().map(one).collect();
        }
        let seq = rows.iter().map(Vec::len).max().unwrap() + 3;
        let tokens = batch(rows, seq, way);
        let padding: Vec<usize> = rows.iter().map(|row| seq - row.len()).collect();
        let all = match way {
            Way::Left => self.model.forward_left_padded(tokens, &padding, &[]),
            _ => self.model.forward(tokens, &[]),
        };
        let valid = rows.iter().zip(padding).enumerate();
        let valid = valid.map(|(i, (row, padding))| {
            let start = i * seq + if way == Way::Left { padding } else { 0 };
            all.hidden.clone().narrow(0, start, row.len())
        });
        valid.collect()
    }

    /// Values of `name`, `[rows, seq, width]`, at the tokens of row `row`.
    fn expected(&self, name: &str, row: usize) -> Vec<f32> {
        let (shape, all) = self.vectors.get(name);
        assert_eq!(shape[..2], [self.rows.len(), self.seq], "{name}");
        all[row * self.seq * shape[2]..][..self.rows[row].len() * shape[2]].to_vec()
    }

    fn check_logits(&self, name: &str, way: Way, tolerance: f32) {
        for (row, hidden) in self.hidden(&self.rows, way).into_iter().enumerate() {
            let found = host(self.model.logits(hidden));
            let expected = self.expected("logits", row);
            let vocab = self.config.vocab_size;
            assert_eq!(found.len(), expected.len());
            for (at, (found, expected)) in
                found.chunks(vocab).zip(expected.chunks(vocab)).enumerate()
            {
                let what = format!("{name} {way:?}, row {row}, token {at}");
                close(&what, found, expected, tolerance);
            }
        }
    }

    /// Most likely token after each of `rows`.
    fn next(&self, rows: &[Vec<i32>], way: Way) -> Vec<i32> {
        let last = self.hidden(rows, way).into_iter().map(|hidden| {
            let end = hidden.dims()[0];
            hidden.narrow(0, end - 1, 1)
        });
        let logits = self.model.logits(Tensor::cat(last.collect(), 0));
        logits.argmax(1).into_data().iter::<i32>().collect()
    }
}

/// Rows filled up to `seq` tokens.
fn batch<B: Kernels>(rows: &[Vec<i32>], seq: usize, way: Way) -> Tensor<B, 2, Int> {
    let filled = rows.iter().flat_map(|row| {
        // A token like any other: nobody may look at it.
        let padding = vec![7; seq - row.len()];
        match way {
            Way::Left => [padding, row.clone()].concat(),
            _ => [row.clone(), padding].concat(),
        }
    });
    let tokens = TensorData::new(filled.collect::<Vec<i32>>(), [rows.len(), seq]);
    Tensor::from_data(tokens, &B::Device::default())
}

fn integers(vectors: &Vectors, name: &str) -> (Vec<usize>, Vec<i32>) {
    let (dtype, shape) = vectors.0.info(name).unwrap();
    let bytes = vectors.0.bytes(name, dtype, shape).unwrap();
    let size = bytes.len() / shape.iter().product::<usize>();
    let values = bytes.chunks_exact(size).map(|c| {
        let mut low = [0; 4];
        low[..size.min(4)].copy_from_slice(&c[..size.min(4)]);
        i32::from_le_bytes(low)
    });
    (shape.to_vec(), values.collect())
}

fn open<B: Kernels + Ops>(name: &str) -> Option<Golden<B>> {
    let folder = golden()?.join(name);
    Some(Golden::open(&folder, &folder.join("golden.safetensors")))
}

/// Logits of both rows in one batch, on the positions that are not padding.
#[cfg(any(feature = "cuda", feature = "wgpu"))]
pub(crate) fn model_logits<B: Kernels + Ops>(name: &str, tolerance: f32) {
    if let Some(golden) = open::<B>(name) {
        golden.check_logits(name, Way::Right, tolerance);
    }
}

fn logits_in_every_way<B: Kernels + Ops>() {
    for name in DENSE.into_iter().chain([TERNARY]) {
        let Some(golden) = open::<B>(name) else {
            return;
        };
        for way in WAYS {
            golden.check_logits(name, way, TOLERANCE);
        }
    }
}

#[test]
fn golden_logits_on_flex() {
    logits_in_every_way::<Flex>();
}

#[test]
fn golden_logits_on_ndarray() {
    logits_in_every_way::<NdArray>();
}

/// transformers computes packed weights partly in bf16, so only the online form is a sharp
/// reference for them.
#[test]
fn golden_logits_of_packed_weights() {
    let Some(dir) = golden() else { return };
    let name = "bitnet_offline_autobitlinear";
    let online = dir.join(TERNARY).join("golden.safetensors");
    let golden = Golden::<Flex>::open(&dir.join(name), &online);
    for way in WAYS {
        golden.check_logits(name, way, TOLERANCE);
    }
}

/// The states of the residual stream, behind the embedding and behind each layer.
struct Residual<B: Kernels>(Vec<Tensor<B, 2>>);

impl<B: Kernels> Probe<B> for Residual<B> {
    fn residual(&mut self, x: Tensor<B, 2>) -> Tensor<B, 2> {
        self.0.push(x.clone());
        x
    }
}

fn states_behind_each_layer<B: Kernels + Ops>() {
    for name in DENSE {
        let Some(golden) = open::<B>(name) else {
            return;
        };
        let tokens = batch(&golden.rows, golden.seq, Way::Right);
        let mut residual = Residual(Vec::new());
        let forward = golden.model.forward_probed(tokens, &[], &mut residual);
        let layers = golden.config.num_hidden_layers;
        assert_eq!(residual.0.len(), layers + 1);
        // transformers gives the last one after the norm.
        residual.0[layers] = forward.hidden;
        for (i, found) in residual.0.into_iter().enumerate() {
            for (row, tokens) in golden.rows.iter().enumerate() {
                let found = found.clone().narrow(0, row * golden.seq, tokens.len());
                let expected = golden.expected(&format!("hidden.{i}"), row);
                let what = format!("{name}, hidden.{i}, row {row}");
                close(&what, &host(found), &expected, TOLERANCE);
            }
        }
    }
}

#[test]
fn golden_states_on_flex() {
    states_behind_each_layer::<Flex>();
}

#[test]
fn golden_states_on_ndarray() {
    states_behind_each_layer::<NdArray>();
}

#[test]
fn left_padded_states_are_those_of_the_tokens() {
    let Some(golden) = open::<Flex>("gemma3") else {
        return;
    };
    let (rows, seq) = (&golden.rows, golden.seq);
    let padding: Vec<usize> = rows.iter().map(|row| seq - row.len()).collect();
    let model = &golden.model;
    let right = model.forward(batch(rows, seq, Way::Right), &[1, 0]).states;
    let left = batch(rows, seq, Way::Left);
    let left = model.forward_left_padded(left, &padding, &[1, 0]).states;
    assert_eq!((left.len(), right.len()), (2, 2));
    for (left, right) in left.into_iter().zip(right) {
        for (left, right) in [(left.q, right.q), (left.k, right.k), (left.v, right.v)] {
            for (i, row) in rows.iter().enumerate() {
                let right = right.clone().narrow(0, i * seq, row.len());
                let left = left.clone().narrow(0, i * seq + padding[i], row.len());
                assert_eq!(host(left), host(right), "row {i}");
            }
        }
    }
}

/// Greedy text token for token: alone and beside a shorter and a longer sequence. There is no cache
/// of keys and values here: each token comes from the whole text.
fn greedy_text<B: Kernels + Ops>() {
    for name in DENSE {
        let Some(golden) = open::<B>(name) else {
            return;
        };
        let (_, expected) = integers(&golden.vectors, "greedy");
        let vocab = i32::try_from(golden.config.vocab_size).unwrap();
        let longer: Vec<i32> = (0..40).map(|i| i * 37 % vocab).collect();
        for way in WAYS {
            let mut rows = vec![
                golden.rows[0].clone(),
                golden.rows[1].clone(),
                longer.clone(),
            ];
            if way == Way::Alone {
                rows.truncate(1);
            }
            while rows[0].len() < expected.len() {
                let next = golden.next(&rows, way)[0];
                rows[0].push(next);
            }
            assert_eq!(rows[0], expected, "{name} {way:?}");
        }
    }
}

#[test]
fn golden_greedy_on_flex() {
    greedy_text::<Flex>();
}

#[test]
fn golden_greedy_on_ndarray() {
    greedy_text::<NdArray>();
}
