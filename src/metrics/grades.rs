//! How many publishers there are of each grade.

use prometheus::IntGaugeVec;

use super::catalogue::Catalogue;
use super::{Metrics, count};

const GRADES: [&str; 3] = ["good", "fair", "poor"];

/// The instrument.
pub(super) struct Grades(IntGaugeVec);

impl Grades {
    pub(super) fn new(c: &mut Catalogue) -> Self {
        Self(c.gauges(
            "linkmic_relay_publisher_grades",
            "Publishers now, by how they do: good, fair (some will notice), poor (all will).",
            [("grade", &GRADES)],
        ))
    }
}

impl Metrics {
    /// At scrape: publishers of each grade.
    pub fn set_grades(&self, by_grade: &[(&str, usize)]) {
        for (grade, n) in by_grade {
            self.grades.0.with_label_values(&[*grade]).set(count(*n));
        }
    }
}
