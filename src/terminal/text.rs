//! The styles of text, and tokens lit by their activation.

use std::ops::Range;

use analyzer::Example;
use anstyle::{Color, RgbColor, Style};

pub(crate) const BOLD: Style = Style::new().bold();
pub(crate) const DIM: Style = Style::new().dimmed();

/// A part of an example on one line, each token lit by its activation; without colors, active tokens are in brackets.
pub(crate) fn lit(example: &Example, part: Range<usize>, max: f32) -> String {
    let colors = anstream::AutoStream::choice(&std::io::stdout()) != anstream::ColorChoice::Never;
    example.lit(part, max, |text, share| match colors.then(|| heat(share)) {
        Some(style) => format!("{style}{text}{style:#}"),
        None => format!("[{text}]"),
    })
}

/// An orange background, from dark to bright.
fn heat(share: f32) -> Style {
    let mix = |from: f32, to: f32| (from + (to - from) * share) as u8;
    let background = RgbColor(mix(60.0, 255.0), mix(40.0, 150.0), mix(20.0, 30.0));
    let text = if share > 0.5 { RgbColor(20, 12, 0) } else { RgbColor(255, 230, 200) };
    Style::new().bg_color(Some(Color::Rgb(background))).fg_color(Some(Color::Rgb(text)))
}
