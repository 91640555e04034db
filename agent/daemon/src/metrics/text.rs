//! The Prometheus text format, version 0.0.4.

use super::histogram::Histogram;
use std::fmt::{Display, Write as _};

/// Media type of the format.
pub(crate) const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Writes families one after the other.
#[derive(Debug, Default)]
pub(super) struct Text(String);

/// Label names and values of one sample.
pub(super) type Labels<'a> = &'a [(&'a str, &'a str)];

impl Text {
    pub(super) fn finish(self) -> String {
        self.0
    }

    /// One family with its samples; nothing where there are none.
    pub(super) fn family<'a, V: Display>(
        &mut self,
        name: &str,
        kind: &str,
        help: &str,
        samples: impl IntoIterator<Item = (Vec<(&'a str, String)>, V)>,
    ) {
        let mut samples = samples.into_iter().peekable();
        if samples.peek().is_none() {
            return;
        }
        self.head(name, kind, help);
        for (labels, value) in samples {
            let labels: Vec<(&str, &str)> =
                labels.iter().map(|(name, value)| (*name, value.as_str())).collect();
            self.sample(name, &labels, &value);
        }
    }

    /// A family of one sample without labels.
    pub(super) fn single(&mut self, name: &str, kind: &str, help: &str, value: impl Display) {
        self.head(name, kind, help);
        self.sample(name, &[], &value);
    }

    pub(super) fn head(&mut self, name: &str, kind: &str, help: &str) {
        self.line(format_args!("# HELP {name} {help}\n# TYPE {name} {kind}\n"));
    }

    pub(super) fn histogram(&mut self, name: &str, labels: Labels<'_>, histogram: &Histogram) {
        let bucket = format!("{name}_bucket");
        let finite = histogram.cumulative().map(|(bound, count)| (bound.to_string(), count));
        for (bound, count) in finite.chain([("+Inf".to_owned(), histogram.count())]) {
            let labels: Vec<(&str, &str)> = labels.iter().copied().chain([("le", bound.as_str())]).collect();
            self.sample(&bucket, &labels, &count);
        }
        self.sample(&format!("{name}_sum"), labels, &histogram.sum());
        self.sample(&format!("{name}_count"), labels, &histogram.count());
    }

    fn sample(&mut self, name: &str, labels: Labels<'_>, value: &dyn Display) {
        self.0.push_str(name);
        for (index, (label, text)) in labels.iter().enumerate() {
            let escaped = text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
            self.line(format_args!("{}{label}=\"{escaped}\"", if index == 0 { '{' } else { ',' }));
        }
        if !labels.is_empty() {
            self.0.push('}');
        }
        self.line(format_args!(" {value}\n"));
    }

    fn line(&mut self, text: std::fmt::Arguments<'_>) {
        // Writing to a String does not fail.
        self.0.write_fmt(text).expect("a String takes any text");
    }
}

#[cfg(test)]
mod tests {
    use super::{Histogram, Text};

    #[test]
    fn writes_what_prometheus_reads() {
        let mut text = Text::default();
        text.family(
            "a_total",
            "counter",
            "A.",
            [(vec![("x", "q\"\\\n".to_owned()), ("y", "z".to_owned())], 3_u64)],
        );
        text.family("none", "gauge", "Not there.", Vec::<(Vec<(&str, String)>, u64)>::new());
        let mut histogram = Histogram::new(&[0.5]);
        histogram.observe(0.25);
        text.head("h", "histogram", "H.");
        text.histogram("h", &[("c", "ADD")], &histogram);
        assert_eq!(
            text.finish(),
            "# HELP a_total A.\n# TYPE a_total counter\na_total{x=\"q\\\"\\\\\\n\",y=\"z\"} 3\n\
             # HELP h H.\n# TYPE h histogram\nh_bucket{c=\"ADD\",le=\"0.5\"} 1\nh_bucket{c=\"ADD\",le=\"+Inf\"} 1\n\
             h_sum{c=\"ADD\"} 0.25\nh_count{c=\"ADD\"} 1\n"
        );
    }
}
