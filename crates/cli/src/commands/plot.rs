//! `tritburn plot`.

use std::error::Error;
use std::path::{Path, PathBuf};

use anyhow::{Result, anyhow};
use plotters::coord::Shift;
use plotters::prelude::*;

use crate::metrics::{self, Points, Stage};
use crate::{model_path, output};

/// Width of the drawing and height of a panel, in pixels.
const PANEL: (u32, u32) = (900, 380);
/// Losses that lie further apart than this factor are drawn on a logarithmic scale.
const LINEAR_UP_TO: f64 = 20.0;
/// Width of the legend beside a panel.
const LEGEND: u32 = 200;
const FONT: &str = "sans-serif";

/// Arguments of `plot`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// A run, or its metrics.jsonl
    run: PathBuf,
    /// File to write [default: curves.svg in the run]
    #[arg(long, value_name = "SVG")]
    out: Option<PathBuf>,
}

/// Draws.
pub(crate) fn run(args: Args) -> Result<()> {
    let (folder, file) = if args.run.is_dir() {
        (args.run.clone(), args.run.join("metrics.jsonl"))
    } else {
        (
            args.run.parent().unwrap_or(Path::new("")).to_path_buf(),
            args.run.clone(),
        )
    };
    let stages = metrics::read(&file)?;
    let title = model_path::name(if folder.as_os_str().is_empty() {
        Path::new(".")
    } else {
        &folder
    });
    let svg = draw(&stages, &title).map_err(|error| anyhow!("cannot draw the curves: {error}"))?;
    let out = args.out.unwrap_or_else(|| folder.join("curves.svg"));
    output::write_file(&out, svg.as_bytes())?;
    output::print(format_args!("{}\n", out.display()))?;
    Ok(())
}

/// A curve with its name and colour.
struct Series<'a> {
    name: String,
    color: RGBAColor,
    points: &'a Points,
}

/// A stage has the same colour in both panels, and both show the same steps.
fn draw(stages: &[Stage], title: &str) -> Result<String, Box<dyn Error>> {
    let (mut losses, mut accuracies) = (Vec::new(), Vec::new());
    for (index, stage) in stages.iter().enumerate() {
        let color = Palette99::pick(index);
        let name = if stage.name.is_empty() {
            "run"
        } else {
            &stage.name
        };
        let series = |name, opacity, points| Series {
            name,
            color: color.mix(opacity),
            points,
        };
        losses.push(series(name.to_owned(), 1.0, &stage.loss));
        losses.push(series(format!("{name}, cross-entropy"), 0.45, &stage.ce));
        losses.push(series(format!("{name}, held out"), 0.45, &stage.held_out));
        for (task, points) in &stage.accuracy {
            accuracies.push(series(format!("{name}, {task}"), 1.0, points));
        }
    }
    let mut panels = [("loss", losses), ("accuracy", accuracies)];
    for (_, series) in &mut panels {
        series.retain(|s| !s.points.is_empty());
    }
    let points = panels
        .iter()
        .flat_map(|(_, series)| series)
        .flat_map(|s| s.points);
    let steps = range(points.map(|&(step, _)| step));
    let shown: Vec<_> = panels
        .iter()
        .filter(|(_, series)| !series.is_empty())
        .collect();

    let mut svg = String::new();
    {
        let height = 40 + PANEL.1 * u32::try_from(shown.len())?;
        let root = SVGBackend::with_string(&mut svg, (PANEL.0, height)).into_drawing_area();
        root.fill(&WHITE)?;
        let areas = root
            .titled(title, (FONT, 20))?
            .split_evenly((shown.len(), 1));
        for ((name, series), area) in shown.into_iter().zip(&areas) {
            let (plot, side) = area.split_horizontally(PANEL.0 - LEGEND);
            panel(&plot, name, series, steps)?;
            legend(&side, series)?;
        }
        root.present()?;
    }
    Ok(svg)
}

fn panel(
    area: &DrawingArea<SVGBackend<'_>, Shift>,
    name: &str,
    series: &[Series<'_>],
    (left, right): (f64, f64),
) -> Result<(), Box<dyn Error>> {
    let values = series
        .iter()
        .flat_map(|s| s.points)
        .map(|&(_, value)| value);
    let (low, high) = range(values);
    let logarithmic = name == "loss" && low > 0.0 && high > LINEAR_UP_TO * low;
    let place = |y: f64| if logarithmic { y.log10() } else { y };
    let value = |y: f64| if logarithmic { 10_f64.powf(y) } else { y };
    let (bottom, top) = (place(low), place(high));
    // A single point or a level line needs some room too.
    let margin = if top > bottom {
        0.05 * (top - bottom)
    } else {
        0.5
    };
    let right = if right > left { right } else { left + 1.0 };

    let mut chart = ChartBuilder::on(area)
        .margin(10)
        .x_label_area_size(40)
        .y_label_area_size(70)
        .build_cartesian_2d(left..right, bottom - margin..top + margin)?;
    chart
        .configure_mesh()
        .x_desc("step")
        .y_desc(if logarithmic {
            format!("{name} (log)")
        } else {
            name.to_owned()
        })
        .label_style((FONT, 13))
        .light_line_style(WHITE)
        .x_label_formatter(&|x| format!("{x:.0}"))
        .y_label_formatter(&|&y| short(value(y)))
        .draw()?;
    for s in series {
        let points: Vec<(f64, f64)> = s.points.iter().map(|&(x, y)| (x, place(y))).collect();
        if let [point] = points[..] {
            chart.draw_series([Circle::new(point, 3, s.color.filled())])?;
        }
        chart.draw_series(LineSeries::new(points, s.color.stroke_width(2)))?;
    }
    Ok(())
}

/// Beside the panel, where it can hide no curve.
fn legend(
    area: &DrawingArea<SVGBackend<'_>, Shift>,
    series: &[Series<'_>],
) -> Result<(), Box<dyn Error>> {
    for (index, s) in series.iter().enumerate() {
        let y = 20 + 20 * i32::try_from(index)?;
        area.draw(&PathElement::new(
            [(0, y), (18, y)],
            s.color.stroke_width(2),
        ))?;
        area.draw(&Text::new(s.name.clone(), (24, y - 7), (FONT, 13)))?;
    }
    Ok(())
}

fn range(values: impl Iterator<Item = f64>) -> (f64, f64) {
    values.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), v| {
        (low.min(v), high.max(v))
    })
}

/// Three digits or so.
fn short(value: f64) -> String {
    match value.abs() {
        v if v >= 100.0 => format!("{value:.0}"),
        v if v >= 1.0 => format!("{value:.1}"),
        v if v >= 0.01 || v == 0.0 => format!("{value:.2}"),
        _ => format!("{value:.1e}"),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn both_panels_have_their_words_as_text() {
        let stages = [
            Stage {
                name: "teacher".into(),
                loss: vec![(0.0, 3.0), (10.0, 1.0)],
                accuracy: [("mnli".to_owned(), vec![(10.0, 0.7)])].into(),
                ..Stage::default()
            },
            Stage {
                name: "kd".into(),
                loss: vec![(11.0, 90.0), (12.0, 70.0)],
                ce: vec![(11.0, 1.2)],
                held_out: vec![(12.0, 71.0)],
                ..Stage::default()
            },
        ];
        let svg = draw(&stages, "a <run>").unwrap();
        let text: Vec<&str> = svg.lines().map(str::trim).collect();
        for word in [
            "teacher",
            "kd, cross-entropy",
            "kd, held out",
            "teacher, mnli",
            "loss (log)",
            "accuracy",
            "step",
        ] {
            assert!(text.contains(&word), "{word} is missing in {svg}");
        }
        assert!(svg.contains("a &lt;run&gt;"), "{svg}");
    }

    #[test]
    fn a_run_without_evaluation_has_one_panel() {
        let stage = Stage {
            loss: vec![(5.0, 2.0)],
            ..Stage::default()
        };
        let svg = draw(&[stage], "run").unwrap();
        assert!(
            svg.contains("<circle") && !svg.contains("accuracy"),
            "{svg}"
        );
    }
}
