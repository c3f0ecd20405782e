//! The styles of text, and tokens lit by their activation.

use analyzer::on_one_line;
use anstyle::{Color, RgbColor, Style};

pub(crate) const BOLD: Style = Style::new().bold();
pub(crate) const DIM: Style = Style::new().dimmed();

/// A text of tokens on one line, each highlighted by its activation; without colors, active tokens are in brackets.
pub(crate) fn lit(texts: &[String], activations: &[f32], max: f32) -> String {
    let colors = anstream::AutoStream::choice(&std::io::stdout()) != anstream::ColorChoice::Never;
    let mut line = String::new();
    let mut of_character = 0f32;
    for (text, &activation) in texts.iter().zip(activations) {
        // A character of several tokens is shown at its last one, lit by the strongest of them.
        let activation = activation.max(of_character);
        of_character = if text.is_empty() { activation } else { 0.0 };
        if text.is_empty() {
            continue;
        }
        let text = on_one_line(text);
        let share = if max > 0.0 { (activation / max).clamp(0.0, 1.0) } else { 0.0 };
        match (activation > 0.0, colors) {
            (false, _) => line.push_str(&text),
            (true, false) => line.push_str(&format!("[{text}]")),
            (true, true) => {
                let style = heat(share);
                line.push_str(&format!("{style}{text}{style:#}"));
            }
        }
    }
    line
}

/// An orange background, from dark to bright.
fn heat(share: f32) -> Style {
    let mix = |from: f32, to: f32| (from + (to - from) * share) as u8;
    let background = RgbColor(mix(60.0, 255.0), mix(40.0, 150.0), mix(20.0, 30.0));
    let text = if share > 0.5 { RgbColor(20, 12, 0) } else { RgbColor(255, 230, 200) };
    Style::new().bg_color(Some(Color::Rgb(background))).fg_color(Some(Color::Rgb(text)))
}
