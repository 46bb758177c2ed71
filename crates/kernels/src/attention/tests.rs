#![allow(clippy::unwrap_used)]
use super::*;
use crate::kv::KvFormat;

fn noise(n: usize) -> Vec<f32> {
    let mut seed = 3u32;
    let mut next = || {
        seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (seed >> 8) as f32 / (1 << 23) as f32 - 1.0
    };
    (0..n).map(|_| next()).collect()
}

fn store(
    new: fn(KvFormat, usize, usize, usize) -> KvRows,
    format: KvFormat,
    heads: usize,
    rows: &[f32],
    width: usize,
) -> KvRows {
    let mut store = new(format, heads, rows.len() / (heads * width), width);
    let positions = store.positions();
    let rows = rows.chunks(width).enumerate();
    rows.for_each(|(i, row)| store.set(i / positions, i % positions, row));
    store
}

/// One key head, whose queries are `q`.
fn run(q: &[f32], group: usize, stored: (&KvRows, &KvRows), window: Option<usize>) -> Vec<f32> {
    let exec = Exec::new(None, Some(3)).unwrap();
    let head_dim = stored.0.width();
    let heads = Heads {
        kv_heads: 1,
        group,
        head_dim,
    };
    let seen = stored.0.positions() - q.len() / (group * head_dim);
    let mut out = vec![9.0; q.len()];
    causal(&exec, heads, q, stored, seen, window, &mut out);
    out
}

#[test]
fn attention_is_close_to_its_definition() {
    for (width, len, group, tokens, window) in [
        (8, 1, 1, 1, None),
        (16, 63, 2, 3, None),
        (24, 64, 3, 9, Some(7)),
        (128, 65, 4, 1, None),
        (64, 300, 1, 30, None),
        (20, 200, 1, 100, Some(70)),
        (64, 130, 30, 2, Some(1)),
    ] {
        let all = noise((2 * len + group * tokens) * width);
        let (k, rest) = all.split_at(len * width);
        let (v, q) = rest.split_at(len * width);
        for (format, error) in [
            (KvFormat::F32, 1e-6),
            (KvFormat::F16, 2e-3),
            (KvFormat::Int8, 2e-2),
        ] {
            let keys = store(KvRows::keys, format, 1, k, width);
            let values = store(KvRows::values, format, 1, v, width);
            let got = run(q, group, (&keys, &values), window);
            for (row, (q, got)) in q.chunks(width).zip(got.chunks(width)).enumerate() {
                let end = len - tokens + row / group + 1;
                let seen = end.saturating_sub(window.unwrap_or(end))..end;
                let score = |i: usize| {
                    let k = &k[i * width..][..width];
                    k.iter().zip(q).map(|(a, b)| a * b).sum::<f32>() / (width as f32).sqrt()
                };
                let weights: Vec<f32> = seen.clone().map(|i| score(i).exp()).collect();
                let total: f32 = weights.iter().sum();
                for (c, got) in got.iter().enumerate() {
                    let pairs = seen.clone().zip(&weights);
                    let sum: f32 = pairs.map(|(i, w)| w * v[i * width + c]).sum();
                    let want = sum / total;
                    assert!((got - want).abs() < error, "{format:?} {got} {want}");
                }
            }
        }
    }
}

#[test]
fn huge_scores_do_not_overflow() {
    let keys = store(KvRows::keys, KvFormat::F32, 1, &[1e30; 2], 1);
    let values = store(KvRows::values, KvFormat::F32, 1, &[0.0, 1.0], 1);
    assert_eq!(run(&[1.0], 1, (&keys, &values), None), [0.5]);
}

#[test]
fn tokens_together_are_each_by_itself() {
    for (width, group, tokens, seen, window) in [
        (24, 2, 41, 60, None),
        (96, 1, 70, 63, None),
        (128, 4, 9, 130, None),
        (64, 7, 5, 64, Some(33)),
        (16, 11, 20, 50, Some(16)),
        (16, 1, 90, 3, Some(50)),
        (10, 5, 33, 0, Some(3)),
    ] {
        let all = noise((2 * (seen + tokens) + group * tokens) * width);
        let (k, rest) = all.split_at((seen + tokens) * width);
        let (v, q) = rest.split_at((seen + tokens) * width);
        for format in KvFormat::ALL {
            let keys = store(KvRows::keys, format, 1, k, width);
            let values = store(KvRows::values, format, 1, v, width);
            let exec = Exec::new(None, Some(3)).unwrap();
            let heads = Heads {
                kv_heads: 1,
                group,
                head_dim: width,
            };
            let run = |first: usize, n: usize| {
                let q = &q[first * group * width..][..n * group * width];
                let mut out = vec![0.0; q.len()];
                causal(
                    &exec,
                    heads,
                    q,
                    (&keys, &values),
                    seen + first,
                    window,
                    &mut out,
                );
                out
            };
            let together = run(0, tokens);
            let alone: Vec<f32> = (0..tokens).flat_map(|t| run(t, 1)).collect();
            assert_eq!(together, alone, "{format:?}");
        }
    }
}

/// What is asked for ahead lies in the next head, and behind the last there is none.
#[test]
fn heads_beside_each_other_are_each_by_itself() {
    let (kv_heads, positions, width, tokens) = (2, 130, 24, 5);
    let all = noise((2 * positions + tokens) * kv_heads * width);
    let (k, rest) = all.split_at(kv_heads * positions * width);
    let (v, q) = rest.split_at(kv_heads * positions * width);
    let heads = Heads {
        kv_heads,
        group: 1,
        head_dim: width,
    };
    for format in [KvFormat::F32, KvFormat::F16, KvFormat::Int8] {
        let keys = store(KvRows::keys, format, kv_heads, k, width);
        let values = store(KvRows::values, format, kv_heads, v, width);
        for window in [None, Some(70)] {
            let exec = Exec::new(None, Some(2)).unwrap();
            let mut got = vec![9.0; q.len()];
            let seen = positions - tokens;
            causal(&exec, heads, q, (&keys, &values), seen, window, &mut got);
            for head in 0..kv_heads {
                let n = positions * width;
                let of_head = |rows: &[f32]| rows[head * n..][..n].to_vec();
                let part = |rows: &[f32]| -> Vec<f32> {
                    let rows = rows.chunks(width).skip(head).step_by(kv_heads);
                    rows.flatten().copied().collect()
                };
                let keys = store(KvRows::keys, format, 1, &of_head(k), width);
                let values = store(KvRows::values, format, 1, &of_head(v), width);
                let want = run(&part(q), 1, (&keys, &values), window);
                assert_eq!(part(&got), want, "{format:?} {window:?} {head}");
            }
        }
    }
}

/// Adds what tells token, kind and head apart.
struct Mark;

impl Prepare for Mark {
    fn query(&self, token: usize, head: &mut [f32]) {
        head.iter_mut().for_each(|v| *v += 0.1 * token as f32);
    }

    fn key(&self, token: usize, head: &mut [f32]) {
        head.iter_mut().for_each(|v| *v = 0.5 - *v * token as f32);
    }

    fn value(&self, token: usize, head: &mut [f32]) {
        head.iter_mut().for_each(|v| *v *= 1.0 + token as f32);
    }
}

#[test]
fn appended_tokens_are_prepared_stored_and_seen() {
    let width = 24;
    // With few tokens one task does it all, with many it is three steps.
    for (kv_heads, group, seen, tokens) in [
        (1, 1, 0, 1),
        (3, 2, 70, 1),
        (2, 30, 5, 1),
        (2, 30, 5, 2),
        (4, 3, 63, 16),
        (4, 3, 64, 17),
        (1, 1, 3, 100),
    ] {
        let positions = seen + tokens + 3;
        let (heads, q_heads) = (
            Heads {
                kv_heads,
                group,
                head_dim: width,
            },
            kv_heads * group,
        );
        let all = noise((2 * kv_heads * positions + tokens * (q_heads + 2 * kv_heads)) * width);
        let (k, rest) = all.split_at(kv_heads * positions * width);
        let (v, rest) = rest.split_at(kv_heads * positions * width);
        let (q, rest) = rest.split_at(tokens * q_heads * width);
        let (new_k, new_v) = rest.split_at(tokens * kv_heads * width);
        for format in KvFormat::ALL {
            for (threads, window) in [(1, None), (3, Some(20))] {
                let exec = Exec::new(None, Some(threads)).unwrap();
                let stores = || {
                    (
                        store(KvRows::keys, format, kv_heads, k, width),
                        store(KvRows::values, format, kv_heads, v, width),
                    )
                };
                let (mut keys, mut values) = stores();
                let mut new = [q.to_vec(), new_k.to_vec(), new_v.to_vec()];
                let [nq, nk, nv] = &mut new;
                let mut got = vec![9.0; q.len()];
                append(
                    &exec,
                    heads,
                    NewTokens {
                        q: nq,
                        k: nk,
                        v: nv,
                    },
                    &Mark,
                    (&mut keys, &mut values),
                    (seen, window),
                    &mut got,
                );
                let (mut want_keys, mut want_values) = stores();
                let mut q = q.to_vec();
                let mut want = vec![9.0; q.len()];
                for token in 0..tokens {
                    for head in 0..q_heads {
                        Mark.query(token, &mut q[(token * q_heads + head) * width..][..width]);
                    }
                    for head in 0..kv_heads {
                        let at = (token * kv_heads + head) * width;
                        let mut row = new_k[at..][..width].to_vec();
                        Mark.key(token, &mut row);
                        want_keys.set(head, seen + token, &row);
                        let mut row = new_v[at..][..width].to_vec();
                        Mark.value(token, &mut row);
                        want_values.set(head, seen + token, &row);
                    }
                }
                let stored = (&want_keys, &want_values);
                causal(&exec, heads, &q, stored, seen, window, &mut want);
                assert_eq!(got, want, "{format:?} {kv_heads} {group} {seen} {tokens}");
                // What follows reads what was stored.
                let mut again = vec![9.0; q.len()];
                causal(&exec, heads, &q, (&keys, &values), seen, window, &mut again);
                assert_eq!(again, want);
            }
        }
    }
}
