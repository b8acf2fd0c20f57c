//! The plot of the curves: a panel for each, both axes logarithmic, so that a cost in proportion is a straight line and a
//! cliff is a step.

use super::{
    super::error::BenchError,
    curve::{Curve, Growth, Point},
};
use plotters::{
    coord::Shift,
    prelude::{
        BLACK, ChartBuilder, Color, DrawingArea, IntoDrawingArea, IntoLogRange, LineSeries, Palette,
        Palette99, PathElement, SVGBackend, SeriesLabelPosition, WHITE,
    },
};
use std::path::Path;

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type Drawn = Result<(), Box<dyn std::error::Error>>;

const WIDTH: u32 = 1100;
const ROW_HEIGHT: u32 = 340;
const COLUMNS: usize = 2;

pub fn draw(path: &Path, growth: &Growth) -> Result<(), BenchError> {
    let rows = growth.curves.len().div_ceil(COLUMNS).max(1);
    let root = SVGBackend::new(path, (WIDTH, ROW_HEIGHT * rows as u32)).into_drawing_area();
    on(&root, growth, rows).map_err(|error| BenchError::Plot(error.to_string()))
}

fn on(root: &Area<'_>, growth: &Growth, rows: usize) -> Drawn {
    root.fill(&WHITE)?;
    for (curve, area) in growth.curves.iter().zip(root.split_evenly((rows, COLUMNS))) {
        panel(&area, curve)?;
    }
    root.present()?;
    Ok(())
}

fn panel(area: &Area<'_>, curve: &Curve) -> Drawn {
    let all = || curve.points.iter().flat_map(|point| [point.ns, point.cpu_ns]).filter(|&ns| ns > 0.0);
    let low = all().fold(f64::INFINITY, f64::min).clamp(1e-3, 1e12);
    let high = all().fold(low, f64::max);
    let (Some(first), Some(last)) = (curve.points.first(), curve.points.last()) else { return Ok(()) };
    let mut chart = ChartBuilder::on(area)
        .caption(format!("{}: nanoseconds an append", curve.name), ("sans-serif", 16))
        .margin(12)
        .x_label_area_size(40)
        .y_label_area_size(84)
        .build_cartesian_2d((first.at..last.at * 1.01).log_scale(), (low / 2.0..high * 8.0).log_scale())?;
    chart
        .configure_mesh()
        .max_light_lines(1)
        .x_desc(curve.grows)
        .x_label_formatter(&short)
        .y_label_formatter(&short)
        .draw()?;
    for (index, name) in ["wall time", "CPU time of the process"].into_iter().enumerate() {
        let color = Palette99::pick(index).to_rgba();
        let of = |point: &Point| [point.ns, point.cpu_ns][index];
        let points = curve.points.iter().map(|point| (point.at, of(point).max(low)));
        chart
            .draw_series(LineSeries::new(points, color.stroke_width(2)))?
            .label(name)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 16, y)], color));
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperMiddle)
        .background_style(WHITE)
        .border_style(BLACK)
        .draw()?;
    Ok(())
}

/// `10`, `4k`, `16M`.
fn short(value: &f64) -> String {
    let scaled = [(1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")];
    match scaled.into_iter().find(|(unit, _)| value >= unit) {
        Some((unit, letter)) => {
            format!("{:.3}", value / unit).trim_end_matches('0').trim_end_matches('.').to_owned() + letter
        }
        None => format!("{value:.1}").trim_end_matches(".0").to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::short;

    #[test]
    fn numbers_on_an_axis_are_short() {
        assert_eq!([16.0, 1500.0, 1e6, 2.5e9].map(|value| short(&value)), ["16", "1.5k", "1M", "2.5G"]);
        assert_eq!([0.5, 100.0, 1000.0].map(|value| short(&value)), ["0.5", "100", "1k"]);
    }
}
