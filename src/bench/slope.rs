//! A straight line through readings (least squares), and how sure its slope is.
//!
//! Readings of one process follow each other: memory that is high now is high ten seconds later.
//! The textbook's error takes them for independent, and would see growth in what only wanders. So
//! the number of readings is lowered by their lag-1 autocorrelation first, as is done with series of
//! temperatures (Santer et al., JGR 2000, section 4).

/// How fast something grows.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Slope {
    /// In units of the readings for each unit of time.
    pub rate: f64,
    /// Standard error of `rate`; infinite where the readings are too few to tell.
    pub error: f64,
    /// How many readings it is made from.
    pub readings: usize,
}

impl Slope {
    /// The line through `(time, reading)`. `None` for fewer than three readings, or where no time
    /// passes between them.
    pub fn through(points: &[(f64, f64)]) -> Option<Self> {
        let count = as_f64(points.len());
        let mean_time = points.iter().map(|point| point.0).sum::<f64>() / count;
        let mean = points.iter().map(|point| point.1).sum::<f64>() / count;
        let spread: f64 = points.iter().map(|point| (point.0 - mean_time).powi(2)).sum();
        if points.len() < 3 || spread <= 0.0 {
            return None;
        }
        let rate = points.iter().map(|point| (point.0 - mean_time) * (point.1 - mean)).sum::<f64>() / spread;
        let residuals: Vec<f64> =
            points.iter().map(|point| point.1 - mean - rate * (point.0 - mean_time)).collect();
        let squares: f64 = residuals.iter().map(|residual| residual * residual).sum();
        let freedom = independent(&residuals, squares) - 2.0;
        let error = if freedom > 0.0 { (squares / freedom / spread).sqrt() } else { f64::INFINITY };
        Some(Self { rate, error, readings: points.len() })
    }

    /// Whether it is further from 0 than chance would often bring it: more than twice its error.
    pub fn is_clear(&self) -> bool {
        self.rate.abs() > 2.0 * self.error
    }
}

/// How many independent readings would say as much as these.
fn independent(residuals: &[f64], squares: f64) -> f64 {
    let count = as_f64(residuals.len());
    let products: f64 = residuals.windows(2).map(|pair| pair[0] * pair[1]).sum();
    let correlation = if squares > 0.0 { (products / squares).clamp(0.0, 1.0) } else { 0.0 };
    count * (1.0 - correlation) / (1.0 + correlation)
}

#[expect(clippy::cast_precision_loss, reason = "nobody takes 2^52 readings")]
fn as_f64(count: usize) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_near(found: f64, expected: f64) -> bool {
        (found - expected).abs() <= 1e-9 * expected.abs().max(1.0)
    }

    #[test]
    fn a_line_is_found_without_error() {
        let points: Vec<_> = (0..10).map(|step| (f64::from(step), 5.0 - 3.0 * f64::from(step))).collect();
        let slope = Slope::through(&points).unwrap();
        assert!(is_near(slope.rate, -3.0) && slope.error < 1e-9, "{slope:?}");
        assert!(slope.is_clear());
    }

    #[test]
    fn the_error_is_the_textbooks_where_readings_are_independent() {
        // Residuals 0.1, -0.7, 1.5, -1.3, 0.4 about 1.1 x + 0.8 alternate, so nothing is corrected: by hand,
        // the sum of their squares is 2.7, and the error sqrt(2.7 / 3 / 10) = 0.3.
        let readings = [1.0, 1.0, 4.0, 3.0, 5.0].into_iter().enumerate();
        let points: Vec<_> = readings.map(|(at, reading)| (as_f64(at), reading)).collect();
        let slope = Slope::through(&points).unwrap();
        let squares: f64 = points.iter().map(|(at, reading)| (reading - 0.8 - at).powi(2)).sum();
        assert!(is_near(slope.rate, 1.0), "{slope:?}");
        assert!(is_near(slope.error, (squares / 3.0 / 10.0).sqrt()), "{slope:?}");
    }

    #[test]
    fn readings_that_follow_each_other_are_trusted_less() {
        // Ten readings below and ten above a level: independent ones would show a clear slope.
        let step = |at: u32| if at.is_multiple_of(20) { 0.0 } else { f64::from(at % 20 / 10) };
        let jump: Vec<_> = (0..20).map(|at| (f64::from(at), step(at))).collect();
        let wave: Vec<_> = (0..80).map(|at| (f64::from(at), step(at) + f64::from(at) / 500.0)).collect();
        let textbook = |points: &[(f64, f64)]| {
            let slope = Slope::through(points).unwrap();
            let alternating: Vec<_> = points.iter().step_by(10).copied().collect();
            (slope, Slope::through(&alternating).unwrap())
        };
        assert!(Slope::through(&jump).unwrap().error > 0.01);
        let (all, few) = textbook(&wave);
        // Taking ten times as many readings of the same wave adds next to nothing.
        assert!(all.error > few.error / 2.0, "{all:?} {few:?}");
    }

    #[test]
    fn a_leak_under_noise_is_clear_and_noise_alone_is_not() {
        let mut random = fastrand::Rng::with_seed(7);
        let noise: Vec<_> = (0..60).map(|step| (f64::from(step), random.f64() * 400.0)).collect();
        assert!(!Slope::through(&noise).unwrap().is_clear(), "{:?}", Slope::through(&noise));
        let leak: Vec<_> = noise.iter().map(|(at, reading)| (*at, reading + 10.0 * at)).collect();
        assert!(Slope::through(&leak).unwrap().is_clear(), "{:?}", Slope::through(&leak));
    }

    #[test]
    fn two_readings_have_no_slope_and_neither_have_those_of_one_moment() {
        assert_eq!(Slope::through(&[(0.0, 1.0), (1.0, 2.0)]), None);
        assert_eq!(Slope::through(&[(3.0, 1.0), (3.0, 2.0), (3.0, 3.0)]), None);
    }
}
