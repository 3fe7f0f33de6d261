//! The answer of `/metrics`, and the numbers in it.

use linkmic::probe::http::{Answer, Client};

/// One answer. A number that it does not have is a mistake of who asks, and ends the test.
pub struct Numbers(String);

impl Numbers {
    /// Asks for them.
    ///
    /// # Errors
    /// Why there are none: no answer, or one of failure.
    pub async fn of(control: &Client) -> Result<Self, String> {
        let answer = control.get("/metrics").await;
        Self::read(answer.map_err(|error| error.to_string())?)
    }

    fn read(answer: Answer) -> Result<Self, String> {
        match answer.is_success() {
            true => Ok(Self(answer.body)),
            false => Err(format!("/metrics: {} {}", answer.status, answer.body)),
        }
    }

    /// The value of a metric without labels.
    ///
    /// # Panics
    /// When there is none.
    pub fn value(&self, name: &str) -> f64 {
        let mut lines = self.0.lines();
        let line = lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.and_then(|value| value.parse().ok())
            .unwrap_or_else(|| panic!("no metric {name}"))
    }

    /// All series of a metric: their labels as they are written, and their values.
    ///
    /// # Panics
    /// When there is none.
    pub fn series(&self, name: &str) -> Vec<(&str, f64)> {
        let series = self.0.lines().filter_map(|line| {
            let rest = line.strip_prefix(name)?;
            let (labels, value) = match rest.strip_prefix('{') {
                Some(rest) => rest.split_once("} ")?,
                None => ("", rest.strip_prefix(' ')?),
            };
            Some((labels, value.parse().ok()?))
        });
        let series: Vec<_> = series.collect();
        assert!(!series.is_empty(), "no metric {name}");
        series
    }

    /// The sum of them.
    ///
    /// # Panics
    /// As [`series`](Self::series).
    pub fn sum(&self, name: &str) -> f64 {
        self.series(name).iter().map(|(_, value)| value).sum()
    }

    /// Those of a metric with one label that are not 0, by the label's value.
    ///
    /// # Panics
    /// As [`series`](Self::series).
    pub fn counted(&self, name: &str) -> Vec<(&str, u64)> {
        let series = self.series(name).into_iter();
        let counted = series.filter_map(|(labels, value)| {
            let (_, rest) = labels.split_once("=\"")?;
            Some((rest.strip_suffix('"')?, value as u64))
        });
        counted.filter(|(_, count)| *count > 0).collect()
    }

    /// How many series there are of all metrics.
    pub fn lines(&self) -> usize {
        self.0.lines().filter(|line| !line.starts_with('#')).count()
    }
}

impl From<&str> for Numbers {
    fn from(page: &str) -> Self {
        Self(page.to_owned())
    }
}

#[test]
fn a_metric_is_summed_over_its_series_and_no_other_metrics() {
    let page = "# HELP a_total\na_total{x=\"1\",y=\"2\"} 3\na_total{x=\"2\"} 4\na_total_of 9\nb 1\nc_total{r=\"u\"} 0\nc_total{r=\"v\"} 2\n";
    let numbers = Numbers::from(page);
    assert_eq!(numbers.sum("a_total"), 7.0);
    assert_eq!(numbers.sum("b"), 1.0);
    assert_eq!(numbers.value("b"), 1.0);
    assert_eq!(numbers.counted("c_total"), [("v", 2)]);
    assert_eq!(numbers.lines(), 6);
    let absent = std::panic::catch_unwind(|| numbers.sum("d"));
    assert!(absent.is_err(), "what is not there is not 0");
}

#[test]
fn an_answer_of_failure_has_no_numbers() {
    let answer = |status| Answer {
        status,
        body: "a 1\n".into(),
    };
    assert_eq!(Numbers::read(answer(200)).map(|n| n.value("a")), Ok(1.0));
    let told = Numbers::read(answer(503)).map(|n| n.value("a"));
    assert_eq!(told, Err("/metrics: 503 a 1\n".into()));
}
