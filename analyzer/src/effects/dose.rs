//! [`DoseSearch`]: the dose at which the KL divergence reaches a target, by few measurements. KL grows nearly as a
//! power of the dose, so the search draws lines through `(log dose, log KL)`.

use super::Dose;

/// Largest dose, as a multiple of the latent's largest activation.
const LARGEST: f64 = 20.0;

/// The search ends at a KL within this factor of the target. The line through two points then gives the dose to a few
/// percent.
const NEAR: f64 = 1.25;

/// The same for the first measurement, from which the slope is not known: a slope of 1 for the assumed 2 is then off by
/// 5 %.
const NEAR_AT_FIRST: f64 = 1.1;

/// Most measurements of a latent, for curves that are no power.
const MOST: usize = 16;

/// A point of the curve: `log dose`, and `log (KL / target)`.
type Point = (f64, f64);

/// The search for one latent.
#[derive(Debug)]
pub(super) struct DoseSearch {
    /// The measured points, the last one last.
    points: Vec<Point>,
    /// Logarithm of the largest dose.
    limit: f64,
}

impl DoseSearch {
    /// A search that begins with `kl` over the target at a dose.
    pub(super) fn new(dose: &Dose, kl: f64) -> Self {
        let mut search = Self { points: vec![], limit: (LARGEST * f64::from(dose.max)).ln() };
        search.add(f64::from(dose.activation), kl);
        search
    }

    /// Adds a measurement: `kl` over the target at `dose`. NaN, from a dose at which the model overflows, is far above
    /// the target.
    pub(super) fn add(&mut self, dose: f64, kl: f64) {
        if dose > 0.0 {
            // The limits keep the logarithm finite.
            self.points.push((dose.ln(), if kl.is_nan() { 1e12 } else { kl.clamp(1e-12, 1e12) }.ln()));
        }
    }

    /// The dose to measure next; `None` if the search is done.
    pub(super) fn next(&self) -> Option<f64> {
        let Some(&(last, kl)) = self.points.last() else { return self.limit.is_finite().then(|| self.limit.exp()) };
        let near = if self.points.len() == 1 { NEAR_AT_FIRST } else { NEAR };
        let is_done = kl.abs() <= near.ln() || (kl < 0.0 && last >= self.limit - 1e-6) || self.points.len() > MOST;
        (!is_done).then(|| self.guess().exp())
    }

    /// The dose of the target; infinite if it is above the largest one.
    pub(super) fn result(&self) -> f32 {
        match self.points.last() {
            Some((_, kl)) if kl.abs() <= NEAR.ln() => self.guess().exp() as f32,
            // A jump: the side of it that reaches the target.
            _ => self.nearest(false).map_or(f32::INFINITY, |(high, _)| high.exp() as f32),
        }
    }

    /// The measured point nearest to the target below it, or at or above it.
    fn nearest(&self, below: bool) -> Option<Point> {
        let side = self.points.iter().filter(|(_, kl)| (*kl < 0.0) == below).copied();
        side.reduce(|a, b| if (a.0 > b.0) == below { a } else { b })
    }

    /// Logarithm of the dose at which the line through the last two points reaches the target; through one, with KL as
    /// the square of the dose. Between the nearest points on both sides of the target, if there are such.
    fn guess(&self) -> f64 {
        let (x, y) = self.points[self.points.len() - 1];
        let slope = match self.points.len().checked_sub(2).map(|i| self.points[i]) {
            Some((x0, y0)) if (x - x0).abs() > 1e-9 => ((y - y0) / (x - x0)).clamp(0.3, 4.0),
            _ => 2.0,
        };
        let guess = x - y / slope;
        match self.nearest(true).zip(self.nearest(false)) {
            Some(((low, _), (high, _))) if low < high && !(low..=high).contains(&guess) => f64::midpoint(low, high),
            _ => guess.min(self.limit),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The dose found for a curve, and the number of measurements.
    fn found(kl: impl Fn(f64) -> f64, start: f32, max: f32) -> (f32, usize) {
        let mut search = DoseSearch::new(&Dose { latent: 0, activation: start, max }, kl(f64::from(start)));
        let mut n = 0;
        while let Some(dose) = search.next() {
            search.add(dose, kl(dose));
            n += 1;
        }
        (search.result(), n)
    }

    fn is_near((dose, n): (f32, usize), want: f32, most: usize) -> bool {
        (dose / want - 1.0).abs() < 0.05 && n <= most
    }

    #[test]
    fn a_square_takes_one_measurement_and_a_bent_curve_a_few() {
        let square = |dose: f64| (dose / 7.0).powi(2);
        assert!(is_near(found(square, 1.0, 2.0), 7.0, 1));
        assert!(is_near(found(square, 7.3, 8.0), 7.0, 0));
        assert!(is_near(found(square, 7.5, 8.0), 7.0, 1));
        // A line, whose slope one measurement does not tell.
        assert!(is_near(found(|dose| dose / 7.0, 8.0, 8.0), 7.0, 1));
        // Flat at first, then steep, then saturated.
        let bent = |dose: f64| 10.0 * (dose / 9.0).powi(3) / (10.0 - 1.0 + (dose / 9.0).powi(3));
        assert!(is_near(found(bent, 2.0, 10.0), 9.0, 4), "{:?}", found(bent, 2.0, 10.0));
        assert!(is_near(found(bent, 60.0, 60.0), 9.0, 4), "{:?}", found(bent, 60.0, 60.0));
    }

    #[test]
    fn a_dose_above_twenty_times_the_maximum_is_infinite() {
        let square = |dose: f64| (dose / 7.0).powi(2);
        assert_eq!(found(square, 0.1, 0.3).0, f32::INFINITY);
        assert!(is_near(found(square, 0.1, 0.4), 7.0, 2));
        assert_eq!(found(|_| 0.0, 1.0, 1.0).0, f32::INFINITY);
        assert_eq!(found(square, 0.0, 0.0), (f32::INFINITY, 0));
        assert!(is_near(found(square, 0.0, 1.0), 7.0, 3));
    }

    #[test]
    fn a_jump_is_found_between_its_sides() {
        let jump = |dose: f64| if dose < 3.0 { 0.01 } else { 5.0 };
        for start in [0.5, 1.0, 2.9, 3.1, 4.0, 50.0] {
            assert!((found(jump, start, 4.0).0 / 3.0 - 1.0).abs() < 0.1, "{start} {:?}", found(jump, start, 4.0));
        }
    }

    #[test]
    fn a_dose_that_overflows_is_too_large() {
        let overflows = |dose: f64| if dose < 20.0 { (dose / 7.0).powi(2) } else { f64::NAN };
        assert!(is_near(found(overflows, 30.0, 30.0), 7.0, MOST));
    }
}
