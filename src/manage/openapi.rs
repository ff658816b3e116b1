//! The description of all requests, for programs. `openapi.json` is written by hand, and the tests below compare it with what there
//! is; `tests/clients/openapi.py` asks a server for all of it.

use super::query::Query;
use crate::http::{Refusal, Request, Response};

const DESCRIPTION: &str = include_str!("openapi.json");

pub(super) fn answer(request: &Request) -> Result<Response, Refusal> {
    Query::of(request, &[])?;
    Ok(Response::json(description()))
}

/// With the version in its place.
fn description() -> String {
    let version = |version: &str| format!("\"version\": \"{version}\"");
    DESCRIPTION.replacen(&version("0.0.0"), &version(env!("CARGO_PKG_VERSION")), 1)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::Value;

    use super::*;
    use crate::manage::target::Target;

    /// All that is described, each as `GET /path`.
    fn described() -> BTreeSet<String> {
        let all: Value = serde_json::from_str(&description()).unwrap();
        assert_eq!(all["info"]["version"], env!("CARGO_PKG_VERSION"));
        let mut requests = BTreeSet::new();
        for (path, methods) in all["paths"].as_object().unwrap() {
            let methods = methods.as_object().unwrap().keys();
            requests.extend(methods.map(|method| format!("{} {path}", method.to_uppercase())));
        }
        requests
    }

    /// What the table in the documentation of [`Manage`](crate::Manage) has, in the same form; without what is no request and answer.
    fn documented() -> BTreeSet<String> {
        let rows = include_str!("mod.rs").lines().filter_map(|line| line.strip_prefix("/// | `"));
        let mut requests = BTreeSet::new();
        for row in rows.filter_map(|row| row.split(" | ").next()) {
            let words: Vec<&str> = row.split(['`', ',', ' ']).filter(|word| !word.is_empty()).collect();
            let (methods, paths): (Vec<&str>, Vec<&str>) =
                words.into_iter().partition(|word| !word.starts_with('/'));
            for path in paths.iter().map(|path| path.split('?').next().unwrap()) {
                requests.extend(methods.iter().map(|method| format!("{method} {path}")));
            }
        }
        requests
    }

    #[test]
    fn what_is_described_is_what_is_documented() {
        let (described, documented) = (described(), documented());
        assert!(documented.len() > 15);
        assert_eq!(described, documented);
    }

    #[test]
    fn what_is_described_is_there_with_all_of_its_methods() {
        let mut all = described();
        while let Some(path) = all.first().map(|request| request.split_once(' ').unwrap().1.to_owned()) {
            let example = path.replace("{id}", "b3kT9ZcYw4mQ1s8xAAAAKg").replace(['{', '}'], "");
            let target = Target::parse(&example).unwrap_or_else(|| panic!("nothing is at {path}"));
            for method in target.methods().split(", ").filter(|method| *method != "HEAD") {
                assert!(all.remove(&format!("{method} {path}")), "{method} {path} is not described");
            }
            let left: Vec<_> = all.iter().filter(|request| request.ends_with(&format!(" {path}"))).collect();
            assert!(left.is_empty(), "{left:?}");
        }
    }

    /// Whoever adds what a path can stand for adds it here, and to the description.
    #[test]
    fn all_that_a_path_can_stand_for_is_described() {
        let mut paths = BTreeSet::new();
        for request in described() {
            let path = request.split_once(' ').unwrap().1;
            let example = path.replace("{id}", "b3kT9ZcYw4mQ1s8xAAAAKg").replace(['{', '}'], "");
            paths.insert(match Target::parse(&example).unwrap() {
                Target::Health => 0,
                Target::Ready => 1,
                Target::Connections => 2,
                Target::Connection(_) => 3,
                Target::Member(..) => 4,
                Target::Topics => 5,
                Target::Topic(_) => 6,
                Target::Broadcast => 7,
                Target::User(_) => 8,
                Target::Events => 9,
                Target::Stats => 10,
                Target::Metrics => 11,
                Target::OpenApi => 12,
                Target::Access => 13,
                Target::Console(_) => 14, // the page, which brings its other files
                Target::Messages(_) => 15,
                Target::Link => 16,
                Target::Nodes => 17,
            });
        }
        assert_eq!(paths.len(), 18);
    }

    /// Nothing is referred to that is not there, and nothing is there that nobody refers to.
    #[test]
    fn references_are_whole() {
        fn collect<'a>(value: &'a Value, found: &mut BTreeSet<&'a str>) {
            match value {
                Value::Object(object) => {
                    found.extend(object.get("$ref").and_then(Value::as_str));
                    object.values().for_each(|value| collect(value, found));
                }
                Value::Array(values) => values.iter().for_each(|value| collect(value, found)),
                _ => {}
            }
        }
        let all: Value = serde_json::from_str(DESCRIPTION).unwrap();
        let mut found = BTreeSet::new();
        collect(&all, &mut found);
        for reference in &found {
            assert!(all.pointer(reference.strip_prefix('#').unwrap()).is_some(), "{reference}");
        }
        for (kind, components) in all["components"].as_object().unwrap() {
            for name in components.as_object().unwrap().keys() {
                // What events have is told in words.
                let is_used = found.contains(&*format!("#/components/{kind}/{name}"))
                    || kind == "securitySchemes"
                    || DESCRIPTION.contains(&format!("`{name}`"));
                assert!(is_used, "{kind}: {name}");
            }
        }
    }
}
