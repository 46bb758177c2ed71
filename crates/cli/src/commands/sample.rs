//! `tritburn sample`: images of a diffusion transformer.

use std::path::PathBuf;
use std::str::FromStr;
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use tritburn_nn::device::DeviceKind;
use tritburn_quant::config::DitConfig;
use tritburn_train::{SampleOptions, Samples};

use crate::output::{self, say};
use crate::{model_path, png_grid};

/// Most images a side of the grid.
const MOST: usize = 100;

/// Columns and rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Grid {
    columns: usize,
    rows: usize,
}

impl FromStr for Grid {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let sides = text.split_once('x').and_then(|(columns, rows)| {
            let (columns, rows) = (columns.parse().ok()?, rows.parse().ok()?);
            Some(Self { columns, rows })
        });
        let fits = |n: usize| (1..=MOST).contains(&n);
        sides
            .filter(|grid| fits(grid.columns) && fits(grid.rows))
            .ok_or_else(|| format!("expected COLUMNSxROWS, each from 1 to {MOST}, such as 10x8"))
    }
}

/// Draw images with a trained diffusion transformer
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// A run of a diffusion recipe, or one of its checkpoints
    run: PathBuf,
    /// PNG file to write
    #[arg(long, value_name = "PNG")]
    out: PathBuf,
    /// Columns and rows; a column shows one class, and after the last comes the first again
    #[arg(long, value_name = "COLUMNSxROWS", default_value = "10x8")]
    grid: Grid,
    /// Steps from noise to image
    #[arg(long, value_name = "N", default_value_t = 50)]
    steps: usize,
    /// Share of noise drawn anew at each step: 0 is DDIM, 1 with all steps is DDPM
    #[arg(long, value_name = "0..1", default_value_t = 0.0)]
    eta: f64,
    /// Weight of the class: 1 as trained, more for classifier-free guidance
    #[arg(long, value_name = "W", default_value_t = 1.0)]
    guidance: f32,
    /// Seed of the noise
    #[arg(long, value_name = "N", default_value_t = 42)]
    seed: u64,
    /// cpu, ndarray, wgpu or cuda
    #[arg(long, default_value = "cpu")]
    device: String,
}

/// Runs the command.
pub(crate) fn run(args: Args) -> Result<()> {
    let device = DeviceKind::named(&args.device)?;
    let folder = model_path::resolve(&args.run)?;
    let config = DitConfig::read(&folder.join("config.json"))
        .context("`sample` needs a run of a diffusion recipe, such as recipes/dit-mnist.toml")?;
    if !(1..=config.noise_steps).contains(&args.steps) {
        bail!(
            "--steps {}: the model was trained with {} steps, take 1 to {1} of them",
            args.steps,
            config.noise_steps
        );
    }
    ensure!(
        (0.0..=1.0).contains(&args.eta),
        "--eta {}: must lie between 0 (DDIM) and 1 (DDPM)",
        args.eta
    );
    ensure!(
        args.guidance.is_finite() && args.guidance >= 0.0,
        "--guidance {}: must be a number, 0 or more",
        args.guidance
    );
    let Grid { columns, rows } = args.grid;
    let options = SampleOptions {
        classes: (0..columns * rows)
            .map(|i| i % columns % config.num_classes)
            .collect(),
        steps: args.steps,
        eta: args.eta,
        guidance: args.guidance,
        seed: args.seed,
    };
    let clock = Instant::now();
    let Samples { side, pixels } = tritburn_train::sample(&folder, &options, device)?;
    say(format!(
        "{} images of {side}×{side} in {} steps, {:.1} s",
        columns * rows,
        args.steps,
        clock.elapsed().as_secs_f64()
    ));
    let png = png_grid::encode(&pixels, side, columns)?;
    output::write_file(&args.out, &png)?;
    output::print(format_args!("{}\n", args.out.display()))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grids_are_columns_by_rows() {
        let grid = Grid {
            columns: 10,
            rows: 8,
        };
        assert_eq!("10x8".parse(), Ok(grid));
        for bad in ["", "10", "0x8", "8x0", "axb", "10x8x2", "101x1", "-1x2"] {
            let error = bad.parse::<Grid>();
            assert!(error.is_err_and(|e| e.contains("10x8")), "{bad}");
        }
    }
}
