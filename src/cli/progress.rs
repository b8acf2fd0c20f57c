//! Progress bars: on standard error, when that is a terminal, and nowhere else.

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::io::IsTerminal;

/// How often a bar is drawn, at most, in times a second.
const DRAWN_PER_SECOND_MAX: u8 = 10;

const BYTES_OF_TOTAL: &str = "{msg} {wide_bar} {bytes}/{total_bytes} {bytes_per_sec} {eta}";
const BYTES: &str = "{msg} {bytes} {bytes_per_sec}";
const ITEMS_OF_TOTAL: &str = "{msg} {wide_bar} {pos}/{len} {per_sec} {eta}";
const ITEMS: &str = "{msg} {pos} {per_sec}";

/// A bar that shows how far something is; takes itself away when dropped.
#[derive(Debug)]
pub struct Progress {
    bar: ProgressBar,
}

impl Progress {
    /// A bar over `total` bytes, or a counter of bytes if the total is not known (input from a pipe).
    pub fn over_bytes(label: &str, total: Option<u64>) -> Self {
        Self::to_terminal(label, total, if total.is_some() { BYTES_OF_TOTAL } else { BYTES })
    }

    /// The same over things that are counted.
    pub fn over_items(label: &str, total: Option<u64>) -> Self {
        Self::to_terminal(label, total, if total.is_some() { ITEMS_OF_TOTAL } else { ITEMS })
    }

    /// A bar that is not drawn.
    pub fn hidden() -> Self {
        Self { bar: ProgressBar::hidden() }
    }

    fn to_terminal(label: &str, total: Option<u64>, template: &str) -> Self {
        if !std::io::stderr().is_terminal() {
            return Self::hidden();
        }
        let target = ProgressDrawTarget::stderr_with_hz(DRAWN_PER_SECOND_MAX);
        let bar = ProgressBar::with_draw_target(total, target).with_message(label.to_owned());
        // The templates are fixed and tested; should one be wrong all the same, the plain bar does as well.
        bar.set_style(
            ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()),
        );
        Self { bar }
    }

    /// Moves it on. Cheap enough for each record.
    pub fn advance(&self, by: u64) {
        self.bar.inc(by);
    }

    /// Prints a line above the bar, on standard error, drawn or not.
    pub fn say(&self, message: &str) {
        self.bar.suspend(|| eprintln!("{message}"));
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

#[cfg(test)]
mod tests {
    use super::{BYTES, BYTES_OF_TOTAL, ITEMS, ITEMS_OF_TOTAL, Progress};
    use indicatif::ProgressStyle;

    #[test]
    fn the_templates_are_understood() {
        for template in [BYTES, BYTES_OF_TOTAL, ITEMS, ITEMS_OF_TOTAL] {
            assert!(ProgressStyle::with_template(template).is_ok(), "{template}");
        }
    }

    #[test]
    fn without_a_terminal_nothing_is_drawn() {
        let progress = Progress::hidden();
        progress.advance(3);
        assert!(progress.bar.is_hidden());
        assert_eq!(progress.bar.position(), 3);
    }
}
