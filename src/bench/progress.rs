//! A line on a terminal that tells how far a run is. Nothing where stderr is no terminal.

use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

use tokio::time::sleep;

use super::load::Crew;

const WIDTH: usize = 30;
/// Between two looks at the load.
const LOOK: Duration = Duration::from_millis(20);
/// Between two lines.
const INTERVAL: Duration = Duration::from_millis(200);

pub(super) struct Progress {
    is_shown: bool,
    title: &'static str,
}

impl Progress {
    pub(super) fn new(title: &'static str) -> Self {
        Self { is_shown: io::stderr().is_terminal(), title }
    }

    /// Lets a load run for so long. It may end before, where it breaks.
    pub(super) async fn watch(&self, crew: &Crew, length: Duration) {
        let (start, mut shown) = (Instant::now(), (Instant::now(), crew.arrived()));
        while start.elapsed() < length && !crew.has_ended() {
            sleep(LOOK.min(length.saturating_sub(start.elapsed()))).await;
            if self.is_shown && shown.0.elapsed() >= INTERVAL {
                let (now, arrived) = (Instant::now(), crew.arrived());
                let rate = super::report::per_second(arrived - shown.1, now - shown.0);
                self.show(&line(start.elapsed(), length, rate));
                shown = (now, arrived);
            }
        }
    }

    /// Says something that stays.
    pub(super) fn tell(&self, text: &str) {
        if self.is_shown {
            let _ = writeln!(io::stderr(), "\r\x1b[K{} {text}", self.title);
        }
    }

    /// Shows a text in place of the one before.
    pub(super) fn show(&self, text: &str) {
        if self.is_shown {
            let _ = write!(io::stderr(), "\r\x1b[K{} {text}", self.title);
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.is_shown {
            let _ = write!(io::stderr(), "\r\x1b[K");
        }
    }
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss)]
fn line(elapsed: Duration, length: Duration, rate: f64) -> String {
    let (elapsed, length) = (elapsed.as_secs_f64(), length.as_secs_f64());
    let done = ((elapsed / length * WIDTH as f64) as usize).min(WIDTH);
    let (done, left) = ("#".repeat(done), "-".repeat(WIDTH - done));
    format!("[{done}{left}] {elapsed:.1} of {length:.1} s, {rate:.0} messages/s")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bar_fills() {
        let seconds = Duration::from_secs;
        let bar = |elapsed| line(elapsed, seconds(10), 5.0);
        assert!(bar(seconds(0)).starts_with("[------------------------------] 0.0 of 10.0 s"));
        assert!(bar(seconds(5)).starts_with("[###############---------------] 5.0 of"));
        assert!(bar(seconds(11)).starts_with("[##############################] 11.0 of"));
    }
}
