//! Noise, the kernels of this processor, and products written down as their definition.

use tritburn_kernels::{Activations, Exec, Format, Pool, Scales, TernaryMatrix, available};

/// Numbers without a pattern, the same on every machine.
pub(crate) struct Noise(pub(crate) u64);

impl Noise {
    pub(crate) fn next(&mut self) -> u32 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963);
        (self.0 >> 33) as u32
    }

    pub(crate) fn trits(&mut self, n: usize) -> Vec<i8> {
        (0..n).map(|_| (self.next() % 3) as i8 - 1).collect()
    }

    pub(crate) fn bytes(&mut self, n: usize) -> Vec<i8> {
        (0..n).map(|_| self.next() as i8).collect()
    }

    pub(crate) fn floats(&mut self, n: usize) -> Vec<f32> {
        (0..n)
            .map(|_| self.next() as f32 / (1u32 << 30) as f32 - 1.0)
            .collect()
    }
}

/// Every kernel, on so many threads.
pub(crate) fn execs(threads: usize) -> Vec<Exec> {
    let exec = |k: &'static dyn tritburn_kernels::Kernel| Exec {
        kernel: k,
        pool: Pool::new(threads).unwrap(),
    };
    available().iter().map(|k| exec(k.as_ref())).collect()
}

pub(crate) fn bits(v: &[f32]) -> Vec<u32> {
    v.iter().map(|v| v.to_bits()).collect()
}

/// A product of codes, small enough to be written down as its definition.
pub(crate) struct Case {
    pub(crate) rows: usize,
    pub(crate) cols: usize,
    pub(crate) w: Vec<i8>,
    pub(crate) x: Vec<i8>,
    pub(crate) steps: Vec<f32>,
    pub(crate) scales: Scales,
}

impl Case {
    pub(crate) fn new(noise: &mut Noise, rows: usize, cols: usize, tokens: usize) -> Self {
        Self {
            rows,
            cols,
            w: noise.trits(rows * cols),
            x: noise.bytes(tokens * cols),
            steps: (0..tokens).map(|t| 0.01 + t as f32 * 0.003).collect(),
            scales: Scales::Tensor(0.37),
        }
    }

    pub(crate) fn dot(&self, r: usize, t: usize, columns: std::ops::Range<usize>) -> f32 {
        let product =
            |c| i32::from(self.w[r * self.cols + c]) * i32::from(self.x[t * self.cols + c]);
        columns.map(product).sum::<i32>() as f32
    }

    /// The definition: sums of codes, then the scales.
    pub(crate) fn expected(&self) -> Vec<f32> {
        let mut out = Vec::new();
        for (t, step) in self.steps.iter().enumerate() {
            for r in 0..self.rows {
                let all = 0..self.cols;
                out.push(match &self.scales {
                    Scales::Tensor(scale) => self.dot(r, t, all) * (step * scale),
                    Scales::Row(scales) => self.dot(r, t, all) * (step * scales[r]),
                    Scales::Group(scales) => {
                        let groups = self.cols.div_ceil(128);
                        let group = |g| {
                            let columns = g * 128..self.cols.min(g * 128 + 128);
                            self.dot(r, t, columns) * scales[r * groups + g]
                        };
                        (0..groups).map(group).fold(0.0, |a, b| a + b) * step
                    }
                });
            }
        }
        out
    }

    pub(crate) fn matrix(&self, format: Format) -> TernaryMatrix {
        TernaryMatrix::with_scales(&self.w, self.rows, self.cols, self.scales.clone(), format)
            .unwrap()
    }

    pub(crate) fn check(&self, execs: &[Exec]) {
        let want = bits(&self.expected());
        let x = Activations::from_codes(&self.x, &self.steps, self.cols);
        for format in Format::ALL {
            let matrix = self.matrix(format);
            for exec in execs {
                let mut out = vec![f32::NAN; want.len()];
                matrix.gemm(exec, &x, &mut out);
                let (kernel, tokens) = (exec.kernel.name(), self.steps.len());
                let (rows, cols, threads) = (self.rows, self.cols, exec.threads());
                assert!(
                    bits(&out) == want,
                    "{kernel} {format:?} {rows}×{cols}×{tokens}, {threads} threads"
                );
            }
        }
    }
}
