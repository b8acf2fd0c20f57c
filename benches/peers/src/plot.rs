//! One plot for each workload: its cases side by side, a bar for each engine on a logarithmic scale.

use crate::{
    args::Row,
    engine::EngineName,
    error::PeerError,
    report::{Comparison, Report},
};
use plotters::{
    coord::Shift,
    prelude::{
        BLACK, ChartBuilder, Color, DrawingArea, IntoDrawingArea, IntoLogRange, IntoTextStyle, Palette,
        Palette99, Rectangle, SVGBackend, SeriesLabelPosition, Text, WHITE,
    },
    style::text_anchor::{HPos, Pos, VPos},
};
use std::{fs, path::Path};

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type Drawn = Result<(), Box<dyn std::error::Error>>;

const WIDTH: u32 = 1280;
const HEIGHT: u32 = 520;
/// Of the width of a case, between two of them.
const GAP: f64 = 0.15;
/// What all cases take, and a legend beside them.
const LEGEND: f64 = 1.12;

/// Draws all workloads that have figures.
pub fn draw(folder: &Path, report: &Report) -> Result<(), PeerError> {
    fs::create_dir_all(folder).map_err(PeerError::host(folder))?;
    for row in Row::ALL {
        let cases: Vec<&Comparison> = report.of(row).collect();
        if cases.is_empty() {
            continue;
        }
        let path = folder.join(format!("{row:?}.svg").to_lowercase());
        let root = SVGBackend::new(&path, (WIDTH, HEIGHT)).into_drawing_area();
        on(&root, &cases).map_err(|error| PeerError::Plot(error.to_string().into()))?;
    }
    Ok(())
}

fn on(root: &Area<'_>, cases: &[&Comparison]) -> Drawn {
    root.fill(&WHITE)?;
    let all = || cases.iter().flat_map(|case| &case.engines);
    let low = all().map(|cell| cell.min).fold(f64::INFINITY, f64::min).max(1e-3);
    let high = all().map(|cell| cell.max).fold(low, f64::max);
    let mut names: Vec<EngineName> = all().map(|cell| cell.engine).collect();
    names.sort_unstable();
    names.dedup();
    let unit = cases.first().map_or("", |case| case.case.unit);
    let mut chart = ChartBuilder::on(root)
        .margin(14)
        .x_label_area_size(60)
        .y_label_area_size(80)
        .build_cartesian_2d(0.0..cases.len() as f64 * LEGEND, (low / 2.0..high * 1.5).log_scale())?;
    chart.configure_mesh().disable_x_mesh().disable_x_axis().y_desc(unit).draw()?;
    let style = ("sans-serif", 12).into_text_style(root).pos(Pos::new(HPos::Center, VPos::Top));
    for (index, case) in cases.iter().enumerate() {
        let (x, y) = chart.backend_coord(&(index as f64 + 0.5, low / 2.0));
        for (line, part) in (0..).zip(short(&case.case.name).split(", ")) {
            root.draw(&Text::new(part.to_owned(), (x, y + 8 + 15 * line), &style))?;
        }
    }
    let width = (1.0 - GAP) / names.len().max(1) as f64;
    for (position, name) in names.iter().enumerate() {
        let color = Palette99::pick(position).to_rgba();
        let bars = cases.iter().enumerate().filter_map(|(index, case)| {
            let cell = case.engines.iter().find(|cell| cell.engine == *name)?;
            let left = index as f64 + GAP / 2.0 + width * position as f64;
            // Faint: an ack that is not durable is not a peer's figure.
            let color = if cell.not_durable.is_some() { color.mix(0.25) } else { color };
            let corners = [(left, low / 2.0), (left + width * 0.9, cell.median)];
            Some(Rectangle::new(corners, color.filled()))
        });
        chart
            .draw_series(bars)?
            .label(name.to_string())
            .legend(move |(x, y)| Rectangle::new([(x, y - 5), (x + 12, y + 5)], color.filled()));
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperRight)
        .background_style(WHITE.mix(0.8))
        .border_style(BLACK)
        .draw()?;
    root.present()?;
    Ok(())
}

/// What differs between the cases of a workload.
fn short(name: &str) -> String {
    let common = ["ingest, ", "durable acks, 256 B, ", "cold random reads, 1 KiB, ", "reopen after "];
    common.iter().find_map(|front| name.strip_prefix(front)).unwrap_or(name).to_owned()
}
