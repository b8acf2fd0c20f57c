//! The plot of a run: for each workload the rate of every core over time, and the latencies.

use super::{
    error::BenchError,
    figures::{QUANTILES, SERIES_STEP, WorkloadReport},
    report::Report,
};
use plotters::{
    coord::Shift,
    prelude::{
        BLACK, ChartBuilder, Color, DrawingArea, IntoDrawingArea, IntoLogRange, LineSeries, Palette,
        Palette99, SVGBackend, SeriesLabelPosition, WHITE,
    },
};
use std::path::Path;

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type Drawn = Result<(), Box<dyn std::error::Error>>;

const WIDTH: u32 = 1100;
const ROW_HEIGHT: u32 = 320;

pub fn draw(path: &Path, report: &Report) -> Result<(), BenchError> {
    let rows = report.workloads.len().max(1);
    let root = SVGBackend::new(path, (WIDTH, ROW_HEIGHT * rows as u32)).into_drawing_area();
    on(&root, report).map_err(|error| BenchError::Plot(error.to_string()))
}

fn on(root: &Area<'_>, report: &Report) -> Drawn {
    root.fill(&WHITE)?;
    for (workload, row) in report.workloads.iter().zip(root.split_evenly((report.workloads.len().max(1), 1)))
    {
        let halves = row.split_evenly((1, 2));
        if let [left, right] = halves.as_slice() {
            rates(left, workload)?;
            latencies(right, workload)?;
        }
    }
    root.present()?;
    Ok(())
}

fn rates(area: &Area<'_>, workload: &WorkloadReport) -> Drawn {
    let step = SERIES_STEP.as_secs_f64();
    let columns = workload.series.iter().map(Vec::len).max().unwrap_or(0);
    let top = workload.series.iter().flatten().copied().fold(1.0, f64::max) * 1.1;
    let mut chart = ChartBuilder::on(area)
        .caption(format!("{}: records a second", workload.name), ("sans-serif", 16))
        .margin(12)
        .x_label_area_size(36)
        .y_label_area_size(84)
        .build_cartesian_2d(0.0..(columns.max(1) as f64 * step), 0.0..top)?;
    chart.configure_mesh().x_desc("seconds").draw()?;
    for (core, series) in workload.series.iter().enumerate() {
        let color = Palette99::pick(core).to_rgba();
        let points = series.iter().enumerate().map(|(column, &rate)| (column as f64 * step, rate));
        chart
            .draw_series(LineSeries::new(points, color.stroke_width(2)))?
            .label(format!("core {core}"))
            .legend(move |(x, y)| plotters::prelude::PathElement::new([(x, y), (x + 16, y)], color));
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::LowerRight)
        .background_style(WHITE)
        .border_style(BLACK)
        .draw()?;
    Ok(())
}

fn latencies(area: &Area<'_>, workload: &WorkloadReport) -> Drawn {
    let low = workload.curve.first().copied().unwrap_or(1.0).max(0.001);
    let high = workload.curve.last().copied().unwrap_or(1.0).max(low * 10.0);
    let last = QUANTILES.len() - 1;
    let mut chart = ChartBuilder::on(area)
        .caption(format!("{}: latency", workload.name), ("sans-serif", 16))
        .margin(12)
        .x_label_area_size(36)
        .y_label_area_size(84)
        .build_cartesian_2d(0.0..last as f64, (low..high * 1.1).log_scale())?;
    let name = |x: &f64| {
        let index = x.round().clamp(0.0, last as f64) as usize;
        ["min", "p25", "p50", "p75", "p90", "p99", "p99.9", "p99.99", "max"][index].to_owned()
    };
    chart
        .configure_mesh()
        .x_labels(QUANTILES.len())
        .x_label_formatter(&name)
        .y_desc("microseconds")
        .draw()?;
    let points = workload.curve.iter().enumerate().map(|(index, &us)| (index as f64, us.max(low)));
    chart.draw_series(LineSeries::new(points, Palette99::pick(0).stroke_width(2)))?;
    Ok(())
}
