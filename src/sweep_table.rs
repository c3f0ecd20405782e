//! The table of a sweep: `refract sweep` ends with it, and `refract inspect` shows it again from
//! [`trainer::SweepFile`].

use harvester::human::grouped;
use trainer::{RunState, SweepRow};

use crate::terminal::{BOLD, DIM, Terminal};

/// Prints the table, with a heading for each hook point. Runs that no other run beats are marked.
pub(crate) fn print(rows: &[SweepRow], terminal: &Terminal) {
    let width = rows.iter().map(|row| row.name.len()).max().unwrap_or(0);
    let number = |value: Option<f64>, digits: usize| value.map_or("-".to_string(), |value| format!("{value:.digits$}"));
    for (at, row) in rows.iter().enumerate() {
        if at == 0 || rows[at - 1].hook_point != row.hook_point {
            terminal.heading(&row.hook_point);
            terminal.line(format!(
                "  {DIM}{:width$} {:>8} {:>8} {:>10} {:>9} {:>9}{DIM:#}",
                "run", "L0", "FVU", "explained", "dead", "active"
            ));
        }
        let said = match row.state {
            RunState::Finished => None,
            RunState::Diverged => Some(format!("diverged: {}", row.note.as_deref().unwrap_or_default())),
            RunState::Unfinished => Some("unfinished".to_string()),
        };
        if let Some(said) = said {
            terminal.line(format!("  {:width$} {said}", row.name));
            continue;
        }
        let (mark, bold) = if row.pareto { (" *", BOLD) } else { ("", anstyle::Style::new()) };
        terminal.line(format!(
            "  {bold}{:width$}{bold:#} {:>8} {:>8} {:>8} % {:>9} {:>7} %{mark}",
            row.name,
            number(row.l0, 1),
            number(row.fvu, 4),
            number(row.explained_variance.map(|share| 100.0 * share), 1),
            row.dead.map_or("-".to_string(), |dead| grouped(dead as u64)),
            number(row.frac_alive.map(|share| 100.0 * share), 1),
        ));
    }
    if rows.iter().any(|row| row.pareto) {
        terminal
            .line(format!("{DIM}* no other run there is better in one of L0 and FVU and as good in the other{DIM:#}"));
    }
}
