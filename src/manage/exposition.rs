//! The text format of Prometheus, version 0.0.4, only written.

use std::fmt::{Display, Write};

use crate::metrics::Histogram;

pub(super) const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// What is written so far.
#[derive(Default)]
pub(super) struct Exposition(String);

/// One metric: its samples have to follow, and each set of labels may be there once.
pub(super) struct Family<'a> {
    out: &'a mut String,
    name: &'static str,
}

impl Exposition {
    /// What goes up and down.
    pub(super) fn gauge(&mut self, name: &'static str, help: &str) -> Family<'_> {
        self.family(name, "gauge", help)
    }

    /// What only grows; its name ends with `_total`.
    pub(super) fn counter(&mut self, name: &'static str, help: &str) -> Family<'_> {
        self.family(name, "counter", help)
    }

    /// How long something takes; its name ends with `_seconds`.
    pub(super) fn histogram(&mut self, name: &'static str, help: &str, times: &Histogram) {
        let Family { out, .. } = self.family(name, "histogram", help);
        let mut all = 0;
        for (bound, count) in times.cumulative() {
            let bound = bound.map_or("+Inf".to_owned(), |bound| bound.as_secs_f64().to_string());
            sample(out, &format!("{name}_bucket"), &[("le", &bound)], count);
            all = count;
        }
        sample(out, &format!("{name}_sum"), &[], times.sum().as_secs_f64());
        sample(out, &format!("{name}_count"), &[], all);
    }

    fn family(&mut self, name: &'static str, kind: &str, help: &str) -> Family<'_> {
        let out = &mut self.0;
        let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}"); // a string takes everything
        Family { out, name }
    }

    pub(super) fn into_text(self) -> String {
        self.0
    }
}

impl Family<'_> {
    /// The only one.
    pub(super) fn value(self, value: impl Display) {
        sample(self.out, self.name, &[], value);
    }

    pub(super) fn with(&mut self, labels: &[(&str, &str)], value: impl Display) {
        sample(self.out, self.name, labels, value);
    }
}

fn sample(out: &mut String, name: &str, labels: &[(&str, &str)], value: impl Display) {
    out.push_str(name);
    for (n, (label, value)) in labels.iter().enumerate() {
        let _ = write!(out, "{}{label}=\"", if n == 0 { '{' } else { ',' });
        for c in value.chars() {
            match c {
                '\\' => out.push_str("\\\\"),
                '"' => out.push_str("\\\""),
                '\n' => out.push_str("\\n"),
                c => out.push(c),
            }
        }
        out.push('"');
    }
    let end = if labels.is_empty() { "" } else { "}" };
    let _ = writeln!(out, "{end} {value}");
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn each_kind_of_metric() {
        let mut text = Exposition::default();
        text.gauge("a", "What it is.").value(1.5);
        let mut family = text.counter("b_total", "Another one.");
        family.with(&[("x", "a\\b\"c\nd"), ("y", "ä\u{7f}")], u64::MAX);
        family.with(&[("x", "")], 0);
        let times = Histogram::new(&[1, 2500]);
        times.add(Duration::from_micros(3));
        times.add(Duration::from_secs(2));
        text.histogram("c_seconds", "Times.", &times);
        assert_eq!(
            text.into_text(),
            "# HELP a What it is.\n# TYPE a gauge\na 1.5\n\
             # HELP b_total Another one.\n# TYPE b_total counter\n\
             b_total{x=\"a\\\\b\\\"c\\nd\",y=\"ä\u{7f}\"} 18446744073709551615\nb_total{x=\"\"} 0\n\
             # HELP c_seconds Times.\n# TYPE c_seconds histogram\n\
             c_seconds_bucket{le=\"0.000001\"} 0\nc_seconds_bucket{le=\"0.0025\"} 1\n\
             c_seconds_bucket{le=\"+Inf\"} 2\nc_seconds_sum 2.000003\nc_seconds_count 2\n"
        );
    }
}
